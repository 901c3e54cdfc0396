"""Which runs may be forgotten: a job's by its own retention, all others by the settings, the oldest of too many or too large; and the audit."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta

from jobmanager.job import Job
from jobmanager.run import CANCELLED, FAILED, MISSED, SKIPPED, SUCCEEDED, RunStatus
from jobmanager.settings import Settings
from jobmanager.stores.base import RunStore
from jobmanager.stores.requests import REQUESTS_KEPT

AT_ONCE = 1000
WELL, BADLY = frozenset({SUCCEEDED, CANCELLED, SKIPPED}), frozenset({FAILED, MISSED})

EVENTS_KEPT = timedelta(days=7)


def forget_old_runs(
    store: RunStore, jobs: Iterable[Job], settings: Settings, now: datetime, *, dry_run: bool = False
) -> int:
    """Delete the runs that are older, or more, than what is kept of them, old keys of `once` and old requests; return how many runs. Twice is once.

    With `dry_run` count them only; runs that are old and of too many count twice then. Open runs always stay.
    """
    purge = store.maintenance.purge
    special = {job.id: job for job in jobs if job.retention or job.keep_runs}
    deleted = 0
    for statuses, age in kept(settings).items():
        deleted += purge(now - age, but=special, statuses=statuses, dry_run=dry_run)
    for job in special.values():
        deleted += _forget_runs_of(job, store, settings, now, dry_run=dry_run)
    if settings.max_runs is not None:
        deleted += store.maintenance.purge_beyond(settings.max_runs, dry_run=dry_run)
    if settings.retention_max_bytes is not None:
        deleted += store.maintenance.purge_beyond_bytes(settings.retention_max_bytes, dry_run=dry_run)
    if not dry_run:
        store.once.purge(now - settings.retention_failed)
        store.requests.purge(REQUESTS_KEPT)
        store.steps.purge_events(now - EVENTS_KEPT)
    return deleted


def forget_old_entries(store: RunStore, settings: Settings, now: datetime) -> int:
    """Delete the entries of the audit that are older than what is kept, a thousand in a transaction; return how many. Twice is safe."""
    deleted, batch = 0, AT_ONCE
    while batch == AT_ONCE:
        batch = store.audit.purge(settings.namespace, now - settings.audit_retention, AT_ONCE)
        deleted += batch
    return deleted


def kept(settings: Settings) -> Mapping[Collection[RunStatus], timedelta]:
    """Return for how long runs are kept, by the statuses for which that holds."""
    return {WELL: settings.retention_succeeded, BADLY: settings.retention_failed}


def _forget_runs_of(job: Job, store: RunStore, settings: Settings, now: datetime, *, dry_run: bool) -> int:
    purge = store.maintenance.purge
    if job.retention is not None:
        return purge(now - job.retention, job_id=job.id, keep=job.keep_runs, dry_run=dry_run)
    ages = kept(settings)
    deleted = sum(
        purge(now - age, job_id=job.id, statuses=statuses, dry_run=dry_run) for statuses, age in ages.items()
    )
    return deleted + purge(now - max(ages.values()), job_id=job.id, keep=job.keep_runs, dry_run=dry_run)
