"""The values that a store takes and returns: stored jobs, processes, and what a write or a tally came to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

from jobmanager.cheap import cheap
from jobmanager.job import Policies
from jobmanager.run import Run, RunStatus

JobState = Literal["active", "paused", "disabled", "deleted"]
Outcome = Literal["done", "refused"]


@cheap
@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow(Policies):
    """The stored side of a job: its account, its state, and what the code declared last, policies included.

    Every instant at or before `accounted_until` (the watermark) is accounted for; `next_due_at` is the first one after it.
    """

    id: str
    namespace: str
    declared: str
    schedule: str
    accounted_until: datetime
    next_due_at: datetime | None
    history_from: datetime
    override: Mapping[str, Any] | None = None
    definition: Mapping[str, Any] | None = None
    """The words of a job that an operator made; None for one that code declares."""
    definition_rev: int = 1
    schedule_rev: int = 1
    state: JobState = "active"
    state_reason: str | None = None
    state_by: str | None = None
    state_at: datetime | None = None
    max_attempts: int = 1
    retry_on_crash: bool = True
    change_seq: int = 0
    override_by: str | None = None
    """The person who set or removed the override last, and when; both None for a job that was never overridden."""
    override_at: datetime | None = None

    @property
    def open(self) -> bool:
        """True while runs of the job may start: active or paused."""
        return self.state in ("active", "paused")


class JobSummary(NamedTuple):
    """A stored job as far as a process compares it with its code, plans its next instant and sorts lists: without its override and its audit."""

    id: str
    namespace: str
    state: JobState
    declared: str
    schedule: str
    override: Mapping[str, Any] | None
    schedule_rev: int
    next_due_at: datetime | None
    definition: Mapping[str, Any] | None
    state_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One process's stay: alive while its beat counter moves. `executes` tells whether it runs handlers."""

    id: str
    namespace: str
    host: str
    pid: int
    executes: bool
    started_at: datetime
    seen_at: datetime
    declares: str | None = None
    beats: int = 0
    last_tick_at: datetime | None = None
    lag_seconds: float | None = None
    """How late the last ticks came; both None until one came."""
    dead_at: datetime | None = None
    backend: str | None = None
    """The name of the backend that the process was started with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One change that a person or a service made or was refused: of what, from what to what. `before` and `after` hold what differs.

    `target` is the kind of thing (job, run, key, webhook, notification, entry, ...), `target_id` which one, `job_id` the job that it
    belongs to, if it belongs to one. `rev` is the job's revision that the change made; None where it made none. `batch_id` is the same
    in all entries of one request. `reason` says why an attempt was refused.
    """

    id: str
    at: datetime
    namespace: str
    action: str
    target: str
    target_id: str
    job_id: str | None = None
    by: str | None = None
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    rev: int | None = None
    outcome: Outcome = "done"
    reason: str | None = None
    address: str | None = None
    user_agent: str | None = None
    request_id: str | None = None
    batch_id: str | None = None


class StoreFacts(NamedTuple):
    """The database behind a store: its product and version, the bytes that our tables and indexes take, and the version of the tables."""

    system: str
    size: int
    version: str | None


class DueInstant(NamedTuple):
    """The outcome of one due instant of a job, or of a stretch of `ticks` instants from `first_for` that were skipped or missed alike."""

    run_id: str
    scheduled_for: datetime
    status: RunStatus
    reason: str | None
    ticks: int
    first_for: datetime | None
    started_at: datetime | None
    finished_at: datetime | None


class JobStanding(NamedTuple):
    """How a job stands by its runs: its newest settled instant, how its newest start by hand ended, and how many of its runs are running."""

    job_id: str
    instant: DueInstant | None = None
    by_hand: RunStatus | None = None
    running: int = 0

    @property
    def ran(self) -> bool:
        """Whether an instant of it was settled, or a run of it began or ended."""
        return bool(self.running) or self.instant is not None or self.by_hand is not None


Note = Callable[[Run | None, Run], AuditEntry | None]
"""Makes the entry of the audit of a changed run from what it was, None for a new one, and what it is; None if none is to be written."""


@dataclass(frozen=True, slots=True)
class Written:
    """What one `write` did: ids that are open and mine, the status each accepted ending led to, and rows it could not keep."""

    opened: Collection[str] = ()
    ended: Mapping[str, RunStatus] = field(default_factory=dict)
    errors: Mapping[str, Exception] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Runs of one job in one status: how many ticks or starts they stand for, and averages in seconds over those that started.

    `duration` is that of the last attempt; `queue_delay` goes from due to start, `lateness` from the tick's instant to the start.
    """

    job_id: str
    status: RunStatus
    count: int
    duration: float | None = None
    queue_delay: float | None = None
    lateness: float | None = None


def tally_of(job_id: str, status: RunStatus, runs: Sequence[Run]) -> Tally:
    """Return what these runs of one job and status come to."""
    started = [run for run in runs if run.started_at is not None]
    return Tally(
        job_id=job_id,
        status=status,
        count=sum(run.ticks for run in runs),
        duration=_average([(run.finished_at, run.started_at) for run in started]),
        queue_delay=_average([(run.started_at, run.due_at) for run in started]),
        lateness=_average([(run.started_at, run.scheduled_for) for run in started]),
    )


def _average(stretches: Sequence[tuple[datetime | None, datetime | None]]) -> float | None:
    seconds = [
        (end - start).total_seconds() for end, start in stretches if end is not None and start is not None
    ]
    return sum(seconds) / len(seconds) if seconds else None
