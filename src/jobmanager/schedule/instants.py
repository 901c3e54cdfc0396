"""The methods of every schedule, written once in terms of `next_after`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice

from jobmanager.errors import CronError
from jobmanager.schedule.exclusion import Exclusion
from jobmanager.validation.texts import shown

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HORIZON = timedelta(days=18_263)  # 50 years: as far as a schedule is searched, ahead or back
MOST_EXCLUDED = 100_000
EARLIEST = datetime.min.replace(tzinfo=UTC)


class Instants(ABC):
    """Instants in time order: aware, UTC, whole seconds. Values; any thread may ask, asking changes nothing.

    Every method that takes a moment takes any aware datetime and raises CronError(kind="bad_moment") for a naive one.
    """

    __slots__ = ()
    until: datetime | None
    """The last moment at which an instant may be; None if the schedule does not end."""
    exclude: Exclusion
    """Instants of the schedule that do not run: they are due, and are recorded as skipped (excluded)."""

    @abstractmethod
    def next_after(self, moment: datetime) -> datetime | None:
        """Return the first instant strictly after `moment` (aware, UTC); None if none comes within 50 years."""

    @abstractmethod
    def describe(self) -> str:
        """Describe the schedule as an English phrase."""

    @property
    @abstractmethod
    def text(self) -> str:
        """One line that `jobmanager.schedule.parse` reads back; equal schedules have equal texts."""

    @property
    @abstractmethod
    def resolution(self) -> timedelta:
        """The smallest distance between two instants that this schedule asks a backend to keep."""

    @property
    def never_matches(self) -> bool:
        """True if no date fits, as for 30 February: refused when a job is registered."""
        return False

    def ended(self, moment: datetime) -> bool:
        """Return whether no instant comes after a moment because the schedule ends."""
        return self.until is not None and self.next_after(moment) is None

    def excluded(self, instant: datetime) -> str | None:
        """Return what excludes an instant, as `exclude=` says it; None if it runs."""
        return self.exclude.reason(instant, self._zone) if self.exclude else None

    def next_run_after(self, moment: datetime) -> datetime | None:
        """Return the first instant strictly after `moment` that is not excluded; None if none of the next 100,000 runs."""
        return next(iter(self.runs_after(moment, 1)), None) if self.exclude else self.next_after(moment)

    def runs_after(self, moment: datetime, count: int) -> list[datetime]:
        """Return the first `count` instants after `moment` that are not excluded; fewer if the schedule ends."""
        if not self.exclude:
            return self.upcoming(moment, count)
        following = islice(self.between(moment, datetime.max.replace(tzinfo=UTC)), MOST_EXCLUDED)
        return list(islice((each for each in following if self.excluded(each) is None), count))

    def end_after(self, moment: datetime, count: int) -> datetime:
        """Return the last moment of the schedule if it ends with the `count`-th instant after `moment` that is not excluded.

        Of a schedule that excludes some, 100,000 instants are looked at.
        """
        counted = self.runs_after(moment, count)
        return counted[-1] if counted else whole_utc(moment)

    @property
    def _zone(self) -> str:
        return "UTC"

    def _unless_ended(self, instant: datetime) -> datetime | None:
        return None if self.until is not None and instant > self.until else instant

    def _end_text(self) -> str:
        excluded = f" except {self.exclude.text}" if self.exclude else ""
        return excluded if self.until is None else f"{excluded} until {iso(self.until)}"

    def between(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """Yield the instants after `start` up to and including `end`, computed as they are taken."""
        instant = self.next_after(start)
        while instant is not None and instant <= end:
            yield instant
            instant = self.next_after(instant)

    def upcoming(self, moment: datetime, count: int) -> list[datetime]:
        """Return the first `count` instants after `moment`; fewer if the schedule ends."""
        return list(islice(self.between(moment, datetime.max.replace(tzinfo=UTC)), count))

    def previous_before(self, moment: datetime) -> datetime | None:
        """Return the latest instant strictly before `moment`; None if there was none for 50 years."""
        end = whole_utc(max(moment, EARLIEST + SECOND) - timedelta(microseconds=1))
        width = self.resolution
        while (latest := self.next_after(max(end, EARLIEST + width) - width)) is None or latest > end:
            if width >= HORIZON:
                return None
            width = min(width * 4, HORIZON)
        quiet = end  # invariant: `latest` is an instant, none lies in (quiet, end]
        while latest < quiet:
            middle = latest + (quiet - latest) // 2 // SECOND * SECOND
            later = self.next_after(middle)
            if later is not None and later <= end:
                latest = later
            else:
                quiet = middle
        return latest


def whole_utc(moment: datetime) -> datetime:
    """Return the moment in UTC without its microseconds; CronError(kind="bad_moment") for a naive one."""
    if moment.utcoffset() is None:
        raise CronError(
            f"{moment!r} does not say in which zone it is meant.",
            kind="bad_moment",
            value=str(moment),
            hint="Give an aware datetime, for example datetime(2026, 1, 1, tzinfo=UTC).",
        )
    return moment.astimezone(UTC).replace(microsecond=0)


def given_utc(moment: object) -> datetime:
    """Return `whole_utc` of what a caller gave; CronError(kind="bad_moment") for what is no datetime or leaves the calendar."""
    try:
        return whole_utc(moment)  # type: ignore[arg-type]  # what is no datetime has not its methods
    except (AttributeError, OverflowError):
        raise CronError(
            f"{shown(moment)} is not a moment.",
            kind="bad_moment",
            value=shown(moment),
            hint="Give an aware datetime, for example datetime(2026, 1, 1, tzinfo=UTC).",
        ) from None


def ending(until: object) -> datetime | None:
    """Return the last moment of a schedule that ends, given as an aware datetime or an ISO text, in UTC; None for one that does not end."""
    if until is None:
        return None
    if not isinstance(until, str):
        return given_utc(until)
    try:
        return given_utc(datetime.fromisoformat(until))
    except ValueError as error:
        raise CronError(
            f"{shown(until)} is not a moment with its zone.",
            kind="bad_moment",
            field="until",
            value=shown(until),
            hint="Write it as 2026-12-31T23:59Z.",
        ) from error


def iso(moment: datetime) -> str:
    """Write a UTC moment as 2026-01-01T00:00:00Z."""
    return moment.replace(tzinfo=None).isoformat() + "Z"
