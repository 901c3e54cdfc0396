"""Moments at the end of the calendar and lengths of a century: no job with them stops the others, and no call fails over them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobmanager import JobManager, Settings
from jobmanager.clock import LATEST, later
from jobmanager.doctor import examine
from jobmanager.explain import explain_now
from jobmanager.observe.prometheus import text_of
from jobmanager.testing import FakeClock

CENTURY = timedelta(days=36_500)
LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
FIRST = datetime(1, 1, 1, tzinfo=UTC)


def test_no_moment_that_is_computed_lies_after_the_last_day() -> None:
    assert later(LAST, timedelta(seconds=1)) == LAST
    assert later(LATEST - timedelta(days=1), timedelta.max) == LATEST
    assert later(FIRST, timedelta.min) == FIRST
    assert later(FIRST, timedelta(days=1)) == FIRST + timedelta(days=1)


def far_jobs(jobs: JobManager, ran: list[str]) -> None:
    longest: dict[str, Any] = {
        "jitter": CENTURY, "start_deadline": CENTURY, "catch_up": "all", "catch_up_window": CENTURY,
    }  # fmt: skip
    jobs.add_job("last", lambda: ran.append("last"), at=LAST, **longest)
    jobs.add_job("first", lambda: ran.append("first"), at=FIRST, **longest)
    jobs.add_job("century", lambda: ran.append("century"), every=CENTURY, **longest)
    jobs.add_job("cron", lambda: ran.append("cron"), cron="59 23 31 12 *", **longest)
    jobs.add_job("by-hand", lambda: ran.append("by-hand"), start_deadline=CENTURY, overlap="allow")
    jobs.add_job("minute", lambda: ran.append("minute"), every=60)


@pytest.mark.parametrize("year", [1971, 2026, 9998, 9999])
def test_jobs_with_far_moments_stop_neither_the_start_nor_the_others(tmp_path: Path, year: int) -> None:
    clock = FakeClock(datetime(year, 12, 20, tzinfo=UTC))
    url = f"sqlite:///{tmp_path}/jobs.db"
    ran: list[str] = []
    with JobManager(Settings(database_url=url), clock=clock) as jobs:
        far_jobs(jobs, ran)
        jobs.sync()
        clock.advance(minutes=3)
        assert ran.count("minute") >= 2
        jobs.trigger_job("by-hand", delay=CENTURY)
        jobs.trigger_job("by-hand", at=LAST)
        jobs.trigger_job("by-hand")
        jobs._assembly.sweep.sweep()
        assert ran.count("by-hand") == 1
        jobs.get_all_job_statuses()
        jobs.health(thorough=True)
        text_of(jobs)
        examine(jobs)
        for job_id in jobs.registry.jobs:
            explain_now(jobs, job_id)
        jobs.stop_all_jobs()
        jobs.resume_all_jobs()
        jobs.override_job("minute", every=CENTURY)
        jobs.reset_job("minute")
        clock.advance(minutes=3)
    assert ran.count("minute") >= 4
    assert not [run for run in jobs.runs() if run.error is not None]
