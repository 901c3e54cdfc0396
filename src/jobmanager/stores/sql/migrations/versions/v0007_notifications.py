"""Keep notifications until they are delivered.

Frozen: a later change is a revision of its own.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"

Instant = sa.BigInteger().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
Json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Change the tables of version 0006."""
    on_postgresql = op.get_context().dialect.name == "postgresql"
    prefix, schema = ("", "jobmanager") if on_postgresql else ("jobmanager_", None)
    notifications = sa.Table(
        f"{prefix}notifications",
        sa.MetaData(schema=schema),
        sa.Column("id", sa.Text, primary_key=True),
        *(
            sa.Column(name, sa.Text, nullable=False)
            for name in ("namespace", "event", "job_id", "subject", "channel", "address", "fold", "state")
        ),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("due_at", Instant, nullable=False),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("count", "attempts", "unsure")),
        sa.Column("message", sa.Text),
        sa.Column("sent_at", Instant),
        sa.Column("error", sa.Text),
        sa.Column("details", Json, nullable=False),
    )
    n = notifications.c
    sa.Index(
        f"{prefix}notifications_once",
        n.job_id,
        n.event,
        n.subject,
        n.channel,
        n.address,
        n.namespace,
        unique=True,
    )
    for name, columns, condition in (
        ("waiting", (n.namespace, n.due_at), "state = 'waiting'"),
        ("message", (n.message,), "message IS NOT NULL"),
        ("failed", (n.job_id, n.id), "event = 'failed'"),
        ("sent", (n.job_id, n.event, n.sent_at), "sent_at IS NOT NULL"),
        ("dead", (n.namespace,), "state = 'dead'"),
        ("overflow", (n.namespace,), "event = 'outbox_full'"),
    ):
        some: dict[str, Any] = {"postgresql_where" if on_postgresql else "sqlite_where": sa.text(condition)}
        sa.Index(f"{prefix}notifications_{name}", *columns, **some)
    op.execute(sa.schema.CreateTable(notifications))
    for index in sorted(notifications.indexes, key=lambda index: str(index.name)):
        op.execute(sa.schema.CreateIndex(index))
