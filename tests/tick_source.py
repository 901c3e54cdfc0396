"""A backend whose ticks a test brings by hand: early, late, twice, or of a revision that is over."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import ClassVar

from jobmanager.backends.base import Backend, Capabilities, Deliver, Entry, Health
from jobmanager.backends.timetable import ScheduledJob
from jobmanager.clock import Clock
from jobmanager.run import Tick
from jobmanager.settings import Settings


class TickSource(Backend):
    """Keeps no time: `bring` delivers, and `synced` holds what it was last told to plan."""

    name: ClassVar[str] = "tick_source"
    capabilities: ClassVar[Capabilities] = Capabilities()

    def __init__(self) -> None:
        self.synced: list[ScheduledJob] = []
        self._deliver: Deliver | None = None

    @classmethod
    def from_settings(cls, settings: Settings, *, clock: Clock) -> TickSource:
        return cls()

    def bring(self, job_id: str, *instants: datetime, revision: int = 1) -> None:
        """Deliver a tick of the job for each of these instants, all in one call."""
        assert self._deliver is not None, "its manager is not started"
        self._deliver([Tick(job_id, instant, revision) for instant in instants])

    def revision_of(self, job_id: str) -> int:
        """The revision of the schedule by which the job's ticks are to be brought."""
        return next(scheduled.revision for scheduled in self.synced if scheduled.job.id == job_id)

    def sync(self, jobs: Sequence[ScheduledJob]) -> None:
        self.synced = list(jobs)

    def start(self, deliver: Deliver) -> None:
        self._deliver = deliver

    def stop(self, timeout: timedelta) -> None:
        self._deliver = None

    def entries(self) -> list[Entry]:
        return [
            Entry(name=scheduled.job.id, job_id=scheduled.job.id, next_due_at=scheduled.next_due_at)
            for scheduled in self.synced
        ]

    def health(self) -> Health:
        return Health(ok=self._deliver is not None, detail="ticks are brought by hand")
