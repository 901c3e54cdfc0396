"""Have the database refuse a tick skipped for its overlap that names no run in its way; keep who overrode a job, and when.

Frozen: a later change is a revision of its own.
"""

from __future__ import annotations

from alembic import op

from jobmanager.stores.sql.migrations.versions.v0002_starts import edit_check

revision = "0004"
down_revision = "0003"

RULE = "reason <> 'overlap' OR blocked_by IS NOT NULL"
FOLLOWS = "CONSTRAINT jobmanager_turn_while_open"


def upgrade() -> None:
    """Change the tables of version 0003."""
    on_postgresql = op.get_context().dialect.name == "postgresql"
    dot = "jobmanager." if on_postgresql else "jobmanager_"
    op.execute(f"ALTER TABLE {dot}jobs ADD COLUMN override_by TEXT")
    op.execute(
        f"ALTER TABLE {dot}jobs ADD COLUMN override_at {'TIMESTAMP WITH TIME ZONE' if on_postgresql else 'BIGINT'}"
    )
    runs = f"{dot}runs"
    op.execute(f"UPDATE {runs} SET blocked_by = '' WHERE reason = 'overlap' AND blocked_by IS NULL")  # noqa: S608 - constants only
    if on_postgresql:
        op.execute(f"ALTER TABLE {runs} ADD CONSTRAINT overlap_has_blocker CHECK ({RULE})")
    else:
        rule = f"CONSTRAINT jobmanager_overlap_has_blocker CHECK ({RULE}), {FOLLOWS}".replace("'", "''")
        edit_check(f"replace(sql, '{FOLLOWS}', '{rule}')")
