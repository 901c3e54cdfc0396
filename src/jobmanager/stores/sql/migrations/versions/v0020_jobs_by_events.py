"""Keep which event starts a job, and for which events jobs are still to be started.

Frozen: a later change is a revision of its own.
"""

from __future__ import annotations

from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Change the tables of version 0019."""
    on_postgresql = op.get_context().dialect.name == "postgresql"
    prefix, dot = ("", "jobmanager.") if on_postgresql else ("jobmanager_", "jobmanager_")
    op.execute(f'ALTER TABLE {dot}jobs ADD COLUMN "on" TEXT')
    op.execute(f'CREATE INDEX {prefix}jobs_on ON {dot}jobs (namespace, "on") WHERE "on" IS NOT NULL')
    is_true = "true" if on_postgresql else "1"
    op.execute(f"ALTER TABLE {dot}events ADD COLUMN is_new BOOLEAN DEFAULT {is_true} NOT NULL")
    op.execute(f"CREATE INDEX {prefix}events_new ON {dot}events (namespace, sent_at) WHERE is_new")
    op.execute(f"UPDATE {dot}events SET is_new = NOT {is_true}")  # noqa: S608 - no value of anybody
