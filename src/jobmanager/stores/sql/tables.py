"""The tables: columns, checks and indexes, the same on SQLite and PostgreSQL. Statements live beside the stores."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator, TypeEngine

from jobmanager.job import STORED_OPTIONS
from jobmanager.run import EPOCH, KEEPS_ATTEMPT, MICROSECOND
from jobmanager.stores.sql.statistics_tables import statistics_tables
from jobmanager.stores.sql.unreadable import Unreadable
from jobmanager.validation.kinds import Duration, Flag, OneOf, Whole

SCHEMA_VERSION = "0022"


def micros(moment: datetime | None) -> int | None:
    """Microseconds since 1970, as SQLite keeps instants."""
    return None if moment is None else (moment - EPOCH) // MICROSECOND


def moment(micros: int | None) -> datetime | None:
    """Return the aware UTC datetime of a number of microseconds since 1970."""
    return None if micros is None else EPOCH + timedelta(microseconds=micros)


class Instant(TypeDecorator[datetime]):
    """Aware UTC datetime: whole microseconds on SQLite, timestamptz on PostgreSQL."""

    impl = sa.BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.TIMESTAMP(timezone=True))
        return dialect.type_descriptor(sa.BigInteger())

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> Any:
        return value if dialect.name == "postgresql" else micros(value)

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Callable[[Any], Any]:
        # Not `process_result_value`, which costs two more calls for each of the thousands of instants of a page.
        return _from_postgres if dialect.name == "postgresql" else instant_from_sqlite


@lru_cache(maxsize=16_384)
def instant_from_sqlite(value: Any) -> Any:
    """Return the instant of a column of SQLite; cached, since many jobs share an instant, and pages are read again."""
    try:
        return moment(value)
    except (TypeError, OverflowError):
        return _unreadable(value)


def _from_postgres(value: Any) -> Any:
    try:
        return value if value is None or value.tzinfo is UTC else value.astimezone(UTC)
    except (AttributeError, TypeError, OverflowError):
        return _unreadable(value)


def _unreadable(value: Any) -> Unreadable:
    """Return the marker of what is no instant: it is refused where rows become values."""
    return value if isinstance(value, Unreadable) else Unreadable(value)


STATUSES = ("pending", "running", "succeeded", "failed", "cancelled", "skipped", "missed")
TROUBLE = ("failed", "missed", "skipped", "cancelled")
TROUBLE_IS = " OR ".join(f"status = '{status}'" for status in TROUBLE)
"""The condition of an index of few rows: SQLite uses it for statements that hold these words."""
REASONS = (
    "overlap", "paused", "disabled", "downtime", "deadline", "transport", "requested", "superseded", "handler",
    *sorted(KEEPS_ATTEMPT), "excluded",
)  # fmt: skip


@dataclass(frozen=True)
class Tables:
    """One set of tables under one prefix and schema."""

    metadata: sa.MetaData
    meta: sa.Table
    jobs: sa.Table
    runs: sa.Table
    attempts: sa.Table
    run_logs: sa.Table
    instances: sa.Table
    declarations: sa.Table
    roles: sa.Table
    keepers: sa.Table
    audit: sa.Table
    keys: sa.Table
    notifications: sa.Table
    stats: sa.Table
    stats_hours: sa.Table
    webhooks: sa.Table
    once: sa.Table
    run_steps: sa.Table
    requests: sa.Table
    events: sa.Table


def has_scope(runs: Any) -> sa.ColumnElement[bool]:
    """Return the condition, on the columns of runs, that a run has a scope: it follows the job's id in the concurrency key."""
    condition: sa.ColumnElement[bool] = runs.concurrency_key != runs.job_id
    return condition


def scope_of(runs: Any) -> sa.ColumnElement[str]:
    """Return the scope of a run that has one, as the index of scopes has it."""
    start = sa.func.length(runs.job_id) + sa.literal_column("2")
    return sa.func.substr(runs.concurrency_key, start, type_=sa.Text)


POLICY_TYPES = {OneOf: sa.Text, Whole: sa.Integer, Duration: sa.Float, Flag: sa.Boolean}


def policy_columns() -> list[sa.Column[Any]]:
    """Return a column for each policy of the first version, as its description says; later ones stand at the end of the table."""
    return [
        sa.Column(item.column, POLICY_TYPES[type(item.kind)], nullable=item.optional)
        for item in STORED_OPTIONS.values()
        if item.column not in ("visibility", "on")
    ]


def some(where: str, condition: str) -> dict[str, Any]:
    """Return the argument of an index that makes it one of some rows."""
    return {where: sa.text(condition)}


