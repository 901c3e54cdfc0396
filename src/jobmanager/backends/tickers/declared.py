"""Clocks whose entries come with a deployment: nothing is written, and what is there is compared with the jobs, where it is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import ClassVar

from jobmanager.backends.base import AuditRow, Entry, Found, OutsideAdmin
from jobmanager.backends.external import ExternalBackend
from jobmanager.backends.tickers.base import TickerBackend
from jobmanager.backends.tickers.remote import Planned
from jobmanager.backends.timetable import ScheduledJob
from jobmanager.errors import UnsupportedError
from jobmanager.job import Job


class DeclaredTicker(TickerBackend):
    """A `TickerBackend` that only reads. `remedy` says how what differs is put right, `unknown` why nothing can be read here."""

    remedy: ClassVar[str]
    unknown: ClassVar[str]

    @property
    def is_known(self) -> bool:
        """Whether the entries can be read in this process."""
        return self.api is not None

    def put(self, wanted: Planned, found: Planned | None) -> None:
        """Raise UnsupportedError: no API makes these entries."""
        raise UnsupportedError(f"{self.title} takes entries with a deployment alone: {self.remedy}.")

    def remove(self, found: Planned) -> None:
        """Raise UnsupportedError, as `put` does."""
        self.put(found, found)

    def sync(self, jobs: Sequence[ScheduledJob]) -> None:
        ExternalBackend.sync(self, jobs)
        self._elsewhere = frozenset() if self._host is None else self._host.elsewhere()

    def settle(self, timeout: timedelta) -> None:
        """Return at once: nothing is written."""

    def entries(self) -> list[Entry]:
        return super().entries() if self.is_known else ExternalBackend.entries(self)

    def admin(self, *, actor: str, audit: AuditRow) -> OutsideAdmin:
        if not self.is_known:
            raise UnsupportedError(f"What {self.title} has planned is not known here: {self.unknown}.")
        return super().admin(actor=actor, audit=audit)

    def findings(self, jobs: Sequence[Job]) -> Iterator[Found]:
        if not self.is_known or self._is_locked:
            yield from ExternalBackend.findings(self, jobs)
            return
        for found in super().findings(jobs):
            by_deployment = found.level == "warning" and "resume" not in found.fix
            yield (
                Found(level="warning", text=found.text, fix=f"Run {self.remedy}.") if by_deployment else found
            )
