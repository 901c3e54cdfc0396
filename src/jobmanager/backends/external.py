"""The external backend: a clock outside keeps the time, and calls the endpoint of `jobmanager.web` for each job that is due.

A crontab, a Kubernetes CronJob, a systemd timer, Vercel or Cloud Scheduler: the call only wakes this process. Which instant is due,
and its outcome, is decided by the schedule and the ledger. Nothing is planned outside by this backend, so there is nothing to sync.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import ClassVar

from jobmanager.backends.base import Backend, Capabilities, Deliver, Entry, Found, Health
from jobmanager.backends.timetable import ScheduledJob, Timetable
from jobmanager.clock import Clock, SystemClock
from jobmanager.errors import UnsupportedError
from jobmanager.job import Job
from jobmanager.schedule.wakeup import finer_than_minutes
from jobmanager.settings import Settings


class ExternalBackend(Backend):
    """Ticks from calls: `jobmanager.web` brings those of one job, `ring` all that are due. It has no thread of its own.

    Any number of processes may be called on one store; each tick becomes one run. `is_locked`: no secret is set, so the endpoint
    refuses every caller.
    """

    name: ClassVar[str] = "external"
    capabilities: ClassVar[Capabilities] = Capabilities(smallest_interval=timedelta(minutes=1))

    def __init__(
        self,
        *,
        clock: Clock = SystemClock(),  # noqa: B008 - it has no state
        grace: timedelta = timedelta(seconds=60),
        is_locked: bool = False,
    ) -> None:
        self._clock = clock
        self._grace = grace
        self._is_locked = is_locked
        self._due = Timetable()
        self._synced: tuple[ScheduledJob, ...] = ()
        self._deliver: Deliver | None = None

    @classmethod
    def from_settings(cls, settings: Settings, *, clock: Clock = SystemClock()) -> ExternalBackend:  # noqa: B008
        return cls(clock=clock, grace=settings.grace, is_locked=not settings.secrets)

    @classmethod
    def check(cls, job: Job) -> None:
        reason = None if job.schedule is None else finer_than_minutes(job.schedule, "A ticker calls")
        if reason is None and job.jitter:
            reason = (
                f"A ticker calls once for an instant, when it is due, and jitter={job.jitter.total_seconds():g} would let the run "
                "wait for a second call. Leave jitter out, and spread the schedules or the ticker's calls."
            )
        if reason is not None:
            raise UnsupportedError(f"Job {job.id!r}: backend {cls.name!r} cannot keep its time. {reason}")
        super().check(job)

    def sync(self, jobs: Sequence[ScheduledJob]) -> None:
        self._synced = tuple(jobs)
        self._due.replace(self._synced)

    def start(self, deliver: Deliver) -> None:
        self._deliver = deliver

    def stop(self, timeout: timedelta) -> None:
        self._deliver = None

    def ring(self) -> None:
        """Deliver what is due of every job, in one go: for a ticker inside this process, such as the handler of a function.

        Returns at once; nothing is delivered before `start` or after `stop`. Any thread may call it, and twice is harmless.
        """
        deliver = self._deliver
        if deliver is not None:
            self._due.deliver_due(self._clock, deliver, grace=self._grace)

    def entries(self) -> list[Entry]:
        now = self._clock.now()
        return [
            Entry(
                name=item.job.id,
                job_id=item.job.id,
                next_due_at=item.next_due_at
                if item.next_due_at is None or item.next_due_at > now
                else item.schedule.next_after(now),
            )
            for item in self._synced
        ]

    def health(self) -> Health:
        if self._deliver is None:
            return Health(ok=False, detail="not started in this process")
        coming = [
            entry.next_due_at for entry in ExternalBackend.entries(self) if entry.next_due_at is not None
        ]
        top = min(coming, default=None)
        return Health(
            ok=True,
            detail=f"called from outside; next tick {top.isoformat() if top else 'never: no job has a schedule'}",
        )

    def findings(self, jobs: Sequence[Job]) -> Iterator[Found]:
        if self._is_locked and any(job.schedule is not None for job in jobs):
            yield Found(
                level="failing",
                text="JOBMANAGER_SECRET is not set: the endpoint refuses every ticker, and nothing fires.",
                fix="Set JOBMANAGER_SECRET in the application, and let the ticker send it as Bearer token.",
            )
        else:
            yield Found(
                level="note", text="an outside clock has to call; `jobmanager export` writes its files"
            )
