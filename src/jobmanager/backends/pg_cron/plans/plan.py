"""From a schedule to what SQL needs to keep time by itself: minutes of the day on sets of days, exact up to a horizon.

The calendar stays in Python: what an expression means, and what clock changes do to it, is decided by `schedule`.

A day's minutes are one integer of 1440 bits, written as PostgreSQL writes bit(1440): the highest is 00:00. A set of days is
an integer too, its lowest bit the first day. So a change of zone is a shift, and nothing here walks over minutes.
"""

from __future__ import annotations

from calendar import monthrange
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Literal, assert_never

from jobmanager.cheap import cheap
from jobmanager.schedule import At, Cron, Every, Schedule, calendar, zones
from jobmanager.schedule.dialect import day_rules
from jobmanager.schedule.fields import DayRule
from jobmanager.schedule.instants import EPOCH
from jobmanager.schedule.wakeup import (
    HOLDS_FOR,
    MINUTES,
    cron_wakeup,
    finer_than_minutes,
    in_utc,
    local_minutes,
    offsets,
    wakeup,
)

MINUTE = timedelta(minutes=1)
FEWEST_INSTANTS = 8  # a plan goes on until it has so many
LONGEST_PLAN = 100_000  # days, or up to four times as many: 29 February on a given weekday comes eight times in 270 years


@cheap
@dataclass(frozen=True, slots=True)
class PlanRow:
    """On these UTC days, each given as first and first no more, these minutes of the day."""

    minutes: int
    days: tuple[tuple[date, date], ...]

    @property
    def minutes_text(self) -> str:
        """The minutes as PostgreSQL reads a bit(1440)."""
        return f"x{self.minutes:0360x}"

    @property
    def days_text(self) -> str:
        """The days as PostgreSQL reads a datemultirange."""
        return _days_text(self.days)


@cheap
@dataclass(frozen=True, slots=True)
class Plan:
    """A schedule as SQL needs it.

    cron: the rows, exact on every UTC day before `planned_until`; rows may share days. every: `first_at` + n · `step`. at:
    `first_at`. The last two hold for ever: `planned_until` is date.max. `wakeup`: a five-field text in UTC for pg_cron, which
    matches the minute of every instant, or the minute after one that has seconds, and others. `tzdata`: the release of the
    zone data that was used, '' if none was.
    """

    schedule: str
    kind: Literal["cron", "every", "at"]
    first_at: datetime | None
    step: timedelta | None
    wakeup: str
    planned_until: date
    tzdata: str
    rows: tuple[PlanRow, ...]


def unsupported(schedule: Schedule) -> str | None:
    """Why the schedule cannot be kept to the minute, and what to do instead; None if it can."""
    return finer_than_minutes(schedule, "The database is woken")


def plan_of(schedule: Schedule, start: datetime, days: int) -> Plan:
    """Return the plan for `days` UTC days from that of `start` on; of a rare schedule, for as many as bring eight instants.

    Raises ValueError for a schedule that is `unsupported`. Days before 1973 are not planned: some zones kept seconds.
    """
    if reason := unsupported(schedule):
        raise ValueError(reason)
    match schedule:
        case Cron():
            first = (start - EPOCH) // timedelta(days=1)
            return _cron(schedule, first, days)
        case Every():
            step = schedule.interval
            first_at = EPOCH + (schedule.anchor - EPOCH) % step
            return Plan(schedule.text, "every", first_at, step, wakeup(schedule, start), date.max, "", ())
        case At():
            return Plan(schedule.text, "at", schedule.moment, None, wakeup(schedule, start), date.max, "", ())
        case _:
            assert_never(schedule)


# --- cron: shifts of the local day


@lru_cache(maxsize=1024)
def _cron(schedule: Cron, first: int, days: int) -> Plan:
    rows = _rows(schedule, first, days)
    while (
        _later_instants(rows) < FEWEST_INSTANTS
        and days < LONGEST_PLAN
        and not (schedule.never_matches or _ends(schedule, first + days))
    ):
        days *= 4
        rows = _rows(schedule, first, days)
    return Plan(
        schedule.text,
        "cron",
        None,
        None,
        cron_wakeup(schedule, first, max(days, HOLDS_FOR)),
        date.max if _ends(schedule, first + days) else _date(first + days),
        "" if schedule.timezone == "UTC" else zones.version(),
        tuple(PlanRow(minutes, _ranges(on, first)) for minutes, on in rows.items()),
    )


def _until_it_ends(schedule: Cron, first: int, days: int) -> Iterator[tuple[int, int, int | None]]:
    """Yield the stretches of these days, up to the minute in which the schedule ends."""
    last = None if schedule.until is None else (schedule.until - EPOCH) // MINUTE - first * MINUTES + 1
    for begin, end, offset in _stretches(schedule.timezone, first, days, wildcard=schedule.fields.wildcard):
        if last is None or begin < last:
            yield begin, end if last is None else min(end, last), offset


def _ends(schedule: Cron, day: int) -> bool:
    """Whether the schedule has no instant from the midnight of a day on, because it ends."""
    return schedule.until is not None and schedule.until < EPOCH + timedelta(days=day)


