"""Five-field texts that wake at every instant of a schedule, for tickers that know neither our zones nor our rules.

They wake at other moments, too: the ledger decides which instant is due. Numbers in lists or `*`, and never both a day of the
month and a weekday: every cron reads that alike. No wake-up is early; an instant with seconds is woken for at the next minute.

A day's minutes are one integer of 1440 bits, the highest is 00:00; a change of zone is a shift.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import lru_cache, reduce
from itertools import pairwise
from math import gcd
from operator import or_
from typing import assert_never

from jobmanager.schedule import At, Cron, Every, Schedule, calendar
from jobmanager.schedule.dialect import read
from jobmanager.schedule.dst import LARGEST_SHIFT
from jobmanager.schedule.fields import EVERY_DAY, EVERY_WEEKDAY, Fields
from jobmanager.schedule.instants import EPOCH, SECOND

MINUTES = 1440  # of a day
WHOLE_DAY = (1 << MINUTES) - 1
HOLDS_FOR = 400  # days; in them every zone shows each of its offsets
LAST_DAYS = frozenset({28, 29, 30, 31})  # the days that may be the last of a month
WEEK = 7 * calendar.DAY


def wakeup(schedule: Schedule, start: datetime, days: int = HOLDS_FOR) -> str:
    """Write the wake-up text in UTC; for a cron schedule it holds for `days` days from that of `start` on."""
    match schedule:
        case Cron():
            first = (start - EPOCH) // timedelta(days=1)
            return cron_wakeup(schedule, first, days)
        case Every():
            return _every_wakeup(schedule.anchor, schedule.interval)
        case At():
            return _at_wakeup(schedule.moment)
        case _:
            assert_never(schedule)


def wakeup_of_all(schedules: Iterable[Schedule], start: datetime, days: int = HOLDS_FOR) -> str:
    """Write one text in UTC that wakes for each of these schedules: the minutes of all of them, on every day."""
    minutes = 0
    for schedule in schedules:
        minutes |= local_minutes(" ".join([*wakeup(schedule, start, days).split()[:2], "* * *"]))
    return " ".join([*_time_texts(minutes), "* * *"])


def finer_than_minutes(schedule: Schedule, woken: str) -> str | None:
    """Return why a clock of full minutes cannot keep the schedule, and what to do instead; None if it can.

    `woken` begins the sentence: "The database is woken".
    """
    if schedule.resolution < timedelta(minutes=1):
        return (
            f"{woken} once a minute, and {schedule.text!r} asks for every {schedule.resolution // SECOND} s. "
            "Choose an interval of 60 s or more, or a backend that has seconds (local, celery)."
        )
    if isinstance(schedule, Cron) and schedule.fields.seconds != (0,):
        five = " ".join(schedule.expression.split()[1:])
        return (
            f"{woken} at full minutes, and {schedule.text!r} asks for second {schedule.fields.seconds[0]}. "
            f"Write {five!r}, or choose a backend that has seconds (local, celery)."
        )
    return None


def local_wakeup(schedule: Cron, start: datetime, days: int = HOLDS_FOR) -> str | None:
    """Write the wake-up text on the clock of the schedule's own zone.

    None if a change of that clock within `days` days touches one of its times: what a cron makes of such a time is its own.
    """
    local = local_minutes(schedule.expression)
    minutes, carried = _woken(schedule.fields, local, 0)
    first = (start - EPOCH) // timedelta(days=1)
    for (_, before), (change, after) in pairwise(offsets(schedule.timezone, first - 1, days + 1)):
        if _any_within(local | minutes, change + min(before, after), change + max(before, after)):
            return None
    return _text(minutes, schedule.fields, carried)


def cron_wakeup(schedule: Cron, first: int, days: int) -> str:
    """As `wakeup`, of a cron schedule from a day (since 1970) on: each time of day by each offset, so by both of a change."""
    fields, local = schedule.fields, local_minutes(schedule.expression)
    minutes, carried = 0, set()
    changes = offsets(schedule.timezone, first - 1, days + 1)
    for offset in {offset for _, offset in changes}:
        more, moved = _woken(fields, local, offset)
        minutes |= more
        carried |= moved
    if schedule.dst.gap == "end" and not fields.wildcard:
        for (_, before), (change, after) in pairwise(changes):
            # What falls into a gap is made good at its end, if the gap is not too long.
            made_good = after - before <= LARGEST_SHIFT // 60
            if made_good and _any_within(local, change + before, change + after):
                minutes |= 1 << (MINUTES - 1 - change % MINUTES)
    return _text(minutes, fields, carried)


# --- minutes of a day


@lru_cache(maxsize=1024)
def local_minutes(expression: str) -> int:
    """Return the minutes of a local day that the expression matches."""
    fields = read(expression)
    hour = sum(1 << (59 - minute) for minute in fields.minutes)
    return sum(hour << (60 * (23 - hour_of_day)) for hour_of_day in fields.hours)


def in_utc(local: int, offset: int) -> list[tuple[int, int]]:
    """Convert a local day's minutes to UTC: those of the day before (-1), of the same day (0), of the day after (1)."""
    return _by_day(local << (MINUTES + offset))


