"""Instants and lengths as the pages say them: clock time first, distance second, the exact instant on hover."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cached_property, lru_cache

from markupsafe import Markup

from jobmanager.present.phrases import distance, iso, length
from jobmanager.web.pages.markup import filled

NONE = Markup("–")  # noqa: RUF001 - as the design has it
_END = Markup("</time>")


@dataclass(frozen=True)
class Times:
    """The words of one page: seen at `now` by a reader in `zone`."""

    now: datetime
    zone: tzinfo

    def clock(self, moment: datetime, *, seconds: bool = False) -> str:
        """Return `12:00` today, `Tue 12:00` within a week, `19 Nov 10:40` this year, and else `2025-11-19 10:40`."""
        return _clock(_in_utc(moment), self.zone, self._today, seconds)

    def exact(self, moment: datetime) -> str:
        """Return `Wed 25 Nov 2026 14:00:00 CET (13:00:00 UTC)`."""
        return _exact(_in_utc(moment), self.zone)

    @cached_property
    def _today(self) -> date:
        return self.now.astimezone(self.zone).date()

    def at(self, moment: datetime | None, *, seconds: bool = False) -> Markup:
        """Return the moment as clock time in a `<time>`; an en dash for None."""
        return NONE if moment is None else _at(_in_utc(moment), self.zone, self._today, seconds)

    def ago(self, moment: datetime | None) -> Markup:
        """Return the distance, `in 27 min` or `8 s ago`, in a `<time>`; an en dash for None."""
        if moment is None:
            return NONE
        return _opened(_in_utc(moment), self.zone, " data-ago") + distance(moment, self.now) + _END

    def about(self, duration: timedelta) -> str:
        """Return a length that is guessed, in the largest unit of which there are two: `4 min`."""
        return distance(self.now + duration, self.now).removeprefix("in ")

    @staticmethod
    def length(duration: timedelta | None) -> str:
        """Return a length as the command line has it; an en dash for None."""
        return length(duration) or "–"  # noqa: RUF001


# What an instant is called depends on nothing but the zone and the day: pages with hundreds of instants are read again and again.
KEPT = 4096


def _in_utc(moment: datetime) -> datetime:
    """Return the moment as a key of the cache: in a zone of their own, moments of the two readings of an hour are equal."""
    return moment if moment.tzinfo is UTC else moment.astimezone(UTC)


@lru_cache(maxsize=KEPT)
def _clock(moment: datetime, zone: tzinfo, today: date, seconds: bool) -> str:  # noqa: FBT001 - a key of the cache
    local = moment.astimezone(zone)
    hour = f"{local:%H:%M:%S}" if seconds else f"{local:%H:%M}"
    if local.date() == today:
        return hour
    if abs(local.date() - today) < timedelta(days=7):
        return f"{local:%a} {hour}"
    if local.year == today.year:
        return f"{local.day} {local:%b} {hour}"
    return f"{local:%Y-%m-%d} {hour}"


@lru_cache(maxsize=KEPT)
def _exact(moment: datetime, zone: tzinfo) -> str:
    local = moment.astimezone(zone)
    told = f"{local:%a} {local.day} {local:%b %Y %H:%M:%S %Z}"
    return told if not local.utcoffset() else f"{told} ({moment.astimezone(UTC):%H:%M:%S} UTC)"


@lru_cache(maxsize=KEPT)
def _opened(moment: datetime, zone: tzinfo, counts: str) -> Markup:
    return filled('<time datetime="{}" title="{}"', iso(moment), _exact(moment, zone)) + Markup(f"{counts}>")  # noqa: S704 - a word of ours


@lru_cache(maxsize=KEPT)
def _at(moment: datetime, zone: tzinfo, today: date, seconds: bool) -> Markup:  # noqa: FBT001 - a key of the cache
    return _opened(moment, zone, "") + _clock(moment, zone, today, seconds) + _END
