"""What an attempt's end makes of its run: ended early, cut by the end of the process, or by the clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobmanager import CancelRun, JobManager, Retry, RetryLater, Run, RunContext, RunStatus, Settings
from jobmanager.errors import HandlerNotFoundError
from jobmanager.testing import FakeClock

PATIENCE = 30.0


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobManager]:
    manager = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db"))
    yield manager
    manager.stop(drain=0)


# ---------------------------------------------------------------- cancelled


class Asked:
    """A handler that is inside while a cancel is requested, and then does as it is told."""

    def __init__(self, jobs: JobManager, then: Callable[[RunContext], Any]) -> None:
        self.inside, self.asked = threading.Event(), threading.Event()
        self.jobs, self.then = jobs, then
        self.calls = 0
        jobs.add_job("work", self.work, retry=Retry(max_attempts=3, delays=[0], jitter=0))
        jobs.start()

    def work(self, context: RunContext) -> Any:
        self.calls += 1
        self.inside.set()
        assert self.asked.wait(PATIENCE)
        return self.then(context)

    def end(self) -> Run:
        run = self.jobs.trigger_job("work")
        assert self.inside.wait(PATIENCE)
        self.jobs.cancel(run.id)
        self.asked.set()
        return self.jobs.wait(run.id)


def returned_unseen(_context: RunContext) -> str:
    return "done"


def returned_seen(context: RunContext) -> str:
    return f"half of it, {context.cancelled}"


def raised_if_cancelled(context: RunContext) -> None:
    context.raise_if_cancelled()


def raised_otherwise(_context: RunContext) -> None:
    raise OSError("the connection went with it")


def raised_retry_later(_context: RunContext) -> None:
    raise RetryLater(0)


def raised_cancel_run(_context: RunContext) -> None:
    raise CancelRun("had enough")


@pytest.mark.parametrize(
    ("then", "status", "reason", "error"),
    [
        (returned_unseen, RunStatus.SUCCEEDED, None, None),
        (returned_seen, RunStatus.CANCELLED, "requested", None),
        (raised_if_cancelled, RunStatus.CANCELLED, "requested", None),
        (raised_otherwise, RunStatus.CANCELLED, "requested", "OSError"),
        (raised_retry_later, RunStatus.CANCELLED, "requested", "RetryLater"),
        (raised_cancel_run, RunStatus.CANCELLED, "handler", "CancelRun"),
    ],
)
def test_what_becomes_of_a_run_that_was_asked_to_end(
    jobs: JobManager,
    then: Callable[[RunContext], Any],
    status: RunStatus,
    reason: str | None,
    error: str | None,
) -> None:
    """docs/internals/ledger.md: it counts whether the handler saw the request, and no further attempt follows."""
    asked = Asked(jobs, then)
    run = asked.end()

    assert (run.status, run.reason, run.error and run.error.type) == (status, reason, error)
    assert asked.calls == 1


# ---------------------------------------------------------------- cut


@pytest.mark.parametrize(
    ("retry", "after"),
    [
        (Retry(max_attempts=1), RunStatus.FAILED),
        (Retry(max_attempts=2), RunStatus.PENDING),
        (Retry(max_attempts=2, on_crash=False), RunStatus.FAILED),
        (Retry(max_attempts=2, give_up_on=(Exception,)), RunStatus.PENDING),
    ],
)
def test_a_run_that_the_end_of_the_process_cuts_goes_on_elsewhere_if_it_may(
    jobs: JobManager, retry: Retry, after: RunStatus
) -> None:
    inside, let_out = threading.Event(), threading.Event()

    @jobs.job("work", retry=retry)
    def work() -> None:
        inside.set()
        let_out.wait(PATIENCE)

    jobs.start()
    run = jobs.trigger_job("work")
    assert inside.wait(PATIENCE)
    jobs.stop(drain=0.05)
    let_out.set()

    [error] = [attempt.error for attempt in jobs.store.history.attempts(run.id)] or [jobs.run(run.id).error]
    assert jobs.run(run.id).status is after
    assert error is not None
    assert error.kind == "shutdown"


class Interrupted:
    """A job whose handler goes through items until it is told to stop, and a process that stops."""

    def __init__(self, jobs: JobManager, retry: Retry, way: str = "track") -> None:
        self.jobs = jobs
        self.inside = threading.Event()
        self.asked_at: list[float] = []

        @jobs.job("work", retry=retry)
        def work(context: RunContext) -> None:
            self.inside.set()
            if way == "track":
                for _ in context.track(range(100_000)):
                    time.sleep(0.001)
            if way == "returns":
                while not context.cancelled:
                    time.sleep(0.001)
                return
            until(lambda: context._state.stop)
            raise OSError("its own")

    def stop(self, drain: float = 0.3) -> Run:
        self.inside.clear()
        self.jobs.start()
        [run] = self.jobs.runs("work", ["pending", "running"]) or [self.jobs.trigger_job("work")]
        assert self.inside.wait(PATIENCE)
        self.jobs.stop(drain=drain)
        return self.jobs.run(run.id)


@pytest.mark.parametrize("way", ["track", "returns"])
def test_a_handler_that_saw_the_shutdown_goes_back_to_pending_and_uses_no_attempt(
    jobs: JobManager, way: str
) -> None:
    """Fails if a deployment turns a cooperative handler into a dead letter with one attempt."""
    work = Interrupted(jobs, Retry(), way)

    run = work.stop()

    assert (run.status, run.reason, run.next_attempt) == (RunStatus.PENDING, "shutdown", 1)
    [attempt] = jobs.store.history.attempts(run.id)
    assert (attempt.outcome, attempt.error and attempt.error.kind) == ("shutdown", "shutdown")
    assert jobs.dead_letters() == []


@pytest.mark.slow
def test_after_ten_interruptions_the_eleventh_counts_as_a_crash(jobs: JobManager) -> None:
    """Fails if a run that never ends within a drain goes round for ever, or fewer are forgiven."""
    work = Interrupted(jobs, Retry())

    assert {work.stop().status for _ in range(10)} == {RunStatus.PENDING}
    run = work.stop()

    assert (run.status, run.error and run.error.kind, run.attempt) == (RunStatus.FAILED, "shutdown", 1)


def test_without_on_shutdown_an_interruption_counts_as_a_crash(jobs: JobManager) -> None:
    """Fails if Retry.on_shutdown is not read."""
    run = Interrupted(jobs, Retry(on_shutdown=False)).stop()

    assert (run.status, run.error and run.error.kind) == (RunStatus.FAILED, "shutdown")


def test_a_handler_that_failed_by_itself_during_the_drain_has_failed(jobs: JobManager) -> None:
    """Fails if its own error is taken for the shutdown, which it had not seen."""
    run = Interrupted(jobs, Retry(), "fails").stop()

    assert (run.status, run.error and run.error.kind) == (RunStatus.FAILED, "exception")


def test_work_goes_on_until_a_third_of_the_drain_is_left(jobs: JobManager) -> None:
    """Fails if the handler is told at the beginning of the drain: nothing would ever end in it."""
    inside = threading.Event()
    stopping: list[float] = []

    @jobs.job("work")
    def work(context: RunContext) -> float:
        inside.set()
        until(lambda: context.cancelled)
        stopping.append(time.monotonic())
        raise OSError("stopped")

    jobs.start()
    jobs.trigger_job("work")
    assert inside.wait(PATIENCE)
    began = time.monotonic()
    jobs.stop(drain=3)

    assert stopping[0] - began >= 2


def test_the_last_attempt_that_the_end_of_the_process_cuts_is_the_last(jobs: JobManager) -> None:
    inside, let_out = threading.Event(), threading.Event()

    @jobs.job("work", retry=Retry(max_attempts=2, delays=[0], jitter=0))
    def work(context: RunContext) -> None:
        if context.attempt == 1:
            raise OSError("no")
        inside.set()
        let_out.wait(PATIENCE)

    jobs.start()
    run = jobs.trigger_job("work")
    assert inside.wait(PATIENCE)
    jobs.stop(drain=0.05)
    let_out.set()

    assert (jobs.run(run.id).status, jobs.run(run.id).attempt) == (RunStatus.FAILED, 2)


@pytest.mark.parametrize(("most", "status"), [(1, RunStatus.FAILED), (2, RunStatus.SUCCEEDED)])
def test_a_handler_over_its_timeout_is_tried_again_if_attempts_remain(
    jobs: JobManager, most: int, status: RunStatus
) -> None:
    @jobs.job("work", timeout=0.05, retry=Retry(max_attempts=most, delays=[0], jitter=0))
    def work(context: RunContext) -> None:
        if context.attempt == 1:
            until(lambda: context.cancelled)
            context.raise_if_cancelled()

    jobs.start()
    run = jobs.wait(jobs.trigger_job("work").id)

    assert (run.status, run.attempt) == (status, most)
    error = run.error if most == 1 else jobs.store.history.attempts(run.id)[0].error
    assert error is not None
    assert (error.kind, error.message) == ("timeout", "no end after 0.05 s")


# ---------------------------------------------------------------- recorded


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def inline(clock: FakeClock) -> Iterator[JobManager]:
    """On a clock moved by hand, where a start by hand returns the ended run."""
    manager = JobManager(Settings(database_url="memory://"), clock=clock)
    yield manager.start()
    manager.stop()


@pytest.mark.parametrize("step", [timedelta(hours=1), -timedelta(hours=1)])
def test_a_run_takes_as_long_as_it_takes_though_the_clock_is_set_meanwhile(
    inline: JobManager, clock: FakeClock, step: timedelta
) -> None:
    @inline.job("work")
    def work() -> None:
        clock.sleep(3)
        clock.step(step)

    run = inline.trigger_job("work")

    assert run.duration == timedelta(seconds=3)


def test_the_progress_of_a_failed_attempt_is_on_record(inline: JobManager) -> None:
    @inline.job("work")
    def work(context: RunContext) -> None:
        context.progress(2, 5, "rows")
        raise OSError("no")

    run = inline.trigger_job("work")

    assert run.progress is not None
    assert (run.progress.processed, run.progress.total, run.progress.message) == (2, 5, "rows")


@pytest.mark.parametrize(
    ("declared", "payload", "kind"),
    [("no_such_module:function", None, "handler_missing"), ("os.path:basename", {"q": 1}, "payload_invalid")],
)
def test_what_cannot_be_called_is_not_tried_again(
    inline: JobManager, declared: str, payload: dict[str, Any] | None, kind: str
) -> None:
    inline.add_job("work", declared, retry=Retry(max_attempts=3, delays=[0], jitter=0))

    run = inline.trigger_job("work", payload)

    assert run.error is not None
    assert (run.status, run.attempt, run.error.kind, run.error.traceback) == (RunStatus.FAILED, 1, kind, "")


def test_a_handler_that_finds_no_handler_is_not_tried_again(inline: JobManager) -> None:
    @inline.job("work", retry=Retry(max_attempts=3, delays=[0], jitter=0))
    def work() -> None:
        raise HandlerNotFoundError("the plugin is not installed")

    run = inline.trigger_job("work")

    assert run.error is not None
    assert (run.status, run.attempt, run.error.kind) == (RunStatus.FAILED, 1, "handler_missing")
