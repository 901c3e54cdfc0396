"""Inngest: each job is a function of the application that Inngest calls; what the process declares is the schedule, after a sync there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from jobmanager.backends.tickers.declared import DeclaredTicker
from jobmanager.backends.tickers.remote import Keys, Planned
from jobmanager.clock import Clock, SystemClock
from jobmanager.errors import UnsupportedError
from jobmanager.settings import Settings


class InngestBackend(DeclaredTicker):
    """Ticks from functions that `jobmanager.contrib.inngest.serve` declares. Their signature is verified by Inngest's own package."""

    name: ClassVar[str] = "inngest"
    title: ClassVar[str] = "Inngest"
    remedy: ClassVar[str] = "a start of the application, then `curl -X PUT URL/api/inngest`"
    unknown: ClassVar[str] = "`jobmanager.contrib.inngest.serve(app, jobs)` was not called in this process"

    def __init__(self, *, app_id: str = "jobmanager", **common: Any) -> None:
        super().__init__(**common)
        self.app_id = app_id
        self.keys = Keys.of_project()
        self._served: list[Planned] | None = None

    @classmethod
    def from_settings(cls, settings: Settings, *, clock: Clock = SystemClock()) -> InngestBackend:  # noqa: B008
        return cls(app_id=settings.inngest_app_id or "jobmanager", clock=clock, grace=settings.grace)

    @property
    def is_known(self) -> bool:
        return self._served is not None

    def serves(self, functions: Sequence[Planned]) -> None:
        """Note the functions that this process has declared to Inngest; others come with another start."""
        self._served = list(functions)

    def target(self, job_id: str | None) -> str:
        return f"function {self.keys.of_job(job_id or '')}"

    def fetch(self) -> Iterable[Planned]:
        return self._served or ()

    def switch(self, found: Planned, *, active: bool) -> None:
        """Raise UnsupportedError: functions are paused in Inngest's dashboard."""
        raise UnsupportedError(
            "Inngest pauses functions in its dashboard alone. To stop the job, pause the job."
        )


def trigger_text(planned: Planned) -> str:
    """Return the cron trigger of an entry, as Inngest's grammar has it."""
    return planned.text if planned.zone == "UTC" else f"TZ={planned.zone} {planned.text}"
