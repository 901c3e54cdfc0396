"""Judge how an attempt ended: one table, from what the handler did to how its run goes on (docs/internals/ledger.md#outcome-of-an-attempt)."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NoReturn

from jobmanager.cheap import cheap
from jobmanager.clock import Clock, later
from jobmanager.context import AttemptState, CancelCause
from jobmanager.errors import (
    CancelRun,
    HandlerNotFoundError,
    JobManagerError,
    PayloadError,
    RetryLater,
    RunCancelledError,
    StepsChangedError,
    WebhookError,
)
from jobmanager.execution.failures import failure
from jobmanager.job import Retry
from jobmanager.ledger.bounding import text_of
from jobmanager.run import (
    CANCELLED,
    FAILED,
    INTERRUPTED,
    RETURNED,
    SUCCEEDED,
    Ending,
    ErrorKind,
    Failure,
    Run,
    RunStatus,
)
from jobmanager.step import Suspension

TIMEOUT_GRACE = timedelta(seconds=10)
"""How long a handler may go on after its timeout before its run is ended without it."""


class AroundError(JobManagerError):
    """One of `JobManager(around=...)` failed; `error` is what it raised."""

    def __init__(self, message: str, error: BaseException) -> None:
        super().__init__(message)
        self.error = error


@cheap
@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended. `retry_after` is set when another attempt should follow, `resumes_at` when this one goes on later."""

    status: RunStatus
    reason: str | None = None
    output: Any = None
    error: Failure | None = None
    retry_after: timedelta | None = None
    resumes_at: datetime | None = None


def outcome_of(attempt: AttemptState, returned: Any, raised: BaseException | None) -> Outcome:
    """Return what the handler's return value or exception means for the run: the first line that fits."""
    kind = type(raised)  # `isinstance` would ask the exception's own `__class__`
    if attempt.suspension is not None and not attempt.timed_out:
        return suspended(attempt.suspension, attempt.run_ends_at)
    if raised is not None and issubclass(kind, CancelRun):
        return Outcome(CANCELLED, "handler", error=failure("exception", raised, brief=True))
    attempt.note_timeout()
    if attempt.timed_out and attempt.seconds_over() >= TIMEOUT_GRACE.total_seconds():
        return timed_out(attempt)
    cause = attempt.stop
    if cause == "shutdown" and not attempt.stop_seen and issubclass(kind, Exception):
        cause = None  # it failed by itself: it had not looked
    if cause is not None and (raised is not None or attempt.stop_seen):
        return _ended_early(attempt, cause, raised)
    if raised is None:
        return Outcome(SUCCEEDED, output=returned)
    if isinstance(raised, AroundError):
        return around_failed(attempt, raised)
    if issubclass(kind, HandlerNotFoundError):
        return Outcome(FAILED, error=failure("handler_missing", raised, brief=True))
    if issubclass(kind, RetryLater) and isinstance(raised, RetryLater):
        delay = raised.delay if _may_go_on(attempt) else None
        return Outcome(FAILED, error=failure(_kind_of(kind), raised, brief=True), retry_after=delay)
    of_receiver = issubclass(kind, WebhookError)
    error = failure(_kind_of(kind), raised, brief=of_receiver)
    return Outcome(FAILED, error=error, retry_after=_next_delay(attempt, raised))


def suspended(suspension: Suspension, run_ends_at: datetime | None = None) -> Outcome:
    """Return the outcome of a handler that waits in a step, whatever it raised or returned then: its run goes on later."""
    until = suspension.until if run_ends_at is None else min(suspension.until, run_ends_at)
    return Outcome(CANCELLED, suspension.reason, resumes_at=until)


def _kind_of(raised: type[object]) -> ErrorKind:
    """Return `http` for what the receiver of a webhook did, `steps_changed` for changed code, `exception` for anything else."""
    if issubclass(raised, StepsChangedError):
        return "steps_changed"
    return "http" if issubclass(raised, WebhookError) else "exception"


def internal_error(error: BaseException) -> Outcome:
    """Return the outcome of an attempt in which code of the library raised: failed (internal), and not tried again."""
    return Outcome(FAILED, error=failure("internal", error))


def around_failed(attempt: AttemptState, raised: AroundError) -> Outcome:
    """Return the outcome of an attempt whose surroundings failed: failed (internal), and tried again as if the handler had raised it."""
    error = replace(failure("internal", raised.error), message=text_of(raised))
    return Outcome(FAILED, error=error, retry_after=_next_delay(attempt, raised.error))


def not_startable(error: HandlerNotFoundError | PayloadError) -> Outcome:
    """Return the outcome of a handler that could not be called at all; trying again would not help."""
    kind: ErrorKind = "payload_invalid" if isinstance(error, PayloadError) else "handler_missing"
    return Outcome(FAILED, error=failure(kind, error, brief=True))


