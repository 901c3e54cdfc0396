"""Errors as HTTP tells them (RFC 9457): a status, a stable type, a sentence, and what to do next. Pages and API tell the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jobmanager.errors import (
    BackPressureError,
    ConfigurationError,
    CronError,
    DuplicateJobError,
    EditConflictError,
    EntryNotFoundError,
    HandlerNotFoundError,
    JobDisabledError,
    JobManagerError,
    JobNotFoundError,
    KeyNotFoundError,
    NotificationNotFoundError,
    PayloadError,
    PermissionDeniedError,
    RunConflictError,
    RunNotFoundError,
    SecretConflictError,
    StoreError,
    StoreUnavailableError,
    SwitchedOffError,
    TickerError,
    TransitionError,
    UnsupportedError,
    WaitTimeoutError,
    WebhookError,
)

TYPES = "urn:jobmanager:problem:"
_FIELD = re.compile(r"(?:^|: )([a-z][a-z_]*)=")  # as the sentences name the argument that they are about


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What went wrong with a request, as its response says it."""

    status: int
    kind: str
    title: str
    detail: str = ""
    hint: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def document(self, request_id: str) -> dict[str, Any]:
        """Return the problem as `application/problem+json` has it."""
        told = {
            "type": TYPES + self.kind,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "hint": self.hint,
            "request_id": request_id,
            **self.facts,
        }
        return {name: value for name, value in told.items() if value not in ("", None)}


class ProblemError(Exception):
    """Ends a request with this problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.title)
        self.problem = problem


_KNOWN: tuple[tuple[type[JobManagerError], int, str, str], ...] = (
    (PermissionDeniedError, 403, "No permission", "Ask an administrator for a role with that permission."),
    (JobNotFoundError, 404, "No such job", "The list of jobs shows the ids."),
    (RunNotFoundError, 404, "No such run", "It may have been purged; the list of runs shows what is kept."),
    (KeyNotFoundError, 404, "No such key", "The list of keys shows the names."),
    (NotificationNotFoundError, 404, "No such notification", ""),
    (EntryNotFoundError, 404, "No such entry", "The list of entries shows the names."),
    (HandlerNotFoundError, 404, "No such handler", "The list of handlers shows the keys."),
    (RunConflictError, 409, "A run of this job is active", "Wait for its end, or cancel it."),
    (DuplicateJobError, 409, "The id is taken", "Choose another id."),
    (JobDisabledError, 409, "The job is disabled", "Enable it first."),
    (TransitionError, 409, "The run is in another state", "Load the run again."),
    (SecretConflictError, 409, "The secrets are in another state", ""),
    (EditConflictError, 412, "Another edit came first", "Load the job again, and edit what it is now."),
    (PayloadError, 422, "The arguments do not fit", ""),
    (CronError, 422, "The schedule cannot be read", ""),
    (UnsupportedError, 422, "Not supported here", ""),
    (ConfigurationError, 422, "A value cannot be used", ""),
    (SwitchedOffError, 503, "Switched off", ""),
    (BackPressureError, 503, "Too many writes wait", "Try again in a moment."),
    (StoreUnavailableError, 503, "The database cannot be reached", "Try again in a moment."),
    (StoreError, 503, "The database cannot be used", "`jobmanager doctor` looks at it more closely."),
    (TickerError, 502, "The clock outside cannot be asked", "`jobmanager doctor` says what to do."),
    (WebhookError, 502, "The receiver failed", ""),
    (WaitTimeoutError, 504, "It did not end in time", ""),
    (JobManagerError, 500, "It failed", "`jobmanager doctor` may know more."),
)


def problem_of(error: JobManagerError) -> Problem:
    """Return the problem that an error of the library is."""
    _, status, title, hint = next(entry for entry in _KNOWN if isinstance(error, entry[0]))
    names = ("job_id", "run_id", "permission")
    facts: dict[str, Any] = {
        name: value for name in names if (value := getattr(error, name, None)) is not None
    }
    if isinstance(error, RunConflictError):
        facts["active_run"] = error.run_id
    if status == 422 and (named := _FIELD.search(str(error))):
        facts["fields"] = [{"field": named[1], "message": str(error)}]
    headers = {"retry-after": "2"} if status == 503 else {}
    return Problem(
        status=status,
        kind=_words(type(error).__name__),
        title=title,
        detail=str(error),
        hint=hint,
        facts=facts,
        headers=headers,
    )


def _words(name: str) -> str:
    """Return `run-conflict` for RunConflictError."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name.removesuffix("Error")).lower()
