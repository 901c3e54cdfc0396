"""Signals of SQLite: a number that rises with each commit of any process is read ten times a second, and no row."""

from __future__ import annotations

import time
from collections.abc import Collection

from jobmanager.stores.changes import POLL, SOMETHING, Signals
from jobmanager.stores.sql.sqlite_database import SqliteDatabase, driver_of


class SqliteSignals(Signals):
    """Watches the number on a connection of its own: SQLite counts the commits of all others."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database
        with database.translated(), database.held_open():
            self._connection = database.connect_apart()
        self._seen = self._number()

    def wait(self, seconds: float) -> Collection[str] | None:
        end = time.monotonic() + seconds
        while (number := self._number()) == self._seen:
            left = end - time.monotonic()
            if left <= 0:
                return None
            time.sleep(
                min(POLL, left)
            )  # on the thread of the feed: SQLite calls nobody, and the files take real time
        self._seen = number
        return SOMETHING

    def _number(self) -> int:
        with self._database.translated(), self._database.held_open():
            return int(driver_of(self._connection).execute("PRAGMA data_version").fetchone()[0])

    def close(self) -> None:
        with self._database.held_open():
            self._connection.close()
