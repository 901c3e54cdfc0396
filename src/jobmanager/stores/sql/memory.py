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
from jobmanager.stores.sql.sqlite import SqliteStore
from jobmanager.stores.sql.store import Connection
from jobmanager.stores.sql.unreadable import json_from, text_from


class MemoryStore(SqliteStore):
    """History in this process's memory. Same statements, guards and checks as SqliteStore."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        grace: timedelta = timedelta(seconds=60),
        lock_timeout: timedelta = timedelta(seconds=5),
    ) -> None:
        super().__init__(":memory:", clock=clock, grace=grace, lock_timeout=lock_timeout)
        self.url = "memory://"

    def _make_engine(self) -> sa.Engine:
        engine = sa.create_engine(
            "sqlite://",
            isolation_level="AUTOCOMMIT",
            json_deserializer=json_from,
            poolclass=StaticPool,
            pool_reset_on_return=None,
            connect_args={"check_same_thread": False},
        )
        sa.event.listen(engine, "connect", self._prepare)
        return engine

    def _prepare(self, connection: sqlite3.Connection, _record: object) -> None:
        connection.text_factory = text_from
        connection.execute("PRAGMA synchronous = OFF")

    def exists(self) -> bool:
        with self.reading() as connection:
            return sa.inspect(connection).has_table(self.tables.meta.name)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        # There is one connection, so a reader waits for the writer. Who reads while it writes itself must read by the writer's
        # hand: the end of any other would roll back what was written.
        lock = self._take_lock()
        try:
            with self._translated():
                yield self._opened_writer()
        finally:
            lock.release()

    def close(self) -> None:
        """Keep the only connection: with it everything would be gone."""
