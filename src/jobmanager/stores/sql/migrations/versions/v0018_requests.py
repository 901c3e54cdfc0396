"""Keep the responses to requests that name an idempotency key.

Frozen: a later change is a revision of its own.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0018"
down_revision = "0017"

Instant = sa.BigInteger().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    """Change the tables of version 0017."""
    on_postgresql = op.get_context().dialect.name == "postgresql"
    prefix, schema = ("", "jobmanager") if on_postgresql else ("jobmanager_", None)
    json = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
    requests = sa.Table(
        f"{prefix}requests",
        sa.MetaData(schema=schema),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("turn", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("begun_at", Instant, nullable=False),
        sa.Column("response", json),
    )
    sa.Index(f"{prefix}requests_begun", requests.c.begun_at)
    op.execute(sa.schema.CreateTable(requests))
    for index in requests.indexes:
        op.execute(sa.schema.CreateIndex(index))
