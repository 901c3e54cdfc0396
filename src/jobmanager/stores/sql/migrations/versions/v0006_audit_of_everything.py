"""Let the audit tell of every kind of target, of where a request came from, and of what was refused.

Frozen: a later change is a revision of its own. SQLite cannot make a column nullable, so its table is written anew.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

LATER = ("reason", "address", "user_agent", "request_id", "batch_id")


def upgrade() -> None:
    """Change the tables of version 0005."""
    if op.get_context().dialect.name == "postgresql":
        _change_postgresql()
        prefix, dot = "", "jobmanager."
    else:
        _change_sqlite()
        prefix = dot = "jobmanager_"
    op.execute(f"CREATE INDEX {prefix}audit_target ON {dot}audit (target_id, id)")
    op.execute(f'CREATE INDEX {prefix}audit_by ON {dot}audit ("by", id)')


def _change_postgresql() -> None:
    later = ", ".join(f"ADD COLUMN {column} TEXT" for column in LATER)
    op.execute(
        "ALTER TABLE jobmanager.audit ALTER COLUMN job_id DROP NOT NULL,"
        " ADD COLUMN target TEXT DEFAULT 'job' NOT NULL, ADD COLUMN target_id TEXT,"
        f" ADD COLUMN outcome TEXT DEFAULT 'done' NOT NULL, {later}"
    )
    op.execute("UPDATE jobmanager.audit SET target_id = job_id")
    op.execute("ALTER TABLE jobmanager.audit ALTER COLUMN target_id SET NOT NULL")


def _change_sqlite() -> None:
    op.execute("DROP INDEX jobmanager_audit_job")
    op.execute("ALTER TABLE jobmanager_audit RENAME TO jobmanager_audit_before")
    audit = sa.Table(
        "jobmanager_audit",
        sa.MetaData(),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("by", sa.Text),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("job_id", sa.Text),
        sa.Column("before", sa.JSON),
        sa.Column("after", sa.JSON),
        sa.Column("rev", sa.Integer),
        sa.Column("target", sa.Text, nullable=False, server_default="job"),
        sa.Column("target_id", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False, server_default="done"),
        *(sa.Column(name, sa.Text) for name in LATER),
    )
    op.execute(sa.schema.CreateTable(audit))
    op.execute(
        "INSERT INTO jobmanager_audit (id, at, namespace, by, action, job_id, before, after, rev, target_id)"
        " SELECT id, at, namespace, by, action, job_id, before, after, rev, job_id FROM jobmanager_audit_before"
    )
    op.execute("DROP TABLE jobmanager_audit_before")
    op.execute("CREATE INDEX jobmanager_audit_job ON jobmanager_audit (job_id, id)")
