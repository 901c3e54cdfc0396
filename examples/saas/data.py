"""The application's own database: its tables, and how to connect. SQLite in a file by default, PostgreSQL by `SAAS_DATABASE_URL`."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    DateTime,
    Engine,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    TypeDecorator,
    create_engine,
    event,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

DEFAULT_URL = "sqlite:///saas.db"


class Moment(TypeDecorator[datetime]):
    """An aware moment in UTC, also where the database keeps no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value, dialect):
        return None if value is None else value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC)


metadata = MetaData()


def _table(name: str, *columns: Column[Any]) -> Table:
    return Table(name, metadata, Column("id", Integer, primary_key=True), *columns)


def _user() -> Column[int]:
    return Column("user_id", ForeignKey("users.id"), nullable=False, index=True)


def _moment(name: str, *, nullable: bool = False, index: bool = False) -> Column[datetime]:
    return Column(name, Moment, nullable=nullable, index=index)


users = _table(
    "users",
    Column("name", String, nullable=False),
    Column("email", String, nullable=False, unique=True),
    Column("locale", String),
    Column("plan", String, nullable=False),
    Column("credits", Integer, nullable=False, default=1_000),
    Column("credit_threshold", Integer, nullable=False, default=100),
    _moment("credits_alerted_at", nullable=True),
    _moment("created_at"),
)
sessions = _table(
    "sessions", _user(), Column("browser", String), _moment("created_at"), _moment("expires_at", index=True)
)
invitations = _table(
    "invitations",
    _user(),
    Column("email", String, nullable=False),
    _moment("created_at"),
    _moment("expires_at"),
    _moment("accepted_at", nullable=True),
)
push_subscriptions = _table(
    "push_subscriptions",
    _user(),
    Column("endpoint", String, nullable=False),
    _moment("used_at"),
    _moment("expires_at", nullable=True),
)
logs = _table(
    "logs",
    Column("level", String, nullable=False),
    Column("source", String, nullable=False),
    Column("message", String, nullable=False),
    _moment("created_at", index=True),
)
error_logs = _table(
    "error_logs", Column("message", String, nullable=False), _moment("created_at", index=True)
)
ai_requests = _table(
    "ai_requests",
    _user(),
    Column("provider", String, nullable=False),
    Column("tokens", Integer, nullable=False),
    _moment("created_at", index=True),
)
subscriptions = _table(
    "subscriptions",
    _user(),
    Column("stripe_id", String, nullable=False, unique=True),
    Column("status", String, nullable=False),
    Column("cents", Integer, nullable=False),
    _moment("period_end", index=True),
    _moment("reminded_for", nullable=True),
)
licences = _table(
    "licences",
    _user(),
    Column("status", String, nullable=False, default="active"),
    Column("warned_days", Integer),
    _moment("expires_at", index=True),
)
deletion_requests = _table(
    "deletion_requests",
    Column("user_id", Integer, nullable=False, unique=True),
    Column("status", String, nullable=False, default="pending"),
    _moment("requested_at"),
    _moment("claimed_at", nullable=True),
    _moment("done_at", nullable=True),
)
conversions = _table(
    "affiliate_conversions",
    _user(),
    Column("cents", Integer, nullable=False),
    Column("status", String, nullable=False, default="pending"),
    _moment("created_at"),
)
pending_emails = _table(
    "pending_emails",
    Column("key", String, nullable=False, unique=True),
    Column("recipient", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("body", String, nullable=False),
    Column("status", String, nullable=False, default="pending"),
    Column("attempts", Integer, nullable=False, default=0),
    Column("claimed_by", String),
    Column("last_error", String),
    _moment("next_attempt_at", index=True),
    _moment("claimed_at", nullable=True),
    _moment("sent_at", nullable=True),
    _moment("created_at"),
)
daily_summaries = Table(
    "daily_summaries",
    metadata,
    Column("day", String, primary_key=True),
    *(
        Column(name, Integer)
        for name in ("mrr_cents", "new_users", "active_users", "sessions", "ai_usage", "errors")
    ),
    _moment("written_at"),
)
projects = _table("projects", Column("name", String, nullable=False), _moment("deleted_at", nullable=True))
project_users = Table(
    "project_users",
    metadata,
    Column("project_id", ForeignKey("projects.id"), primary_key=True),
    Column("subscriber", String, primary_key=True),
    Column("entitlement", String, nullable=False),
    _moment("synced_at"),
)
partitions = Table(
    "event_partitions",
    metadata,
    Column("name", String, primary_key=True),
    Column("bytes", Integer, nullable=False, default=0),
)
articles = Table(
    "articles",
    metadata,
    Column("path", String, primary_key=True),
    Column("sha", String, nullable=False),
    Column("title", String, nullable=False),
)
activities = _table(
    "activities",
    _user(),
    Column("item", String, nullable=False),
    Column("milliseconds", Float, nullable=False),
    _moment("created_at", index=True),
)
analytics_cache = Table(
    "analytics_cache",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", JSON, nullable=False),
    _moment("computed_at"),
    _moment("expires_at"),
)
facts = Table(
    "facts",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", String, nullable=False),
)


def now() -> datetime:
    """Return the wall clock. The tests put one in its place that they move by hand."""
    return datetime.now(UTC)


def url() -> str:
    """Return where the database is."""
    return os.environ.get("SAAS_DATABASE_URL", DEFAULT_URL)


@cache
def engine_of(address: str) -> Engine:
    """Return the engine of this process for the address, with its pool."""
    engine = create_engine(address)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", lambda db: db.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _set_up_sqlite(connection, _record):
    """Let SQLAlchemy begin, and take the write lock at once, so that no transaction fails half-way for want of it."""
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "foreign_keys = ON", "busy_timeout = 10000", "synchronous = NORMAL"):
        connection.execute(f"PRAGMA {pragma}")


@contextmanager
def transaction() -> Iterator[Connection]:
    """Yield a connection; all that is done with it holds, or nothing. Keep it short, and call no other service inside."""
    with engine_of(url()).begin() as db:
        yield db


def create() -> None:
    """Create the tables where they do not exist yet."""
    metadata.create_all(engine_of(url()))


def add_new(db: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    """Insert a row unless one with its key is there; True if it is new."""
    return bool(db.execute(_insert(db, table).values(**values).on_conflict_do_nothing()).rowcount)


def put(db: Connection, table: Table, values: Mapping[str, Any], key: str | tuple[str, ...]) -> None:
    """Insert a row, or give the one of its key these values: readers see the old row or the new one."""
    keys = (key,) if isinstance(key, str) else key
    changed = {name: value for name, value in values.items() if name not in keys}
    statement = _insert(db, table).values(**values)
    db.execute(statement.on_conflict_do_update(index_elements=list(keys), set_=changed))


def claim(
    db: Connection, table: Table, condition, values: Mapping[str, Any], limit: int, *, first=None
) -> list[Row[Any]]:
    """Give up to `limit` rows of the condition these values, and return them: no two processes get the same one.

    They are taken in the order of the column `first`, then of their ids.
    `values` must make the condition false. On PostgreSQL those that another transaction is claiming are left to it.
    """
    order = [table.c.id] if first is None else [first, table.c.id]
    chosen = select(table.c.id).where(condition).order_by(*order).limit(limit)
    found = chosen.with_for_update(skip_locked=True).cte("chosen")
    mine = update(table).where(table.c.id.in_(select(found.c.id))).values(**values).returning(*table.c)
    return sorted(db.execute(mine), key=lambda row: row.id)


def _insert(db: Connection, table: Table):
    return (postgresql if db.dialect.name == "postgresql" else sqlite).insert(table)
