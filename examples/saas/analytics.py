"""One row of figures per day."""

import sqlite3
from datetime import UTC, date, datetime, time, timedelta

from .database import stamp

# One statement: readers see the old row or the new one, and writing a day again replaces it.
SUMMARISE = """
INSERT INTO daily_summaries (day, new_users, active_users, sessions, invitations, errors, written_at)
VALUES (
    :day,
    (SELECT count(*) FROM users WHERE created_at >= :start AND created_at < :end),
    (SELECT count(DISTINCT user_id) FROM sessions WHERE created_at >= :start AND created_at < :end),
    (SELECT count(*) FROM sessions WHERE created_at >= :start AND created_at < :end),
    (SELECT count(*) FROM invitations WHERE created_at >= :start AND created_at < :end),
    (SELECT count(*) FROM logs WHERE level = 'error' AND created_at >= :start AND created_at < :end),
    :now
)
ON CONFLICT (day) DO UPDATE SET
    new_users = excluded.new_users, active_users = excluded.active_users, sessions = excluded.sessions,
    invitations = excluded.invitations, errors = excluded.errors, written_at = excluded.written_at
RETURNING day, new_users, active_users, sessions, invitations, errors
"""


def summarise(db: sqlite3.Connection, day: date, now: datetime) -> dict[str, str | int]:
    """Return the figures of `day` (from midnight to midnight UTC) as they now stand in `daily_summaries`."""
    start = datetime.combine(day, time(), tzinfo=UTC)
    values = {
        "day": day.isoformat(),
        "start": stamp(start),
        "end": stamp(start + timedelta(days=1)),
        "now": stamp(now),
    }
    return dict(db.execute(SUMMARISE, values).fetchall()[0])
