"""Note which backend keeps the time of a namespace, so that what another one still has planned is inert.

Frozen: a later change is a revision of its own.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"

Instant = sa.BigInteger().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    """Change the tables of version 0002."""
    on_postgresql = op.get_context().dialect.name == "postgresql"
    prefix, schema = ("", "jobmanager") if on_postgresql else ("jobmanager_", None)
    dot = "jobmanager." if on_postgresql else prefix
    keepers = sa.Table(
        f"{prefix}keepers",
        sa.MetaData(schema=schema),
        sa.Column("namespace", sa.Text, primary_key=True),
        sa.Column("backend", sa.Text, nullable=False),
        sa.Column("since", Instant, nullable=False),
    )
    op.execute(sa.schema.CreateTable(keepers))
    op.execute(f"ALTER TABLE {dot}instances ADD COLUMN backend TEXT")
