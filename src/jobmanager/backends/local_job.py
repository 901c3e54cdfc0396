"""The one job that the local backend is to an APScheduler scheduler: it fires when the timetable has something due."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.executors.base import BaseExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.base import STATE_STOPPED, BaseScheduler
from apscheduler.triggers.base import BaseTrigger

from jobmanager.backends.timetable import Timetable
from jobmanager.run import MICROSECOND
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

JOB_ID = "jobmanager"
LONGEST_SLEEP = timedelta(seconds=60)  # a step of the wall clock is noticed within this


class WakeUpJob:
    """A job in `given`, or in a BackgroundScheduler of our own, that calls `drain` at each instant of the timetable."""

    def __init__(
        self, given: BaseScheduler | None, timetable: Timetable, drain: Callable[[], object]
    ) -> None:
        self._own = given is None
        self._timetable = timetable
        self._scheduler: BaseScheduler = given or BackgroundScheduler(timezone=UTC, daemon=True)
        self._id = next(name for name in _names() if self._scheduler.get_job(name) is None)
        # Never the application's own store: one that pickles could not keep us, and would find us again after a restart.
        self._scheduler.add_jobstore(MemoryJobStore(), alias=self._id)
        self._scheduler.add_executor(_InlineExecutor(), alias=self._id)
        self._scheduler.add_job(
            drain,
            _TopTrigger(timetable),
            id=self._id,
            name="jobmanager timetable",
            jobstore=self._id,
            executor=self._id,
            misfire_grace_time=None,
            coalesce=True,
            max_instances=1,
        )

    def start(self) -> None:
        """Start our own scheduler; that of the application starts when the application says."""
        if self._own:
            self._scheduler.start()

    @property
    def is_stopped(self) -> bool:
        """Whether the scheduler does not run."""
        return bool(self._scheduler.state == STATE_STOPPED)

    def move(self) -> None:
        """Fire at the first instant of the timetable as it is now. Any thread."""
        now = datetime.now(UTC)  # APScheduler waits by the wall clock, whatever clock decides what is due
        try:
            self._scheduler.modify_job(self._id, self._id, next_run_time=_next_wake_up(self._timetable, now))
        except JobLookupError:
            logger.debug("the application's scheduler has forgotten us")

    def remove(self) -> bool:
        """Take the job out; return whether a scheduler of the application's may be calling `drain` at this moment."""
        if self._own and self._scheduler.running:
            self._scheduler.shutdown(wait=False)  # it waits for its thread all the same
            return False
        try:
            self._scheduler.remove_jobstore(self._id)
            self._scheduler.remove_executor(self._id, shutdown=False)
        except KeyError:
            logger.debug("the application's scheduler had already forgotten us")
        return True


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
    return latest if top is None else min(max(top, now + MICROSECOND), latest)


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
