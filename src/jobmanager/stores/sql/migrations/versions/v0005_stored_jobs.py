"""Keep jobs that operators made, which handlers a process has, and who changed which job.

Frozen: a later change is a revision of its own.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"

Instant = sa.BigInteger().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
Json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Change the tables of version 0004."""
    on_postgresql = op.get_context().dialect.name == "postgresql"
    prefix, schema = ("", "jobmanager") if on_postgresql else ("jobmanager_", None)
    dot, json = ("jobmanager.", "JSONB") if on_postgresql else (prefix, "JSON")
    op.execute(f"ALTER TABLE {dot}jobs ADD COLUMN definition {json}")
    op.execute(f"ALTER TABLE {dot}declarations ADD COLUMN handlers {json} DEFAULT '[]' NOT NULL")
    audit = sa.Table(
        f"{prefix}audit",
        sa.MetaData(schema=schema),
        sa.Column("id", sa.Text().with_variant(sa.UUID(as_uuid=False), "postgresql"), primary_key=True),
        sa.Column("at", Instant, nullable=False),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("by", sa.Text),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("before", Json),
        sa.Column("after", Json),
        sa.Column("rev", sa.Integer),
    )
    sa.Index(f"{prefix}audit_job", audit.c.job_id, audit.c.id)
    op.execute(sa.schema.CreateTable(audit))
    for index in audit.indexes:
        op.execute(sa.schema.CreateIndex(index))
