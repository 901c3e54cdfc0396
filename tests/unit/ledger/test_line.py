"""Who is next: a newcomer that finds the key free and others waiting for it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.tick_source import TickSource

from jobmanager import JobManager, Run, RunConflictError, RunContext, RunStatus, Settings
from jobmanager.testing import FakeClock

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class Line:
    """A job of which a run waits for its key, due, with nobody holding it, and no process looking yet."""

    def __init__(self) -> None:
        self.clock = FakeClock(START)
        self.ticks = TickSource()
        self.jobs = JobManager(Settings(database_url="memory://"), backend=self.ticks, clock=self.clock)
        self.order: list[str] = []

    def waiting(self, overlap: Any, *, count: int = 1, **options: Any) -> list[Run]:
        def work(context: RunContext) -> None:
            self.order.append(context.run_id)

        self.jobs.add_job("work", work, overlap=overlap, cron="* * * * *", **options)
        self.jobs.start()
        runs = [self.jobs.trigger_job("work", delay=30 + place) for place in range(count)]
        self.clock.step(MINUTE)  # a step wakes nobody
        return runs

    def run(self, run: Run) -> Run:
        return self.jobs.run(run.id)


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    line.jobs.stop()


def test_a_newcomer_of_queue_all_goes_behind_those_that_wait(line: Line) -> None:
    waiting = line.waiting("queue_all", count=3)
    newcomer = line.jobs.trigger_job("work")
    line.clock.advance()

    assert line.order == [run.id for run in [*waiting, newcomer]]


def test_a_newcomer_of_queue_is_refused_for_the_one_that_waits(line: Line) -> None:
    [waiting] = line.waiting("queue")
    with pytest.raises(RunConflictError) as conflict:
        line.jobs.trigger_job("work")
    line.clock.advance()

    assert conflict.value.run_id == waiting.id
    assert line.order == [waiting.id]


def test_a_tick_of_queue_is_skipped_for_the_one_that_waits(line: Line) -> None:
    [waiting] = line.waiting("queue")
    line.ticks.bring("work", START + MINUTE)
    line.clock.advance()

    [tick] = [run for run in line.jobs.runs("work") if run.scheduled_for]
    assert (tick.status, tick.reason, tick.blocked_by) == (RunStatus.SKIPPED, "overlap", waiting.id)
    assert line.order == [waiting.id]


def test_a_tick_of_queue_all_goes_behind_those_that_wait(line: Line) -> None:
    waiting = line.waiting("queue_all", count=2)
    line.ticks.bring("work", START + MINUTE)
    line.clock.advance()

    assert line.order[:2] == [run.id for run in waiting]
    assert len(line.order) == 3


def test_no_more_wait_than_the_cap_though_nobody_holds_the_key(line: Line) -> None:
    waiting = line.waiting("queue_all", count=2, queue_cap=2)
    with pytest.raises(RunConflictError) as conflict:
        line.jobs.trigger_job("work")
    line.clock.advance()

    assert conflict.value.run_id == waiting[0].id
    assert line.order == [run.id for run in waiting]


def test_a_newcomer_of_cancel_running_takes_the_place_of_all_that_wait(line: Line) -> None:
    waiting = line.waiting("cancel_running", count=2)
    newcomer = line.jobs.trigger_job("work")
    line.clock.advance()

    assert [(line.run(run).status, line.run(run).reason) for run in waiting] == [
        (RunStatus.CANCELLED, "superseded")
    ] * 2
    assert line.order == [newcomer.id]


def test_under_allow_nobody_waits_for_anybody(line: Line) -> None:
    [delayed] = line.waiting("allow")
    newcomer = line.jobs.trigger_job("work")
    line.clock.advance()

    assert sorted(line.order) == sorted([delayed.id, newcomer.id])
