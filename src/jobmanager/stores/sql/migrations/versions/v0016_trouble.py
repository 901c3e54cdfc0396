"""Find the runs that did not succeed without reading those that did.

Frozen: a later change is a revision of its own.
"""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Change the tables of version 0015."""
    on_postgresql = op.get_context().dialect.name == "postgresql"
    prefix, dot = ("", "jobmanager.") if on_postgresql else ("jobmanager_", "jobmanager_")
    trouble = " OR ".join(f"status = '{status}'" for status in ("failed", "missed", "skipped", "cancelled"))
    op.execute(f"CREATE INDEX {prefix}runs_trouble ON {dot}runs (status, id) WHERE {trouble}")