def _rows(schedule: Cron, first: int, days: int) -> dict[int, int]:
    """Minutes of the UTC day, and the days that have them."""
    fitting = _fitting_days(day_rules(schedule.expression), first - 1, days + 2)
    local = local_minutes(schedule.expression)
    whole: defaultdict[int, int] = defaultdict(int)
    parts: defaultdict[int, int] = defaultdict(int)
    for begin, end, offset in _until_it_ends(schedule, first, days):
        if offset is None:
            for minute in _asked(schedule, first * MINUTES + begin, first * MINUTES + end):
                day, of_day = divmod(minute - first * MINUTES, MINUTES)
                parts[day] |= 1 << (MINUTES - 1 - of_day)
            continue
        shifted = in_utc(local, offset)
        first_whole, end_whole = -(-begin // MINUTES), end // MINUTES
        if first_whole < end_whole:
            within = (1 << end_whole) - (1 << first_whole)
            for carried, minutes in shifted:
                whole[minutes] |= (fitting >> (1 - carried)) & within
        for day, minutes_of_day in _parts(begin, end):
            for carried, minutes in shifted:
                if fitting >> (day + 1 - carried) & 1:
                    parts[day] |= minutes & minutes_of_day
    for day, minutes in parts.items():
        whole[minutes] |= 1 << day
    return _merged(whole)


def _merged(rows: dict[int, int]) -> dict[int, int]:
    """Return the same minutes in as few rows as possible: one for equal days, and then one for equal minutes."""
    by_days: defaultdict[int, int] = defaultdict(int)
    for minutes, days in rows.items():
        if minutes and days:
            by_days[days] |= minutes
    by_minutes: defaultdict[int, int] = defaultdict(int)
    for days, minutes in by_days.items():
        by_minutes[minutes] |= days
    return by_minutes


def _later_instants(rows: dict[int, int]) -> int:
    """How many instants there are from the second day on: those of the first may be over."""
    return sum(minutes.bit_count() * (days & ~1).bit_count() for minutes, days in rows.items())


@lru_cache(maxsize=4096)
def _stretches(
    timezone: str, first: int, days: int, *, wildcard: bool
) -> tuple[tuple[int, int, int | None], ...]:
    """Return the stretches of minutes of these days with the offset that each keeps; None: the calendar decides.

    It is asked for what is shown twice, both times, and for as long after a skipped hour as that was, when its times may be made good. A
    wildcard schedule follows the wall clock: nothing is made good or left out.
    """
    begin = first * MINUTES
    changes = offsets(
        timezone, first - 2, days + 4
    )  # a day more on both sides: what is shown twice may reach over
    found: list[tuple[int, int, int | None]] = []
    for (_, before), (change, after) in pairwise(changes):
        asked_for = 0 if wildcard else abs(after - before)
        found.append((begin, change - asked_for, before))
        begin = change + asked_for
        found.append((change - asked_for, begin, None))
    found.append((begin, (first + days) * MINUTES, changes[-1][1]))
    clipped = (
        (max(a - first * MINUTES, 0), min(b - first * MINUTES, days * MINUTES), offset)
        for a, b, offset in found
    )
    return tuple(stretch for stretch in clipped if stretch[0] < stretch[1])


def _asked(schedule: Cron, begin: int, end: int) -> Iterator[int]:
    """Yield the minutes since 1970, of these, in which the schedule has an instant."""
    before = EPOCH + timedelta(minutes=begin, seconds=-1)
    for instant in schedule.between(before, before + timedelta(minutes=end - begin)):
        yield (instant - EPOCH) // timedelta(minutes=1)


def _parts(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the days of which only a part lies in these minutes, and that part."""
    for day in {begin // MINUTES, end // MINUTES}:
        since, until = max(begin - day * MINUTES, 0), min(end - day * MINUTES, MINUTES)
        if since < until and until - since < MINUTES:
            yield day, (1 << (MINUTES - since)) - (1 << (MINUTES - until))


# --- days


@lru_cache(maxsize=1024)
def _fitting_days(rules: tuple[DayRule, ...], first: int, count: int) -> int:
    """Return the days that fit one of the rules; the lowest bit is the first."""
    shown = _calendar(first, count)
    fitting = 0
    for rule in rules:
        days = (1 << count) - 1
        columns = (rule.months, 12), (rule.days, 31), (rule.weekdays, 7), (range(rule.within), 31)
        for (values, full), column in zip(columns, shown, strict=True):
            if len(values) < full:
                days &= int(column.translate(_ones(values)), 2)
        fitting |= days
    return fitting


@lru_cache(maxsize=16)
def _calendar(first: int, count: int) -> tuple[bytes, bytes, bytes, bytes]:
    """Month, day, weekday (0 = Sunday) and how many days the month still has, of each day, the last day first."""
    days = [_date(day) for day in range(first + count - 1, first - 1, -1)]
    return (
        bytes(day.month for day in days),
        bytes(day.day for day in days),
        bytes(day.isoweekday() % 7 for day in days),
        bytes(monthrange(day.year, day.month)[1] - day.day for day in days),
    )


def _ones(values: Iterable[int]) -> bytes:
    """Return a table for `translate`: 1 for these values, else 0."""
    table = bytearray(b"0") * 256
    for value in values:
        table[value] = ord("1")
    return bytes(table)


@lru_cache(maxsize=4096)
def _ranges(days: int, first: int) -> tuple[tuple[date, date], ...]:
    """Return the stretches of consecutive days of a set of days."""
    found, day = [], first
    while days:
        skipped = (days & -days).bit_length() - 1
        days >>= skipped
        length = (~days & (days + 1)).bit_length() - 1
        days >>= length
        found.append((_date(day + skipped), _date(day + skipped + length)))
        day += skipped + length
    return tuple(found)


@lru_cache(maxsize=4096)
def _days_text(days: tuple[tuple[date, date], ...]) -> str:
    return "{" + ",".join(f"[{first},{end})" for first, end in days) + "}"


def _date(day: int) -> date:
    return date.fromordinal(calendar.EPOCH_DAY + day)
