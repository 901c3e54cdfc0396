"""Every exception of the library, and the three exceptions with which a handler steers its run.

JobManagerError
├── ConfigurationError (ValueError)      settings, backend choice, declarations that cannot work
│   ├── SettingsError                    a JOBMANAGER_* name or value
│   ├── UnknownBackendError              no backend of that name
│   ├── MissingExtraError (ImportError)  a package of an extra is not installed
│   ├── UnsupportedError                 this backend or version does not do that
│   └── DuplicateJobError                two different declarations of one id
├── CronError (ValueError)               an expression, interval, moment or zone
├── PermissionDeniedError (PermissionError)  the principal may not do that
├── JobNotFoundError (LookupError)
├── RunNotFoundError (LookupError)
├── KeyNotFoundError (LookupError)
├── HandlerNotFoundError (LookupError)
├── NotificationNotFoundError (LookupError)
├── JobDisabledError                     a start by hand of a disabled job
├── SwitchedOffError                     a call from outside where nothing is to run
├── PayloadError (ValueError)            arguments that do not fit the handler
├── RunConflictError                     a run of that job is active; carries its id
├── RunCancelledError                    raised inside a handler by raise_if_cancelled()
├── TransitionError                      a run may not go from that status to this one
├── EditConflictError                another edit of that job came first
├── WaitTimeoutError (TimeoutError)
├── SlowListenerError
├── TickerError                          the API of a clock refused, or could not be reached
│   └── TickerFullError                  the clock takes no more entries
├── WebhookError                         the receiver of a webhook failed, or could not be reached
│   ├── WebhookRefusedError              trying again would not help (also a NonRetryable)
│   └── WebhookBusyError                 the receiver says when to try again (also a RetryLater)
└── StoreError
    ├── StoreUnavailableError            locked, full, read-only, unreachable: try again
    ├── BackPressureError                too many writes wait
    ├── UnreadableRowError               a row holds what no version of ours wrote there
    └── SchemaError                      tables of another version

Steering (raised by handlers, never by us): RetryLater, CancelRun, NonRetryable.
"""

from __future__ import annotations

from datetime import timedelta

from jobmanager.clock import HOW_TO_WRITE, as_duration


class JobManagerError(Exception):
    """Base of every error that the library raises."""


class ConfigurationError(JobManagerError, ValueError):
    """A setting, choice or declaration cannot work; raised before anything runs."""


class SettingsError(ConfigurationError):
    """A `JOBMANAGER_*` name is mistyped, or its value cannot be used; `name` is the variable."""

    def __init__(self, message: str, *, name: str | None = None) -> None:
        super().__init__(message)
        self.name: str | None = name


class UnknownBackendError(ConfigurationError):
    """No built-in backend, entry point or importable class has the name `backend`."""

    def __init__(self, message: str, *, backend: str) -> None:
        super().__init__(message)
        self.backend = backend


class MissingExtraError(ConfigurationError, ImportError):
    """A package of an extra is not installed; `extra` is the name of the extra."""

    def __init__(self, message: str, *, extra: str) -> None:
        super().__init__(message)
        self.extra = extra


class UnsupportedError(ConfigurationError):
    """The chosen backend or this version does not support the option; the text names one that does."""


class DuplicateJobError(ConfigurationError):
    """Two different declarations have one job id, or two functions one handler key."""


class CronError(JobManagerError, ValueError):
    """A schedule is invalid.

    `kind` is one of field_count, bad_value, out_of_range, bad_step, reversed_range, unsupported_token, never_matches,
    unknown_alias, bad_timezone, bad_interval, bad_moment. `field`, `position` (0-based) and `value` locate the mistake, and
    `hint` is a sentence that says what to write instead; each of the four may be None.
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


class OnceConflictError(JobManagerError):
    """Another attempt, of the run `run_id`, is calling the function of `context.once` for `key`; the function was not called here."""

    def __init__(self, message: str, *, run_id: str, key: str) -> None:
        super().__init__(message)
        self.run_id = run_id
        self.key = key


class StepError(JobManagerError):
    """A step cannot be done as the handler asks for it; the text says what to change."""


class EditConflictError(JobManagerError):
    """Another edit of the job `job_id` came first: it has the revision `rev` now. Nothing was changed."""

    def __init__(self, message: str, *, job_id: str, rev: int) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.rev = rev


class PermissionDeniedError(JobManagerError, PermissionError):
    """The principal named `principal` may not do what `action` says: it lacks `permission`, or a `scope`. Nothing was changed."""

    def __init__(self, message: str, *, action: str, principal: str, permission: str) -> None:
        super().__init__(message)
        self.action = action
        self.principal = principal
        self.permission = permission


class JobNotFoundError(JobManagerError, LookupError):
    """No job has the id `job_id`; the text suggests the closest id."""

    def __init__(self, message: str, *, job_id: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class RunNotFoundError(JobManagerError, LookupError):
    """No run has the id `run_id`: it was never opened, or retention purged it."""

    def __init__(self, message: str, *, run_id: str) -> None:
        super().__init__(message)
        self.run_id = run_id


class KeyNotFoundError(JobManagerError, LookupError):
    """No API key has the name or id `name`, or it was revoked before."""

    def __init__(self, message: str, *, name: str) -> None:
        super().__init__(message)
        self.name = name


class EntryNotFoundError(JobManagerError, LookupError):
    """The outside system has no entry of ours with the name `name`."""

    def __init__(self, message: str, *, name: str) -> None:
        super().__init__(message)
        self.name = name


class SecretConflictError(JobManagerError):
    """The secret cannot be replaced now: there is none, or the last rotation was not ended."""


class HandlerNotFoundError(JobManagerError, LookupError):
    """No handler has this key, or its "module:function" cannot be imported."""


class NotificationNotFoundError(JobManagerError, LookupError):
    """No notification has the id `notification_id`, or several end so."""

    def __init__(self, message: str, *, notification_id: str) -> None:
        super().__init__(message)
        self.notification_id = notification_id


class JobDisabledError(JobManagerError):
    """The job `job_id` is disabled or deleted, or JOBMANAGER_DISABLED is set: nothing is started or changed by hand.

    `job_id` is '' where the call was about all jobs.
    """

    def __init__(self, message: str, *, job_id: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class SwitchedOffError(JobManagerError):
    """A call from outside came to an application in which nothing is to run; `finding` is `disabled` or `no_time_kept`."""

    def __init__(self, message: str, *, finding: str) -> None:
        super().__init__(message)
        self.finding = finding


class PayloadError(JobManagerError, ValueError):
    """Config and payload do not fit the handler's parameters, are not JSON, or are too large."""


