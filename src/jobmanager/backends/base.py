"""The interface between the library and the system that keeps the time. Another backend is one file that implements it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Literal, Protocol

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

    def prepare(self, schedule: Schedule) -> None:  # noqa: B027 - where ticks come from a process, it follows the change itself
        """Make the outside ready for a job of this schedule, which is stored next: from its commit on it fires without another call.

        Works in a process that was not started; twice is once. Raises StoreUnavailableError, and then no job is stored.
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

    @abstractmethod
    def health(self) -> Health:
        """Return whether ticks can be expected now."""
