"""The local backend: this process keeps the time, with one APScheduler wake-up job in front of our own timetable.

APScheduler does what it is good at, waiting exactly and waking. Its CronTrigger, job stores and misfire rules are not used:
which instants are due is the schedule's affair, and what became of them is the ledger's.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

from jobmanager.backends.base import Backend, Capabilities, Deliver, Entry, Health
from jobmanager.backends.timetable import ScheduledJob, Timetable
from jobmanager.clock import Clock, SystemClock
from jobmanager.settings import Settings

if TYPE_CHECKING:
    from apscheduler.schedulers.base import BaseScheduler

    from jobmanager.backends.local_job import WakeUpJob


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
        self._wake_up: WakeUpJob | None = None
        self._deliver: Deliver | None = None
        self._driven = False
        self._draining = threading.RLock()  # a handler that runs inline may stop us

    @classmethod
    def from_settings(cls, settings: Settings, *, clock: Clock = SystemClock()) -> LocalBackend:  # noqa: B008
        return cls(clock=clock, grace=settings.grace)

    def sync(self, jobs: Sequence[ScheduledJob]) -> None:
        before = self.timetable.top()
        self.timetable.replace(jobs)
        if self._wake_up is not None and self.timetable.top() != before:
            self._wake_up.move()

    def start(self, deliver: Deliver) -> None:
        if self._deliver is not None:
            return
        self._deliver = deliver
        self.timetable.begin()
        self._driven = self._clock.drive(self.timetable.top, self._drain)
        if self._driven:
            return
        from jobmanager.backends.local_job import WakeUpJob  # noqa: PLC0415 - only who keeps the time needs APScheduler

        self._wake_up = WakeUpJob(self._given, self.timetable, self._drain)
        self._wake_up.start()

    def stop(self, timeout: timedelta) -> None:
        wake_up, self._wake_up = self._wake_up, None
        self._deliver = None
        if self._driven:
            self._clock.release(self._drain)
            self._driven = False
        # The application's thread may be delivering at this moment.
        if (
            wake_up is not None
            and wake_up.remove()
            and self._draining.acquire(timeout=timeout.total_seconds())
        ):
            self._draining.release()

    def after_fork(self) -> None:
        """In a forked child: the scheduler's thread stayed behind, so this backend counts as stopped."""
        self._wake_up = None
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
        if self._wake_up is not None and self._wake_up.is_stopped:
            return Health(ok=False, detail="the application's scheduler is not running; call its start()")
        top = self.timetable.top()
        return Health(
            ok=True, detail=f"next tick {top.isoformat() if top else 'never: no job has a schedule'}"
        )

    def _drain(self) -> None:
        with self._draining:
            if self._deliver is not None:
                self.timetable.deliver_due(self._clock, self._deliver, grace=self._grace)
