"""A host whose clock is ahead of the store's: ticks wait until the store says they are due, and nobody spins meanwhile."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobmanager import JobManager, RunStatus, Settings
from jobmanager.clock import SystemClock
from jobmanager.stores.sql.jobs import SqlJobs
from jobmanager.stores.sql.sqlite import SqliteStore


class Behind(SystemClock):
    """The store's clock."""

    def now(self) -> datetime:
        return super().now() - timedelta(seconds=0.7)


class FarBehind(SystemClock):
    """The clock of a store on a host without NTP."""

    def now(self) -> datetime:
        return super().now() - timedelta(seconds=45)


class CountingJobs(SqlJobs):
    asked = 0

    def lock(self, job_id: str) -> Any:
        self.asked += 1
        return super().lock(job_id)


def test_a_tick_that_comes_too_early_is_asked_for_again_when_it_is_due(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "jobs.db", clock=Behind())
    store.jobs = counting = CountingJobs(store.database)
    jobs = JobManager(Settings(database_url=f"sqlite:///{store.path}"), store=store)

    @jobs.job("second", every=1, overlap="allow")
    def second() -> None: ...

    with jobs:
        deadline = time.monotonic() + 60
        while len(jobs.runs("second", status="succeeded")) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    runs = jobs.runs("second")
    assert counting.asked < 10 * len(runs)
    assert {run.status for run in runs} == {RunStatus.SUCCEEDED}
    assert {run.trigger for run in runs} == {"schedule"}


def test_a_host_whose_clock_is_far_off_says_so_at_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for clock in (SystemClock(), FarBehind()):
        store = SqliteStore(tmp_path / "jobs.db", clock=clock)
        with JobManager(Settings(database_url=f"sqlite:///{store.path}"), store=store):
            pass

    [warning] = [record.getMessage() for record in caplog.records if "NTP" in record.getMessage()]
    assert warning.startswith("this host's clock is +45.0 s off")
