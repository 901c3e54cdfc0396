"""A row that stands for many instants cannot run again as if it were one; a row of one instant can."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobmanager import JobManager, Run, RunStatus, Settings
from jobmanager.errors import TransitionError
from jobmanager.testing import FakeClock

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def start(clock: FakeClock, tmp_path: Path) -> Iterator[Callable[[], JobManager]]:
    made: list[JobManager] = []

    def begin() -> JobManager:
        manager = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db"), clock=clock)
        manager.add_job("work", lambda: None, cron="* * * * *", catch_up="none")
        made.append(manager)
        return manager.start()

    yield begin
    for manager in made:
        manager.stop()


def paused(start: Callable[[], JobManager], clock: FakeClock) -> JobManager:
    jobs = start()
    jobs.stop_job("work")
    clock.advance(minutes=5)
    jobs.resume_job("work")
    return jobs


def long_gone(start: Callable[[], JobManager], clock: FakeClock) -> JobManager:
    start().stop()
    clock.advance(minutes=200)
    jobs = start()
    clock.advance()
    return jobs


def stretch_of(jobs: JobManager) -> Run:
    [stretch] = [run for run in jobs.runs("work", limit=1000) if run.ticks > 1]
    return stretch


@pytest.mark.parametrize("away", [paused, long_gone])
def test_a_row_that_stands_for_many_instants_is_not_redriven(
    start: Callable[[], JobManager], clock: FakeClock, away: Callable[..., JobManager]
) -> None:
    jobs = away(start, clock)
    stretch = stretch_of(jobs)
    with pytest.raises(TransitionError, match=f"stands for {stretch.ticks} ticks"):
        jobs.redrive(stretch.id)
    clock.advance()

    assert jobs.run(stretch.id) == stretch


@pytest.mark.parametrize("away", [paused, long_gone])
def test_backfill_leaves_a_row_that_stands_for_many_instants(
    start: Callable[[], JobManager], clock: FakeClock, away: Callable[..., JobManager]
) -> None:
    jobs = away(start, clock)
    stretch = stretch_of(jobs)
    assert stretch.first_for is not None
    assert stretch.scheduled_for is not None
    made_up = jobs.backfill("work", stretch.first_for - timedelta(minutes=1), stretch.scheduled_for)
    clock.advance()

    assert {item.action for item in made_up} == {"folded"}
    assert len(made_up) == stretch.ticks
    assert jobs.run(stretch.id) == stretch


def test_a_missed_row_of_one_instant_is_redriven(start: Callable[[], JobManager], clock: FakeClock) -> None:
    jobs = long_gone(start, clock)
    [missed, *_] = [run for run in jobs.runs("work", "missed", limit=1000) if run.ticks == 1]
    jobs.redrive(missed.id)
    clock.advance()

    again = jobs.run(missed.id)
    assert (again.status, again.scheduled_for) == (RunStatus.SUCCEEDED, missed.scheduled_for)