def timed_out(attempt: AttemptState) -> Outcome:
    """Return the outcome of a handler that outlived its timeout; no retry follows if a cancel had been requested before."""
    if attempt.run_is_over and attempt.job.run_timeout is not None:
        whole = attempt.job.run_timeout.total_seconds()
        error = TimeoutError(f"the whole run has not ended after {whole:g} s (run_timeout)")
        return Outcome(FAILED, error=failure("timeout", error, brief=True))
    seconds = attempt.job.timeout.total_seconds() if attempt.job.timeout else 0
    error = TimeoutError(f"no end after {seconds:g} s")
    again = None if attempt.stop == "requested" else _next_delay(attempt, error)
    return Outcome(FAILED, error=failure("timeout", error, brief=True), retry_after=again)


def cut_by_shutdown(attempt: AttemptState) -> Outcome:
    """Return the outcome of a handler that the end of the process cut: as a crash, but known."""
    message = "the process was stopped while the handler ran"
    again = attempt.job.retry.on_crash and _may_go_on(attempt)
    return Outcome(
        FAILED, error=Failure(kind="shutdown", message=message), retry_after=timedelta(0) if again else None
    )


def interrupted(attempt: AttemptState) -> Outcome:
    """Return the outcome of a handler that saw the shutdown and ended: it goes on elsewhere, and no attempt is used."""
    if not attempt.job.retry.on_shutdown:
        return cut_by_shutdown(attempt)
    error = Failure(
        kind="shutdown", message="the process was to stop, and the handler ended when it saw that"
    )
    return Outcome(CANCELLED, "shutdown", error=error, retry_after=timedelta(0))


def not_begun() -> Outcome:
    """Return the outcome of a run that this process had taken and could not begin before it ended."""
    return Outcome(CANCELLED, RETURNED, retry_after=timedelta(0))


def never_started(attempt: AttemptState) -> Outcome:
    """Return the outcome of a run that was opened for this process, which never learned so: as a crash before the first instruction."""
    return crashed(attempt, "opened for this process, which never learned of it")


def crashed(attempt: AttemptState, message: str) -> Outcome:
    """Return the outcome of a handler whose process or event loop died; `on_crash` says whether it is tried again, at once."""
    again = attempt.job.retry.on_crash and _may_go_on(attempt)
    error = Failure(kind="crashed", message=message)
    return Outcome(FAILED, error=error, retry_after=timedelta(0) if again else None)


def ending_of(attempt: AttemptState, outcome: Outcome, clock: Clock, elapsed: float) -> Ending:
    """Return the outcome as the recorder writes it; the end lies `elapsed` seconds (monotonic) after the start."""
    again = outcome.resumes_at
    if outcome.retry_after is not None:
        again = later(clock.now(), outcome.retry_after)
    if again is not None and outcome.reason in INTERRUPTED:
        again = min(again, attempt.run.due_at)  # its old place in the line
    return Ending(
        run=attempt.run,
        status=outcome.status,
        reason=outcome.reason,
        output=outcome.output,
        error=outcome.error,
        progress=attempt.progress,
        started_at=attempt.started_at,
        finished_at=attempt.started_at + timedelta(0, elapsed),
        retry_at=again,
        lines=attempt.take_lines(),
    )


def _ended_early(attempt: AttemptState, cause: CancelCause, raised: BaseException | None) -> Outcome:
    if attempt.timed_out:
        return timed_out(attempt)
    if cause == "shutdown" and attempt.stop_seen:
        return interrupted(attempt)
    if cause in ("shutdown", "lease"):
        return cut_by_shutdown(attempt)
    cut = raised is None or issubclass(type(raised), (RunCancelledError, asyncio.CancelledError))
    return Outcome(
        CANCELLED, "requested", error=None if cut or raised is None else failure("exception", raised)
    )


def _may_go_on(attempt: AttemptState) -> bool:
    return attempt.run.attempt < attempt.run.max_attempts


def _next_delay(attempt: AttemptState, raised: BaseException) -> timedelta | None:
    retry: Retry = attempt.job.retry
    if not _may_go_on(attempt) or not retry.allows(raised, 0):
        return None
    return retry.delay_after(attempt.run.attempt)


def end_forked_child(run: Run) -> NoReturn:
    """End this process, which a handler forked and which came back out of the handler: nothing it did is the run's outcome."""
    # Not by logging: a lock of the parent's may be held here for ever.
    text = (
        f"WARNING job={run.job_id} run_id={run.id}: a process that the handler forked (pid {os.getpid()}) "
        "returned from it and is ended; end such a process with os._exit()\n"
    )
    with contextlib.suppress(OSError):
        os.write(2, text.encode(errors="replace"))
    os._exit(0)
