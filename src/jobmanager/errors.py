"""Every exception of the library, and the three words a handler steers its run with.

JobManagerError
├── ConfigurationError (ValueError)      settings, backend choice, declarations that cannot work
│   ├── SettingsError                    a JOBMANAGER_* name or value
│   ├── UnknownBackendError              no backend of that name
│   ├── MissingExtraError (ImportError)  a package of an extra is not installed
│   ├── UnsupportedError                 this backend or version does not do that
│   └── DuplicateJobError                two different declarations of one id
├── CronError (ValueError)               an expression, interval, moment or zone
├── JobNotFoundError (LookupError)
├── RunNotFoundError (LookupError)
├── HandlerNotFoundError (LookupError)
├── JobDisabledError                     a start by hand of a disabled job
├── PayloadError (ValueError)            arguments that do not fit the handler
├── RunConflictError                     a run of that job is active; carries its id
├── RunCancelledError                    raised inside a handler by raise_if_cancelled()
├── TransitionError                      a run may not go from that status to this one
├── WaitTimeoutError (TimeoutError)
└── StoreError
    ├── StoreUnavailableError            locked, full, read-only, unreachable: try again
    ├── BackPressureError                too many writes wait
    └── SchemaError                      tables of another version

Steering (raised by handlers, never by us): RetryLater, CancelRun, NonRetryable.
"""

from __future__ import annotations

from datetime import timedelta


class JobManagerError(Exception):
    """Base of every error the library raises."""


class ConfigurationError(JobManagerError, ValueError):
    """A setting, choice or declaration that cannot work; raised before anything runs."""


class SettingsError(ConfigurationError):
    """A `JOBMANAGER_*` name that is mistyped or a value that cannot be used; `name` is the variable."""

    def __init__(self, message: str, *, name: str | None = None) -> None:
        super().__init__(message)
        self.name = name


class UnknownBackendError(ConfigurationError):
    """No built-in, entry point or importable class answers to this backend name."""

    def __init__(self, message: str, *, backend: str) -> None:
        super().__init__(message)
        self.backend = backend


class MissingExtraError(ConfigurationError, ImportError):
    """An optional package is needed; `extra` names what to install."""

    def __init__(self, message: str, *, extra: str) -> None:
        super().__init__(message)
        self.extra = extra


class UnsupportedError(ConfigurationError):
    """The chosen backend, or this version, does not do what was asked; the text says what does."""


class DuplicateJobError(ConfigurationError):
    """Two different declarations under one job id or handler key."""


class CronError(JobManagerError, ValueError):
    """A schedule that cannot be read.

    `kind` is one of field_count, bad_value, out_of_range, bad_step, reversed_range, unsupported_token, never_matches,
    unknown_alias, bad_timezone, bad_interval, bad_moment; `field`, `position` (0-based) and `value` say where; `hint` says what to write instead.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str,
        field: str | None = None,
        position: int | None = None,
        value: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(f"{message} {hint}" if hint else message)
        self.kind = kind
        self.field = field
        self.position = position
        self.value = value
        self.hint = hint


class JobNotFoundError(JobManagerError, LookupError):
    """No job has the id `job_id`."""

    def __init__(self, message: str, *, job_id: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class RunNotFoundError(JobManagerError, LookupError):
    """No run has the id `run_id` (never opened, or purged by retention)."""

    def __init__(self, message: str, *, run_id: str) -> None:
        super().__init__(message)
        self.run_id = run_id


class HandlerNotFoundError(JobManagerError, LookupError):
    """No handler is registered under this key, or its "module:function" cannot be imported."""


class JobDisabledError(JobManagerError):
    """The job `job_id` is disabled or deleted, so it cannot be started by hand either."""

    def __init__(self, message: str, *, job_id: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class PayloadError(JobManagerError, ValueError):
    """Config and payload do not fit the handler's parameters, are not JSON, or are too large."""


class RunConflictError(JobManagerError):
    """The job's overlap policy refuses another run now; `run_id` is the active run."""

    def __init__(self, message: str, *, run_id: str) -> None:
        super().__init__(message)
        self.run_id = run_id


class RunCancelledError(JobManagerError):
    """Raised inside a handler by `context.raise_if_cancelled()`; let it pass."""


class StoppedError(JobManagerError):
    """The manager of this process was stopped: what an outside system brings is for other processes, until `start()`."""


class TransitionError(JobManagerError):
    """A run may not go from its status to the one asked for."""


class WaitTimeoutError(JobManagerError, TimeoutError):
    """The run had not ended when the time to wait was over; it goes on."""


class StoreError(JobManagerError):
    """The store refused or failed."""


class StoreUnavailableError(StoreError):
    """The store is locked, full, read-only or unreachable; the same call may succeed later."""


class BackPressureError(StoreError):
    """Too many writes wait for the store; nothing was accepted."""


class SchemaError(StoreError):
    """The tables belong to another version of the library; the text names the command that helps."""


class RetryLater(Exception):  # noqa: N818
    """Raise in a handler: try again after `delay` (timedelta or seconds), if attempts remain."""

    def __init__(self, delay: timedelta | float, message: str = "") -> None:
        self.delay = delay if isinstance(delay, timedelta) else timedelta(seconds=delay)
        super().__init__(message or f"retry in {self.delay.total_seconds():g} s")


class CancelRun(Exception):  # noqa: N818 - the steering words are fixed names, not errors
    """Raise in a handler: end this run as cancelled, with a reason; no further attempt."""

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        super().__init__(reason or "cancelled by the handler")


class NonRetryable(Exception):  # noqa: N818
    """Raise in a handler: end this run as failed now, whatever the retry policy says."""
