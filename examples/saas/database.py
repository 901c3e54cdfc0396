"""The application's own SQLite file: its tables and how to connect. Moments are stored as UTC text that sorts by time."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

SCHEMA = """
CREATE TABLE IF NOT EXISTS users (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    email TEXT NOT NULL UNIQUE,
    plan TEXT NOT NULL CHECK (plan IN ('free', 'team', 'business')),
    created_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS sessions (
    id INTEGER PRIMARY KEY,
    user_id INTEGER NOT NULL REFERENCES users (id),
    address TEXT NOT NULL,
    browser TEXT NOT NULL,
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS sessions_expiry ON sessions (expires_at);
CREATE TABLE IF NOT EXISTS invitations (
    id INTEGER PRIMARY KEY,
    invited_by INTEGER NOT NULL REFERENCES users (id),
    email TEXT NOT NULL,
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    accepted_at TEXT
);
CREATE TABLE IF NOT EXISTS logs (
    id INTEGER PRIMARY KEY,
    level TEXT NOT NULL CHECK (level IN ('debug', 'info', 'warning', 'error')),
    source TEXT NOT NULL,
    message TEXT NOT NULL,
    created_at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS logs_age ON logs (created_at);
CREATE TABLE IF NOT EXISTS pending_emails (
    id INTEGER PRIMARY KEY,
    recipient TEXT NOT NULL,
    subject TEXT NOT NULL,
    body TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'sending', 'sent', 'failed')),
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt_at TEXT NOT NULL,
    claimed_by TEXT,
    claimed_at TEXT,
    sent_at TEXT,
    last_error TEXT,
    created_at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS pending_emails_due ON pending_emails (status, next_attempt_at);
CREATE TABLE IF NOT EXISTS daily_summaries (
    day TEXT PRIMARY KEY,
    new_users INTEGER NOT NULL,
    active_users INTEGER NOT NULL,
    sessions INTEGER NOT NULL,
    invitations INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    written_at TEXT NOT NULL
);
"""


def location() -> Path:
    """Where the file is: `SAAS_DATABASE`, else `saas.db` in the working directory."""
    return Path(os.environ.get("SAAS_DATABASE", "saas.db"))


@contextmanager
def connect(path: Path | None = None) -> Iterator[sqlite3.Connection]:
    """Yield a connection of one's own; every statement commits by itself unless `transaction` holds several together."""
    db = sqlite3.connect(path or location(), timeout=10, isolation_level=None)
    db.row_factory = sqlite3.Row
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA foreign_keys = ON")
        yield db
    finally:
        db.close()


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing; takes the write lock at once, so that it never fails half-way for want of it."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def create(db: sqlite3.Connection) -> None:
    """Create the tables where they do not exist yet."""
    db.executescript(SCHEMA)


def stamp(moment: datetime) -> str:
    """`moment` as the columns hold it, for example `2026-03-29 01:00:00+00:00`."""
    return moment.astimezone(UTC).isoformat(sep=" ", timespec="seconds")
