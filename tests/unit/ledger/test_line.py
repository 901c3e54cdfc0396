"""Who is next: a newcomer that finds the key free and others waiting for it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.tick_source import TickSource

from jobmanager import JobManager, Retry, Run, RunConflictError, RunContext, RunStatus, Settings
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


# ---------------------------------------------------------------- a holder


def met(overlap: Any, **options: Any) -> tuple[Line, list[str], list[str]]:
    """What three starts by hand meet while the job's handler runs: `opened`, or the id of the run in the way; and the ids."""
    line = Line()
    found: list[str] = []
    opened: list[str] = []

    def work(context: RunContext) -> None:
        line.order.append(context.run_id)
        while context.run_id == line.order[0] and len(found) < 3:
            try:
                opened.append(line.jobs.trigger_job("work").id)
                found.append("opened")
            except RunConflictError as conflict:
                found.append(conflict.run_id)

    line.jobs.add_job("work", work, overlap=overlap, **options)
    line.jobs.start()
    line.jobs.trigger_job("work")
    line.clock.advance()
    line.jobs.stop()
    return line, found, opened


def test_under_skip_a_newcomer_is_refused_for_the_holder_and_leaves_no_row() -> None:
    line, found, _ = met("skip")

    assert found == [line.order[0]] * 3
    assert [run.id for run in line.jobs.runs("work")] == line.order


def test_under_queue_one_waits_and_the_next_is_refused_for_it() -> None:
    line, found, opened = met("queue")

    assert found == ["opened", opened[0], opened[0]]
    assert line.order[1:] == opened


def test_under_queue_all_the_newcomer_beyond_the_cap_is_refused_for_the_holder() -> None:
    line, found, opened = met("queue_all", queue_cap=1)

    assert found == ["opened", line.order[0], line.order[0]]
    assert line.order[1:] == opened


def test_a_newcomer_of_cancel_running_takes_the_place_of_a_holder_between_two_attempts() -> None:
    line = Line()

    def work(context: RunContext) -> None:
        line.order.append(context.run_id)
        if context.run_id == line.order[0]:
            raise OSError("no")

    line.jobs.add_job("work", work, overlap="cancel_running", retry=Retry(max_attempts=3, delays=[600]))
    line.jobs.start()
    failed = line.jobs.trigger_job("work")
    between = line.run(failed)
    newcomer = line.jobs.trigger_job("work")
    line.clock.advance(hours=1)
    line.jobs.stop()

    assert (between.status, between.attempt) == (RunStatus.PENDING, 1)
    assert (line.run(failed).status, line.run(failed).reason) == (RunStatus.CANCELLED, "superseded")
    assert line.order == [failed.id, newcomer.id]


@pytest.mark.parametrize("overlap", ["skip", "queue", "queue_all", "cancel_running"])
def test_a_run_between_two_attempts_keeps_its_key(overlap: Any) -> None:
    """Its next attempt comes before whatever was queued behind it."""
    line = Line()

    def work(context: RunContext) -> None:
        line.order.append(context.run_id)
        if len(line.order) == 1:
            raise OSError("no")

    line.jobs.add_job(
        "work", work, overlap=overlap, cron="* * * * *", retry=Retry(max_attempts=2, delays=[90], jitter=0)
    )
    line.jobs.start()
    failed = line.jobs.trigger_job("work")
    line.clock.step(MINUTE)
    line.ticks.bring("work", START + MINUTE)
    line.clock.advance(minutes=1)
    line.jobs.stop()

    [tick] = [run for run in line.jobs.runs("work") if run.scheduled_for == START + MINUTE]
    fate = {"skip": RunStatus.SKIPPED}.get(overlap, RunStatus.SUCCEEDED)
    order = {
        "skip": [failed.id, failed.id],
        "cancel_running": [failed.id, tick.id],
    }.get(overlap, [failed.id, failed.id, tick.id])
    assert tick.status is fate
    assert line.order == order
    assert tick.blocked_by == (failed.id if overlap == "skip" else None)
