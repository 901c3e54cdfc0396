"""Which runs may be forgotten: a job's by its own retention, all others by the setting."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from jobmanager.job import Job
from jobmanager.settings import Settings
from jobmanager.stores.base import RunStore


def forget_old_runs(store: RunStore, jobs: Iterable[Job], settings: Settings, now: datetime) -> int:
    """Delete the runs that are older, or more, than what is kept of them; answers how many. Twice is once."""
    special = {job.id: job for job in jobs if job.retention or job.keep_runs}
    deleted = store.maintenance.purge(now - settings.retention, but=special)
    for job in special.values():
        deleted += store.maintenance.purge(
            now - (job.retention or settings.retention), job_id=job.id, keep=job.keep_runs
        )
    return deleted
