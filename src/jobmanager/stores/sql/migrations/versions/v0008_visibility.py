"""Keep which principals see a job.

Frozen: a later change is a revision of its own.
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Change the tables of version 0007."""
    jobs = "jobmanager.jobs" if op.get_context().dialect.name == "postgresql" else "jobmanager_jobs"
    op.execute(f"ALTER TABLE {jobs} ADD COLUMN visibility TEXT DEFAULT 'team' NOT NULL")
