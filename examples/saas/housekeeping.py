"""Deletes what the application no longer needs, a batch at a time, so that web requests can write in between."""

import sqlite3
from dataclasses import dataclass
from datetime import datetime

from .database import stamp


@dataclass(frozen=True, kw_only=True)
class OldRows:
    """The rows of `table` for which `condition` holds; in it, `:before` is the moment they are judged by."""

    table: str
    condition: str

    def count(self, db: sqlite3.Connection, before: datetime) -> int:
        """How many there are."""
        statement = f"SELECT count(*) FROM {self.table} WHERE {self.condition}"  # noqa: S608 - constants below
        (rows,) = db.execute(statement, {"before": stamp(before)}).fetchone()
        return int(rows)

    def delete(self, db: sqlite3.Connection, before: datetime, limit: int) -> int:
        """How many went: at most `limit`, and 0 when none is left."""
        chosen = f"SELECT id FROM {self.table} WHERE {self.condition} LIMIT :limit"  # noqa: S608 - constants below
        statement = f"DELETE FROM {self.table} WHERE id IN ({chosen})"  # noqa: S608
        return db.execute(statement, {"before": stamp(before), "limit": limit}).rowcount


EXPIRED_SESSIONS = OldRows(table="sessions", condition="expires_at < :before")
UNANSWERED_INVITATIONS = OldRows(
    table="invitations", condition="accepted_at IS NULL AND expires_at < :before"
)
OLD_LOGS = OldRows(table="logs", condition="created_at < :before")
