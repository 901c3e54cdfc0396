"""Tick, Run, Attempt and the other values of a run's life, with the only table of allowed transitions.

pending ──> running ──> succeeded
   ^           ├──────> failed
   └─ retry ───┤
               └──────> cancelled
a due tick that opened nothing is born skipped or missed; failed, cancelled, skipped and missed may be redriven to pending
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any, Literal

from jobmanager.cheap import cheap
from jobmanager.errors import TransitionError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class RunStatus(StrEnum):
    """The closed set of statuses, also enforced by the database."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    MISSED = "missed"

    @property
    def closed(self) -> bool:
        """Whether the run has ended; it may still be redriven."""
        return self not in (RunStatus.PENDING, RunStatus.RUNNING)


PENDING, RUNNING = RunStatus.PENDING, RunStatus.RUNNING
SUCCEEDED, FAILED, CANCELLED = RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED
SKIPPED, MISSED = RunStatus.SKIPPED, RunStatus.MISSED

ALLOWED: Mapping[RunStatus | None, frozenset[RunStatus]] = {
    None: frozenset({PENDING, RUNNING, SKIPPED, MISSED}),
    PENDING: frozenset({RUNNING, CANCELLED, SKIPPED, MISSED}),
    RUNNING: frozenset({SUCCEEDED, FAILED, CANCELLED, PENDING}),
    SUCCEEDED: frozenset(),
    FAILED: frozenset({PENDING}),
    CANCELLED: frozenset({PENDING}),
    SKIPPED: frozenset({PENDING}),
    MISSED: frozenset({PENDING}),
}

Trigger = Literal["schedule", "catch_up", "manual", "backfill", "sweep"]
ErrorKind = Literal[
    "exception", "timeout", "crashed", "shutdown", "handler_missing", "payload_invalid", "http", "internal",
    "transport", "steps_changed",
]  # fmt: skip
Turn = Literal["holds", "waits"]

BY_EVENT = "event:"
"""The beginning of the idempotency keys of runs that an event started; its id follows."""

RETURNED = "returned"
"""The reason of a pending run that a process had taken ahead and whose handler it could not begin."""

SUSPENDED = frozenset({"sleeping", "waiting", "children"})
"""Reasons of a pending run whose handler waits in a step: for a moment, an event or other runs."""

INTERRUPTED = frozenset({"shutdown", RETURNED})
"""Reasons of a pending run that a process took and gave back."""

KEEPS_ATTEMPT = SUSPENDED | INTERRUPTED
"""Reasons of a pending run whose next start goes on with the same attempt; a start clears the reason."""


def check_transition(before: RunStatus | None, after: RunStatus) -> None:
    """Raise TransitionError unless a run may go from `before` (None: not yet opened) to `after`."""
    if after not in ALLOWED[before]:
        raise TransitionError(f"A run cannot go from {before or 'nothing'} to {after}.")


_made = itertools.count()


def new_id(now: datetime) -> str:
    """Return a UUIDv7 as text: sorted by `now` and, within a process, by the order of calls; 40 random bits."""
    # RFC 9562 methods 3 and 1: after the milliseconds 12 bits of their fraction, then a counter. `random` reseeds after a fork.
    counted = 0x800000 | next(_made) & 0x3FFFFF
    rest = f"{counted << 40 | random.getrandbits(40):x}"
    return f"{_time_of_id(now)}-{rest[:4]}-{rest[4:]}"


