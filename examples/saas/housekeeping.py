"""Deletes what the application no longer needs, a batch at a time, so that web requests can write in between."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Table, delete, func, or_, select

from . import data


@dataclass(frozen=True, kw_only=True)
class OldRows:
    """The rows of `table` for which `condition` holds, given the moment they are judged by."""

    table: Table
    condition: Callable[[datetime], Any]

    def count(self, before: datetime) -> int:
        """Return how many there are."""
        with data.transaction() as db:
            return db.scalars(
                select(func.count()).select_from(self.table).where(self.condition(before))
            ).one()

    def delete(self, before: datetime, limit: int) -> int:
        """Delete at most `limit`, and return how many went: 0 when none is left."""
        chosen = select(self.table.c.id).where(self.condition(before)).limit(limit)
        with data.transaction() as db:
            return db.execute(delete(self.table).where(self.table.c.id.in_(chosen))).rowcount


EXPIRED_SESSIONS = OldRows(table=data.sessions, condition=lambda before: data.sessions.c.expires_at < before)
UNANSWERED_INVITATIONS = OldRows(
    table=data.invitations,
    condition=lambda before: (
        (data.invitations.c.accepted_at.is_(None)) & (data.invitations.c.expires_at < before)
    ),
)
UNUSED_PUSH = OldRows(
    table=data.push_subscriptions,
    condition=lambda before: or_(
        data.push_subscriptions.c.used_at < before, data.push_subscriptions.c.expires_at < before
    ),
)
OLD_LOGS = OldRows(table=data.logs, condition=lambda before: data.logs.c.created_at < before)
OLD_AI_REQUESTS = OldRows(
    table=data.ai_requests, condition=lambda before: data.ai_requests.c.created_at < before
)
OLD_ERRORS = OldRows(table=data.error_logs, condition=lambda before: data.error_logs.c.created_at < before)
