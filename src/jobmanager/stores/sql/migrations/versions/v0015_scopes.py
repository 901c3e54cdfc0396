"""Find the runs of a scope without reading those of others. Runs on record need no change: the index takes the scope from their keys.

Frozen: a later change is a revision of its own.
"""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Change the tables of version 0014."""
    on_postgresql = op.get_context().dialect.name == "postgresql"
    prefix, dot = ("", "jobmanager.") if on_postgresql else ("jobmanager_", "jobmanager_")
    scope = "substr(concurrency_key, length(job_id) + 2)"
    op.execute(f"CREATE INDEX {prefix}runs_scope ON {dot}runs ({scope}, id) WHERE concurrency_key <> job_id")
