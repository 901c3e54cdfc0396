"""The SQLite store."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from jobmanager.clock import Clock
from jobmanager.stores.sql.changes import SqlChanges
from jobmanager.stores.sql.sqlite_database import SqliteDatabase
from jobmanager.stores.sql.sqlite_runs import SqliteRuns
from jobmanager.stores.sql.sqlite_signals import SqliteSignals
from jobmanager.stores.sql.sqlite_steps import SqliteSteps
from jobmanager.stores.sql.store import SqlStore


class SqliteStore(SqlStore):
    """History in a SQLite file on a local disk, shared by any number of processes of one host.

    `strict` durability survives a power cut; `relaxed` (synchronous=NORMAL) may lose the last moments to one, never to a crash.
    """

    database: SqliteDatabase

    def __init__(
        self,
        path: str | Path,
        *,
        clock: Clock | None = None,
        grace: timedelta = timedelta(seconds=60),
        durability: str = "strict",
        lock_timeout: timedelta = timedelta(seconds=5),
    ) -> None:
        database = SqliteDatabase(path, clock=clock, durability=durability, lock_timeout=lock_timeout)
        super().__init__(
            database,
            SqliteRuns(database, grace),
            SqliteSteps(database),
            SqlChanges(database, lambda: SqliteSignals(database)),
        )
        self.path = database.path
        self._found = False

    def exists(self) -> bool:
        self._found = self.path.exists() and (self._found or super().exists())
        return self._found
