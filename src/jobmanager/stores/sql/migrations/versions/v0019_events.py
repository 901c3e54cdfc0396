"""Keep events, what steps wait for, and which run started another one.

Frozen: a later change is a revision of its own.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0019"
down_revision = "0018"

Instant = sa.BigInteger().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    """Change the tables of version 0018."""
    on_postgresql = op.get_context().dialect.name == "postgresql"
    prefix, dot, schema = (
        ("", "jobmanager.", "jobmanager") if on_postgresql else ("jobmanager_", "jobmanager_", None)
    )
    ids, moments = ("UUID", "TIMESTAMP WITH TIME ZONE") if on_postgresql else ("TEXT", "BIGINT")
    json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    op.execute(f"ALTER TABLE {dot}runs ADD COLUMN parent_id {ids}")
    op.execute(f"CREATE INDEX {prefix}runs_children ON {dot}runs (parent_id, id) WHERE parent_id IS NOT NULL")
    op.execute(
        f"CREATE INDEX {prefix}runs_resting ON {dot}runs (reason, id) WHERE reason = 'waiting' OR reason = 'children'"
    )
    for column, kind in (
        ("event_name", "TEXT"),
        ("event_key", "TEXT"),
        ("event_after", moments),
        ("position", "INTEGER DEFAULT 0 NOT NULL"),
    ):
        op.execute(f"ALTER TABLE {dot}run_steps ADD COLUMN {column} {kind}")
    op.execute(
        f"CREATE INDEX {prefix}run_steps_event ON {dot}run_steps (event_name, event_key) "
        "WHERE event_name IS NOT NULL AND status = 'waiting'"
    )
    events = sa.Table(
        f"{prefix}events",
        sa.MetaData(schema=schema),
        sa.Column("namespace", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("data", json),
        sa.Column("sent_at", Instant, nullable=False),
    )
    c = events.c
    sa.Index(f"{prefix}events_sent", c.namespace, c.name, c.key, c.sent_at)
    sa.Index(f"{prefix}events_old", c.sent_at)
    op.execute(sa.schema.CreateTable(events))
    for index in sorted(events.indexes, key=lambda index: index.name or ""):
        op.execute(sa.schema.CreateIndex(index))
