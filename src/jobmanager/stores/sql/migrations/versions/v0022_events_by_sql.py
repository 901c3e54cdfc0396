"""Let other languages send events: a function on PostgreSQL, whatever keeps the time. SQLite has none.

Frozen: a later change is a revision of its own, with a script of its own.
"""

from __future__ import annotations

from alembic import op

from jobmanager.stores.sql.migrations import functions

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    """Change the database of version 0021."""
    if op.get_context().dialect.name == "postgresql":
        for statement in functions("functions_2.sql"):
            op.execute(statement)
