"""Count the starts of a run apart from its attempts, and let a pending run say why its attempt goes on.

Frozen: a later change is a revision of its own. SQLite cannot alter a check, so the text of the table is edited as SQLite's
own documentation of ALTER TABLE describes it, or the table is written anew where SQLite does not allow that.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

BEFORE = (
    "overlap", "paused", "disabled", "downtime", "deadline", "transport", "requested", "superseded", "handler",
)  # fmt: skip
ADDED = ("children", "returned", "shutdown", "sleeping", "waiting")


def upgrade() -> None:
    """Change the tables of version 0001."""
    if op.get_context().dialect.name == "postgresql":
        _change_postgresql()
    else:
        _change_sqlite()


# Until today an attempt was started once, so the key of attempts has the values that the new key needs.


def _change_postgresql() -> None:
    # USING writes each table anew in one pass and sorts its indexes: for a million runs a fifth of what UPDATE takes.
    op.execute(
        "ALTER TABLE jobmanager.runs DROP CONSTRAINT known_reason,"
        f" ADD CONSTRAINT known_reason CHECK ({_one_of(BEFORE + ADDED)}),"
        " ADD COLUMN starts INTEGER DEFAULT 0 NOT NULL"
    )
    op.execute("ALTER TABLE jobmanager.runs ALTER COLUMN starts TYPE INTEGER USING attempt")
    op.execute("ALTER TABLE jobmanager.attempts RENAME COLUMN attempt TO starts")
    op.execute("ALTER TABLE jobmanager.attempts ADD COLUMN attempt INTEGER DEFAULT 0 NOT NULL")
    op.execute("ALTER TABLE jobmanager.attempts ALTER COLUMN attempt TYPE INTEGER USING starts")


def _change_sqlite() -> None:
    before, after = (_one_of(reasons).replace("'", "''") for reasons in (BEFORE, BEFORE + ADDED))
    edit_check(f"replace(sql, '{before}', '{after}')")
    op.execute("ALTER TABLE jobmanager_runs ADD COLUMN starts INTEGER DEFAULT 0 NOT NULL")
    op.execute("UPDATE jobmanager_runs SET starts = attempt WHERE attempt > 0")
    op.execute("ALTER TABLE jobmanager_attempts RENAME COLUMN attempt TO starts")
    op.execute("ALTER TABLE jobmanager_attempts ADD COLUMN attempt INTEGER DEFAULT 0 NOT NULL")
    op.execute("UPDATE jobmanager_attempts SET attempt = starts")


def edit_check(edited: str) -> None:
    """Give the table of runs on SQLite another text, an expression over `sql`; a later revision may call it."""
    op.execute("PRAGMA writable_schema = ON")
    try:
        op.execute(f"UPDATE sqlite_master SET sql = {edited} WHERE name = 'jobmanager_runs'")  # noqa: S608 - constants only
    except sa.exc.OperationalError:
        _write_anew(edited)
    op.execute("PRAGMA writable_schema = RESET")


def _write_anew(edited: str) -> None:
    """Copy the runs into a table with the edited check: this SQLite lets nobody edit the text of a table."""
    connection = op.get_bind()
    named = "FROM sqlite_master WHERE tbl_name = 'jobmanager_runs' AND sql IS NOT NULL"
    table = connection.exec_driver_sql(f"SELECT {edited} {named} AND type = 'table'").scalar_one()
    indexes = list(connection.exec_driver_sql(f"SELECT sql {named} AND type = 'index'").scalars())
    connection.exec_driver_sql("ALTER TABLE jobmanager_runs RENAME TO jobmanager_runs_before")
    connection.exec_driver_sql(table)
    connection.exec_driver_sql("INSERT INTO jobmanager_runs SELECT * FROM jobmanager_runs_before")
    connection.exec_driver_sql("DROP TABLE jobmanager_runs_before")
    for index in indexes:
        connection.exec_driver_sql(index)


def _one_of(reasons: tuple[str, ...]) -> str:
    return " OR ".join(f"reason = '{reason}'" for reason in reasons)
