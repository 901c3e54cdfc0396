"""Projects: their subscribers, brought when a team asks for it, and the room that events and deleted projects take."""

from datetime import timedelta
from typing import Any

from examples.saas import data, partitions, services
from examples.saas.data import project_users, projects
from sqlalchemy import delete, select

from jobmanager import Retry, RunContext

from .due import due


def revenuecat_sync(context: RunContext, project_id: int, page_size: int = 50) -> dict[str, int]:
    """Bring all subscribers of a project; tells its progress and ends early when asked to, with what it has brought kept."""
    synced = skipped = 0
    page, total = 0, 1
    while page * page_size < total:
        context.raise_if_cancelled()
        found = services.subscribers(project_id, page, page_size)
        total, page = found["total"], page + 1
        with data.transaction() as db:
            known = _entitlements(db, project_id)
            for user in found["users"]:
                if known.get(user["id"]) == user["entitlement"]:
                    skipped += 1
                    continue
                row = {"project_id": project_id, "subscriber": user["id"]}
                row = {**row, "entitlement": user["entitlement"], "synced_at": due(context)}
                data.put(db, project_users, row, ("project_id", "subscriber"))
                synced += 1
        context.progress(synced + skipped, total, f"Synced {synced} users, {skipped} skipped")
    return {"synced": synced, "skipped": skipped}


def _entitlements(db, project_id: int) -> dict[str, str]:
    mine = select(project_users.c.subscriber, project_users.c.entitlement)
    return {
        row.subscriber: row.entitlement
        for row in db.execute(mine.where(project_users.c.project_id == project_id))
    }


def db_pruning(context: RunContext, limit_bytes: int) -> dict[str, Any]:
    """Drop the oldest months of events while all take more than `limit_bytes`; the current month and later ones stay."""
    current = partitions.name_of(due(context))
    dropped = []
    with data.transaction() as db:
        for name in partitions.names(db):
            if name >= current or partitions.size(db) <= limit_bytes:
                break
            partitions.drop(db, name)
            dropped.append(name)
        return {"dropped": dropped, "bytes": partitions.size(db)}


def soft_delete_cleanup(context: RunContext, days: int = 7) -> dict[str, int]:
    """Delete for good what was deleted softly more than `days` days ago."""
    gone = projects.c.deleted_at < due(context) - timedelta(days=days)
    with data.transaction() as db:
        theirs = project_users.c.project_id.in_(select(projects.c.id).where(gone))
        db.execute(delete(project_users).where(theirs))
        return {"deleted": db.execute(delete(projects).where(gone)).rowcount}


def partition_creation(context: RunContext, months_ahead: int = 2) -> dict[str, int]:
    """Create the tables of events for this month and the next `months_ahead`."""
    with data.transaction() as db:
        months = partitions.months(due(context), months_ahead + 1)
        return {"created": sum([partitions.create(db, month) for month in months])}


JOBS: dict[str, dict[str, Any]] = {
    "revenuecat_sync": {
        "function": revenuecat_sync,
        "visibility": "project",
        "retry": Retry(max_attempts=2),
        "timeout": 600,
    },
    "db_pruning": {
        "function": db_pruning,
        "cron": "0 * * * *",
        "config": {"limit_bytes": 80_000},
        "visibility": "system",
        "timeout": 300,
    },
    "soft_delete_cleanup": {
        "function": soft_delete_cleanup,
        "cron": "0 3 * * *",
        "config": {"days": 7},
        "visibility": "system",
        "timeout": 300,
    },
    "partition_creation": {
        "function": partition_creation,
        "cron": "0 4 * * *",
        "config": {"months_ahead": 2},
        "visibility": "system",
        "timeout": 60,
    },
}
