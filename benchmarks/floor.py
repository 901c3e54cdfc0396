"""The floor under a recorded run: its INSERT and its UPDATE with the bare driver, two commits, nothing else."""

from __future__ import annotations

import sqlite3
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

from jobmanager.stores.sql.sqlite import SqliteStore

TEN_COLUMNS = """CREATE TABLE run(id BLOB PRIMARY KEY, job TEXT NOT NULL, status TEXT NOT NULL, attempt INTEGER NOT NULL,
 scheduled_at INTEGER, started_at INTEGER, finished_at INTEGER, duration_ms DOUBLE PRECISION, result TEXT, error TEXT)"""
TEN_INSERT = "INSERT INTO run(id, job, status, attempt, scheduled_at, started_at) VALUES(?, ?, ?, ?, ?, ?)"
TEN_UPDATE = "UPDATE run SET status=?, finished_at=?, duration_ms=?, result=? WHERE id=?"

INSERT = """INSERT INTO jobmanager_runs (id, job_id, schedule_rev, scheduled_for, ticks, status, trigger, notify, due_at, attempt,
 max_attempts, retry_on_crash, owner, concurrency_key, turn, priority, opened_at, accepted_at, started_at)
 VALUES (?, ?, 1, ?, 1, 'running', 'schedule', 0, ?, 1, 1, 1, ?, ?, 'holds', 0, ?, ?, ?)"""
UPDATE = "UPDATE jobmanager_runs SET status = 'succeeded', started_at = ?, finished_at = ?, turn = NULL WHERE id = ?"


def _connect(path: Path, synchronous: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    return connection


class TenColumns:
    """A history of one's own, as one would begin it: ten columns, one index."""

    def __init__(self, path: Path, synchronous: str) -> None:
        self._connection = _connect(path, synchronous)
        self._connection.execute(TEN_COLUMNS)
        self._connection.execute("CREATE INDEX run_of_job ON run(job, started_at)")

    def run(self) -> int:
        run_id, now = uuid.uuid4().bytes, time.time_ns() // 1000
        self._connection.execute(TEN_INSERT, (run_id, "cleanup", "running", 1, now, now))
        self._connection.execute(TEN_UPDATE, ("ok", time.time_ns() // 1000, 1.0, '{"n":1}', run_id))
        return 1


class OurTable:
    """Our own table with its checks and indexes, and the columns a scheduled run fills."""

    def __init__(self, path: Path, synchronous: str) -> None:
        store = SqliteStore(path)
        store.install()
        store.close()
        self._connection = _connect(path, synchronous)
        self._instant = time.time_ns() // 1000

    def open(self) -> str:
        self._instant += 1
        run_id, now = str(uuid.uuid4()), time.time_ns() // 1000
        self._connection.execute(
            INSERT, (run_id, "cleanup", self._instant, now, "owner", "cleanup", now, now, now)
        )
        return run_id

    def end(self, run_id: str) -> None:
        now = time.time_ns() // 1000
        self._connection.execute(UPDATE, (now, now, run_id))

    def run(self) -> int:
        self.end(self.open())
        return 1


POSTGRES_INSERT = """INSERT INTO jobmanager.runs (id, job_id, schedule_rev, scheduled_for, ticks, status, trigger, notify, due_at,
 attempt, max_attempts, retry_on_crash, owner, concurrency_key, turn, priority, opened_at, accepted_at, started_at)
 VALUES (%s, %s, 1, %s, 1, 'running', 'schedule', false, %s, 1, 1, true, %s, %s, 'holds', 0, %s, %s, %s)"""
POSTGRES_UPDATE = """UPDATE jobmanager.runs SET status = 'succeeded', started_at = %s, finished_at = %s, turn = NULL
 WHERE id = %s"""


class PostgresTable:
    """Our own table on PostgreSQL: two prepared statements, each its own transaction."""

    def __init__(self, url: str) -> None:
        import psycopg

        from jobmanager.stores.sql.postgres import PostgresStore

        store = PostgresStore(url)
        store.install()
        store.close()
        self._connection = psycopg.connect(url, autocommit=True)

    def open(self) -> uuid.UUID:
        run_id, now = uuid.uuid4(), datetime.now(UTC)
        values = (run_id, "cleanup", now, now, "owner", "cleanup", now, now, now)
        self._connection.execute(POSTGRES_INSERT, values, prepare=True)
        return run_id

    def end(self, run_id: uuid.UUID) -> None:
        now = datetime.now(UTC)
        self._connection.execute(POSTGRES_UPDATE, (now, now, run_id), prepare=True)

    def run(self) -> int:
        self.end(self.open())
        return 1
