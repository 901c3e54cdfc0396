"""The memory store, for tests: SQLite without a file, so that nothing can drift between the fake and the real thing.

It forgets everything when it is garbage, and serves one process only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from jobmanager.clock import Clock
from jobmanager.stores.sql.changes import SqlChanges
from jobmanager.stores.sql.database import Connection
from jobmanager.stores.sql.postgres_json import to_json
from jobmanager.stores.sql.sqlite_database import SqliteDatabase
from jobmanager.stores.sql.sqlite_runs import SqliteRuns
from jobmanager.stores.sql.sqlite_steps import SqliteSteps
from jobmanager.stores.sql.store import SqlStore
from jobmanager.stores.sql.unreadable import json_from, text_from


class MemoryDatabase(SqliteDatabase):
    """One connection for readers and writers, which is never closed."""

    def __init__(self, *, clock: Clock | None, lock_timeout: timedelta) -> None:
        super().__init__(":memory:", clock=clock, durability="strict", lock_timeout=lock_timeout)
        self.url = "memory://"

    def _make_engine(self) -> sa.Engine:
        engine = sa.create_engine(
            "sqlite://",
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,  # they hold payloads
            json_serializer=to_json,
            json_deserializer=json_from,
            poolclass=StaticPool,
            pool_reset_on_return=None,
            connect_args={"check_same_thread": False},
        )
        sa.event.listen(engine, "connect", _prepare)
        return engine

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        # There is one connection, so a reader waits for the writer. Who reads while it writes itself must read by the writer's
        # hand: the end of any other would roll back what was written.
        lock = self.take_lock()
        try:
            with self.translated():
                yield self.opened_writer()
        finally:
            lock.release()

    def close(self) -> None:
        """Keep the only connection: with it everything would be gone."""


class MemoryStore(SqlStore):
    """History in this process's memory. Same statements, guards and checks as SqliteStore."""

    database: SqliteDatabase

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        grace: timedelta = timedelta(seconds=60),
        lock_timeout: timedelta = timedelta(seconds=5),
    ) -> None:
        database = MemoryDatabase(clock=clock, lock_timeout=lock_timeout)
        super().__init__(database, SqliteRuns(database, grace), SqliteSteps(database), SqlChanges(database))


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    connection.text_factory = text_from
    connection.execute("PRAGMA synchronous = OFF")
