"""Messages between a child process and its parent: JSON, whose every field is checked. No code of the child's reaches the parent."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, get_args

from jobmanager.errors import JobManagerError
from jobmanager.execution.outcome import Outcome
from jobmanager.run import ErrorKind, Failure, Progress, RunStatus

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

LARGEST = 4 * 1024 * 1024
"""Bytes of one message: an outcome is bounded to far less, and so is a log line."""

_OUTCOMES = {RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED}


class ChildMessageError(JobManagerError):
    """A child process said what none of ours says; its handler has written to the pipe itself."""


def send(pipe: Connection, *message: Any) -> None:
    """Send a message of plain values, its kind first."""
    pipe.send_bytes(json.dumps(message).encode())


def receive(pipe: Connection) -> list[Any]:
    """Return the next message; ChildMessageError if it is none, EOFError or OSError if there will be no more."""
    data = pipe.recv_bytes(LARGEST)
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ChildMessageError(f"a child process sent what is no JSON: {type(error).__name__}") from None
    if not isinstance(message, list) or not message:
        raise ChildMessageError("a child process sent no message")
    return message


def progress_fields(progress: Progress) -> list[Any]:
    """Return a progress as plain values."""
    return [progress.processed, progress.total, progress.message]


def progress_from(fields: Any) -> Progress:
    """Return the progress of these values; ChildMessageError if they are none."""
    match fields:
        case [int() | float() as processed, int() | float() | None as total, str() as message]:
            return Progress(processed=processed, total=total, message=message)  # type: ignore[arg-type]  # as the child's context has it
    raise ChildMessageError("a child process sent a progress that is none")


def outcome_fields(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as plain values; its output is JSON already."""
    return {
        "status": outcome.status.value,
        "reason": outcome.reason,
        "output": outcome.output,
        "error": None if outcome.error is None else asdict(outcome.error),
        "retry_after": None if outcome.retry_after is None else outcome.retry_after.total_seconds(),
    }


def outcome_from(fields: Any) -> Outcome:
    """Return the outcome of these values; ChildMessageError if they are none."""
    match fields:
        case {
            "status": str() as status,
            "reason": str() | None as reason,
            "output": output,
            "error": error,
            "retry_after": int() | float() | None as retry_after,
        }:
            pass
        case _:
            raise ChildMessageError("a child process sent an outcome that is none")
    if status not in {one.value for one in _OUTCOMES}:
        raise ChildMessageError("a child process sent an outcome that no handler has")
    try:
        again = None if retry_after is None else timedelta(seconds=retry_after)
    except (OverflowError, ValueError):
        raise ChildMessageError("a child process sent a delay that is none") from None
    return Outcome(RunStatus(status), reason, output, _failure_from(error), again)


def _failure_from(fields: Any) -> Failure | None:
    match fields:
        case None:
            return None
        case {
            "kind": str() as kind,
            "type": str() as type_,
            "message": str() as message,
            "traceback": str() as traceback,
        }:
            if kind in get_args(ErrorKind):
                return Failure(kind=kind, type=type_, message=message, traceback=traceback)  # type: ignore[arg-type]  # checked
    raise ChildMessageError("a child process sent an error that is none")
