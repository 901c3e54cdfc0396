"""Runs in the caller's thread, on noop: what other threads do elsewhere holds there, too."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from jobmanager import JobManager, Retry, RunContext, RunStatus, Settings
from jobmanager.execution import executor
from jobmanager.job import Overlap
from jobmanager.testing import FakeClock

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def jobs(clock: FakeClock) -> Iterator[JobManager]:
    manager = JobManager(Settings(backend="noop", database_url="memory://"), clock=clock)
    yield manager
    manager.stop()


def test_a_handler_that_looks_ends_at_its_timeout(jobs: JobManager, clock: FakeClock) -> None:
    """Fails if noop enforces no timeout: the loop would go on until its own bound."""
    worked: list[int] = []

    @jobs.job("work", timeout=5)
    def work(context: RunContext) -> None:
        for second in context.track(range(60)):
            worked.append(second)
            clock.sleep(1)

    run = jobs.trigger_job("work")

    assert (run.status, run.error and run.error.kind) == (RunStatus.FAILED, "timeout")
    assert worked == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("took", "status"), [(14, RunStatus.SUCCEEDED), (15, RunStatus.FAILED)])
def test_a_handler_that_does_not_look_has_ten_seconds_more(
    jobs: JobManager, clock: FakeClock, took: int, status: RunStatus
) -> None:
    """Fails if a run that other backends end without its handler succeeds on noop."""
    jobs.add_job("work", lambda: clock.sleep(took), timeout=5)

    run = jobs.trigger_job("work")

    assert (run.status, run.error and run.error.kind) == (
        status,
        None if status == "succeeded" else "timeout",
    )


def test_a_timeout_is_followed_by_another_attempt_as_elsewhere(jobs: JobManager, clock: FakeClock) -> None:
    """Fails if the timeout of an inline attempt does not count as a failure that is tried again."""
    attempts: list[int] = []

    @jobs.job("work", timeout=5, retry=Retry(max_attempts=2, delays=[1]))
    def work(context: RunContext) -> None:
        attempts.append(context.attempt)
        if context.attempt == 1:
            clock.sleep(20)

    assert jobs.trigger_job("work").status is RunStatus.SUCCEEDED
    assert attempts == [1, 2]


def test_a_coroutine_that_does_not_look_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a coroutine on noop waits for ever after its timeout."""
    monkeypatch.setattr(executor, "TIMEOUT_GRACE", timedelta(seconds=0.1))
    jobs = JobManager(Settings(backend="noop", database_url="memory://"))

    @jobs.job("work", timeout=0.1)
    async def work() -> None:
        await asyncio.sleep(60)

    run = jobs.trigger_job("work")

    assert (run.status, run.error and run.error.kind) == (RunStatus.FAILED, "timeout")
    jobs.stop()


@pytest.mark.parametrize("started", [False, True])
def test_a_redriven_run_is_executed_with_its_further_attempts(jobs: JobManager, started: bool) -> None:
    """Fails if a redrive on noop stays pending: nobody else would ever take it."""
    broken = [True]

    @jobs.job("work", retry=Retry(max_attempts=2, delays=[30]))
    def work(context: RunContext) -> int:
        if broken[0] or context.attempt % 2:
            raise OSError("no")
        return context.attempt

    if started:
        jobs.start()
    failed = jobs.trigger_job("work")
    assert failed.status is RunStatus.FAILED
    broken[0] = False

    redriven = jobs.redrive(failed.id)

    assert (redriven.status, redriven.output) == (RunStatus.SUCCEEDED, 4)
    assert jobs.redrive_all() == []


def test_a_handler_that_waits_on_a_clock_moved_by_hand_has_what_it_waits_for_executed(
    clock: FakeClock,
) -> None:
    """Fails if the run that a handler started stays pending while its one slot is taken: time would stand still."""
    jobs = JobManager(Settings(database_url="memory://", workers=1), clock=clock)
    jobs.add_job("child", lambda: "done")
    jobs.add_job("parent", lambda: jobs.wait(jobs.trigger_job("child").id).output, every=60)
    with jobs:
        clock.advance(seconds=60)
        assert [run.output for run in jobs.runs("parent")] == ["done"]
        assert jobs._assembly.pool.in_flight == 0


def test_a_job_that_is_declared_after_the_start_gets_its_next_attempt(clock: FakeClock) -> None:
    """Fails if this process claims only the runs of what it had declared when it started."""
    jobs = JobManager(Settings(backend="local", database_url="memory://"), clock=clock)
    jobs.add_job("first", lambda: None)
    tried: list[int] = []

    def fail_once(context: RunContext) -> None:
        tried.append(context.attempt)
        if len(tried) == 1:
            raise ValueError("once")

    with jobs:
        jobs.add_job("later", fail_once, retry=Retry(max_attempts=2, delays=[3]))
        run = jobs.trigger_job("later")
        clock.advance(seconds=4)

        assert tried == [1, 2]
        assert jobs.run(run.id).status == "succeeded"


@pytest.mark.parametrize("overlap", ["skip", "allow", "queue", "queue_all", "cancel_running"])
def test_a_start_by_hand_runs_inline_whatever_the_overlap(overlap: Overlap) -> None:
    jobs = JobManager(Settings(backend="noop", database_url="memory://"))
    jobs.add_job("work", lambda: 7, overlap=overlap)

    assert [jobs.trigger_job("work").output for _ in range(2)] == [7, 7]
    assert jobs.trigger_job("work", delay=60).status == "pending"
