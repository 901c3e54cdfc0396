"""Which runs may be forgotten, a job's by its own retention, all others by the setting; and which entries of the audit."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from jobmanager.job import Job
from jobmanager.settings import Settings
from jobmanager.stores.base import RunStore

AT_ONCE = 1000


def forget_old_runs(store: RunStore, jobs: Iterable[Job], settings: Settings, now: datetime) -> int:
    """Delete the runs that are older, or more, than what is kept of them, and old keys of `once`; return how many runs. Twice is once."""
    special = {job.id: job for job in jobs if job.retention or job.keep_runs}
    deleted = store.maintenance.purge(now - settings.retention, but=special)
    for job in special.values():
        deleted += store.maintenance.purge(
            now - (job.retention or settings.retention), job_id=job.id, keep=job.keep_runs
        )
    store.once.purge(now - settings.retention)
    return deleted


def forget_old_entries(store: RunStore, settings: Settings, now: datetime) -> int:
    """Delete the entries of the audit that are older than what is kept, a thousand in a transaction; answers how many. Twice is once."""
    deleted, batch = 0, AT_ONCE
    while batch == AT_ONCE:
        batch = store.audit.purge(settings.namespace, now - settings.audit_retention, AT_ONCE)
        deleted += batch
    return deleted
