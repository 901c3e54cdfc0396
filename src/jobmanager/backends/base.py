"""The interface between the library and the system that keeps the time. Another backend is one file that implements it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal, Protocol

from jobmanager.backends.timetable import ScheduledJob
from jobmanager.clock import Clock
from jobmanager.context import CancelCause
from jobmanager.errors import UnsupportedError
from jobmanager.job import Job
from jobmanager.run import Accepted, Run, Tick, Ticked, TickedJobs, Worked
from jobmanager.schedule import Cron, Schedule
from jobmanager.settings import Settings

Deliver = Callable[[Sequence[Tick]], None]
Level = Literal["ok", "note", "warning", "failing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """The features of a backend. A job that needs more is refused at registration, never approximated."""

    keeps_time: bool = True
    """False: nothing fires by itself."""
    executes_in_process: bool = True
    """True: the process that calls start() runs the handlers."""
    smallest_interval: timedelta = timedelta(seconds=1)
    per_job_timezone: bool = True
    several_processes: bool = True
    """True: any number of processes may start it on one store."""
    survives_restart: bool = True
    """True: it fires, or its ticks are accounted for, while no process of ours lives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing the outside system has planned. `job_id` None: an orphan, ours by its name but of no known job."""

    name: str
    job_id: str | None
    next_due_at: datetime | None
    drift: str = ""
    """The difference from the declaration, '' if there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawEntry:
    """One entry of ours as the outside system has it, or should have it. Its command shows no secret.

    `job_id` None: of no job, as an orphan or one that serves them all. `drift` says how it differs from what should be there, `paused` if an
    operator paused it, and is '' otherwise. The last fields tell how its wake-ups ended, by the notes that the outside system has.
    """

    name: str
    job_id: str | None
    schedule: str
    command: str
    active: bool
    orphan: bool
    drift: str
    next_due_at: datetime | None
    runs_24h: int = 0
    """Wake-ups of the last 24 hours that ended; `succeeded_24h` of them without an error of the outside system."""
    succeeded_24h: int = 0
    last_status: str | None = None
    last_error: str | None = None
    last_ended_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgedEntries:
    """The names of the orphans that were removed, or would be, and of those that could not be."""

    removed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


