"""The PostgreSQL store."""

from __future__ import annotations

from datetime import timedelta

from jobmanager.clock import Clock
from jobmanager.errors import StoreError
from jobmanager.stores.sql.database import Connection
from jobmanager.stores.sql.postgres_database import PostgresDatabase
from jobmanager.stores.sql.postgres_runs import PostgresRuns
from jobmanager.stores.sql.postgres_signals import PostgresChanges
from jobmanager.stores.sql.postgres_steps import PostgresSteps
from jobmanager.stores.sql.store import SqlStore

OLDEST_POSTGRESQL = 140_000

ABOUT = """SELECT current_setting('server_version_num')::int, current_setting('server_version'),
 current_setting('transaction_isolation'), current_user"""
"""What must be right before anything is written."""


class PostgresStore(SqlStore):
    """History in the schema `jobmanager` of a PostgreSQL database, shared by any number of processes and hosts.

    `url` is `postgresql://user:password@host/name`; a transaction pooler is recognised, or told by `?jobmanager_pooler=true`.
    `relaxed` durability (synchronous_commit=off) may lose the last moments to a crash of the server.
    """

    database: PostgresDatabase

    def __init__(
        self,
        url: str,
        *,
        clock: Clock | None = None,
        grace: timedelta = timedelta(seconds=60),
        durability: str = "strict",
    ) -> None:
        database = PostgresDatabase(url, clock=clock, durability=durability)
        super().__init__(
            database, PostgresRuns(database, grace), PostgresSteps(database), PostgresChanges(database)
        )
        self._found = False

    def exists(self) -> bool:
        self._found = self._found or self.schema.version() is not None
        return self._found

    def install(self) -> None:
        with self.database.reading() as connection:
            self._examine(connection)
        if not self.schema.is_current():
            super().install()

    def _examine(self, connection: Connection) -> None:
        number, version, isolation, role = connection.exec_driver_sql(ABOUT).one()
        if number < OLDEST_POSTGRESQL:
            raise StoreError(f"{self.url} is PostgreSQL {version}; jobmanager needs 14 or newer.")
        if isolation != "read committed":
            raise StoreError(
                f"{self.url} begins its transactions as {isolation!r}; jobmanager needs 'read committed'. "
                f"ALTER ROLE {role} SET default_transaction_isolation = 'read committed' makes it so."
            )