@lru_cache(maxsize=1024)
def offsets(timezone: str, first: int, days: int) -> list[tuple[int, int]]:
    """As `calendar.offsets`, for days since 1970, in minutes."""
    found = calendar.offsets(timezone, first * calendar.DAY, (first + days) * calendar.DAY)
    return [(since // 60, offset // 60) for since, offset in found]


def _by_day(three_days: int) -> list[tuple[int, int]]:
    days = (
        (-1, three_days >> 2 * MINUTES),
        (0, three_days >> MINUTES & WHOLE_DAY),
        (1, three_days & WHOLE_DAY),
    )
    return [(carried, minutes) for carried, minutes in days if minutes]


def _woken(fields: Fields, local: int, offset: int) -> tuple[int, set[int]]:
    """Return the minutes of a UTC day at which to wake for these local ones, and the days they are off (-1, 0, 1)."""
    on_time = local << (MINUTES + offset)
    three_days = on_time if fields.seconds[0] == 0 else 0
    if fields.seconds[-1] > 0:
        three_days |= on_time >> 1
    by_day = _by_day(three_days)
    return reduce(or_, (minutes for _, minutes in by_day)), {carried for carried, _ in by_day}


def _any_within(minutes: int, begin: int, end: int) -> bool:
    """Whether one of these minutes of the day is shown from wall minute `begin` on, before `end`."""
    length, two_days = min(end - begin, MINUTES), minutes << MINUTES | minutes
    return length > 0 and bool(two_days >> (2 * MINUTES - begin % MINUTES - length) & ((1 << length) - 1))


# --- texts


def _text(minutes: int, fields: Fields, carried: set[int]) -> str:
    return " ".join([*_time_texts(minutes), *_day_texts(fields, carried)])


def _time_texts(minutes: int) -> tuple[str, str]:
    """Minutes and hours: the smallest lists that hold each of these minutes of the day."""
    by_hour = [minutes >> (60 * (23 - hour)) & ((1 << 60) - 1) for hour in range(24)]
    any_hour = reduce(or_, by_hour)
    return (
        _listed((minute for minute in range(60) if any_hour >> (59 - minute) & 1), 60),
        _listed((hour for hour in range(24) if by_hour[hour]), 24),
    )


def _day_texts(fields: Fields, carried: set[int]) -> tuple[str, str, str]:
    """Day of month, month and weekday: those of the expression, moved as UTC's day differs from the local one."""
    months, days, weekdays = set(fields.months), set(fields.days), set(fields.weekdays)
    if fields.last_day:
        days |= LAST_DAYS
    weekdays |= {day for day, _ in fields.nth} | set(fields.last_weekdays)
    if fields.either or len(weekdays) < 7:
        if fields.either or len(days) < 31:
            weekdays = set(EVERY_WEEKDAY)
        days = set(EVERY_DAY)
    if months == {2} and min(days) >= 29:
        # Some releases of pg_cron are a day early in leap years (citusdata/pg_cron#329).
        return "*", "*", "*"
    return (
        _listed({moved for by in carried for moved in _moved_days(days, by)}, 31),
        _listed({moved for by in carried for moved in _moved_months(months, days, by)}, 12),
        _listed({(weekday + by) % 7 for by in carried for weekday in weekdays}, 7),
    )


def _moved_days(days: set[int], by: int) -> set[int]:
    """Return the days of the month that may be the day before (-1) or after (1) one of these."""
    moved = {day + by for day in days} & EVERY_DAY
    if by == -1 and 1 in days:
        moved |= LAST_DAYS
    if by == 1 and days & LAST_DAYS:
        moved.add(1)
    return moved


def _moved_months(months: set[int], days: set[int], by: int) -> set[int]:
    """Return the months in which the day before or after one of these days may lie."""
    moved = set(months) if {day + by for day in days} & EVERY_DAY else set()
    if (by == -1 and 1 in days) or (by == 1 and days & LAST_DAYS):
        moved |= {(month - 1 + by) % 12 + 1 for month in months}
    return moved


def _every_wakeup(anchor: datetime, interval: timedelta) -> str:
    """Return the minutes and hours at which the instants repeat every day, and the weekday if it is always the same."""
    start, seconds = (anchor - EPOCH) // SECOND, interval // SECOND
    in_hour, in_day = gcd(seconds, 3_600), gcd(seconds, calendar.DAY)
    if in_hour <= 60:
        return "* * * * *"
    minutes = {_full_minute(start + rest) // 60 % 60 for rest in range(0, 3_600, in_hour)}
    hours = (
        range(24)
        if in_day <= 3_600
        else {_full_minute(start + rest) // 3_600 % 24 for rest in range(0, calendar.DAY, in_day)}
    )
    weekdays = (
        EVERY_WEEKDAY
        if seconds % WEEK
        else {(EPOCH + timedelta(seconds=_full_minute(start))).isoweekday() % 7}
    )
    return f"{_listed(minutes, 60)} {_listed(hours, 24)} * * {_listed(weekdays, 7)}"


def _at_wakeup(moment: datetime) -> str:
    shown = EPOCH + timedelta(seconds=_full_minute((moment - EPOCH) // SECOND))
    return f"{shown.minute} {shown.hour} {shown.day} {shown.month} *"


def _full_minute(instant: int) -> int:
    """Round an instant up to a full minute: no wake-up is early."""
    return -(-instant // 60) * 60


def _listed(values: Iterable[int], full: int) -> str:
    listed = sorted(values)
    return "*" if len(listed) == full else ",".join(map(str, listed))
