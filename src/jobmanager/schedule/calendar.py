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
from jobmanager.schedule.dst import LARGEST_SHIFT, Fold, Gap
from jobmanager.schedule.fields import DayRule, Fields
from jobmanager.schedule.instants import EPOCH, SECOND

DAY = 86_400
# No zone has kept an offset for less than 3.9 days (Freetown 1939; since 1970: a week), so looking every 3 days sees all.
PROBE = 3 * DAY
PERIOD = 128 * PROBE
EPOCH_DAY = date(1970, 1, 1).toordinal()
# Moments before 1900 count as 1900, from 9900 on nothing is due: no search runs out of the years that datetime knows.
FIRST = (date(1900, 1, 1).toordinal() - EPOCH_DAY) * DAY
LAST = (date(9900, 1, 1).toordinal() - EPOCH_DAY) * DAY
NEVER = 2 * LAST


class Shift(NamedTuple):
    """At `instant` the zone's offset changes from `before` to `after`, both in seconds east of UTC."""

    instant: int
    before: int
    after: int


@lru_cache(maxsize=8192)
def next_after(
    expression: str, timezone: str, moment: int, gap: Gap = "end", fold: Fold = "first"
) -> int | None:
    """Return the first instant of the expression strictly after `moment`, in seconds since 1970; None if there is none.

    The horizon of 50 years needs no check: of the dates that exist, 29 February on a given weekday stays away longest, for
    40 years around 2100.

    `gap` and `fold` decide for a schedule at particular times, and changes of at most three hours. Otherwise it fires whenever the wall
    clock shows a time that matches.
    """
    if moment >= LAST or not day_rules(expression):
        return None
    search = _Search(expression, gap, fold)
    start = max(moment, FIRST) + 1
    entered = _shift_before(timezone, start)
    while True:
        left = _shift_after(timezone, start)
        instant = min(search.skipped(start, entered), search.shown(start, entered, left))
        if instant < NEVER:
            return instant
        start, entered = left.instant, left


class _Search:
    """A search from one stretch of the same offset to the next; `entered` and `left` are the shifts at both ends of one."""

    def __init__(self, expression: str, gap: Gap, fold: Fold) -> None:
        self._expression = expression
        self._gap, self._fold = ("skip", "both") if read(expression).wildcard else (gap, fold)
        self._since, self._match = 1, 0

    def skipped(self, start: int, entered: Shift) -> int:
        """Return the first instant, from `start` on, that makes good a time which the clock skipped; NEVER if there is none."""
        if not 0 < entered.after - entered.before <= LARGEST_SHIFT or self._gap == "skip":
            return NEVER
        if self._gap == "end" and start > entered.instant:
            return NEVER
        match = self._first(start + entered.before)
        if match >= entered.instant + entered.after:
            return NEVER
        return start if self._gap == "end" else match - entered.before

    def shown(self, start: int, entered: Shift, left: Shift) -> int:
        """Return the first instant, from `start` on, at which the clock shows a match; NEVER if there is none before `left`."""
        low, high = start + left.before, left.instant + left.before
        if self._fold == "first" and 0 < entered.before - entered.after <= LARGEST_SHIFT:
            low = max(low, entered.instant + entered.before)  # the end of what is shown again
        if self._fold == "second" and 0 < left.before - left.after <= LARGEST_SHIFT:
            high = left.instant + left.after  # the begin of what will be shown again
        match = self._first(low)
        return match - left.before if match < high else NEVER

    def _first(self, wall: int) -> int:
        """Return the first wall time that matches, from `wall` on: the last one that was found, as long as it is that."""
        if not self._since <= wall <= self._match:
            self._since, self._match = wall, _first_match(self._expression, wall)
        return self._match


def offsets(timezone: str, start: int, end: int) -> list[tuple[int, int]]:
    """List the zone's offset at `start` and each later one until `end`: the second it begins, and seconds east of UTC."""
    shift = _shift_after(timezone, start)
    found = [(start, shift.before)]
    while shift.instant <= end:
        if shift.after != shift.before:
            found.append((shift.instant, shift.after))
        shift = _shift_after(timezone, shift.instant)
    return found


def _first_match(expression: str, wall: int) -> int:
    """Find the first wall time, from `wall` on, that the expression matches; there is a date that it matches."""
    fields = read(expression)
    today, second = divmod(wall, DAY)
    day = _first_day(expression, today)
    if day == today:
        time = _first_time(fields, second)
        if time is not None:
            return day * DAY + time
        day = _first_day(expression, today + 1)
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


def _first_day(expression: str, day: int) -> int:
    """Find the first day, from `day` on (days since 1970), that fits one of the expression's rules."""
    return min(_first_day_of(line, within, day) for line, within in _day_lines(expression))


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


def _shift_before(timezone: str, start: int) -> Shift:
    """Find the zone's change of the three hours up to `start`, or return a change by nothing."""
    shift = _shift_after(timezone, start - LARGEST_SHIFT - 1)
    return shift if shift.instant <= start else Shift(start, shift.before, shift.before)


def _shift_after(timezone: str, moment: int) -> Shift:
    """Find the zone's next change after `moment`, or a change by nothing at the end of the searched period.

    After a change by nothing the zone keeps its offset for three days at least, so that no fold reaches over it.
    """
    shifts = _shifts(timezone, moment // PERIOD)
    return next(shift for shift in shifts if shift.instant > moment)


@lru_cache(maxsize=4096)
def _shifts(timezone: str, period: int) -> tuple[Shift, ...]:
    zone = ZoneInfo(timezone)
    shifts = []
    before = _offset(zone, period * PERIOD)
    for probe in range(period * PERIOD, (period + 1) * PERIOD + PROBE, PROBE):
        after = _offset(zone, probe + PROBE)
        if after != before:
            shifts.append(Shift(_first_with(zone, after, range(probe, probe + PROBE + 1)), before, after))
            before = after
    end = (period + 1) * PERIOD
    return tuple(shifts) if shifts and shifts[-1].instant > end else (*shifts, Shift(end, before, before))


def _first_with(zone: ZoneInfo, offset: int, moments: range) -> int:
    return moments[bisect_left(moments, True, key=lambda moment: _offset(zone, moment) == offset)]  # noqa: FBT003


def _offset(zone: ZoneInfo, moment: int) -> int:
    shown = (EPOCH + timedelta(seconds=min(max(moment, FIRST), LAST))).astimezone(zone)
    return (shown.utcoffset() or timedelta(0)) // SECOND
