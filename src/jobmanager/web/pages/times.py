"""Instants and lengths as the pages say them: clock time first, distance second, the exact instant on hover."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from markupsafe import Markup

from jobmanager.present.phrases import distance, iso, length
from jobmanager.web.pages.markup import filled

NOT_COUNTED, COUNTED = Markup(""), Markup(" data-ago")


@dataclass(frozen=True)
class Times:
    """The words of one page: seen at `now` by a reader in `zone`."""

    now: datetime
    zone: tzinfo

    def clock(self, moment: datetime, *, seconds: bool = False) -> str:
        """Return `12:00` today, `Tue 12:00` within a week, `19 Nov 10:40` this year, and else `2025-11-19 10:40`."""
        local, today = moment.astimezone(self.zone), self.now.astimezone(self.zone)
        hour = f"{local:%H:%M:%S}" if seconds else f"{local:%H:%M}"
        if local.date() == today.date():
            return hour
        if abs(local.date() - today.date()) < timedelta(days=7):
            return f"{local:%a} {hour}"
        if local.year == today.year:
            return f"{local.day} {local:%b} {hour}"
        return f"{local:%Y-%m-%d} {hour}"

    def exact(self, moment: datetime) -> str:
        """Return `Wed 25 Nov 2026 14:00:00 CET (13:00:00 UTC)`."""
        local = moment.astimezone(self.zone)
        told = f"{local:%a} {local.day} {local:%b %Y %H:%M:%S %Z}"
        return told if not local.utcoffset() else f"{told} ({moment.astimezone(UTC):%H:%M:%S} UTC)"

    def at(self, moment: datetime | None, *, seconds: bool = False) -> Markup:
        """Return the moment as clock time in a `<time>`; an en dash for None."""
        return self._element(moment, "" if moment is None else self.clock(moment, seconds=seconds))

    def ago(self, moment: datetime | None) -> Markup:
        """Return the distance, `in 27 min` or `8 s ago`, in a `<time>`; an en dash for None."""
        return self._element(moment, distance(moment, self.now), COUNTED)

    def _element(self, moment: datetime | None, told: str, counts: Markup = NOT_COUNTED) -> Markup:
        if moment is None:
            return Markup("–")  # noqa: RUF001 - as the design has it
        return filled(
            '<time datetime="{}" title="{}"{}>{}</time>', iso(moment), self.exact(moment), counts, told
        )

    def about(self, duration: timedelta) -> str:
        """Return a length that is guessed, in the largest unit of which there are two: `4 min`."""
        return distance(self.now + duration, self.now).removeprefix("in ")

    @staticmethod
    def length(duration: timedelta | None) -> str:
        """Return a length as the command line has it; an en dash for None."""
        return length(duration) or "–"  # noqa: RUF001
