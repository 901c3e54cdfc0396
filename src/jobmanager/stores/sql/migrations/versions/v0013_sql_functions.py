"""Let other languages make jobs and start runs: functions on PostgreSQL, whatever keeps the time. SQLite has none.

Frozen: a later change is a revision of its own, with a script of its own.
"""

from __future__ import annotations

from alembic import op

from jobmanager.stores.sql.migrations import functions

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Change the database of version 0012."""
    if op.get_context().dialect.name == "postgresql":
        for statement in functions("functions_1.sql"):
            op.execute(statement)
