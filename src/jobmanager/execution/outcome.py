"""What an attempt's end means: one table, from how the handler ended to how the run goes on (docs/internals/ledger.md#outcome-of-an-attempt)."""

from __future__ import annotations

import asyncio
import traceback
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from jobmanager.cheap import cheap
from jobmanager.context import CancelCause, RunContext
from jobmanager.errors import CancelRun, HandlerNotFoundError, PayloadError, RetryLater, RunCancelledError
from jobmanager.job import Retry
from jobmanager.run import CANCELLED, FAILED, SUCCEEDED, Ending, ErrorKind, Failure, RunStatus


@cheap
@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended. `retry_after` is set when another attempt should follow."""

    status: RunStatus
    reason: str | None = None
    output: Any = None
    error: Failure | None = None
    retry_after: timedelta | None = None


def outcome_of(context: RunContext, returned: Any, raised: BaseException | None) -> Outcome:
    """The first line that fits."""
    if isinstance(raised, CancelRun):
        return Outcome(CANCELLED, "handler", error=failure("exception", raised, brief=True))
    cause = context.cancel_cause
    if cause is not None and (raised is not None or context.cancel_seen):
        return _ended_early(context, cause, raised)
    if raised is None:
        return Outcome(SUCCEEDED, output=returned)
    if isinstance(raised, HandlerNotFoundError):
        return Outcome(FAILED, error=failure("handler_missing", raised, brief=True))
    if isinstance(raised, RetryLater):
        delay = raised.delay if context.attempt < context.run.max_attempts else None
        return Outcome(FAILED, error=failure("exception", raised, brief=True), retry_after=delay)
    return Outcome(FAILED, error=failure("exception", raised), retry_after=_next_delay(context, raised))


def not_startable(error: HandlerNotFoundError | PayloadError) -> Outcome:
    """The handler could not be called at all; trying again would not help."""
    kind: ErrorKind = "payload_invalid" if isinstance(error, PayloadError) else "handler_missing"
    return Outcome(FAILED, error=failure(kind, error, brief=True))


def timed_out(context: RunContext) -> Outcome:
    """The handler outlived its timeout and ignored the request to end."""
    seconds = context.job.timeout.total_seconds() if context.job.timeout else 0
    error = TimeoutError(f"no end after {seconds:g} s")
    return Outcome(
        FAILED, error=failure("timeout", error, brief=True), retry_after=_next_delay(context, error)
    )


def cut_by_shutdown(context: RunContext) -> Outcome:
    """The process ends and the handler with it: as a crash, but known."""
    message = "the process was stopped while the handler ran"
    again = context.job.retry.on_crash and context.attempt < context.run.max_attempts
    return Outcome(
        FAILED, error=Failure(kind="shutdown", message=message), retry_after=timedelta(0) if again else None
    )


def never_started(context: RunContext) -> Outcome:
    """The run was opened for this process, and it never learned so: as a crash before the first instruction."""
    return crashed(context, "opened for this process, which never learned of it")


def crashed(context: RunContext, message: str) -> Outcome:
    """Whoever ran the handler died; `on_crash` says whether that may be tried again, at once."""
    again = context.job.retry.on_crash and context.attempt < context.run.max_attempts
    error = Failure(kind="crashed", message=message)
    return Outcome(FAILED, error=error, retry_after=timedelta(0) if again else None)


def ending_of(context: RunContext, outcome: Outcome, now: datetime, elapsed: float) -> Ending:
    """The outcome as the recorder writes it; the end lies `elapsed` seconds (monotonic) after the start."""
    return Ending(
        run=context.run,
        status=outcome.status,
        reason=outcome.reason,
        output=outcome.output,
        error=outcome.error,
        progress=context.last_progress,
        started_at=context.started_at,
        finished_at=context.started_at + timedelta(seconds=elapsed),
        retry_at=None if outcome.retry_after is None else now + outcome.retry_after,
        lines=context.take_lines(),
    )


def _ended_early(context: RunContext, cause: CancelCause, raised: BaseException | None) -> Outcome:
    if cause == "timeout":
        return timed_out(context)
    if cause in ("shutdown", "lease"):
        return cut_by_shutdown(context)
    cut = raised is None or isinstance(raised, (RunCancelledError, asyncio.CancelledError))
    return Outcome(
        CANCELLED, "requested", error=None if cut or raised is None else failure("exception", raised)
    )


def _next_delay(context: RunContext, raised: BaseException) -> timedelta | None:
    retry: Retry = context.job.retry
    if context.attempt >= context.run.max_attempts or not retry.allows(raised, 0):
        return None
    return retry.delay_after(context.attempt)


def failure(kind: ErrorKind, raised: BaseException, *, brief: bool = False) -> Failure:
    """The exception as a record; `brief` leaves out a traceback that would only show our own lines."""
    text = "" if brief else "".join(traceback.format_exception(_without_our_frames(raised)))
    try:
        message = str(raised)
    except Exception as error:  # noqa: BLE001 - an exception whose text cannot be made is still recorded
        message = f"<no text: {type(error).__name__}>"
    return Failure(kind=kind, type=type(raised).__name__, message=message, traceback=text)


def _without_our_frames(raised: BaseException) -> BaseException:
    frames = raised.__traceback__
    while (
        frames is not None
        and frames.tb_next is not None
        and frames.tb_frame.f_globals.get("__name__", "").startswith("jobmanager.")
    ):
        frames = frames.tb_next
    return raised.with_traceback(frames)
