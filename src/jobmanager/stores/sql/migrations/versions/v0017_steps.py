"""Keep the steps of runs.

Frozen: a later change is a revision of its own.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0017"
down_revision = "0016"

Instant = sa.BigInteger().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    """Change the tables of version 0016."""
    on_postgresql = op.get_context().dialect.name == "postgresql"
    prefix, schema = ("", "jobmanager") if on_postgresql else ("jobmanager_", None)
    json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    steps = sa.Table(
        f"{prefix}run_steps",
        sa.MetaData(schema=schema),
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
    )
    op.execute(sa.schema.CreateTable(steps))
