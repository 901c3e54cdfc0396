"""A store that is used no more is garbage with all that it holds: a suite of tests makes thousands of them in one process."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest

from jobmanager import JobManager, Settings
from jobmanager.stores.sql.store import SqlStore


@pytest.mark.parametrize("url", ["memory://", "sqlite:///{folder}/runs.db"])
def test_a_store_that_nobody_closed_is_garbage(url: str, tmp_path: Path) -> None:
    """Fails if the pool of a connection that is in use, which is never garbage, leads to the store."""
    jobs = JobManager(Settings(backend="noop", database_url=url.format(folder=tmp_path)))
    jobs.add_job("work", lambda: 1)
    with jobs:
        jobs.trigger_job("work")
    assert isinstance(jobs.store, SqlStore)
    database = weakref.ref(jobs.store.database)

    del jobs
    for _ in range(3):  # of what ends with a finalizer, a part each time
        gc.collect()

    assert database() is None
