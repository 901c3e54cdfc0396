"""The life of a run, from trigger to recorded outcome, on a real SQLite file with real threads."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobmanager import (
    CancelRun,
    JobManager,
    NonRetryable,
    Retry,
    RetryLater,
    RunConflictError,
    RunContext,
    RunStatus,
    Settings,
)
from jobmanager.errors import ConfigurationError, DuplicateJobError, PayloadError, WaitTimeoutError


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobManager]:
    manager = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db", drain_seconds=0.5))
    yield manager
    manager.stop()


def ended(jobs: JobManager, job_id: str, payload: dict[str, Any] | None = None, **how: Any) -> Any:
    jobs.start()
    return jobs.wait(jobs.trigger_job(job_id, payload, **how).id, timeout=15)


def test_what_a_handler_returns_reports_and_logs_is_on_record(jobs: JobManager) -> None:
    @jobs.job("report", config={"count": 2})
    def report(context: RunContext, count: int) -> dict[str, int]:
        for _ in context.track(range(count), message="rows"):
            context.log.info("one of %d", count)
        logging.getLogger("application").warning("careful")
        return {"count": count}

    run = ended(jobs, "report", {"count": "3"}, requested_by="ana")

    assert (run.status, run.output, run.attempt, run.requested_by) == (
        RunStatus.SUCCEEDED,
        {"count": 3},
        1,
        "ana",
    )
    assert run.progress is not None
    assert (run.progress.processed, run.progress.total, run.progress.message) == (3, 3, "rows")
    assert run.duration is not None
    assert run.duration >= timedelta(0)
    lines = [line.text for _, _, line in jobs.store.history.lines(run.id)]
    assert lines == ["one of 3"] * 3 + ["careful"]


def test_a_coroutine_handler_runs_and_its_lines_are_its_own(jobs: JobManager) -> None:
    @jobs.job("first")
    @jobs.job("second")
    async def both(context: RunContext) -> str:
        await asyncio.sleep(0.05)
        context.log.info("from %s", context.job.id)
        return context.job.id

    jobs.start()
    runs = [jobs.wait(run.id) for run in [jobs.trigger_job("first"), jobs.trigger_job("second")]]

    assert [run.output for run in runs] == ["first", "second"]
    for run in runs:
        assert [line.text for _, _, line in jobs.store.history.lines(run.id)] == [f"from {run.job_id}"]


def test_a_raised_error_is_recorded_with_its_traceback_and_without_secrets(
    jobs: JobManager, caplog: pytest.LogCaptureFixture
) -> None:
    @jobs.job("broken")
    def broken(context: RunContext) -> None:
        context.log.info("api_key=abc+/=~:def")
        raise LookupError("no row for password=hunter2")

    run = ended(jobs, "broken")

    assert run.status is RunStatus.FAILED
    assert (run.error.kind, run.error.type, run.error.message) == (
        "exception",
        "LookupError",
        "no row for password=[redacted]",
    )
    assert 'raise LookupError("no row' in run.error.traceback
    assert "jobmanager/execution/" not in run.error.traceback
    assert (
        "hunter2"
        not in f"{run} {[r.getMessage() for r in caplog.records if r.name.startswith('jobmanager')]}"
    )
    assert [line.text for _, _, line in jobs.store.history.lines(run.id)] == ["api_key=[redacted]"]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), BaseException("odd")])
def test_nothing_a_handler_raises_ends_the_process_or_its_worker(
    jobs: JobManager, error: BaseException
) -> None:
    @jobs.job("wild", overlap="allow")
    def wild() -> None:
        raise error

    @jobs.job("wild-coroutine")
    async def wild_coroutine() -> None:
        raise error

    for job_id in ("wild", "wild", "wild-coroutine"):
        run = ended(jobs, job_id)
        assert (run.status, run.error.type) == (RunStatus.FAILED, type(error).__name__)


def test_failed_attempts_are_repeated_and_each_is_on_record(jobs: JobManager) -> None:
    seen: list[int] = []

    @jobs.job("flaky", retry=Retry(max_attempts=3, delays=[0.05], jitter=0))
    def flaky(context: RunContext) -> str:
        seen.append(context.attempt)
        if context.attempt < 3:
            raise OSError(f"try {context.attempt}")
        return "at last"

    run = ended(jobs, "flaky")

    assert seen == [1, 2, 3]
    assert (run.status, run.attempt, run.output) == (RunStatus.SUCCEEDED, 3, "at last")
    attempts = jobs.store.history.attempts(run.id)
    assert [(a.attempt, a.outcome, a.error and a.error.message) for a in attempts] == [
        (1, "failed", "try 1"),
        (2, "failed", "try 2"),
    ]


def test_a_start_has_attempts_of_its_own(jobs: JobManager) -> None:
    """Fails if an attempt asks the job how many there are, and not the run."""

    @jobs.job("flaky", retry=Retry(max_attempts=1, delays=[0.02], jitter=0))
    def flaky() -> None:
        raise OSError("no")

    once, thrice = ended(jobs, "flaky"), ended(jobs, "flaky", max_attempts=3)

    assert [(run.status, run.attempt) for run in (once, thrice)] == [
        (RunStatus.FAILED, 1),
        (RunStatus.FAILED, 3),
    ]


def test_attempts_are_counted_once_and_end_as_failed(jobs: JobManager) -> None:
    calls: list[int] = []

    @jobs.job("hopeless", retry=Retry(max_attempts=3, delays=[0.01]))
    async def hopeless(context: RunContext) -> None:
        calls.append(context.attempt)
        raise ValueError("no")

    run = ended(jobs, "hopeless")

    assert (calls, run.status, run.attempt) == ([1, 2, 3], RunStatus.FAILED, 3)


def test_the_steering_words(jobs: JobManager) -> None:
    @jobs.job("later", retry=Retry(max_attempts=2, delays=[60]))
    def later(context: RunContext) -> int:
        if context.attempt == 1:
            raise RetryLater(0.05, "not ready")
        return context.attempt

    @jobs.job("cancels", retry=Retry(max_attempts=5, delays=[0.01]))
    def cancels() -> None:
        raise CancelRun("nothing to do today")

    @jobs.job("final", retry=Retry(max_attempts=5, delays=[0.01]))
    def final() -> None:
        raise NonRetryable("the customer is gone")

    @jobs.job("gives-up", retry=Retry(max_attempts=5, delays=[0.01], give_up_on=(KeyError,)))
    def gives_up() -> None:
        raise KeyError("x")

    assert ended(jobs, "later").output == 2
    cancelled = ended(jobs, "cancels")
    assert (cancelled.status, cancelled.reason, cancelled.error.message) == (
        RunStatus.CANCELLED,
        "handler",
        "nothing to do today",
    )
    assert [(run.status, run.attempt) for run in (ended(jobs, "final"), ended(jobs, "gives-up"))] == [
        (RunStatus.FAILED, 1),
        (RunStatus.FAILED, 1),
    ]


def test_a_handler_that_cannot_be_imported_fails_its_run_as_handler_missing(jobs: JobManager) -> None:
    jobs.add_job("gone", "no_such_module:function")

    run = ended(jobs, "gone")

    assert (run.status, run.error.kind) == (RunStatus.FAILED, "handler_missing")
    assert "no_such_module" in run.error.message


def test_a_lazy_handler_is_imported_on_its_first_run(jobs: JobManager) -> None:
    jobs.add_job("lazy", "os.path:basename")

    assert ended(jobs, "lazy", {"p": "/a/b"}).output == "b"


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ({"dayz": 1}, "Did you mean 'days'"),
        ({"days": "many"}, "days='many'"),
        ({}, "needs days"),
        ({"days": object()}, "not JSON"),
        ({"days": 1, "blob": "x" * 70_000}, "64 KiB"),
        ({"days": float("nan")}, "not JSON"),
    ],
)
def test_a_payload_that_does_not_fit_is_refused_before_anything_is_written(
    jobs: JobManager, payload: dict[str, Any], says: str
) -> None:
    @jobs.job("typed")
    def typed(days: int, blob: str = "") -> None: ...

    jobs.start()
    with pytest.raises(PayloadError, match=says):
        jobs.trigger_job("typed", payload)
    assert jobs.runs() == []


def test_output_that_is_not_json_or_too_large_is_clipped_and_the_run_still_succeeds(jobs: JobManager) -> None:
    @jobs.job("odd", overlap="allow")
    def odd(kind: str) -> Any:
        return object() if kind == "object" else "x" * 200_000

    strange, large = ended(jobs, "odd", {"kind": "object"}), ended(jobs, "odd", {"kind": "large"})

    assert strange.status is large.status is RunStatus.SUCCEEDED
    assert "not_json" in strange.output
    assert "more than 64 KiB" in large.output["clipped"]


def test_an_active_run_refuses_a_second_start_and_names_itself(jobs: JobManager) -> None:
    go, started = threading.Event(), threading.Event()

    @jobs.job("single")
    def single() -> None:
        started.set()
        go.wait(10)

    jobs.start()
    first = jobs.trigger_job("single")
    assert started.wait(5)
    with pytest.raises(RunConflictError) as conflict:
        jobs.trigger_job("single")
    other = jobs.trigger_job("single", scope="tenant-7")
    go.set()

    assert conflict.value.run_id == first.id
    assert jobs.wait(other.id).scope == "tenant-7"
    jobs.wait(first.id)
    assert jobs.wait(jobs.trigger_job("single").id).status is RunStatus.SUCCEEDED


def test_the_same_key_answers_with_the_same_run(jobs: JobManager) -> None:
    @jobs.job("once")
    def once() -> None: ...

    first = ended(jobs, "once", key="order-7")

    assert ended(jobs, "once", key="order-7").id == first.id
    assert ended(jobs, "once", key="order-8").id != first.id
    assert first.idempotency_key == "order-7"


def test_a_delayed_run_starts_when_it_is_due_and_blocks_nobody_before(jobs: JobManager) -> None:
    @jobs.job("nightly")
    def nightly() -> None: ...

    jobs.start()
    asked = datetime.now(UTC)
    delayed = jobs.trigger_job("nightly", delay=0.4)
    between = jobs.wait(jobs.trigger_job("nightly").id)
    run = jobs.wait(delayed.id)

    assert delayed.status is RunStatus.PENDING
    assert between.status is run.status is RunStatus.SUCCEEDED
    assert run.started_at >= asked + timedelta(seconds=0.4)


def test_a_cooperative_handler_ends_as_cancelled_when_asked_from_another_process(
    jobs: JobManager, tmp_path: Path
) -> None:
    started = threading.Event()

    @jobs.job("long")
    def long(context: RunContext) -> None:
        started.set()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            context.raise_if_cancelled()
            time.sleep(0.01)

    jobs.start()
    run = jobs.trigger_job("long")
    assert started.wait(5)
    elsewhere = JobManager(jobs.settings)
    asked = elsewhere.cancel(run.id)

    assert asked.cancel_requested_at is not None
    after = jobs.wait(run.id)
    assert (after.status, after.reason, after.error) == (RunStatus.CANCELLED, "requested", None)


def test_a_pending_run_is_cancelled_at_once(jobs: JobManager) -> None:
    @jobs.job("soon")
    def soon() -> None: ...

    jobs.start()
    run = jobs.cancel(jobs.trigger_job("soon", delay=60).id)

    assert (run.status, run.reason) == (RunStatus.CANCELLED, "requested")


def test_a_handler_over_its_timeout_is_asked_to_end_and_fails_with_kind_timeout(jobs: JobManager) -> None:
    @jobs.job("slow", timeout=0.2)
    def slow(context: RunContext) -> None:
        while not context.cancelled:
            time.sleep(0.01)

    run = ended(jobs, "slow")

    assert (run.status, run.error.kind, run.error.message) == (
        RunStatus.FAILED,
        "timeout",
        "no end after 0.2 s",
    )


def test_a_thread_that_ignores_its_timeout_is_let_go_and_its_late_end_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("jobmanager.execution.supervisor.TIMEOUT_GRACE", timedelta(seconds=0.2))
    jobs = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db", workers=1))
    release = threading.Event()

    @jobs.job("deaf", timeout=0.1)
    def deaf() -> str:
        release.wait(20)
        return "too late"

    @jobs.job("next")
    def after() -> None: ...

    run = ended(jobs, "deaf")
    other = ended(jobs, "next")
    release.set()

    assert (run.status, run.error.kind) == (RunStatus.FAILED, "timeout")
    assert other.status is RunStatus.SUCCEEDED
    deadline = time.monotonic() + 5
    while "late writer refused" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "late writer refused" in caplog.text
    assert jobs.run(run.id) == run
    jobs.stop()


def test_a_coroutine_that_ignores_its_timeout_is_cancelled(
    jobs: JobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobmanager.execution.supervisor.TIMEOUT_GRACE", timedelta(seconds=0.1))

    @jobs.job("sleeper", timeout=0.1)
    async def sleeper() -> None:
        await asyncio.sleep(30)

    run = ended(jobs, "sleeper")

    assert (run.status, run.error.kind) == (RunStatus.FAILED, "timeout")


def test_what_did_not_end_while_draining_is_recorded_as_failed_shutdown(jobs: JobManager) -> None:
    started, release = threading.Event(), threading.Event()

    @jobs.job("stubborn")
    def stubborn() -> None:
        started.set()
        release.wait(20)

    jobs.start()
    run = jobs.trigger_job("stubborn")
    assert started.wait(5)
    jobs.stop(drain=0.1)
    release.set()

    after = jobs.run(run.id)
    assert (after.status, after.error.kind) == (RunStatus.FAILED, "shutdown")
    assert jobs.store.processes.living() == []


def test_without_start_a_triggered_run_waits_for_a_process_that_is_started(jobs: JobManager) -> None:
    @jobs.job("wanted")
    def wanted() -> str:
        return "done"

    run = jobs.trigger_job("wanted")
    with pytest.raises(WaitTimeoutError):
        jobs.wait(run.id, timeout=0.05)
    jobs.start()

    assert run.status is RunStatus.PENDING
    assert jobs.wait(run.id).output == "done"


def test_on_noop_a_start_by_hand_runs_inline_and_comes_back_ended() -> None:
    jobs = JobManager(Settings(database_url="memory://", backend="noop"))

    @jobs.job("inline", every=1)
    def inline(word: str = "x") -> str:
        return word

    @jobs.job("inline-coroutine")
    async def inline_coroutine() -> str:
        return "y"

    assert jobs.trigger_job("inline", {"word": "hello"}).output == "hello"
    assert jobs.trigger_job("inline-coroutine").output == "y"
    status = jobs.get_job_status("inline")
    assert status is not None
    assert (status.status, status.next_run) == ("stopped", None)  # nothing fires it
    assert status.last_run is not None


def test_a_declaration_that_cannot_work_is_refused_at_once(jobs: JobManager) -> None:
    @jobs.job("taken", every=5)
    def taken() -> None: ...

    jobs.add_job("taken", taken, every=5)
    for refused, error in (
        (lambda: jobs.add_job("taken", taken, every=6), DuplicateJobError),
        (lambda: jobs.add_job("taken", lambda: None, every=5), DuplicateJobError),
        (lambda: jobs.add_job("Not A Slug", taken), ConfigurationError),
        (lambda: jobs.add_job("two", taken, every=5, cron="* * * * *"), ConfigurationError),
        (lambda: jobs.add_job("typo", taken, evry=5), ConfigurationError),
        (lambda: jobs.add_job("never", taken, cron="0 0 31 2 *"), ValueError),
        (lambda: jobs.add_job("apart", taken, isolation="container"), ConfigurationError),
    ):
        with pytest.raises(error):
            refused()
    assert list(jobs.registry.jobs) == ["taken"]


def test_a_config_or_handler_that_does_not_fit_is_refused_at_start(jobs: JobManager) -> None:
    jobs.add_job("orphan", "nobody")
    with pytest.raises(ConfigurationError, match="nobody"):
        jobs.start()


def test_config_that_the_handler_does_not_take_is_refused_at_start(jobs: JobManager) -> None:
    @jobs.job("typed", config={"dayz": 3})
    def typed(days: int = 30) -> None: ...

    with pytest.raises(ConfigurationError, match="Did you mean 'days'"):
        jobs.start()


def test_on_noop_failed_attempts_follow_at_once_and_the_run_comes_back_ended() -> None:
    jobs = JobManager(Settings(database_url="memory://", backend="noop"))

    @jobs.job("flaky", retry=Retry(max_attempts=3, delays=[0.01]))
    def flaky(context: RunContext) -> int:
        if context.attempt < 3:
            raise OSError("not yet")
        return context.attempt

    run = jobs.trigger_job("flaky")

    assert (run.status, run.output) == (RunStatus.SUCCEEDED, 3)
    assert jobs.trigger_job("flaky", delay=60).status is RunStatus.PENDING


def test_without_capture_no_line_is_kept_and_a_wrong_format_string_hurts_nobody(tmp_path: Path) -> None:
    for capture, kept in ((True, ["wrong %d ('x',)"]), (False, [])):
        jobs = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/{capture}.db", capture_logs=capture))

        @jobs.job("talks")
        def talks(context: RunContext) -> None:
            logging.raiseExceptions = False
            context.log.info("wrong %d", "x")

        run = ended(jobs, "talks")
        jobs.stop()
        logging.raiseExceptions = True

        assert run.status is RunStatus.SUCCEEDED
        assert [line.text for _, _, line in jobs.store.history.lines(run.id)] == kept


def test_status_says_running_while_its_ticks_are_skipped_and_failed_after_the_failure(
    jobs: JobManager,
) -> None:
    started, release = threading.Event(), threading.Event()

    @jobs.job("long", every=1)
    def long() -> None:
        started.set()
        release.wait(20)
        raise OSError("in the end")

    jobs.start()
    assert started.wait(5)
    deadline = time.monotonic() + 10
    while not jobs.runs("long", "skipped"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    during = jobs.get_job_status("long")
    jobs.stop_job("long")
    release.set()
    jobs.wait(jobs.runs("long", ["running", "failed"])[-1].id)
    jobs.resume_job("long")
    after = jobs.get_job_status("long")

    assert during is not None
    assert during.status == "running"
    assert after is not None
    assert after.status in ("failed", "running")


def test_a_job_declared_after_start_is_known_to_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(database_url=f"sqlite:///{tmp_path}/jobs.db", grace_seconds=0.2)
    first, second = JobManager(settings), JobManager(settings)
    second.add_job("other", lambda: None)
    with first:
        first.schedule_job("late", "Late", lambda: None, 3600)
        with second:
            deadline = time.monotonic() + 1
            while time.monotonic() < deadline and "declared by no living" not in caplog.text:
                time.sleep(0.02)
            row = first.store.jobs.get("late")

    assert row is not None
    assert row.state == "active"
