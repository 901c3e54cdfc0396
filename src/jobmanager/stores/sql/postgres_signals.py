"""Signals of PostgreSQL: NOTIFY with the ids of runs that ended, heard on a connection of its own.

Each NOTIFY is a durable transaction, so it is made only while a session holds a share of an advisory lock, which ends with that session.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from jobmanager.stores.changes import SOMETHING, NoSignals, Signals
from jobmanager.stores.sql.changes import SqlChanges
from jobmanager.stores.sql.postgres_database import PostgresDatabase
from jobmanager.stores.sql.postgres_link import driver_of

CHANNEL = "jobmanager_changes"
LISTENING = 0x6A6F626D, 1
"""The advisory lock of which each session that listens holds a share."""
IF_HEARD = "SELECT pg_catalog.pg_notify(%s, %s) WHERE NOT pg_catalog.pg_try_advisory_xact_lock(%s, %s)"
MOST_NAMED = 200  # a payload has less than 8,000 bytes
PROBE_EVERY = 5.0  # seconds; a connection that only listens never learns that it is dead


class PostgresSignals(Signals):
    """A session that listens. Starts and changes by SQL are not announced: who wants them looks from time to time."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._link = database.link
        with self._link.told():
            self._connection = database.connect()
            self._driver = driver_of(self._connection)
            self._connection.detach()  # it is not given back to the pool, and takes no place in it
            self._driver.execute("SELECT pg_catalog.pg_advisory_lock_shared(%s, %s)", LISTENING)
            self._driver.execute(f"LISTEN {CHANNEL}".encode())
        self._probed_at = time.monotonic()

    def wait(self, seconds: float) -> Collection[str] | None:
        with self._link.told():
            if time.monotonic() - self._probed_at > PROBE_EVERY:
                self._driver.execute("SELECT 1")
                self._probed_at = time.monotonic()
            ids: set[str] = set()
            for note in self._driver.notifies(timeout=seconds, stop_after=1):
                if not note.payload:
                    return SOMETHING
                ids.update(note.payload.split(","))
        return ids or None

    def close(self) -> None:
        with self._link.told():
            self._connection.close()


class PostgresChanges(SqlChanges):
    """States of runs, and NOTIFY."""

    database: PostgresDatabase
    announces = True

    def __init__(self, database: PostgresDatabase) -> None:
        super().__init__(database, self._listen)

    def _listen(self) -> Signals:
        # Through a pooler LISTEN seems to succeed, and nothing ever comes.
        return NoSignals() if self.database.link.pooled else PostgresSignals(self.database)

    def announce(self, run_ids: Collection[str]) -> bool:
        payload = ",".join(run_ids) if len(run_ids) <= MOST_NAMED else ""
        with self.database.reading() as connection:
            # Two processes that ask at one moment may each take the other for a listener: one NOTIFY too many.
            told = driver_of(connection).execute(IF_HEARD, (CHANNEL, payload, *LISTENING))
            return told.rowcount > 0
