"""The local backend: this process keeps the time, with one APScheduler wake-up job in front of our own timetable.

APScheduler does what it is good at, waiting exactly and waking. Its CronTrigger, job stores and misfire rules are not used:
which instants are due is the schedule's affair, and what became of them is the ledger's.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from apscheduler.executors.base import BaseExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.base import STATE_STOPPED, BaseScheduler
from apscheduler.triggers.base import BaseTrigger

from jobmanager.backends.base import Backend, Capabilities, Deliver, Entry, Health
from jobmanager.backends.timetable import ScheduledJob, Timetable
from jobmanager.clock import Clock, SystemClock
from jobmanager.settings import Settings
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

JOB_ID = "jobmanager"
LONGEST_SLEEP = timedelta(seconds=60)  # a step of the wall clock is noticed within this
INSTANT = timedelta(microseconds=1)


class LocalBackend(Backend):
    """Ticks from this process. Any number of processes may do so on one store; each tick becomes one run.

    `scheduler`: a running or not yet started APScheduler 3 scheduler of the application's; there we are one job called
    `jobmanager`. Without it, a BackgroundScheduler of our own with a daemon thread.
    """

    name: ClassVar[str] = "local"
    capabilities: ClassVar[Capabilities] = Capabilities(survives_restart=False)

    def __init__(
        self,
        *,
        scheduler: BaseScheduler | None = None,
        clock: Clock = SystemClock(),  # noqa: B008 - it has no state
        grace: timedelta = timedelta(seconds=60),
    ) -> None:
        self.timetable = Timetable()
        self._clock = clock
        self._grace = grace
        self._given = scheduler
        self._scheduler: BaseScheduler | None = None
        self._deliver: Deliver | None = None
        self._driven = False
        self._job_id = JOB_ID
        self._draining = threading.RLock()  # a handler that runs inline may stop us

    @classmethod
    def from_settings(cls, settings: Settings, *, clock: Clock = SystemClock()) -> LocalBackend:  # noqa: B008
        return cls(clock=clock, grace=settings.grace)

    def sync(self, jobs: Sequence[ScheduledJob]) -> None:
        before = self.timetable.top()
        self.timetable.replace(jobs)
        if self.timetable.top() != before:
            self._wake()

    def start(self, deliver: Deliver) -> None:
        if self._deliver is not None:
            return
        self._deliver = deliver
        self._driven = self._clock.drive(self.timetable.top, self._drain)
        if self._driven:
            return
        scheduler = self._given or BackgroundScheduler(timezone=UTC, daemon=True)
        self._job_id = next(name for name in _names() if scheduler.get_job(name) is None)
        # Never the application's own store: one that pickles could not keep us, and would find us again after a restart.
        scheduler.add_jobstore(MemoryJobStore(), alias=self._job_id)
        scheduler.add_executor(_InlineExecutor(), alias=self._job_id)
        scheduler.add_job(
            self._drain,
            _TopTrigger(self.timetable),
            id=self._job_id,
            name="jobmanager timetable",
            jobstore=self._job_id,
            executor=self._job_id,
            misfire_grace_time=None,
            coalesce=True,
            max_instances=1,
        )
        self._scheduler = scheduler
        if scheduler.state == STATE_STOPPED and self._given is None:
            scheduler.start()

    def stop(self, timeout: timedelta) -> None:
        scheduler, self._scheduler = self._scheduler, None
        self._deliver = None
        if self._driven:
            self._clock.release(self._drain)
            self._driven = False
        if scheduler is None:
            return
        if self._given is None and scheduler.running:
            scheduler.shutdown(wait=False)  # it waits for its thread all the same
            return
        try:
            scheduler.remove_jobstore(self._job_id)
            scheduler.remove_executor(self._job_id, shutdown=False)
        except KeyError:
            logger.debug("the application's scheduler had already forgotten us")
        # The application's thread may be delivering at this moment.
        if self._draining.acquire(timeout=timeout.total_seconds()):
            self._draining.release()

    def after_fork(self) -> None:
        """In a forked child: the scheduler's thread stayed behind, so this backend counts as stopped."""
        self._scheduler = None
        self._deliver = None
        # The parent's thread may have been at the old one, whose lock no thread here would release.
        self.timetable = Timetable()
        self._draining = threading.RLock()

    def entries(self) -> list[Entry]:
        return [
            Entry(name=job_id, job_id=job_id, next_due_at=due) for job_id, due in self.timetable.entries()
        ]

    def health(self) -> Health:
        if self._deliver is None:
            return Health(ok=False, detail="not started in this process")
        if self._scheduler is not None and self._scheduler.state == STATE_STOPPED:
            return Health(ok=False, detail="the application's scheduler is not running; call its start()")
        top = self.timetable.top()
        return Health(
            ok=True, detail=f"next tick {top.isoformat() if top else 'never: no job has a schedule'}"
        )

    def _drain(self) -> None:
        with self._draining:
            if self._deliver is not None:
                now = self._clock.now()
                self.timetable.deliver_due(now, self._deliver, earliest=now - self._grace)

    def _wake(self) -> None:
        scheduler = self._scheduler
        if scheduler is not None:
            try:
                scheduler.modify_job(
                    self._job_id, self._job_id, next_run_time=_next_wake_up(self.timetable, datetime.now(UTC))
                )
            except JobLookupError:
                logger.debug("the application's scheduler has forgotten us")


def _names() -> Iterator[str]:
    """`jobmanager`, and further names where several managers are guests of one scheduler."""
    yield JOB_ID
    for number in itertools.count(2):
        yield f"{JOB_ID}-{number}"


def _next_wake_up(timetable: Timetable, now: datetime) -> datetime:
    """When to look again: at the next due instant, later than `now`, but within a minute."""
    latest = now + LONGEST_SLEEP
    top = timetable.top()
    # APScheduler asks again until the instant lies after `now`, and drops a job whose trigger returns None.
    return latest if top is None else min(max(top, now + INSTANT), latest)


class _TopTrigger(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """Fires when the timetable says so; always later than now, never None."""

    __slots__ = ("_timetable",)

    def __init__(self, timetable: Timetable) -> None:
        self._timetable = timetable

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        return _next_wake_up(self._timetable, now)


class _InlineExecutor(BaseExecutor):  # type: ignore[misc]
    """Calls the job on the scheduler's own thread, so that the trigger is asked for the next time after the drain."""

    def submit_job(self, job: Any, run_times: list[datetime]) -> None:
        try:
            job.func()
        except Exception:
            logger.exception("ticks could not be delivered; the sweep will account for them")

    def _do_submit_job(self, job: Any, run_times: list[datetime]) -> None:
        self.submit_job(job, run_times)
