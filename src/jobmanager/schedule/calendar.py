"""The instants of a cron schedule: croniter finds the days; times of day and clock changes are computed here.

Instants and wall times are whole seconds since 1970 (wall: read as if the zone were UTC), so searching is integer arithmetic.
"""

from __future__ import annotations

import copy
from bisect import bisect_left
from calendar import monthrange
from datetime import date, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from croniter import croniter

from jobmanager.schedule.dialect import day_rules, read
from jobmanager.schedule.fields import DayRule, Fields
from jobmanager.schedule.instants import EPOCH, SECOND

DAY = 86_400
# cron(8) of Debian: "Clock changes of more than 3 hours are considered to be corrections", so they are not made good.
LARGEST_SHIFT = 3 * 3_600
# No zone has kept an offset for less than 3.9 days (Freetown 1939; since 1970: a week), so looking every 3 days sees all.
PROBE = 3 * DAY
PERIOD = 128 * PROBE
EPOCH_DAY = date(1970, 1, 1).toordinal()
# Moments before 1900 count as 1900, from 9900 on nothing is due: no search runs out of the years that datetime knows.
FIRST = (date(1900, 1, 1).toordinal() - EPOCH_DAY) * DAY
LAST = (date(9900, 1, 1).toordinal() - EPOCH_DAY) * DAY


class Shift(NamedTuple):
    """At `instant` the zone's offset changes from `before` to `after`, both in seconds east of UTC."""

    instant: int
    before: int
    after: int


@lru_cache(maxsize=8192)
def next_after(expression: str, timezone: str, moment: int) -> int | None:
    """Return the first instant of the expression strictly after `moment`, in seconds since 1970; None if there is none.

    The horizon of 50 years needs no check: of the dates that exist, 29 February on a given weekday stays away longest, for
    40 years around 2100.

    Debian's rule (cron(8)): a schedule at particular times fires at the end of a gap that swallowed one of its times, and
    only in the first pass of a repeated hour; a wildcard schedule fires whenever the wall clock shows a time that matches.
    """
    if moment >= LAST:
        return None
    moment = max(moment, FIRST)
    fields = read(expression)
    candidate = _first_match(expression, _wall_reached(timezone, moment, wildcard=fields.wildcard) + 1)
    shift = _shift_after(timezone, moment)
    while candidate is not None:
        instant, before, after = shift
        if candidate - before < instant:
            return candidate - before
        if _made_good(shift, wildcard=fields.wildcard):
            if candidate < instant + after:
                return instant
        elif candidate < instant + after or after < before:  # skipped for good, or about to be shown again
            candidate = _first_match(expression, instant + after)
        shift = _shift_after(timezone, instant)
    return None


def offsets(timezone: str, start: int, end: int) -> list[tuple[int, int]]:
    """List the zone's offset at `start` and each later one until `end`: the second it begins, and seconds east of UTC."""
    shift = _shift_after(timezone, start)
    found = [(start, shift.before)]
    while shift.instant <= end:
        if shift.after != shift.before:
            found.append((shift.instant, shift.after))
        shift = _shift_after(timezone, shift.instant)
    return found


def _wall_reached(timezone: str, moment: int, *, wildcard: bool) -> int:
    """Return the wall time up to which every instant has fired by `moment`; in a repeated hour that fired once, its end."""
    wall = moment + _shift_after(timezone, moment).before
    shift = _shift_after(timezone, moment - LARGEST_SHIFT)
    while shift.instant <= moment:
        if _made_good(shift, wildcard=wildcard):
            wall = max(wall, shift.instant + shift.before - 1)
        shift = _shift_after(timezone, shift.instant)
    return wall


def _made_good(shift: Shift, *, wildcard: bool) -> bool:
    """Whether skipped times are caught up and repeated times are left out."""
    return not wildcard and abs(shift.after - shift.before) <= LARGEST_SHIFT


