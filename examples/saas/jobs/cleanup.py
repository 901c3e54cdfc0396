"""Rows that nobody needs any more."""

import os
import time
from datetime import timedelta
from typing import Any

from examples.saas import housekeeping
from examples.saas.housekeeping import OldRows

from jobmanager import RunContext

from .due import due


def cleanup_sessions(
    context: RunContext, days_to_keep: int = 30, batch_size: int = 500, rest_seconds: float = 0
) -> dict[str, int]:
    """Delete sessions that ended more than `days_to_keep` days ago."""
    return _delete(context, [housekeeping.EXPIRED_SESSIONS], days_to_keep, batch_size, rest_seconds)


def cleanup_invitations(
    context: RunContext, days_to_keep: int = 0, batch_size: int = 500, rest_seconds: float = 0
) -> dict[str, int]:
    """Delete invitations that nobody accepted and that ran out more than `days_to_keep` days ago."""
    return _delete(context, [housekeeping.UNANSWERED_INVITATIONS], days_to_keep, batch_size, rest_seconds)


def cleanup_push_subscriptions(
    context: RunContext, days_to_keep: int = 60, batch_size: int = 500, rest_seconds: float = 0
) -> dict[str, int]:
    """Delete push subscriptions that nobody used, or that expired, more than `days_to_keep` days ago."""
    return _delete(context, [housekeeping.UNUSED_PUSH], days_to_keep, batch_size, rest_seconds)


def purge_logs(
    context: RunContext, days_to_keep: int = 90, batch_size: int = 500, rest_seconds: float = 0
) -> dict[str, int]:
    """Delete log lines and requests to language models older than `days_to_keep` days. Runs of jobs have a retention of their own."""
    old = [housekeeping.OLD_LOGS, housekeeping.OLD_AI_REQUESTS]
    return _delete(context, old, days_to_keep, batch_size, rest_seconds)


def purge_error_logs(
    context: RunContext, days_to_keep: int | None = None, batch_size: int = 500, rest_seconds: float = 0
) -> dict[str, int]:
    """Delete errors older than `days_to_keep` days, by default those of LOGS_RETENTION_DAYS, else 30."""
    days = int(os.environ.get("LOGS_RETENTION_DAYS", "30")) if days_to_keep is None else days_to_keep
    return _delete(context, [housekeeping.OLD_ERRORS], days, batch_size, rest_seconds)


def _delete(
    context: RunContext, old: list[OldRows], days_to_keep: int, batch_size: int, rest_seconds: float
) -> dict[str, int]:
    """Delete batch by batch; `rest_seconds` after each leave other writers their turn."""
    before = due(context) - timedelta(days=days_to_keep)
    total = sum(rows.count(before) for rows in old)
    deleted = 0
    for rows in old:
        while batch := rows.delete(before, batch_size):
            deleted += batch
            context.progress(deleted, total, f"{deleted:,} of {total:,} {rows.table.name}")
            context.raise_if_cancelled()
            time.sleep(rest_seconds)
    return {"deleted": deleted}


JOBS: dict[str, dict[str, Any]] = {
    "cleanup-sessions": {
        "function": cleanup_sessions,
        "cron": "0 2 * * *",
        "config": {"days_to_keep": 30},
        "timeout": 300,
    },
    "cleanup-invitations": {"function": cleanup_invitations, "cron": "0 3 * * *", "timeout": 300},
    "cleanup-push-subscriptions": {
        "function": cleanup_push_subscriptions,
        "cron": "0 3 * * 0",
        "timeout": 300,
    },
    "purge-logs": {
        "function": purge_logs,
        "cron": "0 4 * * *",
        "config": {"days_to_keep": 90},
        "timeout": 900,
    },
    "purge-error-logs": {
        "function": purge_error_logs,
        "cron": "0 3 * * *",
        "enabled_when": "LOGS_ENABLED",
        "timeout": 900,
    },
}
