"""The PostgreSQL store: the database's clock decides what is due, and one statement is one durable transaction.

No state is kept in a session, so any statement may find itself on another one: it works behind a transaction pooler.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from jobmanager.clock import Clock, SystemClock
from jobmanager.errors import RunNotFoundError, StoreError
from jobmanager.run import Attempt, LogLine, Run
from jobmanager.stores.sql import migrations
from jobmanager.stores.sql.database import Connection
from jobmanager.stores.sql.postgres_link import Link, be_patient, driver_of, roll_back
from jobmanager.stores.sql.postgres_runs import UUID, PostgresRuns
from jobmanager.stores.sql.schema import SchemaStatements
from jobmanager.stores.sql.tables import make_tables

OLDEST_POSTGRESQL = 140_000
INSTALLING = 0x6A6F626D  # "jobm": the advisory lock of whoever makes or changes the tables

ABOUT = """SELECT current_setting('server_version_num')::int, current_setting('server_version'),
 current_setting('transaction_isolation'), current_user"""
"""What must be right before anything is written."""


class PostgresStore(SchemaStatements, PostgresRuns):
    """History in the schema `jobmanager` of a PostgreSQL database, shared by any number of processes and hosts.

    `url` is `postgresql://user:password@host/name`; a transaction pooler is recognised, or told by `?jobmanager_pooler=true`.
    `relaxed` durability (synchronous_commit=off) may lose the last moments to a crash of the server.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock | None = None,
        grace: timedelta = timedelta(seconds=60),
        durability: str = "strict",
    ) -> None:
        self.tables = make_tables(prefix="", schema=migrations.SCHEMA)
        self.link = Link.of(url, relaxed=durability == "relaxed")
        self.url = self.link.shown
        self._clock = clock or SystemClock()  # for how long; what is due is the database's affair
        self._grace = grace
        self._found = False
        self._engine = self.link.engine(self._clock.monotonic)

    # ---------------------------------------------------------------- the store itself

    def exists(self) -> bool:
        self._found = self._found or self.version() is not None
        return self._found

    def install(self) -> None:
        with self.reading() as connection:
            self._examine(connection)
        if not self.is_current():
            super().install()

    @contextmanager
    def changing_tables(self) -> Iterator[Connection]:
        with self.writing() as connection:
            be_patient(connection)
            for limit in ("statement_timeout", "idle_in_transaction_session_timeout"):
                connection.exec_driver_sql(f"SET LOCAL {limit} = 0")
            connection.exec_driver_sql("SET LOCAL lock_timeout = '30s'")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({INSTALLING})")
            yield connection

    def _examine(self, connection: Connection) -> None:
        number, version, isolation, role = connection.exec_driver_sql(ABOUT).one()
        if number < OLDEST_POSTGRESQL:
            raise StoreError(f"{self.url} is PostgreSQL {version}; jobmanager needs 14 or newer.")
        if isolation != "read committed":
            raise StoreError(
                f"{self.url} begins its transactions as {isolation!r}; jobmanager needs 'read committed'. "
                f"ALTER ROLE {role} SET default_transaction_isolation = 'read committed' makes it so."
            )

    def close(self) -> None:
        self._engine.dispose()

    def after_fork(self) -> None:
        # The parent goes on with its connections; closing them here would say good-bye to the server in its name.
        self._engine.dispose(close=False)
        self._engine = self.link.engine(self._clock.monotonic)

    def now(self) -> datetime:
        with self.reading() as connection:
            return self.clock(connection)

    def clock(self, connection: Connection) -> datetime:
        moment: datetime = connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
        return moment.astimezone(UTC)

    # A column of type uuid cannot even be asked for anything else.

    def find_run(self, connection: Connection, run_id: str) -> Run | None:
        return super().find_run(connection, run_id) if UUID.fullmatch(run_id) else None

    def cancel(self, run_id: str) -> Run:
        self._refuse_what_is_no_id(run_id)
        return super().cancel(run_id)

    def discard(self, run_id: str) -> Run:
        self._refuse_what_is_no_id(run_id)
        return super().discard(run_id)

    def _refuse_what_is_no_id(self, run_id: str) -> None:
        if not UUID.fullmatch(run_id):
            raise RunNotFoundError(f"No run {run_id!r} in {self.url}.", run_id=run_id)

    def attempts(self, run_id: str) -> list[Attempt]:
        return super().attempts(run_id) if UUID.fullmatch(run_id) else []

    def lines(self, run_id: str, *, after: int = 0) -> list[tuple[int, int, LogLine]]:
        return super().lines(run_id, after=after) if UUID.fullmatch(run_id) else []

    # ---------------------------------------------------------------- connections and transactions

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        if self.link.pooled:  # the limits come with the transaction
            with self.writing() as connection:
                yield connection
            return
        with self.link.told(), self._engine.connect() as connection:
            driver = driver_of(connection)  # asked now: after a loss it would connect again
            try:
                yield connection
            except BaseException:
                roll_back(connection, driver)
                raise

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        with self.link.told(), self._engine.connect() as connection:
            driver = driver_of(connection)
            try:
                driver.execute(self.link.begin)
                yield connection
                driver.execute("COMMIT")
            except BaseException:
                roll_back(connection, driver)
                raise

    def insert_ignoring(self, table: sa.Table) -> Any:
        return postgresql.insert(table).on_conflict_do_nothing()

    def locked(self, jobs: sa.Select[Any]) -> sa.Select[Any]:
        return jobs.with_for_update(key_share=True)

    def distance(self, later: sa.ColumnElement[Any], earlier: sa.ColumnElement[Any]) -> Any:
        finite = sa.func.isfinite(later) & sa.func.isfinite(
            earlier
        )  # the difference of two others is an error
        return sa.case((finite, later.op("-", return_type=sa.Interval())(earlier)))

    def average_seconds(self, finished: sa.ColumnElement[Any], started: sa.ColumnElement[Any]) -> Any:
        return sa.extract("epoch", sa.func.avg(self.distance(finished, started)))
