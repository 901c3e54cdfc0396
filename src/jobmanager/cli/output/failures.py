"""Errors of the command line: one line on what went wrong, one on what to do, and the exit code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jobmanager.errors import (
    ConfigurationError,
    CronError,
    EntryNotFoundError,
    HandlerNotFoundError,
    JobDisabledError,
    JobManagerError,
    JobNotFoundError,
    KeyNotFoundError,
    PayloadError,
    RunConflictError,
    RunNotFoundError,
    SecretConflictError,
    StoreError,
    TransitionError,
    WaitTimeoutError,
)

OK, FAILED, USAGE, CONFLICT, INTERRUPTED = 0, 1, 2, 3, 130


class UsageError(JobManagerError):
    """A command line that cannot be understood; `hint` says how to write it."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class FailedError(JobManagerError):
    """A command that was understood and did not work; `hint` says what helps."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConflictError(FailedError):
    """A command that the present state does not allow."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """An error as it is shown."""

    kind: str
    message: str
    hint: str = ""
    code: int = FAILED
    facts: dict[str, Any] = field(default_factory=dict)


def problem_of(error: Exception) -> Problem:
    """Return an error as it is shown; an unexpected one points to --debug."""
    kind, message = type(error).__name__, str(error)
    match error:
        case UsageError():
            return Problem(kind=kind, message=message, hint=error.hint, code=USAGE)
        case ConflictError():
            return Problem(kind=kind, message=message, hint=error.hint, code=CONFLICT)
        case FailedError():
            return Problem(kind=kind, message=message, hint=error.hint)
        case RunConflictError():
            end = error.run_id[-8:]
            hint = f"Look at it with `jobmanager runs show {end}`, or end it with `jobmanager cancel {end}`."
            return Problem(
                kind=kind,
                message=message.replace(error.run_id, end),
                hint=hint,
                code=CONFLICT,
                facts={"run_id": error.run_id},
            )
        case JobManagerError():
            code, hint = next(told for known, told in _KNOWN if isinstance(error, known))
            return Problem(kind=kind, message=message, hint=hint, code=code)
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {error.strerror or kind}."
        return Problem(kind=kind, message=text, hint="Name a file that can be read and written here.")
    if callable(getattr(error, "format_message", None)):
        return _of_the_parser(error)
    return Problem(
        kind=kind, message=f"{kind}: {message}", hint="That should not happen; --debug shows where it did."
    )


_KNOWN: tuple[tuple[type[JobManagerError], tuple[int, str]], ...] = (
    (JobNotFoundError, (USAGE, "`jobmanager jobs list` shows the jobs.")),
    (
        RunNotFoundError,
        (USAGE, "`jobmanager runs list` shows the runs; if several ids end alike, give more of it."),
    ),
    (
        EntryNotFoundError,
        (
            USAGE,
            "`jobmanager pg-cron entries` lists them; jobs have one of their own only with JOBMANAGER_PG_CRON_LAYOUT=entries.",
        ),
    ),
    (
        SecretConflictError,
        (CONFLICT, "`jobmanager verify` shows whether the application accepts the secret that signs."),
    ),
    (KeyNotFoundError, (USAGE, "`jobmanager keys list` shows the keys.")),
    (JobDisabledError, (CONFLICT, "`jobmanager explain JOB` says why.")),
    (TransitionError, (CONFLICT, "`jobmanager runs show RUN` shows its outcome.")),
    (WaitTimeoutError, (FAILED, "`jobmanager logs RUN -f` follows it.")),
    (PayloadError, (USAGE, "`jobmanager jobs show JOB` shows what its handler takes.")),
    (HandlerNotFoundError, (FAILED, "`jobmanager doctor` names every handler that is missing.")),
    (CronError, (USAGE, "`jobmanager doctor` looks at every declaration.")),
    (ConfigurationError, (USAGE, "`jobmanager doctor` looks at every setting.")),
    (StoreError, (FAILED, "`jobmanager doctor` looks at the store more closely.")),
    (JobManagerError, (FAILED, "`jobmanager doctor` may know more.")),
)


def _of_the_parser(error: Any) -> Problem:
    """Convert click's own errors: an unknown verb or option, a missing argument."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "jobmanager"
    return Problem(
        kind="UsageError",
        message=error.format_message(),
        hint=f"`{command} --help` shows how it is used.",
        code=USAGE,
    )