class RunConflictError(JobManagerError):
    """The job's overlap policy refuses another run now; `run_id` is the active run."""

    def __init__(self, message: str, *, run_id: str) -> None:
        super().__init__(message)
        self.run_id = run_id


class RunCancelledError(JobManagerError):
    """The run should end early; raised inside a handler by `context.raise_if_cancelled()`, not to be caught."""


class StoppedError(JobManagerError):
    """The manager of this process was stopped and accepts no work from outside systems until `start()`."""


class TransitionError(JobManagerError):
    """A run may not go from its status to the requested one."""


class WaitTimeoutError(JobManagerError, TimeoutError):
    """The run had not ended when the time-out of `wait` was over; the run goes on."""


class SlowListenerError(JobManagerError):
    """A listener of `jobs.events` took its changes too slowly and was given up; `cursor` is where to go on."""

    def __init__(self, message: str, *, cursor: str | None = None) -> None:
        super().__init__(message)
        self.cursor = cursor


class StoreError(JobManagerError):
    """The store refused an operation, or failed."""


class StoreUnavailableError(StoreError):
    """The store is locked, full, read-only or unreachable; repeating the call later may succeed."""


class BackPressureError(StoreError):
    """Too many writes wait for the store; this one was not accepted."""


class UnreadableRowError(StoreError):
    """A stored row cannot be understood; the text names the column. Only this row is affected."""


class SchemaError(StoreError):
    """The tables belong to another version of the library; the text names the command that upgrades them."""


class RetryLater(Exception):  # noqa: N818
    """Raise in a handler to ask for another attempt after `delay`, if attempts remain.

    The delay is seconds, a timedelta or a text such as "5m", at most a century; ConfigurationError for anything else.
    """

    def __init__(self, delay: timedelta | float | str, message: str = "") -> None:
        try:
            self.delay: timedelta = as_duration(delay)
        except ValueError:
            given = f"{delay!r:.80}" if isinstance(delay, (str, int, float)) else f"<{type(delay).__name__}>"
            raise ConfigurationError(
                f"RetryLater: delay={given} is no duration; use seconds, a timedelta, or a text such as {HOW_TO_WRITE}."
            ) from None
        super().__init__(message or f"retry in {self.delay.total_seconds():g} s")


class CancelRun(Exception):  # noqa: N818 - the steering words are fixed names, not errors
    """Raise in a handler to end the run as cancelled, with a reason and without another attempt."""

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        super().__init__(reason or "cancelled by the handler")


class NonRetryable(Exception):  # noqa: N818
    """Raise in a handler to end the run as failed without another attempt, whatever the retry policy says."""


class StepsChangedError(JobManagerError, NonRetryable):
    """The run has a step of this name that was of another kind: the code has changed while the run was under way."""


class StepFailedError(JobManagerError, NonRetryable):
    """The step `step` failed at its last try, with an exception of the class named `kind`; `traceback` is the text of its own."""

    def __init__(self, message: str, *, step: str, kind: str, traceback: str = "") -> None:
        super().__init__(message)
        self.step = step
        self.kind = kind
        self.traceback = traceback


class TickerError(JobManagerError):
    """The API of a clock refused or could not be reached; `status` is that of its reply, None without one.

    `retry_after` are the seconds after which the service wants to be asked again, where it says so.
    """

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after

    @property
    def is_general(self) -> bool:
        """True if another request would fail, too: it is about the service or the key, and not about one entry."""
        return self.status is None or self.status in (401, 403, 408, 429) or self.status >= 500


class TickerFullError(TickerError):
    """The plan of this account has no place for another entry."""

    @property
    def is_general(self) -> bool:
        return True


class WebhookError(JobManagerError):
    """The receiver of a webhook answered with an error, too late or not at all; `status` is its HTTP status, if it sent one.

    The retry policy of the job decides whether another attempt follows.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status: int | None = status


class WebhookRefusedError(WebhookError, NonRetryable):
    """The receiver refused the call, or the call was not sent: no other attempt would end differently."""


class WebhookBusyError(WebhookError, RetryLater):
    """The receiver asked to be called again after `delay`."""

    def __init__(self, message: str, *, delay: timedelta, status: int | None = None) -> None:
        RetryLater.__init__(self, delay, message)
        self.status = status
