"""A manager on a real pg_cron whose entries lie still, with an entry that no job needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from jobmanager import JobManager, Settings

ORPHAN = "SELECT cron.schedule(jobmanager.entry_name('gone'), '0 7 * * 1', format('SELECT jobmanager.fire(%L)', jobmanager.entry_name('gone')))"


@contextmanager
def jobs_with_orphan(url: str, *changes: str) -> Iterator[JobManager]:
    """Yield a manager with entries in pg_cron and an orphan among them, after the changes in SQL; at the end the orphan is gone."""
    jobs = JobManager(Settings(database_url=url, backend="pg_cron", pg_cron_transport="notify"))
    jobs.add_job("work", lambda: 1, cron="*/10 * * * *")
    jobs.sync()
    with psycopg.connect(url, autocommit=True) as connection:
        for change in (ORPHAN, *changes):
            connection.execute(change)
    try:
        yield jobs
    finally:
        jobs.purge_orphans()
        jobs.stop()
        jobs.store.close()
