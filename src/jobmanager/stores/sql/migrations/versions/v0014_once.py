"""Keep what handlers did once for a key.

Frozen: a later change is a revision of its own.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"

Instant = sa.BigInteger().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    """Change the tables of version 0013."""
    on_postgresql = op.get_context().dialect.name == "postgresql"
    prefix, schema = ("", "jobmanager") if on_postgresql else ("jobmanager_", None)
    json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    once = sa.Table(
        f"{prefix}once",
        sa.MetaData(schema=schema),
        sa.Column("job_id", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text().with_variant(sa.UUID(as_uuid=False), "postgresql"), nullable=False),
        sa.Column("starts", sa.Integer, nullable=False),
        sa.Column("begun_at", Instant, nullable=False),
        sa.Column("done_at", Instant),
        sa.Column("output", json),
    )
    sa.Index(f"{prefix}once_begun", once.c.begun_at)
    op.execute(sa.schema.CreateTable(once))
    for index in once.indexes:
        op.execute(sa.schema.CreateIndex(index))
