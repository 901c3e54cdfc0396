"""The first tables. Frozen: a later change is a revision of its own, and this file stays as it is."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

Instant = sa.BigInteger().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
Json = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")

STATUSES = ("pending", "running", "succeeded", "failed", "cancelled", "skipped", "missed")
REASONS = (
    "overlap", "paused", "disabled", "downtime", "deadline", "transport", "requested", "superseded", "handler",
)  # fmt: skip


def upgrade() -> None:
    """Make them all."""
    on_postgresql = op.get_context().dialect.name == "postgresql"
    metadata = tables("", "jobmanager") if on_postgresql else tables("jobmanager_", None)
    for each in metadata.sorted_tables:
        op.execute(sa.schema.CreateTable(each))
        for index in sorted(each.indexes, key=lambda index: str(index.name)):
            op.execute(sa.schema.CreateIndex(index))
    meta = next(each for each in metadata.sorted_tables if each.name.endswith("meta"))
    op.execute(sa.insert(meta).values(id=1))


def tables(prefix: str, schema: str | None) -> sa.MetaData:
    """Return the tables of this version."""
    metadata = sa.MetaData(schema=schema)

    def one_of(column: str, values: Iterable[str]) -> sa.CheckConstraint:
        # For IN, SQLite would build a temporary b-tree per row: half the cost of writing a run.
        listed = " OR ".join(f"{column} = '{value}'" for value in values)
        return sa.CheckConstraint(listed, name=f"{prefix}known_{column}")

    def table(name: str, *items: sa.schema.SchemaItem) -> sa.Table:
        return sa.Table(prefix + name, metadata, *items)

    table(
        "meta",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("change_seq", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("swept_at", Instant),
        sa.Column("last_purge_at", Instant),
    )
    table(
        "jobs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("declared", sa.Text, nullable=False),
        sa.Column("override", Json),
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
        sa.Column("overlap", sa.Text, nullable=False),
        sa.Column("queue_cap", sa.Integer, nullable=False),
        sa.Column("catch_up", sa.Text, nullable=False),
        sa.Column("catch_up_cap", sa.Integer, nullable=False),
        sa.Column("catch_up_window_seconds", sa.Float, nullable=False),
        sa.Column("start_deadline_seconds", sa.Float),
        sa.Column("jitter_seconds", sa.Float, nullable=False),
        sa.Column("pause_after_failures", sa.Integer),
        sa.Column("max_attempts", sa.Integer, nullable=False),
        sa.Column("retry_on_crash", sa.Boolean, nullable=False),
        sa.Column("change_seq", sa.BigInteger, nullable=False, index=True),
        one_of("state", ("active", "paused", "disabled", "deleted")),
    )
    runs = table(
        "runs",
        sa.Column(
            "id", sa.Text().with_variant(postgresql.UUID(as_uuid=False), "postgresql"), primary_key=True
        ),
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
        sa.Column("payload", Json),
        sa.Column("output", Json),
        sa.Column("error", Json),
        sa.Column("progress", Json),
        sa.Column("opened_at", Instant, nullable=False),
        sa.Column("accepted_at", Instant),
        sa.Column("dispatched_at", Instant),
        sa.Column("started_at", Instant),
        sa.Column("finished_at", Instant),
        sa.Column("discarded_at", Instant),
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
            "turn IS NULL OR (turn IN ('holds', 'waits') AND status IN ('pending', 'running')"
            " AND NOT (turn = 'waits' AND status = 'running'))",
            name=f"{prefix}turn_while_open",
        ),
    )
    c = runs.c
    sa.Index(f"{prefix}runs_tick", c.job_id, c.scheduled_for, unique=True)
    for name, columns, condition, unique in (
        ("holds", (c.concurrency_key,), "turn = 'holds'", True),
        ("once", (c.job_id, c.idempotency_key), "idempotency_key IS NOT NULL", True),
        ("pending", (c.priority.desc(), c.due_at, c.id), "status = 'pending'", False),
        ("waits", (c.concurrency_key, c.priority.desc(), c.due_at, c.id), "turn = 'waits'", False),
        ("running", (c.owner,), "status = 'running'", False),
        ("by_hand", (c.job_id, c.opened_at, c.id), "scheduled_for IS NULL", False),
    ):
        where = sa.text(condition)
        sa.Index(f"{prefix}runs_{name}", *columns, unique=unique, sqlite_where=where, postgresql_where=where)
    table(
        "attempts",
        sa.Column(
            "run_id", sa.Text().with_variant(postgresql.UUID(as_uuid=False), "postgresql"), primary_key=True
        ),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("owner", sa.Text),
        sa.Column("started_at", Instant),
        sa.Column("ended_at", Instant, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("error", Json),
    )
    table(
        "run_logs",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column(
            "run_id",
            sa.Text().with_variant(postgresql.UUID(as_uuid=False), "postgresql"),
            nullable=False,
            index=True,
        ),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("lines", Json, nullable=False),
    )
    table(
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
    )
    # By digest: all processes of one release declare the same jobs, so the ids are kept once and not per heartbeat row.
    table(
        "declarations",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("job_ids", Json, nullable=False),
    )
    # What one process of all may do at a time; whoever lives and has the row is that one.
    table(
        "roles",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
    )
    return metadata
