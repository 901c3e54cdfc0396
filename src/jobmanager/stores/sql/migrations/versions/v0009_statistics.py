"""Keep what the runs of each hour come to beside the runs.

Frozen: a later change is a revision of its own.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"

Instant = sa.BigInteger().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    """Change the tables of version 0008."""
    on_postgresql = op.get_context().dialect.name == "postgresql"
    prefix, schema = ("", "jobmanager") if on_postgresql else ("jobmanager_", None)
    metadata = sa.MetaData(schema=schema)
    stats = sa.Table(
        f"{prefix}stats",
        metadata,
        sa.Column("made_in", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("job_id", sa.Text, primary_key=True),
        sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("status", sa.Text, primary_key=True),
        sa.Column("purged", sa.Boolean, primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
        *_lengths("duration"),
        *_lengths("lateness"),
    )
    sa.Index(f"{prefix}stats_hour", stats.c.hour)
    sa.Index(f"{prefix}stats_job", stats.c.job_id, stats.c.hour)
    hours = sa.Table(
        f"{prefix}stats_hours",
        metadata,
        sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("turn", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("counted_at", Instant),
        sa.Column("took", sa.Float, nullable=False, server_default="0"),
        sa.Column("settled", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    some = ~hours.c.settled
    sa.Index(f"{prefix}stats_unsettled", hours.c.hour, sqlite_where=some, postgresql_where=some)
    for table in (stats, hours):
        op.execute(sa.schema.CreateTable(table))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            op.execute(sa.schema.CreateIndex(index))


def _lengths(name: str) -> list[sa.Column[float] | sa.Column[int]]:
    seconds = [sa.Column(f"{name}_{of}", sa.Float, nullable=False) for of in ("sum", "longest")]
    counts = [sa.Column(f"{name}_{bucket:02}", sa.BigInteger, nullable=False) for bucket in range(20)]
    return [*seconds, *counts]
