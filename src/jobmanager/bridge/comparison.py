"""Comparison of two schedules by their computed instants: ours, and the other scheduler's own object."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

from jobmanager.bridge.brought import Remark, changed, same
from jobmanager.errors import CronError
from jobmanager.schedule import Cron, Schedule
from jobmanager.schedule.dialect import MONTHS, WEEKDAYS, read

Next = Callable[[datetime], datetime | None]
"""The other scheduler's first instant after a moment."""

COUNT = 400
SPAN = timedelta(days=12 * 365)  # three times 29 February
AROUND = 4  # changes of the clocks that are looked at closely: two years
LEADS = (timedelta(minutes=90), timedelta(seconds=100))  # the second for schedules with seconds
BEFORE, AFTER = timedelta(hours=3), timedelta(hours=49)  # some only stumble on the day after
HOUR = timedelta(hours=1)

_WEEKS = {count: set(range(7 * count - 6, min(7 * count, 31) + 1)) for count in range(1, 6)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What differs, in words; '' for nothing. `clocks`: only where clocks change, `calendar`: elsewhere too."""

    until: datetime
    changes: int
    calendar: str = ""
    clocks: str = ""

    def remarks(self) -> list[Remark]:
        """Remark on what was compared, or on what differs."""
        found = []
        if self.calendar:
            found.append(changed(f"it fires at other times, first {self.calendar}."))
        if self.clocks:
            found.append(changed(f"when clocks change it fires at other times, first {self.clocks}."))
        if not found:
            around = f" and around {self.changes} clock changes" if self.changes else ""
            found.append(same(f"it fires at the same instants, compared up to {self.until.date()}{around}."))
        return found


def compare(theirs: Next, ours: Schedule, zone: str, now: datetime) -> Comparison:
    """Compare the next 400 instants of both, and as many around each of the next clock changes of the zone."""
    whole, differing = _differing(theirs, ours, now, now + SPAN)
    changes = clock_changes(zone, now.date().toordinal())
    close = changes[:AROUND]
    for start in (change - lead for change in close for lead in LEADS):
        _, more = _differing(theirs, ours, max(start, now), start + timedelta(days=9))
        differing |= more
    near = {i for i in differing if any(change - BEFORE <= i <= change + AFTER for change in changes)}
    return Comparison(
        until=whole,
        changes=len(close),
        calendar=_told({i: differing[i] for i in differing.keys() - near}, zone),
        clocks=_told({i: differing[i] for i in near}, zone),
    )


def _differing(
    theirs: Next, ours: Schedule, start: datetime, end: datetime
) -> tuple[datetime, dict[datetime, bool]]:
    """How far both are known, and up to there the instants that only one has; True for theirs."""
    one, there = _fires(theirs, start, end)
    other, here = _fires(ours.next_after, start, end)
    reach = min(one, other)
    return reach, {instant: instant in there for instant in there ^ here if instant <= reach}


def _fires(following: Next, start: datetime, end: datetime) -> tuple[datetime, set[datetime]]:
    fires: set[datetime] = set()
    moment: datetime | None = start
    while len(fires) < COUNT:
        moment = following(moment)  # type: ignore[arg-type]  # left when it is None
        if moment is None or moment > end:
            return end, fires
        moment = moment.astimezone(UTC)
        fires.add(moment)
    return max(fires), fires


def _told(differing: dict[datetime, bool], zone: str) -> str:
    """Describe the first date with a difference: the times that only one of the two has."""
    if not differing:
        return ""
    place = ZoneInfo(zone)
    local = sorted((instant.astimezone(place), theirs) for instant, theirs in differing.items())
    day = local[0][0].date()
    sides = []
    for side, where in ((True, "there"), (False, "here")):
        times = [
            f"{when:%H:%M:%S %Z}".replace(":00 ", " ", 1)
            for when, theirs in local
            if theirs is side and when.date() == day
        ]
        sides.append(f"{', '.join(times[:3])}{' …' if len(times) > 3 else ''} only {where}" if times else "")
    return f"on {day:%a %Y-%m-%d}: {'; '.join(filter(None, sides))}"


@lru_cache(maxsize=64)
def clock_changes(zone: str, first: int) -> tuple[datetime, ...]:
    """When the zone's offset changes in the twelve years from a day on (an ordinal)."""
    place = ZoneInfo(zone)
    start = datetime.fromordinal(first).replace(tzinfo=UTC)
    days = [start + timedelta(days=n) for n in range(SPAN.days)]
    return tuple(
        next(m for m in _minutes(one) if m.astimezone(place).utcoffset() != one.astimezone(place).utcoffset())
        for one, other in pairwise(days)
        if one.astimezone(place).utcoffset() != other.astimezone(place).utcoffset()
    )


def _minutes(day: datetime) -> Iterable[datetime]:
    return (day + timedelta(minutes=n) for n in range(24 * 60 + 1))


# ---------------------------------------------------------------- finding the line that fires alike


def best(theirs: Next, lines: Iterable[str], zone: str, now: datetime) -> tuple[Cron, Comparison, bool]:
    """Return the first line that fires as they do but for clock changes, what differs, and True; else the last line.

    Raises CronError if no line can be read.
    """
    refusal: CronError | None = None
    found: tuple[Cron, Comparison, bool] | None = None
    for line in dict.fromkeys(lines):
        try:
            cron = Cron(line, zone)
        except CronError as error:
            refusal = error
            continue
        outcome = compare(theirs, cron, zone, now)
        found = cron, outcome, not outcome.calendar
        if found[2]:
            break
    if found is None:
        raise refusal or CronError("There is no cron line for it.", kind="bad_value")
    return found


def field_text(place: int, text: str, values: set[int]) -> str:
    """Keep a field's text (0 = minute to 4 = day of week, Sunday = 0) if it means these values here too, else list them."""
    try:
        fields = read(" ".join(["*"] * place + [text] + ["*"] * (4 - place)))
    except CronError:
        return listed(place, values)
    found = (fields.minutes, fields.hours, fields.days, fields.months, fields.weekdays)[place]
    plain = not (fields.last_day or fields.nth or fields.last_weekdays)
    return text if plain and set(found) == values else listed(place, values)


def listed(place: int, values: set[int]) -> str:
    """Values as a field: `*` for all, stretches of three and more as a range, months and weekdays by name."""
    low, high = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))[place]
    if values == set(range(low, high + 1)):
        return "*"
    first, step = min(values), sorted(values)[1] - min(values) if len(values) > 3 else 1
    if place < 2 and step > 1 and values == set(range(first, high + 1, step)):
        return f"{first}-{high}/{step}"
    # The week is written from Monday to Sunday, so that MON-FRI and FRI-SUN stay one stretch.
    ranks = sorted((value - 1) % 7 for value in values) if place == 4 else sorted(values)
    stretches: list[list[int]] = []
    for rank in ranks:
        if stretches and rank == stretches[-1][-1] + 1:
            stretches[-1].append(rank)
        else:
            stretches.append([rank])

    def name(rank: int) -> str:
        return {3: MONTHS[(rank - 1) % 12], 4: WEEKDAYS[(rank + 1) % 7]}.get(place, str(rank))

    return ",".join(
        f"{name(some[0])}-{name(some[-1])}" if len(some) > 2 else ",".join(map(name, some))
        for some in stretches
    )


def day_fields(day: str, weekday: str, days: set[int], weekdays: set[int]) -> Sequence[tuple[str, str]]:
    """Day of month and day of week for dates that fit both, best first; the last pair lets too many dates pass."""
    pairs = [(day, weekday)]
    counts = [count for count, week in _WEEKS.items() if week <= days]
    if counts and len(weekdays) < 7 and days == set().union(*(_WEEKS[count] for count in counts)):
        pairs.append(("*", ",".join(f"{WEEKDAYS[d]}#{n}" for d in sorted(weekdays) for n in counts)))
    rarer_by_day = len(days) * 12 < len(weekdays) * 52
    return [*pairs, (day, "*") if rarer_by_day else ("*", weekday)]


def both_days(line: Cron, day: str, weekday: str) -> str:
    """Remark on dates that had to fit both day fields, when `line` can only express one."""
    left = f"the weekday ({weekday})" if line.expression.endswith(" *") else f"the day of the month ({day})"
    return (
        "there a date has to fit both day of month and day of week; with both restricted either is enough here. "
        f"This line leaves out {left}: let the handler return on other dates."
    )
