"""What becomes of a tick that comes early, late, twice, or by a rule that is over, whichever way it takes into the ledger.

A job that skips on overlap is opened by the guarded insert, and what that refuses is decided under the job's lock; a job that
queues is always decided there. Both must come to the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.tick_source import TickSource

from jobmanager import JobManager, Settings
from jobmanager.testing import FakeClock

START = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)  # half a minute after an instant of the schedule
FIRST = datetime(2026, 3, 1, 12, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def ticks() -> TickSource:
    return TickSource()


@pytest.fixture(params=["skip", "queue", "queue_all", "cancel_running", "allow"])
def overlap(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def another(clock: FakeClock, tmp_path: Path, overlap: Any) -> Iterator[Callable[[TickSource], JobManager]]:
    """Managers as further processes would have them, on the same file."""
    made: list[JobManager] = []

    def make(ticks: TickSource, **options: Any) -> JobManager:
        manager = JobManager(
            Settings(database_url=f"sqlite:///{tmp_path}/jobs.db"), backend=ticks, clock=clock
        )
        manager.add_job("work", lambda: None, cron="* * * * *", overlap=overlap, catch_up="none", **options)
        made.append(manager)
        return manager

    yield make
    for manager in made:
        manager.stop()


@pytest.fixture
def jobs(another: Callable[[TickSource], JobManager], ticks: TickSource) -> JobManager:
    return another(ticks).start()


def rows(jobs: JobManager) -> list[tuple[datetime | None, str, str | None]]:
    return [(run.scheduled_for, str(run.status), run.reason) for run in reversed(jobs.runs("work"))]


def test_a_tick_is_one_run_however_often_it_is_brought(
    jobs: JobManager, clock: FakeClock, ticks: TickSource
) -> None:
    clock.advance_to(FIRST)
    ticks.bring("work", FIRST, FIRST)
    ticks.bring("work", FIRST)

    assert rows(jobs) == [(FIRST, "succeeded", None)]


def test_an_instant_from_before_the_job_was_declared_opens_nothing(
    jobs: JobManager, ticks: TickSource
) -> None:
    """It is on time and of this revision; the watermark alone says that it is nobody's."""
    ticks.bring("work", FIRST - MINUTE)

    assert rows(jobs) == []


def test_a_tick_of_a_schedule_that_is_over_opens_nothing(
    jobs: JobManager, clock: FakeClock, ticks: TickSource, another: Callable[[TickSource], JobManager]
) -> None:
    another(TickSource()).override_job("work", cron="*/5 * * * *")
    clock.step(FIRST - START)
    ticks.bring("work", FIRST)

    assert rows(jobs) == []


def test_a_tick_of_a_schedule_that_is_over_makes_the_process_read_the_new_one(
    jobs: JobManager, clock: FakeClock, ticks: TickSource, another: Callable[[TickSource], JobManager]
) -> None:
    """At once: the clock is set, so that no poll for changes comes in between."""
    another(TickSource()).override_job("work", cron="*/5 * * * *")
    clock.step(FIRST - START)
    before = ticks.revision_of("work")
    ticks.bring("work", FIRST)

    assert (before, ticks.revision_of("work")) == (1, 2)
    assert ticks.synced[0].next_due_at == FIRST + 4 * MINUTE


@pytest.mark.parametrize(
    ("late", "expected"),
    [
        (0, ("succeeded", None)),
        (59, ("succeeded", None)),
        (60, ("missed", "transport")),
        (90, ("missed", "transport")),
    ],
)
def test_a_tick_is_on_time_for_less_than_the_grace(
    jobs: JobManager, clock: FakeClock, ticks: TickSource, late: int, expected: tuple[str, str | None]
) -> None:
    clock.advance_to(FIRST)
    clock.step(late)
    ticks.bring("work", FIRST)

    assert rows(jobs) == [(FIRST, *expected)]


def test_an_early_tick_starts_when_it_is_due(jobs: JobManager, clock: FakeClock, ticks: TickSource) -> None:
    ticks.bring("work", FIRST)
    before = rows(jobs)
    clock.advance_to(FIRST)

    assert before == []
    assert [(run.scheduled_for, run.started_at) for run in jobs.runs("work")] == [(FIRST, FIRST)]


def test_a_tick_of_a_paused_job_opens_nothing(jobs: JobManager, clock: FakeClock, ticks: TickSource) -> None:
    jobs.stop_job("work")
    clock.step(FIRST - START)
    ticks.bring("work", FIRST, revision=ticks.revision_of("work") if ticks.synced else 2)

    assert rows(jobs) == []


@pytest.mark.parametrize(("late", "status"), [(5, "succeeded"), (6, "missed")])
def test_a_tick_past_its_deadline_is_missed_at_once(
    another: Callable[..., JobManager], clock: FakeClock, ticks: TickSource, late: int, status: str
) -> None:
    jobs = another(ticks, start_deadline=5).start()
    clock.advance_to(FIRST)
    clock.step(late)
    ticks.bring("work", FIRST)

    assert rows(jobs) == [(FIRST, status, "deadline" if status == "missed" else None)]
    [run] = jobs.runs("work")
    assert run.finished_at == clock.now()