def _first_match(expression: str, wall: int) -> int | None:
    """Find the first wall time, from `wall` on, that the expression matches."""
    fields = read(expression)
    today, second = divmod(wall, DAY)
    day = _first_day(expression, today)
    if day is not None and day == today:
        time = _first_time(fields, second)
        if time is not None:
            return day * DAY + time
        day = _first_day(expression, today + 1)
    if day is None:
        return None
    return day * DAY + _time(fields.hours[0], fields.minutes[0], fields.seconds[0])


def _first_time(fields: Fields, second: int) -> int | None:
    """Find the first time of day, from `second` on, in seconds; None if the day has no more."""
    this_hour, rest = divmod(second, 3_600)
    this_minute, this_second = divmod(rest, 60)
    for hour in fields.hours[bisect_left(fields.hours, this_hour) :]:
        if hour > this_hour:
            return _time(hour, fields.minutes[0], fields.seconds[0])
        for minute in fields.minutes[bisect_left(fields.minutes, this_minute) :]:
            if minute > this_minute:
                return _time(hour, minute, fields.seconds[0])
            later = fields.seconds[bisect_left(fields.seconds, this_second) :]
            if later:
                return _time(hour, minute, later[0])
    return None


def _time(hour: int, minute: int, second: int) -> int:
    return hour * 3_600 + minute * 60 + second


def _first_day(expression: str, day: int) -> int | None:
    """Find the first day, from `day` on (days since 1970), that fits one of the expression's rules."""
    return min((_first_day_of(line, within, day) for line, within in _day_lines(expression)), default=None)


@lru_cache(maxsize=8192)
def _day_lines(expression: str) -> tuple[tuple[str, int], ...]:
    """Each rule as a line for croniter, which has to fit altogether, and how many days of the month's end it may take."""
    return tuple((_day_line(rule), rule.within) for rule in day_rules(expression))


def _day_line(rule: DayRule) -> str:
    # Explicit lists only, `*` for the full set: croniter reads ranges, steps and L in ways of its own.
    columns = (rule.days, 31), (rule.months, 12), (rule.weekdays, 7)
    return "0 0 " + " ".join(
        "*" if len(values) == full else ",".join(map(str, sorted(values))) for values, full in columns
    )


@lru_cache(maxsize=8192)
def _first_day_of(line: str, within: int, day: int) -> int:
    while True:
        found = day if line == "0 0 * * *" else _croniter_day(line, day)
        shown = date.fromordinal(EPOCH_DAY + found)
        missing = monthrange(shown.year, shown.month)[1] - within - shown.day + 1
        if missing <= 0:
            return found
        day = found + missing


def _croniter_day(line: str, day: int) -> int:
    engine = copy.copy(_engine(line))  # it keeps its position in itself, and threads share the original
    return int(engine.get_next(float, start_time=day * DAY - 1.0)) // DAY


@lru_cache(maxsize=1024)
def _engine(line: str) -> croniter:
    return croniter(line, 0.0, ret_type=float, day_or=False)


def _shift_after(timezone: str, moment: int) -> Shift:
    """Find the zone's next change after `moment`, or a change by nothing at the end of the searched period."""
    shifts = _shifts(timezone, moment // PERIOD)
    return next(shift for shift in shifts if shift.instant > moment)


@lru_cache(maxsize=4096)
def _shifts(timezone: str, period: int) -> tuple[Shift, ...]:
    zone = ZoneInfo(timezone)
    shifts = []
    before = _offset(zone, period * PERIOD)
    for probe in range(period * PERIOD, (period + 1) * PERIOD, PROBE):
        after = _offset(zone, probe + PROBE)
        if after != before:
            shifts.append(Shift(_first_with(zone, after, range(probe, probe + PROBE + 1)), before, after))
            before = after
    return (*shifts, Shift((period + 1) * PERIOD, before, before))


def _first_with(zone: ZoneInfo, offset: int, moments: range) -> int:
    return moments[bisect_left(moments, True, key=lambda moment: _offset(zone, moment) == offset)]  # noqa: FBT003


def _offset(zone: ZoneInfo, moment: int) -> int:
    shown = (EPOCH + timedelta(seconds=moment)).astimezone(zone)
    return (shown.utcoffset() or timedelta(0)) // SECOND
