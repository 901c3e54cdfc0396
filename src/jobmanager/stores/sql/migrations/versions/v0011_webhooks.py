"""Keep webhooks that operators make.

Frozen: a later change is a revision of its own.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"

Instant = sa.BigInteger().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
Json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Change the tables of version 0010."""
    on_postgresql = op.get_context().dialect.name == "postgresql"
    prefix, schema = ("", "jobmanager") if on_postgresql else ("jobmanager_", None)
    webhooks = sa.Table(
        f"{prefix}webhooks",
        sa.MetaData(schema=schema),
        sa.Column("namespace", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("words", Json, nullable=False),
        sa.Column("secrets", sa.Text),
        sa.Column("deleted", sa.Boolean, nullable=False),
        sa.Column("rev", sa.Integer, nullable=False),
        sa.Column("changed_at", Instant, nullable=False),
        sa.Column("changed_by", sa.Text),
        sa.Column("change_seq", sa.BigInteger, nullable=False),
    )
    op.execute(sa.schema.CreateTable(webhooks))