@cache
def make_tables(prefix: str = "jobmanager_", schema: str | None = None) -> Tables:
    """`jobmanager_*` on SQLite; `prefix=""` with a schema of its own on PostgreSQL."""
    metadata = sa.MetaData(schema=schema)
    json: sa.JSON = sa.JSON(none_as_null=True)
    where = "sqlite_where"
    if schema is not None:  # PostgreSQL; its dialect takes 20 ms to load
        from sqlalchemy.dialects import postgresql  # noqa: PLC0415

        json, where = postgresql.JSONB(none_as_null=True), "postgresql_where"

    def one_of(column: str, values: Iterable[str]) -> sa.CheckConstraint:
        # For IN, SQLite would build a temporary b-tree per row: half the cost of writing a run.
        listed = " OR ".join(f"{column} = '{value}'" for value in values)
        return sa.CheckConstraint(listed, name=f"{prefix}known_{column}")

    def table(name: str, *items: sa.schema.SchemaItem) -> sa.Table:
        return sa.Table(prefix + name, metadata, *items)

    meta = table(
        "meta",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("change_seq", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("swept_at", Instant),
        sa.Column("last_purge_at", Instant),
    )
    jobs = table(
        "jobs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("declared", sa.Text, nullable=False),
        sa.Column("override", json),
        sa.Column("definition_rev", sa.Integer, nullable=False, server_default="1"),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("state_reason", sa.Text),
        sa.Column("state_by", sa.Text),
        sa.Column("state_at", Instant),
        sa.Column("schedule", sa.Text, nullable=False),
        sa.Column("schedule_rev", sa.Integer, nullable=False, server_default="1"),
        sa.Column("accounted_until", Instant, nullable=False),
        sa.Column("next_due_at", Instant, index=True),
        sa.Column("history_from", Instant, nullable=False),
        *policy_columns(),
        sa.Column("change_seq", sa.BigInteger, nullable=False, index=True),
        sa.Column("override_by", sa.Text),
        sa.Column("override_at", Instant),
        sa.Column("definition", json),
        sa.Column("visibility", sa.Text, nullable=False, server_default="team"),
        sa.Column("on", sa.Text),
        one_of("state", ("active", "paused", "disabled", "deleted")),
    )
    sa.Index(f"{prefix}jobs_on", jobs.c.namespace, jobs.c.on, **some(where, '"on" IS NOT NULL'))
    runs = table(
        "runs",
        sa.Column("id", sa.Text().with_variant(sa.UUID(as_uuid=False), "postgresql"), primary_key=True),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("schedule_rev", sa.Integer, nullable=False),
        sa.Column("scheduled_for", Instant),
        sa.Column("first_for", Instant),
        sa.Column("ticks", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("trigger", sa.Text, nullable=False),
        sa.Column("requested_by", sa.Text),
        sa.Column("notify", sa.Boolean, nullable=False),
        sa.Column("due_at", Instant, nullable=False),
        sa.Column("expires_at", Instant),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("max_attempts", sa.Integer, nullable=False),
        sa.Column("retry_on_crash", sa.Boolean, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("concurrency_key", sa.Text, nullable=False),
        sa.Column("turn", sa.Text),
        sa.Column("blocked_by", sa.Text),
        sa.Column("priority", sa.SmallInteger, nullable=False),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("cancel_requested_at", Instant),
        sa.Column("payload", json),
        sa.Column("output", json),
        sa.Column("error", json),
        sa.Column("progress", json),
        sa.Column("opened_at", Instant, nullable=False),
        sa.Column("accepted_at", Instant),
        sa.Column("dispatched_at", Instant),
        sa.Column("started_at", Instant),
        sa.Column("finished_at", Instant),
        sa.Column("discarded_at", Instant),
        sa.Column("starts", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("parent_id", sa.Text().with_variant(sa.UUID(as_uuid=False), "postgresql")),
        one_of("status", STATUSES),
        one_of("reason", REASONS),
        one_of("trigger", ("schedule", "catch_up", "manual", "backfill", "sweep")),
        sa.CheckConstraint("ticks = 1 OR status IN ('skipped', 'missed')", name=f"{prefix}range_is_closed"),
        sa.CheckConstraint(
            "(finished_at IS NULL) = (status IN ('pending', 'running'))", name=f"{prefix}finished_when_closed"
        ),
        sa.CheckConstraint("status <> 'running' OR owner IS NOT NULL", name=f"{prefix}running_has_owner"),
        sa.CheckConstraint("status <> 'pending' OR owner IS NULL", name=f"{prefix}pending_has_none"),
        sa.CheckConstraint(
            "reason <> 'overlap' OR blocked_by IS NOT NULL", name=f"{prefix}overlap_has_blocker"
        ),
        sa.CheckConstraint(
            "turn IS NULL OR (turn IN ('holds', 'waits') AND status IN ('pending', 'running')"
            " AND NOT (turn = 'waits' AND status = 'running'))",
            name=f"{prefix}turn_while_open",
        ),
    )
    c = runs.c
    sa.Index(f"{prefix}runs_tick", c.job_id, c.scheduled_for, unique=True)
    # No index (job_id, id): with each run it would dirty one more page of its own, a third of the cost of 100 runs at once.
    for name, columns, condition, unique in (
        ("holds", (c.concurrency_key,), "turn = 'holds'", True),
        ("once", (c.job_id, c.idempotency_key), "idempotency_key IS NOT NULL", True),
        ("pending", (c.priority.desc(), c.due_at, c.id), "status = 'pending'", False),
        ("waits", (c.concurrency_key, c.priority.desc(), c.due_at, c.id), "turn = 'waits'", False),
        ("running", (c.owner,), "status = 'running'", False),
        ("by_hand", (c.job_id, c.opened_at, c.id), "scheduled_for IS NULL", False),
        ("scope", (scope_of(c), c.id), "concurrency_key <> job_id", False),
        ("trouble", (c.status, c.id), TROUBLE_IS, False),
        ("children", (c.parent_id, c.id), "parent_id IS NOT NULL", False),
        ("resting", (c.reason, c.id), "reason = 'waiting' OR reason = 'children'", False),
    ):
        some_rows: dict[str, Any] = {where: sa.text(condition)}
        sa.Index(f"{prefix}runs_{name}", *columns, unique=unique, **some_rows)
    attempts = table(
        "attempts",
        sa.Column("run_id", sa.Text().with_variant(sa.UUID(as_uuid=False), "postgresql"), primary_key=True),
        sa.Column("starts", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("owner", sa.Text),
        sa.Column("started_at", Instant),
        sa.Column("ended_at", Instant, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("error", json),
        sa.Column("attempt", sa.Integer, nullable=False, server_default=sa.text("0")),
    )
    run_logs = table(
        "run_logs",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column(
            "run_id",
            sa.Text().with_variant(sa.UUID(as_uuid=False), "postgresql"),
            nullable=False,
            index=True,
        ),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("lines", json, nullable=False),
    )
    instances = table(
        "instances",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("executes", sa.Boolean, nullable=False),
        sa.Column("declares", sa.Text),
        sa.Column("beats", sa.BigInteger, nullable=False),
        sa.Column("started_at", Instant, nullable=False),
        sa.Column("seen_at", Instant, nullable=False),
        sa.Column("last_tick_at", Instant),
        sa.Column("lag_seconds", sa.Float),
        sa.Column("dead_at", Instant),
        sa.Column("backend", sa.Text),
    )
    # By digest: all processes of one release declare the same jobs, so the ids are kept once and not per heartbeat row.
    declarations = table(
        "declarations",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("job_ids", json, nullable=False),
        sa.Column("handlers", json, nullable=False, server_default=sa.text("'[]'")),
    )
    # What one process of all may do at a time; whoever lives and has the row is that one.
    roles = table(
        "roles",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
    )
    # Which backend keeps the time of a namespace: what another one still has planned is inert.
    keepers = table(
        "keepers",
        sa.Column("namespace", sa.Text, primary_key=True),
        sa.Column("backend", sa.Text, nullable=False),
        sa.Column("since", Instant, nullable=False),
    )
    # Never changed and never joined: a row tells a change by hand completely, even when the job is gone.
    audit = table(
        "audit",
        sa.Column("id", sa.Text().with_variant(sa.UUID(as_uuid=False), "postgresql"), primary_key=True),
        sa.Column("at", Instant, nullable=False),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("by", sa.Text),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("job_id", sa.Text),
        sa.Column("before", json),
        sa.Column("after", json),
        sa.Column("rev", sa.Integer),
        sa.Column("target", sa.Text, nullable=False, server_default="job"),
        sa.Column("target_id", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False, server_default="done"),
        sa.Column("reason", sa.Text),
        sa.Column("address", sa.Text),
        sa.Column("user_agent", sa.Text),
        sa.Column("request_id", sa.Text),
        sa.Column("batch_id", sa.Text),
    )
    for name, columns in (
        ("job", (audit.c.job_id, audit.c.id)),
        ("target", (audit.c.target_id, audit.c.id)),
        ("by", (audit.c.by, audit.c.id)),
    ):
        sa.Index(f"{prefix}audit_{name}", *columns)
    sa.Index(f"{prefix}audit_refused", audit.c.namespace, audit.c.id, **some(where, "outcome = 'refused'"))
    keys = table(
        "keys",
        sa.Column("id", sa.Text().with_variant(sa.UUID(as_uuid=False), "postgresql"), primary_key=True),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("permissions", json, nullable=False),
        sa.Column("scopes", json),
        sa.Column("hint", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("created_by", sa.Text),
        sa.Column("expires_at", Instant),
        sa.Column("revoked_at", Instant),
        sa.Column("revoked_by", sa.Text),
        sa.Column("last_used_at", Instant),
    )
    sa.Index(f"{prefix}keys_digest", keys.c.digest, unique=True)
    live: dict[str, Any] = {where: keys.c.revoked_at.is_(None)}
    sa.Index(f"{prefix}keys_name", keys.c.namespace, keys.c.name, unique=True, **live)
    # The texts without value are empty and not null, or the unique key would not hold.
    notifications = table(
        "notifications",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("fold", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("due_at", Instant, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("unsure", sa.Integer, nullable=False),
        sa.Column("message", sa.Text),
        sa.Column("sent_at", Instant),
        sa.Column("error", sa.Text),
        sa.Column("details", json, nullable=False),
    )
    n = notifications.c
    sa.Index(
        f"{prefix}notifications_once",
        n.job_id,
        n.event,
        n.subject,
        n.channel,
        n.address,
        n.namespace,
        unique=True,
    )
    for name, columns, condition in (
        ("waiting", (n.namespace, n.due_at), "state = 'waiting'"),
        ("message", (n.message,), "message IS NOT NULL"),
        ("failed", (n.job_id, n.id), "event = 'failed'"),
        ("sent", (n.job_id, n.event, n.sent_at), "sent_at IS NOT NULL"),
        ("dead", (n.namespace,), "state = 'dead'"),
        ("overflow", (n.namespace,), "event = 'outbox_full'"),
    ):
        some_rows = {where: sa.text(condition)}
        sa.Index(f"{prefix}notifications_{name}", *columns, **some_rows)
    # A few dozen rows at most, read at start and after a change: the key is the only index.
    webhooks = table(
        "webhooks",
        sa.Column("namespace", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("words", json, nullable=False),
        sa.Column("secrets", sa.Text),
        sa.Column("deleted", sa.Boolean, nullable=False),
        sa.Column("rev", sa.Integer, nullable=False),
        sa.Column("changed_at", Instant, nullable=False),
        sa.Column("changed_by", sa.Text),
        sa.Column("change_seq", sa.BigInteger, nullable=False),
    )
    # A turn is fenced by run and start; without `done_at` it is being done, or was cut.
    once = table(
        "once",
        sa.Column("job_id", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text().with_variant(sa.UUID(as_uuid=False), "postgresql"), nullable=False),
        sa.Column("starts", sa.Integer, nullable=False),
        sa.Column("begun_at", Instant, nullable=False),
        sa.Column("done_at", Instant),
        sa.Column("output", json),
    )
    sa.Index(f"{prefix}once_begun", once.c.begun_at)
    # What a run has done already; with `wakes_at` it goes on then. Of a key the newest try.
    run_steps = table(
        "run_steps",
        sa.Column("run_id", sa.Text().with_variant(sa.UUID(as_uuid=False), "postgresql"), primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("occurrence", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("output", json),
        sa.Column("error", json),
        sa.Column("started_at", Instant, nullable=False),
        sa.Column("ended_at", Instant),
        sa.Column("wakes_at", Instant),
        sa.Column("event_name", sa.Text),
        sa.Column("event_key", sa.Text),
        sa.Column("event_after", Instant),
        sa.Column("position", sa.Integer, nullable=False, server_default=sa.text("0")),
    )
    # Without a response the request is under way, or its process died.
    requests = table(
        "requests",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("turn", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("begun_at", Instant, nullable=False),
        sa.Column("response", json),
    )
    sa.Index(f"{prefix}requests_begun", requests.c.begun_at)
    s = run_steps.c
    sa.Index(
        f"{prefix}run_steps_event",
        s.event_name,
        s.event_key,
        **some(where, "event_name IS NOT NULL AND status = 'waiting'"),
    )
    events = table(
        "events",
        sa.Column("namespace", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("data", json),
        sa.Column("sent_at", Instant, nullable=False),
        sa.Column("is_new", sa.Boolean, nullable=False, server_default=sa.true()),
    )
    e = events.c
    sa.Index(f"{prefix}events_new", e.namespace, e.sent_at, **some(where, "is_new"))
    sa.Index(f"{prefix}events_sent", e.namespace, e.name, e.key, e.sent_at)
    sa.Index(f"{prefix}events_old", e.sent_at)
    return Tables(
        metadata,
        meta,
        jobs,
        runs,
        attempts,
        run_logs,
        instances,
        declarations,
        roles,
        keepers,
        audit,
        keys,
        notifications,
        *statistics_tables(table, Instant, where),
        webhooks,
        once,
        run_steps,
        requests,
        events,
    )
