"""Let a due instant be skipped because its schedule excludes it.

Frozen: a later change is a revision of its own.
"""

from __future__ import annotations

from alembic import op

from jobmanager.stores.sql.migrations.versions.v0002_starts import edit_check

revision = "0021"
down_revision = "0020"

REASONS = (
    "overlap", "paused", "disabled", "downtime", "deadline", "transport", "requested", "superseded", "handler", "children",
    "returned", "shutdown", "sleeping", "waiting", "excluded",
)  # fmt: skip


def upgrade() -> None:
    """Change the tables of version 0020."""
    if op.get_context().dialect.name == "postgresql":
        known = " OR ".join(f"reason = '{reason}'" for reason in REASONS)
        op.execute(
            "ALTER TABLE jobmanager.runs DROP CONSTRAINT known_reason,"
            f" ADD CONSTRAINT known_reason CHECK ({known})"
        )
    else:
        edit_check("replace(sql, 'reason = ''waiting''', 'reason = ''waiting'' OR reason = ''excluded''')")
