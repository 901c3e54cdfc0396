"""Keep API keys, by the digests of their secrets.

Frozen: a later change is a revision of its own.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"

Instant = sa.BigInteger().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
Json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Change the tables of version 0009."""
    on_postgresql = op.get_context().dialect.name == "postgresql"
    prefix, schema = ("", "jobmanager") if on_postgresql else ("jobmanager_", None)
    where = "postgresql_where" if on_postgresql else "sqlite_where"
    keys = sa.Table(
        f"{prefix}keys",
        sa.MetaData(schema=schema),
        sa.Column("id", sa.Text().with_variant(sa.UUID(as_uuid=False), "postgresql"), primary_key=True),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("permissions", Json, nullable=False),
        sa.Column("scopes", Json),
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
    op.execute(sa.schema.CreateTable(keys))
    for index in sorted(keys.indexes, key=lambda index: str(index.name)):
        op.execute(sa.schema.CreateIndex(index))
