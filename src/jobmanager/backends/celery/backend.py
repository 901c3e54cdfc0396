"""CeleryBackend: the seam's promises kept by Celery. Ticks come from the beat processes, messages go to the workers."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar

import celery.beat
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

from jobmanager.backends.base import Backend, Capabilities, Deliver, Entry, Found, Health, Host
from jobmanager.backends.celery.application import QUEUE, make_app
from jobmanager.backends.celery.drain import Drain
from jobmanager.backends.celery.findings import examine
from jobmanager.backends.celery.publisher import Message, Publisher
from jobmanager.backends.celery.worker import Worker
from jobmanager.backends.timetable import ScheduledJob, Timetable
from jobmanager.clock import Clock, SystemClock
from jobmanager.context import CancelCause
from jobmanager.errors import ConfigurationError
from jobmanager.job import Job
from jobmanager.run import Run
from jobmanager.settings import Settings
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

LONGEST_SLEEP = 1.0  # seconds; beat sleeps deaf
FLUSH_WITHIN = 3.0
KILL_AFTER = 30.0  # seconds beyond its timeout, a handler takes its worker's child process with it
ENDED_BY_SIGNAL = -192  # billiard raises SystemExit(-(256 - signal))


class CeleryBackend(Backend):
    """Ticks from any number of beats, executed by any number of workers.

    `app` is the application's own Celery; its other tasks, schedules and settings are left alone. `queue` is where runs go whose
    job names none. `group_max` runs at most travel in one message and are executed one after the other: for many short jobs.
    `beats` lets the process that calls `start()` keep the time itself, in a thread: for development and tests.
    """

    name: ClassVar[str] = "celery"
    capabilities: ClassVar[Capabilities] = Capabilities(executes_in_process=False, survives_restart=False)

    def __init__(
        self,
        app: Celery,
        *,
        queue: str = QUEUE,
        group_max: int = 1,
        beats: bool = False,
        clock: Clock = SystemClock(),  # noqa: B008 - it has no state
        grace: timedelta = timedelta(seconds=60),
    ) -> None:
        self.app = app
        self.queue = queue
        self.group_max = group_max
        self.timetable = Timetable()
        self._beats = beats
        self._clock = clock
        self._grace = grace
        self._host: Host | None = None
        self._deliver: Deliver | None = None
        self._scheduled: Sequence[ScheduledJob] = ()
        self._keeps_time_here = beats
        self._embedded: Any = None
        self._delivering = threading.RLock()  # a signal may end us in the middle of a delivery
        self._publisher = Publisher(app, queue=queue, group_max=group_max)
        self.drain = Drain()
        """How long running handlers may take once Celery shuts down; `jobmanager worker` ends with it."""
        self._worker = Worker(app, self)

    @classmethod
    def from_settings(cls, settings: Settings, *, clock: Clock = SystemClock()) -> CeleryBackend:  # noqa: B008
        if settings.celery_broker_url is None:
            raise ConfigurationError(
                "Backend 'celery' needs JOBMANAGER_CELERY_BROKER_URL, such as redis://host:6379/0."
            )
        if settings.database_url == "memory://":
            raise ConfigurationError(
                "Backend 'celery' cannot keep runs in memory://: beats and workers are processes of their own. "
                "Set JOBMANAGER_DATABASE_URL to PostgreSQL, or to an SQLite file if all of them live on one host."
            )
        app = make_app(settings.celery_broker_url)
        return cls(app, group_max=settings.celery_group_max, clock=clock, grace=settings.grace)

    # ---------------------------------------------------------------- the seam

    def attach(self, host: Host) -> None:
        self._host = host

    def sync(self, jobs: Sequence[ScheduledJob]) -> None:
        # The others keep no heap of what only a beat needs.
        self._scheduled = tuple(jobs)
        if self._keeps_time_here:
            self.timetable.replace(jobs)

    def start(self, deliver: Deliver) -> None:
        if self._deliver is not None:
            return
        self._deliver = deliver
        if self._beats:
            self._embedded = celery.beat.EmbeddedService(
                self.app, thread=True, scheduler_cls="jobmanager.backends.celery:Scheduler"
            )
            self._embedded.start()

    def stop(self, timeout: timedelta) -> None:
        embedded, self._embedded = self._embedded, None
        if embedded is not None:
            embedded.stop()
        if self._delivering.acquire(timeout=timeout.total_seconds()):
            self._deliver = None
            self._delivering.release()
        self._publisher.stop(min(timeout.total_seconds(), FLUSH_WITHIN))

    def dispatch(self, job: Job, run: Run) -> None:
        limit = None if job.timeout is None else job.timeout.total_seconds() + KILL_AFTER
        self._publisher.put(Message(run.id, job.queue or self.queue, run.priority, limit))
        if self._deliver is None:
            # Not started here: a script, which may end with its next line.
            self._publisher.flush(FLUSH_WITHIN)

    def drain_left(self) -> float | None:
        return self.drain.left()

    def cause_of(self, raised: BaseException) -> CancelCause | None:
        if isinstance(raised, SoftTimeLimitExceeded):
            return "timeout"
        killed = (
            isinstance(raised, SystemExit) and isinstance(raised.code, int) and raised.code < ENDED_BY_SIGNAL
        )
        return "shutdown" if killed else None

    def is_guest(self) -> bool:
        # Celery's own command imports the application while it reads its options.
        command = sys.modules.get("celery.bin.celery")
        if command is None:
            return False
        import click  # noqa: PLC0415 - it is loaded already

        context = click.get_current_context(silent=True)
        return context is not None and context.find_root().command is vars(command)["celery"]

    def entries(self) -> list[Entry]:
        due: dict[str, datetime] = dict(self.timetable.entries()) if self._keeps_time_here else {}
        return [
            Entry(name=item.job.id, job_id=item.job.id, next_due_at=due.get(item.job.id))
            for item in self._scheduled
        ]

    def findings(self, jobs: Sequence[Job]) -> Iterable[Found]:
        return examine(self.app, jobs, queue=self.queue, group_max=self.group_max)

    def health(self) -> Health:
        if self._deliver is None:
            return Health(ok=False, detail="not started in this process")
        if not self._keeps_time_here:
            return Health(
                ok=True, detail="ticks come from `jobmanager beat`, and runs go to `jobmanager worker`"
            )
        top = self.timetable.top()
        return Health(
            ok=True, detail=f"next tick {top.isoformat() if top else 'never: no job has a schedule'}"
        )

    def after_fork(self) -> None:
        """In a forked child: threads and connections stayed behind, and it is no beat."""
        self._deliver = None
        self._embedded = None
        self._keeps_time_here = self._beats
        # A thread of the parent may have been at the old one, whose lock no thread here would release.
        self.timetable = Timetable()
        self.sync(self._scheduled)
        self._delivering = threading.RLock()
        self._publisher.after_fork()

    # ---------------------------------------------------------------- in a beat

    def begin_beat(self) -> None:
        """Keep the time in this process from now on. Called by the Scheduler."""
        if not self._keeps_time_here:
            self._keeps_time_here = True
            self.timetable.replace(self._scheduled)
        self.timetable.begin()
        if self._host is not None:
            self._publisher.start()
        if self._host is not None and not self._beats:
            self._host.start(executes=False)

    def tick(self) -> float:
        """Deliver what is due; return in how many seconds to look again, at most one. Never raises."""
        with self._delivering:
            if self._deliver is not None:
                try:
                    self.timetable.deliver_due(self._clock, self._deliver, grace=self._grace)
                except Exception:
                    logger.exception("ticks could not be delivered; the sweep will account for them")
        top = self.timetable.top()
        if top is None:
            return LONGEST_SLEEP
        return min(max((top - self._clock.now()).total_seconds(), 0.0), LONGEST_SLEEP)

    def end_beat(self) -> None:
        """Leave this process. Twice is safe."""
        if self._host is not None and not self._beats:
            self._host.stop()

    def acquire_role(self, role: str) -> bool:
        """Return whether this process, alone of all, holds the role now."""
        return self._host is None or self._host.acquire_role(role)

    # ---------------------------------------------------------------- in a worker

    def queues(self) -> list[str]:
        """Return the queues that runs of this manager's jobs can be in: those that a worker takes from without `--queues`."""
        named = set() if self._host is None else self._host.queues()
        return sorted({self.queue, *named})

    def start_worker(self) -> None:
        """Start the manager in this worker process: heartbeat, sweep and execution. Called by the worker's signals."""
        if self._host is not None:
            self._host.start(executes=True)

    def execute(self, run_ids: Sequence[str]) -> None:
        """Execute those of these runs that are still to be executed. Called by the task, on its thread."""
        if self._host is None:
            raise ConfigurationError(
                "This CeleryBackend belongs to no JobManager; make it with JobManager(backend=...)."
            )
        self._host.execute(run_ids)

    def begin_drain(self) -> None:
        """Tell the handlers of this worker and its children, in time, that it shuts down. Called by the worker's signals."""
        if self._host is not None:
            self.drain.begin(self._host.drain())

    def end_worker(self) -> None:
        """Leave this process. Twice is safe."""
        if self._host is not None and not self._beats:
            self._host.stop()