@lru_cache(maxsize=1)
def _time_of_id(now: datetime) -> str:
    """Write the time part of an id. Cached: the runs of a burst are opened at one instant."""
    milliseconds, microseconds = divmod((now - EPOCH) // MICROSECOND, 1000)
    text = f"{milliseconds:012x}"
    return f"{text[:8]}-{text[8:]}-7{(microseconds << 12) // 1000:03x}"


def first_id(moment: datetime) -> str:
    """No run opened at the moment or later has a smaller id: every process that makes ids goes by its clock."""
    text = f"{max(0, (moment - EPOCH) // timedelta(milliseconds=1)):012x}"
    return f"{text[:8]}-{text[8:]}-7000-8000-000000000000"


@cheap
@dataclass(frozen=True, slots=True)
class Tick:
    """That a job is due: the instant it was due for, and the revision of the schedule that said so."""

    job_id: str
    scheduled_for: datetime
    revision: int
    run_id: str | None = None
    """The row that the outside system has announced for it already, and that is to be accepted."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """Of runs that were announced: the ids that have a row, and those of them whose fate is decided, now or before."""

    known: frozenset[str]
    accepted: frozenset[str]


@dataclass(frozen=True, slots=True)
class Ticked:
    """The outcome of a ticker's call for an instant of a job.

    `finding` is of `jobmanager.ledger.overlap.OpenOutcome`, or `not_due`. `runs`: all that the call opened for the job, or found
    there. `due_in`: seconds until an `early` call is on time; `may_be_held`: few enough to wait for.
    """

    finding: str
    run_id: str | None = None
    scheduled_for: datetime | None = None
    runs: tuple[str, ...] = ()
    due_in: float | None = None
    may_be_held: bool = False


@dataclass(frozen=True, slots=True)
class TickedJobs:
    """The outcome of a ticker's call that names no job, for each job that had an instant to open.

    `due_in`: seconds until the instant `waits_for` of some job, which the call comes too early for; then nothing was opened.
    """

    jobs: Mapping[str, Ticked]
    due_in: float | None = None
    waits_for: datetime | None = None
    may_be_held: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Worked:
    """The outcome of a call that executed pending runs: how many attempts failed and how many did not, and how many runs are due still."""

    processed: int
    failed: int
    left: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ByHand:
    """The options of a start by hand; `scope` is the tenant part of the concurrency key. None: as the job says."""

    payload: Mapping[str, Any] | None = None
    priority: int | None = None
    max_attempts: int | None = None
    key: str | None = None
    scope: str | None = None
    requested_by: str | None = None
    notify: bool = False
    parent_id: str | None = None


TICKED = ByHand()
"""Nothing was added: the timetable started it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a run ended as failed, or why another attempt followed."""

    kind: ErrorKind
    message: str
    type: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress that a handler recorded; `total` is None if it is unknown."""

    processed: int
    total: int | None = None
    message: str = ""


@cheap
@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The record of one tick or of one start by hand. Instants are aware, in UTC.

    `scheduled_for` is None for a start by hand. A row of `ticks` > 1 stands for a stretch of instants from `first_for` to
    `scheduled_for` that were all skipped or missed for the same reason. `starts` counts how often it became
    running, `attempt` how many attempts those were (`KEEPS_ATTEMPT`); `owner` and `starts` together are the fence.
    `dispatched_at` is when a pending run was last sent to whoever executes it, where that is another process. Without
    `accepted_at` it was only announced: an outside system put its row there, and nobody has decided yet what becomes of it.
    """

    id: str
    job_id: str
    status: RunStatus
    opened_at: datetime
    due_at: datetime
    concurrency_key: str
    schedule_rev: int = 0
    scheduled_for: datetime | None = None
    first_for: datetime | None = None
    ticks: int = 1
    reason: str | None = None
    trigger: Trigger = "schedule"
    requested_by: str | None = None
    notify: bool = False
    expires_at: datetime | None = None
    attempt: int = 0
    starts: int = 0
    max_attempts: int = 1
    retry_on_crash: bool = True
    owner: str | None = None
    turn: Turn | None = None
    blocked_by: str | None = None
    priority: int = 0
    idempotency_key: str | None = None
    cancel_requested_at: datetime | None = None
    payload: Mapping[str, Any] | None = None
    output: Any = None
    error: Failure | None = None
    progress: Progress | None = None
    accepted_at: datetime | None = None
    dispatched_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    discarded_at: datetime | None = None
    parent_id: str | None = None
    """The run whose handler started this one in a step."""

    @property
    def by_event(self) -> bool:
        """Whether an event started the run; `requested_by` names it then."""
        return self.idempotency_key is not None and self.idempotency_key.startswith(BY_EVENT)

    @property
    def announced(self) -> bool:
        """Whether an outside system inserted the row and no process has accepted it yet."""
        return self.accepted_at is None

    @property
    def instant(self) -> datetime:
        """The instant the run was scheduled for, or the moment it was opened by hand."""
        return self.scheduled_for or self.opened_at

    @property
    def duration(self) -> timedelta | None:
        """The duration of the last attempt; None before it ended."""
        if self.started_at is None or self.finished_at is None:
            return None
        return self.finished_at - self.started_at

    @property
    def queue_delay(self) -> timedelta | None:
        """The time from the due instant to the start of the last attempt; None before it started."""
        return None if self.started_at is None else self.started_at - self.due_at

    @property
    def next_attempt(self) -> int:
        """Return the number that the attempt of the next start has."""
        return max(1, self.attempt if self.reason in KEEPS_ATTEMPT else self.attempt + 1)

    @property
    def scope(self) -> str | None:
        """The tenant part of the concurrency key; None without one."""
        return self.concurrency_key[len(self.job_id) + 1 :] or None

    def log_fields(self, backend: str) -> dict[str, object]:
        """Return `extra` for a log record about this run: the same keys everywhere, instants as ISO text."""
        instant = self.scheduled_for
        return {
            "job": self.job_id,
            "run_id": self.id,
            "attempt": self.attempt,
            "scheduled_for": None if instant is None else instant.isoformat(),
            "backend": backend,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One call of the handler that was followed by another; the last call is the run itself.

    Calls of one attempt that was interrupted (`KEEPS_ATTEMPT`) differ in `starts`.
    """

    run_id: str
    starts: int
    attempt: int
    owner: str | None
    started_at: datetime | None
    ended_at: datetime
    outcome: str
    error: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """An event to notify of, for one address of one channel: at most one row of the outbox.

    `subject` is what happened once: the id of a run, an instant, the beginning of a state. An empty `address` is the channel's
    own. Notices with the same `fold` may be sent as one message. `details` are facts for the text, as JSON.
    """

    namespace: str
    event: str
    subject: str
    channel: str
    address: str = ""
    job_id: str = ""
    fold: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@cheap
@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How the owner wants an attempt to end.

    With `retry_at` the run goes back to pending until then, unless a cancel was requested or its job is no longer open. If
    `reason` is one of KEEPS_ATTEMPT, the pending run has it, and its next start goes on with the same attempt. `notices` are
    written with the end, if it is the end of the run and has this status.
    """

    run: Run
    status: RunStatus
    finished_at: datetime
    started_at: datetime
    reason: str | None = None
    output: Any = None
    error: Failure | None = None
    progress: Progress | None = None
    retry_at: datetime | None = None
    lines: tuple[LogLine, ...] = ()
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True)
class LogLine:
    """One captured line of a handler's log."""

    at: datetime
    level: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """The status of a job across all processes: the first that fits of running, stopped, failed, completed, scheduled.

    `stopped` is a paused or disabled job; `duration` is that of the last ended run, `error` the text of its failure.
    """

    id: str
    name: str
    status: Literal["running", "completed", "failed", "scheduled", "stopped"]
    last_run: datetime | None
    next_run: datetime | None
    duration: timedelta | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobMetrics:
    """Counts over all runs on record. Rates are 0.0 while nothing has ended."""

    total_executions: int
    successful_jobs: int
    failed_jobs: int
    average_job_duration: timedelta
    last_cleanup: datetime | None

    @property
    def success_rate(self) -> float:
        """Succeeded runs divided by those that succeeded or failed, 0.0 to 1.0; a cancelled run is neither."""
        judged = self.successful_jobs + self.failed_jobs
        return self.successful_jobs / judged if judged else 0.0
