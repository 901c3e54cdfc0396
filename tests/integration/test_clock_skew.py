"""A host whose clock is ahead of the store's: ticks wait until the store says they are due, and nobody spins meanwhile."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from jobmanager import JobManager, RunStatus, Settings
from jobmanager.clock import SystemClock
from jobmanager.stores.sql.sqlite import SqliteStore


class Behind(SystemClock):
    """The store's clock."""

    def now(self) -> datetime:
        return super().now() - timedelta(seconds=0.7)


class CountingStore(SqliteStore):
    asked = 0

    def lock_job(self, job_id: str) -> Any:
        self.asked += 1
        return super().lock_job(job_id)


def test_a_tick_that_comes_too_early_is_asked_for_again_when_it_is_due(tmp_path: Path) -> None:
    store = CountingStore(tmp_path / "jobs.db", clock=Behind())
    jobs = JobManager(Settings(database_url=f"sqlite:///{store.path}"), store=store)

    @jobs.job("second", every=1, overlap="allow")
    def second() -> None: ...

    with jobs:
        deadline = time.monotonic() + 60
        while len(jobs.runs("second", status="succeeded")) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    runs = jobs.runs("second")
    assert store.asked < 10 * len(runs)
    assert {run.status for run in runs} == {RunStatus.SUCCEEDED}
    assert {run.trigger for run in runs} == {"schedule"}
