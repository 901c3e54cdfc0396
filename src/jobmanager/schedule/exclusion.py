"""`exclude=` of a schedule: the instants that are recorded as skipped and do not run. Dates, cron lines and calendars."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from jobmanager.errors import CronError
from jobmanager.schedule.dialect import day_rules, read
from jobmanager.validation.texts import shown

MOST_CHARACTERS = 1_000
"""Of the text: schedules are keys of an index in PostgreSQL."""
DAY = timedelta(days=1)
_PLACE = re.compile(r"(holidays|business days) ([A-Z]{2,3})(?:-([A-Za-z0-9_ .'()]{1,40}))?")
_PLAIN = {"weekends", "weekdays", "business days"}


@dataclass(frozen=True, slots=True)
class Calendar:
    """A set of days, read in the zone of the schedule (an interval: UTC). `~calendar` is every other day. Made by `jobmanager.calendars`."""

    text: str

    def __invert__(self) -> Calendar:
        return Calendar(
            self.text.removeprefix("not ") if self.text.startswith("not ") else f"not {self.text}"
        )

    def __contains__(self, day: date) -> bool:
        name = self.text.removeprefix("not ")
        return _is_in(name, day) is not self.text.startswith("not ")

    def describe(self) -> str:
        """Describe the days as an English phrase: "on holidays DE-BY"."""
        name = self.text.removeprefix("not ").replace(",", ", ")
        return f"outside {name}" if self.text.startswith("not ") else f"on {name}"


@dataclass(frozen=True, slots=True)
class Line:
    """The times that a cron line matches on the wall clock of the schedule; a line of five fields means whole minutes."""

    text: str

    def describe(self) -> str:
        """Describe the times as an English phrase."""
        return f"when {self.text!r} matches"


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Everything that a schedule excludes; falsy if that is nothing. `text` is one line that `Exclusion.read` reads back."""

    items: tuple[Calendar | Line, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.items)

    @classmethod
    def read(cls, value: Any) -> Exclusion:
        """Return the exclusion that was given as a date, a text, a calendar, or several of them; CronError for any other value."""
        if isinstance(value, Exclusion):
            return value
        found = cls(tuple(dict.fromkeys(_items(value))))
        if len(found.text) > MOST_CHARACTERS:
            raise _refusal(value, "Name ranges such as 2026-12-24/2027-01-06, or a calendar.")
        return found

    @property
    def text(self) -> str:
        """All items: "weekends; holidays DE-BY; 2026-12-24"."""
        return "; ".join(item.text for item in self.items)

    def describe(self) -> str:
        """Describe it for the end of a sentence; '' for nothing."""
        return ", but not " + " nor ".join(item.describe() for item in self.items) if self.items else ""

    def reason(self, instant: datetime, timezone: str) -> str | None:
        """Return the text of the first item that excludes the instant; None if it is not excluded."""
        wall = instant.astimezone(ZoneInfo(timezone))
        return next(
            (
                item.text
                for item in self.items
                if (wall.date() in item if isinstance(item, Calendar) else _matches(item.text, wall))
            ),
            None,
        )


NOTHING = Exclusion()


def _items(value: Any) -> Iterable[Calendar | Line]:
    if value is None:
        return
    if isinstance(value, (Calendar, Line)):
        yield value
    elif isinstance(value, str):
        for word in filter(None, (part.strip() for part in value.split(";"))):
            yield _item(word)
    elif isinstance(value, date) and not isinstance(value, datetime):
        yield Calendar(value.isoformat())
    elif isinstance(value, Iterable) and not isinstance(value, (bytes, dict)):
        for each in value:
            yield from _items(each)
    else:
        raise _refusal(value)


def _item(word: str) -> Calendar | Line:
    name = " ".join(word.split()).removeprefix("not ")
    negated = "not " if name != " ".join(word.split()) else ""
    if name in _PLAIN:
        return Calendar(negated + name)
    if (place := _PLACE.fullmatch(name)) is not None:
        days_of(place[2], place[3], 2000)
        return Calendar(negated + name)
    if name[:4].isdigit() and name[4:5] == "-":
        return Calendar(negated + dates_text(name.split(",")))
    if not negated and len(name.split()) in (5, 6):
        read(name)
        return Line(name)
    raise _refusal(word)


def dates_text(days: Iterable[date | str]) -> str:
    """Return dates and ranges as a calendar's text, sorted: "2026-12-24,2026-12-31/2027-01-02"; CronError for what is none."""
    found = {_dates(day) for day in days}
    if not found:
        raise _refusal("", "Name a date, for example 2026-12-24.")
    return ",".join(f"{first}" if first == last else f"{first}/{last}" for first, last in sorted(found))


def _dates(day: date | str) -> tuple[date, date]:
    if isinstance(day, datetime) or not isinstance(day, (date, str)):
        raise _refusal(day)
    first, _, last = str(day).strip().partition("/")
    try:
        begin = date.fromisoformat(first)
        end = date.fromisoformat(last) if last else begin
    except ValueError:
        raise _refusal(day) from None
    if end < begin:
        raise _refusal(day, "A range ends after its begin.")
    return begin, end


@lru_cache(maxsize=256)
def _ranges(text: str) -> tuple[tuple[date, date], ...]:
    return tuple(_dates(day) for day in text.split(","))


def _is_in(name: str, day: date) -> bool:
    is_weekday = day.weekday() < 5
    if name in _PLAIN:
        return not is_weekday if name == "weekends" else is_weekday
    place = _PLACE.fullmatch(name)
    if place is None:
        return any(first <= day <= last for first, last in _ranges(name))
    is_holiday = day in days_of(place[2], place[3], day.year)
    return is_holiday if place[1] == "holidays" else is_weekday and not is_holiday


@lru_cache(maxsize=256)
def days_of(country: str, subdivision: str | None, year: int) -> frozenset[date]:
    """Return the holidays of a year; CronError for a place that the package `holidays` does not know, or without the package."""
    try:
        import holidays  # noqa: PLC0415 - an extra
    except ImportError:
        raise CronError(
            f"Holidays of {country} need the package `holidays`.",
            kind="bad_value",
            field="exclude",
            value=country,
            hint="Install jobmanager-backends[holidays].",
        ) from None
    try:
        return frozenset(holidays.country_holidays(country, subdiv=subdivision, years=year))
    except NotImplementedError as error:  # as the package says that it knows no such place
        raise _refusal("-".join(filter(None, (country, subdivision))), f"{error}.") from None


def _matches(line: str, wall: datetime) -> bool:
    fields = read(line)
    if len(line.split()) == 6 and wall.second not in fields.seconds:
        return False
    return wall.minute in fields.minutes and wall.hour in fields.hours and _fits(line, wall.date())


@lru_cache(maxsize=1024)
def _fits(line: str, day: date) -> bool:
    return any(rule.fits(day) for rule in day_rules(line))


def _refusal(value: Any, hint: str = "") -> CronError:
    return CronError(
        f"{shown(value)} is no exclusion.",
        kind="bad_value",
        field="exclude",
        value=shown(value),
        hint=hint or HOW_TO_WRITE,
    )


HOW_TO_WRITE = (
    'Use a date ("2026-12-24", or a range "2026-12-24/2027-01-06"), a cron line ("* 12 * * *"), weekends, weekdays, '
    '"holidays DE-BY" or "business days DE-BY", with "not " before a calendar for every other day.'
)
