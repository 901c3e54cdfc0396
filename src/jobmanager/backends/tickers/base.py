"""A backend whose clock is an outside service: it plans our jobs there, and the service calls the endpoint.

What a call means is decided by the endpoint and the ledger; here only the entries of the service are kept equal to the jobs.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from jobmanager.backends.base import AuditRow, Entry, Found, Health, Host, OutsideAdmin
from jobmanager.backends.external import ExternalBackend
from jobmanager.backends.tickers.remote import (
    PAUSED,
    Keys,
    Planned,
    difference,
    wake_text,
    wake_text_of_all,
)
from jobmanager.backends.tickers.syncing import RED_AFTER, Syncing
from jobmanager.backends.timetable import ScheduledJob
from jobmanager.clock import Clock, SystemClock
from jobmanager.errors import ConfigurationError, TickerError, TickerFullError
from jobmanager.job import Job
from jobmanager.settings import Settings
from jobmanager.validation.printable import get_logger

if TYPE_CHECKING:
    from jobmanager.backends.tickers.api import Api

logger = get_logger(__name__)

Layout = Literal["auto", "entries", "dispatcher"]

AT_ONCE, LONGEST_SYNC = 4, 60.0
_FULL = re.compile(r"limit|quota|maximum|exceed|too many", re.IGNORECASE)
_NOT_FULL = (401, 404, 408, 429)


class TickerBackend(ExternalBackend):
    """Keeps one entry for each job at a clock that calls by HTTP, or one for all. A subclass says how entries are read and written.

    Its methods `fetch`, `put`, `remove` and `switch` raise TickerError, and may be called by several threads at once. An entry is
    known by its key: those of other namespaces and environments, and what people made by hand, are left alone. Nothing of ours that
    is secret is written there.
    """

    title: ClassVar[str]
    """The service, as people call it."""
    zones: ClassVar[bool] = True
    """True: it has a zone per entry."""

    def __init__(
        self,
        api: Api | None = None,
        *,
        namespace: str = "default",
        environment: str = "development",
        tick_url: str = "",
        layout: Layout = "auto",
        clock: Clock = SystemClock(),  # noqa: B008 - it has no state
        grace: timedelta = timedelta(seconds=60),
        is_locked: bool = False,
    ) -> None:
        super().__init__(clock=clock, grace=grace, is_locked=is_locked)
        self.api: Any = api  # an Api, or None; a clock that cannot do without one says so by its annotation
        self.keys: Keys = Keys.of(namespace, environment)
        self._tick_url = tick_url
        self._layout = layout
        self._is_one = layout == "dispatcher"
        self._host: Host | None = None
        self._elsewhere: frozenset[str] = frozenset()
        self._syncing = Syncing(self._make_equal, clock, name=f"jobmanager-{self.name}")

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: Settings, *, clock: Clock = SystemClock()) -> TickerBackend:  # noqa: B008
        """Return a backend for these settings, not yet connected."""

    @classmethod
    def common(cls, settings: Settings, clock: Clock) -> dict[str, Any]:
        """Return the arguments that do not depend on the service."""
        if settings.tick_url is None:
            raise ConfigurationError(
                f"Backend {cls.name!r} needs JOBMANAGER_PUBLIC_URL: where {cls.title} reaches this application."
            )
        return {
            "namespace": settings.namespace,
            "environment": settings.environment,
            "tick_url": settings.tick_url,
            "layout": settings.ticker_layout,
            "clock": clock,
            "grace": settings.grace,
        }

    # ---------------------------------------------------------------- the service

    @abstractmethod
    def fetch(self) -> Iterable[Planned]:
        """Yield every entry of the service, page by page."""

    @abstractmethod
    def put(self, wanted: Planned, found: Planned | None) -> None:
        """Make the entry, or make the one that was `found` equal to it; twice is once."""

    @abstractmethod
    def remove(self, found: Planned) -> None:
        """Delete the entry; one that is gone already is no error."""

    @abstractmethod
    def switch(self, found: Planned, *, active: bool) -> None:
        """Pause the entry, or let it go on."""

    def target(self, job_id: str | None) -> str:
        """Return what an entry calls for a job, None for all: method and URL, unless the service calls something else."""
        return f"POST {self._tick_url}" + ("" if job_id is None else f"/{job_id}")

    # ---------------------------------------------------------------- the seam

    def attach(self, host: Host) -> None:
        self._host = host

    def sync(self, jobs: Sequence[ScheduledJob]) -> None:
        super().sync(jobs)
        self._elsewhere = frozenset() if self._host is None else self._host.elsewhere()
        self._syncing.ask()

    def settle(self, timeout: timedelta) -> None:
        self._syncing.settle(timeout.total_seconds())

    def stop(self, timeout: timedelta) -> None:
        super().stop(timeout)
        self._syncing.stop(timeout.total_seconds())

    def after_fork(self) -> None:
        """In a forked child: thread and connections stayed behind."""
        self._deliver = None
        self._syncing.after_fork()
        if self.api is not None:
            self.api.after_fork()

    def entries(self) -> list[Entry]:
        due = super().entries()
        found = self.found() if due or self._syncing.done else {}
        wanted = {entry.job_id: entry for entry in self.wanted(self._synced)}
        told = []
        for entry in due:
            planned = wanted.get(None if self._is_one else entry.job_id)
            drift = "" if planned is None else self.drift(planned, found.get(planned.key))
            name = planned.key if planned is not None else self.keys.of_job(entry.name)
            told.append(replace(entry, name=name, drift=drift))
        return [
            *told,
            *(
                Entry(name=each.key, job_id=None, next_due_at=each.next_due_at, drift="of no job")
                for each in self.orphans(found, wanted.values())
            ),
        ]

    def admin(self, *, actor: str, audit: AuditRow) -> OutsideAdmin:
        from jobmanager.backends.tickers.admin import TickerAdmin  # noqa: PLC0415 - only operators need it

        return TickerAdmin(self)

    def health(self) -> Health:
        trouble = self._syncing.trouble
        if self._deliver is not None and trouble is not None and self._syncing.failures >= RED_AFTER:
            return Health(ok=False, detail=f"{self.title} cannot be kept in step: {trouble}")
        return super().health()

    def findings(self, jobs: Sequence[Job]) -> Iterator[Found]:
        if self._is_locked:
            yield from super().findings(jobs)
            return
        try:
            entries = self.admin(actor="doctor", audit=_no_row).entries()
        except TickerError as error:
            yield Found(level="failing", text=str(error), fix=self.fix(error))
            return
        for entry in (entry for entry in entries if entry.drift):
            yield Found(
                level="warning",
                text=f"{self.title}: {entry.name}: {entry.drift}.",
                fix="`jobmanager ticker resume` lets it go on."
                if entry.drift == "paused"
                else "`jobmanager ticker purge` removes what no job needs."
                if entry.orphan
                else "`jobmanager sync --apply` puts it right.",
            )
        yield Found(level="ok", text=f"{self.title} has {len(entries)} entries of ours")

    @classmethod
    def left_behind(cls, settings: Settings) -> Iterator[Found]:
        try:
            found = cls.from_settings(settings).found()
        except (ConfigurationError, TickerError):
            return
        if found:
            yield Found(
                level="warning",
                text=f"{cls.title} still has {len(found)} entries of ours, and calls for them.",
                fix=f"`jobmanager ticker purge {cls.name}` removes them.",
            )

    def fix(self, error: TickerError) -> str:
        """Return what to do about an error of the API."""
        if error.status in (401, 403):
            return f"Give this application a key of {self.title} that may write schedules."
        return f"Look whether {self.title} is up; the application tries again by itself."

    # ---------------------------------------------------------------- what should be there, and what is

    def planned(self) -> tuple[Sequence[ScheduledJob], frozenset[str]]:
        """Return the jobs to keep time for, and the ids of those that only other processes declare; works before a sync, too."""
        if self._host is None or self._deliver is not None:
            return self._synced, self._elsewhere
        return self._host.planned(), self._host.elsewhere()

    def wanted(self, jobs: Iterable[ScheduledJob]) -> list[Planned]:
        """Return the entries that these jobs need: one each, or one for all."""
        now = self._clock.now()
        coming = [item for item in jobs if item.schedule.next_after(now) is not None]
        if self._is_one:
            if not coming and not self._elsewhere:
                return []
            text = "* * * * *" if self._elsewhere else wake_text_of_all(coming, now)
            return [Planned(key=self.keys.of_all, text=text, zone="UTC", target=self.target(None))]
        return [self._wanted(item, *wake_text(item, now, zones=self.zones)) for item in coming]

    def _wanted(self, item: ScheduledJob, text: str, zone: str) -> Planned:
        job_id = item.job.id
        return Planned(
            key=self.keys.of_job(job_id), text=text, zone=zone, target=self.target(job_id), job_id=job_id
        )

    def found(self) -> dict[str, Planned]:
        """Return the entries of ours that the service has, by key; TickerError."""
        return {entry.key: entry for entry in self.fetch() if self.keys.is_ours(entry.key)}

    def drift(self, wanted: Planned, found: Planned | None) -> str:
        """Return how the entry differs, in a sentence; '' if it does not."""
        if found is None:
            return f"not in {self.title}"
        return difference(wanted, found) or (PAUSED if found.paused else "")

    def orphans(self, found: dict[str, Planned], wanted: Iterable[Planned]) -> list[Planned]:
        """Return the entries of ours that no job needs, of this process or another."""
        needed = {entry.key for entry in wanted} | {self.keys.of_job(job_id) for job_id in self._elsewhere}
        return [entry for key, entry in sorted(found.items()) if key not in needed]

    # ---------------------------------------------------------------- making it equal

    def _make_equal(self) -> None:
        with nullcontext() if self.api is None else self.api.connected():
            self._write_what_differs()

    def _write_what_differs(self) -> None:
        found = self.found()
        self._is_one = self._layout == "dispatcher" or (
            self._layout == "auto" and (self._is_one or self.keys.of_all in found)
        )
        try:
            self._write(found)
        except TickerFullError as error:
            if self._is_one or self._layout == "entries":
                raise
            logger.warning("%s One entry wakes all jobs from now on.", error)
            self._is_one = True
            self._write(self.found())

    def _write(self, found: dict[str, Planned]) -> None:
        """Write what differs, and nothing else: what is missing first, so that no instant falls between."""
        wanted = self.wanted(self._synced)
        new = [
            entry
            for entry in wanted
            if (is_there := found.get(entry.key)) is None or difference(entry, is_there)
        ]
        gone = self.orphans(found, wanted)
        until = self._clock.monotonic() + LONGEST_SYNC

        def put(entry: Planned) -> None:
            self._put(entry, found.get(entry.key))

        try:
            self._each(put, new, until)
        except TickerFullError:
            if not gone:
                raise
            places = len(new)
            self._each(self.remove, gone[:places], until)
            gone = gone[places:]
            self._each(put, new, until)
        self._each(self.remove, gone, until)

    def _put(self, wanted: Planned, found: Planned | None) -> None:
        try:
            self.put(wanted, found)
        except TickerError as error:
            full = error.status is not None and 400 <= error.status < 500 and error.status not in _NOT_FULL
            if full and found is None and _FULL.search(str(error)):
                raise TickerFullError(str(error), status=error.status) from None
            raise
        if found is not None and found.paused:  # what an operator stopped there stays so
            self.switch(found, active=False)

    def _each(self, act: Callable[[Planned], None], entries: Sequence[Planned], until: float) -> None:
        """Do it for each, a few at once. What is wrong with one stops no other; what is wrong with the service stops all."""
        general: list[TickerError] = []

        def attempt(entry: Planned) -> TickerError | None:
            try:
                if general:
                    return general[0]
                if self._clock.monotonic() > until:
                    raise TickerError(f"{self.title} was not brought in step within {LONGEST_SYNC:.0f} s.")
                act(entry)
            except TickerError as error:
                if error.is_general:
                    general.append(error)
                return error
            return None

        if not entries:
            return
        with ThreadPoolExecutor(AT_ONCE, f"jobmanager-{self.name}") as pool:
            errors = [error for error in pool.map(attempt, entries) if error is not None]
        if general or errors:
            raise (general or errors)[0]


def _no_row(*_: object, **__: object) -> dict[str, Any]:
    """Make no row of the audit: nothing is changed."""
    return {}
