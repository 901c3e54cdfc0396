"""The no-op backend: everything is validated and remembered, nothing fires. For tests, one-off scripts and the kill switch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import ClassVar

from jobmanager.backends.base import Backend, Capabilities, Deliver, Entry, Health
from jobmanager.backends.timetable import ScheduledJob
from jobmanager.clock import Clock, SystemClock
from jobmanager.settings import Settings
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)


class NoopBackend(Backend):
    """No system keeps the time. `synced` holds what would be planned; a start by hand runs inline."""

    name: ClassVar[str] = "noop"
    capabilities: ClassVar[Capabilities] = Capabilities(keeps_time=False, survives_restart=False)

    def __init__(self) -> None:
        self.synced: list[ScheduledJob] = []
        self._started = False

    @classmethod
    def from_settings(cls, settings: Settings, *, clock: Clock = SystemClock()) -> NoopBackend:  # noqa: ARG003, B008
        return cls()

    def sync(self, jobs: Sequence[ScheduledJob]) -> None:
        self.synced = list(jobs)

    def start(self, deliver: Deliver) -> None:
        if not self._started:
            logger.warning("backend=noop: %d jobs are declared and nothing will fire", len(self.synced))
        self._started = True

    def stop(self, timeout: timedelta) -> None:
        self._started = False

    def entries(self) -> list[Entry]:
        return [Entry(name=item.job.id, job_id=item.job.id, next_due_at=None) for item in self.synced]

    def health(self) -> Health:
        return Health(ok=True, detail="noop: nothing fires, by choice")