class AuditRow(Protocol):
    """Makes the row of the audit for a change of an entry, as names and values of its columns."""

    def __call__(
        self,
        action: str,
        target: str,
        target_id: str,
        *,
        at: datetime,
        job_id: str | None = None,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> Mapping[str, Any]: ...


class OutsideAdmin(Protocol):
    """The outside system of a backend, for operators.

    `writes_audit`: each method is one transaction, which writes its row of the audit, too; elsewhere that is left to who calls.
    """

    @property
    def writes_audit(self) -> bool: ...

    def entries(self) -> list[RawEntry]:
        """Return our entries, sorted by name: those that are there, and those that should be."""
        ...

    def entry_of(self, word: str) -> str:
        """Return the name of the entry that is meant by its name, or by a job; EntryNotFoundError if it is neither."""
        ...

    def set_active(self, entry: str, *, active: bool) -> bool:
        """Pause an entry, or with that of a job the job; or let it go on. False if that changes nothing. EntryNotFoundError."""
        ...

    def unschedule(self, entry: str) -> None:
        """Remove an entry until the next sync; EntryNotFoundError if there is none."""
        ...

    def purge(self) -> PurgedEntries:
        """Remove every orphan."""
        ...

    def keys(self) -> int:
        """Return how many secrets sign the calls of the outside system: two while one is replaced."""
        ...

    def new_secret(self, *, bearer: bool) -> str:
        """Make a secret that signs from now on, beside those that do already, and return it; no later call shows it."""
        ...

    def retire(self) -> int:
        """Let only the newest secret sign from now on; return how many ended."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Whether ticks can be expected, and why not."""

    ok: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A finding of a backend about its outside system. `fix` is '' only for ok and note."""

    level: Level
    text: str
    fix: str = ""


class Host(Protocol):
    """The manager, as seen by a backend whose processes an outside system starts. Any thread may call it.

    The methods that bring work (`execute`, `accept`, `tick`, `tick_all`, `work`, `plan`, `sweep`) start the manager if it is not started; after a
    stop they raise StoppedError instead, until it is started again. Where nothing is to run (JOBMANAGER_DISABLED, or a backend that
    keeps no time) they raise SwitchedOffError.
    """

    def check_switch(self) -> None:
        """Raise SwitchedOffError where nothing is to run that is called for."""
        ...

    def queues(self) -> set[str]:
        """Return the queues that declared jobs name."""
        ...

    def drain(self) -> timedelta:
        """Return how long running handlers may take when a process ends."""
        ...

    def start(self, *, executes: bool) -> None:
        """Start the manager in this process, as `start()` does; `executes`: pending runs are brought here. Twice is once."""
        ...

    def execute(self, run_ids: Sequence[str]) -> None:
        """Claim these pending runs, and execute those that are ours now, one after the other, on this thread."""
        ...

    def accept(self, run_ids: Sequence[str]) -> Accepted:
        """Decide what becomes of runs that were announced, and get executed what is to run; returns when that is durable.

        Raises StoreUnavailableError, and then it may be repeated; repeating is harmless anyway.
        """
        ...

    def tick(self, job_id: str, *, scheduled_for: datetime | None = None) -> Ticked:
        """Open a run for the last due instant of the job, or for the given one, unless there is one.

        Raises JobNotFoundError for an unknown job. Where the setting WAIT is on it executes what is due before it returns.
        """
        ...

    def tick_all(self, *, waited_for: datetime | None = None) -> TickedJobs:
        """Open the last due instant of every job, unless it has a run, all in one transaction; else as `tick`.

        `waited_for` is the instant of an earlier call that was too early: of those after it none is waited for again.
        """
        ...

    def work(self, limit: int) -> Worked:
        """Execute up to `limit` due pending runs on this thread, and begin none after the seconds of WAIT_SECONDS.

        Raises UnsupportedError where other processes execute.
        """
        ...

    def plan(self) -> None:
        """Carry the declarations over again and sync the backend."""
        ...

    def sweep(self) -> None:
        """One round of the account check, now."""
        ...

    def planned(self) -> Sequence[ScheduledJob]:
        """Return the jobs to keep time for. Starts nothing, and makes no store; before a start it reads what there is."""
        ...

    def elsewhere(self) -> frozenset[str]:
        """Return the ids of active jobs that only other processes declare, as far as this one has read of them."""
        ...

    def acquire_role(self, role: str) -> bool:
        """Return whether this process, alone of all, holds the role now."""
        ...

    def stop(self) -> None:
        """End this process's part, as `JobManager.stop()`. Twice is safe."""
        ...


class Backend(ABC):
    """Brings ticks from one outside system, and does nothing else.

    Promises, tested by `jobmanager.testing.BackendContract`:

    - building it connects to nothing; `from_settings` raises a ConfigurationError if something is missing
    - `start` returns within a second and may be called again; ticks are then delivered until `stop`
    - a tick carries its due instant in UTC, is never early, and is delivered at least once while the outside system lives
    - `deliver` gets all ticks that are due together, on any thread
    - after `stop` returned nothing is delivered; `stop` is safe before `start` and when called again
    """

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities]

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: Settings, *, clock: Clock) -> Backend:
        """Return a backend for these settings, not yet connected."""

    @classmethod
    def check(cls, job: Job) -> None:
        """Raise UnsupportedError, with a sentence that says what to do, if this backend cannot honour the job."""
        smallest = cls.capabilities.smallest_interval
        if job.schedule is not None and job.schedule.resolution < smallest:
            raise UnsupportedError(
                f"Job {job.id!r} asks for every {job.schedule.resolution.total_seconds():g} s; backend {cls.name!r} does no less "
                f"than {smallest.total_seconds():g} s. Choose a longer interval, or a backend that has seconds (local, celery)."
            )
        zone = job.schedule.timezone if isinstance(job.schedule, Cron) else "UTC"
        if zone != "UTC" and not cls.capabilities.per_job_timezone:
            raise UnsupportedError(
                f"Job {job.id!r} keeps the time of {zone}; backend {cls.name!r} knows no zone but UTC. Give the schedule in UTC, "
                "or choose a backend that has zones (local, celery)."
            )

    @abstractmethod
    def sync(self, jobs: Sequence[ScheduledJob]) -> None:
        """Make the outside equal to these jobs: twice is once, orphans go, foreign entries stay untouched."""

    def settle(self, timeout: timedelta) -> None:  # noqa: B027 - most are done when `sync` returns
        """Wait, for at most `timeout`, until what `sync` began is done outside; raise what kept it from being done."""

    def prepare(self, schedule: Schedule) -> None:  # noqa: B027 - where ticks come from a process, it follows the change itself
        """Make the outside ready for a job of this schedule, which is stored next: from its commit on it fires without another call.

        Works in a process that was not started; twice is once. Whatever it raises, no job is stored then.
        """

    @abstractmethod
    def start(self, deliver: Deliver) -> None:
        """Deliver ticks from now on; does not block. `deliver` returns at once and never raises."""

    @abstractmethod
    def stop(self, timeout: timedelta) -> None:
        """Deliver nothing more; give up threads and connections within `timeout`."""

    def dispatch(self, job: Job, run: Run) -> None:  # noqa: B027 - most backends execute in this process
        """Get a due pending run executed soon; returns at once. Without an own way, live processes find it within their poll."""

    def attach(self, host: Host) -> None:  # noqa: B027 - most run where start() was called
        """Once, before anything else: the manager whose backend this is, for processes that an outside system starts."""

    def cause_of(self, raised: BaseException) -> CancelCause | None:
        """Why the outside system ended a handler by raising this inside it; None if that is the handler's own."""
        return None

    def drain_left(self) -> float | None:
        """Return how many seconds are left of a drain that the outside system began in this process; None if it began none.

        Below 0 what still runs is cut. 0 may last: the outside system waits for handlers as long as they take.
        """
        return None

    def is_guest(self) -> bool:
        """Return whether the outside system runs this process and merely imported the application: then `start()` does nothing."""
        return False

    def findings(self, jobs: Sequence[Job]) -> Iterable[Found]:
        """Yield what is wrong, or will be, with the outside system and how these jobs use it, for `doctor`.

        Works before `start` and in any process, looks without changing anything, and gives up on each thing it asks after two
        seconds or so. No password shows.
        """
        return ()

    @classmethod
    def left_behind(cls, settings: Settings) -> Iterable[Found]:  # noqa: ARG003 - for those that have an outside system
        """Yield what the outside system still does for these settings although another backend is chosen; look as `findings` does."""
        return ()

    @abstractmethod
    def entries(self) -> list[Entry]:
        """Return what the outside system has planned for us, with drift and orphans."""

    def admin(self, *, actor: str, audit: AuditRow) -> OutsideAdmin:
        """Return the entries of the outside system to an operator, whose name is `actor`; connects to nothing yet.

        Raises UnsupportedError where the outside system has no entries of ours.
        """
        raise UnsupportedError(
            f"Backend {self.name!r} has no entries outside of the application's processes. Pause, edit or delete the job itself; "
            "the backend that has entries is pg_cron."
        )

    @abstractmethod
    def health(self) -> Health:
        """Return whether ticks can be expected now."""
