"""Find what was refused without reading all that was done.

Frozen: a later change is a revision of its own.
"""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Change the tables of version 0011."""
    on_postgresql = op.get_context().dialect.name == "postgresql"
    prefix, dot = ("", "jobmanager.") if on_postgresql else ("jobmanager_", "jobmanager_")
    op.execute(f"CREATE INDEX {prefix}audit_refused ON {dot}audit (namespace, id) WHERE outcome = 'refused'")
