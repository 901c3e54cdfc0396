"""The canonical sets of an expression, which calendar, description and backends work with."""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass
from datetime import date

EVERY_DAY = frozenset(range(1, 32))
EVERY_WEEKDAY = frozenset(range(7))


@dataclass(frozen=True, slots=True)
class DayRule:
    """Dates whose month, day and weekday (0 = Sunday) are all listed, among the last `within` days of their month."""

    months: frozenset[int]
    days: frozenset[int] = EVERY_DAY
    weekdays: frozenset[int] = EVERY_WEEKDAY
    within: int = 31

    def both(self, other: DayRule) -> DayRule:
        """Return the rule for dates that fit both this rule and the other."""
        days, weekdays = self.days & other.days, self.weekdays & other.weekdays
        return DayRule(self.months & other.months, days, weekdays, min(self.within, other.within))

    def fits(self, day: date) -> bool:
        """Whether the rule holds for a date."""
        left = monthrange(day.year, day.month)[1] - day.day
        return (
            day.month in self.months
            and day.day in self.days
            and day.isoweekday() % 7 in self.weekdays
            and left < self.within
        )

    def exists(self) -> bool:
        """Whether any date fits; every weekday meets every date sooner or later."""
        # 1999 and 2000: a common year and a leap year.
        lengths = {monthrange(year, month)[1] for year in (1999, 2000) for month in self.months}
        return bool(self.weekdays) and any(
            length - self.within < day <= length for length in lengths for day in self.days
        )


def _week(count: int) -> frozenset[int]:
    """Return the days of a month on which a weekday may come for the `count`-th time."""
    return EVERY_DAY & set(range(7 * count - 6, 7 * count + 1))


@dataclass(frozen=True, slots=True)
class Fields:
    """An expression as sorted sets. `weekdays` count from 0 = Sunday to 6; `nth` holds (weekday, n).

    `either`: day of month or day of week is enough; otherwise a date must fit both. `wildcard`: seconds, minute or hour
    begin with `*`, so the schedule follows the wall clock through clock changes. `with_seconds`: six fields were given.
    """

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    last_day: bool
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    nth: tuple[tuple[int, int], ...]
    last_weekdays: tuple[int, ...]
    either: bool
    wildcard: bool
    with_seconds: bool

    def day_rules(self) -> tuple[DayRule, ...]:
        """List the rules for dates that exist: a date fits if one rule holds. 30 February leaves none."""
        months = frozenset(self.months)
        by_day = [DayRule(months, days=frozenset(self.days))]
        if self.last_day:
            by_day.append(DayRule(months, within=1))
        by_weekday = [
            DayRule(months, weekdays=frozenset(self.weekdays)),
            *(DayRule(months, days=_week(count), weekdays=frozenset({day})) for day, count in self.nth),
            *(DayRule(months, weekdays=frozenset({day}), within=7) for day in self.last_weekdays),
        ]
        either = by_day + by_weekday
        rules = either if self.either else [one.both(other) for one in by_day for other in by_weekday]
        return tuple(rule for rule in rules if rule.exists())

    def smallest_gap(self) -> int:
        """Seconds between the closest two seconds of the set, around the minute; 60 for a single one."""
        following = (*self.seconds[1:], self.seconds[0] + 60)
        return min(later - earlier for earlier, later in zip(self.seconds, following, strict=True))
