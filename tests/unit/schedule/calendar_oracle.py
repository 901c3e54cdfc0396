"""A second opinion on cron: walks minute by minute through a zone, as the cron daemon does, and shares no code with us.

It reads the expression with a loose reader of its own (valid text only) and looks at every minute of three days around an
offset change; nothing here searches, skips or caches.
"""

import calendar
import random
from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
CORRECTION = timedelta(hours=3)
NAMES = dict(zip(["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"], range(7), strict=True)) | {
    name.upper(): month for month, name in enumerate(calendar.month_abbr) if name
}

# Zones and the days around which their clocks were changed.
CHANGES = [
    ("Australia/Lord_Howe", "2025-10-04"), ("Australia/Lord_Howe", "2026-04-04"),  # half an hour
    ("Antarctica/Troll", "2026-03-29"), ("Antarctica/Troll", "2026-10-25"),  # two hours
    ("Pacific/Chatham", "2025-09-27"), ("Pacific/Chatham", "2026-04-04"),
    ("America/Santiago", "2025-09-07"), ("America/Santiago", "2026-04-05"),  # at midnight
    ("Asia/Beirut", "2024-03-30"), ("Asia/Beirut", "2024-10-26"),
    ("Europe/Lisbon", "1996-03-31"), ("Europe/Lisbon", "2026-10-25"),
    ("Europe/Paris", "2026-03-29"), ("Europe/Paris", "2026-10-25"),
    ("America/New_York", "2026-03-08"), ("America/New_York", "2026-11-01"),
    ("Pacific/Apia", "2011-12-30"), ("Pacific/Apia", "2011-04-02"),  # a day left out
    ("America/Caracas", "2007-12-09"), ("America/Caracas", "2016-05-01"),  # no summer time, another offset
    ("Asia/Pyongyang", "2015-08-14"), ("Asia/Pyongyang", "2018-05-04"),
    ("Europe/Moscow", "2011-03-26"), ("Europe/Moscow", "2014-10-25"),
    ("America/Sao_Paulo", "2018-02-18"), ("America/Sao_Paulo", "2018-11-04"),
    ("Asia/Tehran", "2022-03-21"), ("Asia/Tehran", "2022-09-21"),
    ("Africa/Casablanca", "2023-03-19"), ("Africa/Casablanca", "2023-04-23"),
    ("Pacific/Kwajalein", "1969-09-30"), ("Pacific/Kwajalein", "1993-08-21"),  # a day twice, a day left out
    ("Asia/Kathmandu", "1985-12-31"),  # a quarter of an hour
    ("UTC", "2026-02-28"),
]  # fmt: skip


@dataclass(frozen=True)
class Minute:
    """What the wall shows at an instant, and what the clock did in the minute before."""

    instant: datetime
    wall: datetime
    skipped: tuple[datetime, ...] = ()  # wall minutes left out just before, where that is made good
    repeated: bool = False  # shown before, where that is made good


@dataclass
class Window:
    """Three days on each side of an offset change, minute by minute."""

    zone: str
    minutes: list[Minute] = field(default_factory=list)
    changes: list[int] = field(default_factory=list)  # indices of minutes

    @classmethod
    def around(cls, zone, day):
        window, place = cls(zone), ZoneInfo(zone)
        instant = datetime.fromisoformat(day).replace(tzinfo=UTC) - 4 * DAY
        before = instant.astimezone(place).replace(tzinfo=None)
        shown_until = before
        for _ in range(9 * 24 * 60):
            instant += MINUTE
            wall = instant.astimezone(place).replace(tzinfo=None)
            jump = wall - before - MINUTE
            skipped = ()
            if jump:
                window.changes.append(len(window.minutes))
                if timedelta(0) < jump <= CORRECTION:
                    skipped = tuple(before + MINUTE * step for step in range(1, jump // MINUTE + 1))
                elif -CORRECTION <= jump < timedelta(0):
                    shown_until = before
            window.minutes.append(Minute(instant, wall, skipped, repeated=wall <= shown_until))
            before = wall
        return window

    def start_near_change(self, rng):
        """A moment near a change, mostly very near, with seconds and microseconds."""
        middle = rng.choice(self.changes or [len(self.minutes) // 2])
        spread = rng.choice([2, 40, 6 * 60, 3 * 24 * 60])
        minute = self.minutes[min(max(middle + rng.randint(-spread, spread), 0), len(self.minutes) - 1)]
        return (
            minute.instant
            + rng.choice([0, 1, 30, 59]) * timedelta(seconds=1)
            + rng.choice([0, 0, 999_999]) * timedelta(microseconds=1)
        )

    def fires(self, expression, start, limit):
        """The first `limit` instants after `start` that this window shows, in order; then the end of what was looked at."""
        lines = expression.split()
        second, minute, hour, *dates = lines if len(lines) == 6 else ["0", *lines]
        seconds, minutes, hours = sorted(values(second, 0, 59)), values(minute, 0, 59), values(hour, 0, 23)
        fixed = not any(text.startswith("*") for text in (second, minute, hour))
        fitting = {}

        def shows(wall):
            if wall.minute not in minutes or wall.hour not in hours:
                return False
            if wall.date() not in fitting:
                fitting[wall.date()] = date_fits(wall, *dates)
            return fitting[wall.date()]

        found = []
        first = max(0, (start - self.minutes[0].instant) // MINUTE)
        for at in self.minutes[first:]:
            fires = set()
            if fixed and at.skipped and any(map(shows, at.skipped)):
                fires.add(at.instant)
            if at.wall.minute in minutes and shows(at.wall) and not (fixed and at.repeated):
                fires.update(at.instant + timedelta(seconds=value) for value in seconds)
            if not fires:
                continue
            found += sorted(fire for fire in fires if fire > start)
            if len(found) >= limit:
                return found[:limit], found[limit - 1]
        return found, self.minutes[-1].instant + MINUTE - timedelta(seconds=1)


def changes_between(zone, start, end):
    """What the wall shows after each offset change, and by how much it jumped; no zone changes twice a day."""
    place, day = ZoneInfo(zone), start

    def offset(instant):
        return instant.astimezone(place).utcoffset()

    while day < end:
        if offset(day) != offset(day + DAY):
            minutes = range(DAY // MINUTE)
            after = bisect_right(
                minutes, False, key=lambda count: offset(day + count * MINUTE) != offset(day)
            )
            changed = (day + after * MINUTE).replace(second=0, microsecond=0)
            yield changed.astimezone(place), offset(day + DAY) - offset(day)
        day += DAY


def values(text, low, high):
    """The numbers of a field without L and #."""
    found = set()
    for item in text.split(","):
        head, _, step = item.partition("/")
        first, _, last = head.partition("-")
        if first == "*":
            first, last = low, high
        elif step and not last:
            last = high
        start = number(first)
        end = start if last in ("", None) else 7 if last == "SUN" and start > 0 else number(last)
        found |= set(range(start, end + 1, int(step or 1)))
    return found


def number(text):
    return text if isinstance(text, int) else NAMES[text.upper()] if text.isalpha() else int(text)


def date_fits(wall, day, month, weekday):
    if wall.month not in values(month, 1, 12):
        return False
    today = wall.isoweekday() % 7
    length = calendar.monthrange(wall.year, wall.month)[1]
    day_fits = weekday_fits = False
    for item in day.split(","):
        day_fits |= wall.day == length if item == "L" else wall.day in values(item, 1, 31)
    for item in weekday.split(","):
        if "#" in item:
            name, count = item.split("#")
            weekday_fits |= number(name) % 7 == today and (wall.day - 1) // 7 + 1 == int(count)
        elif "L" in item:
            weekday_fits |= number(item.strip("L")) % 7 == today and wall.day > length - 7
        else:
            weekday_fits |= today in {value % 7 for value in values(item, 0, 7)}
    if day.startswith("*") or weekday.startswith("*"):
        return day_fits and weekday_fits
    return day_fits or weekday_fits


class Expressions:
    """Random valid expressions of the whole dialect; about one in ten has seconds."""

    def __init__(self, rng: random.Random):
        self.rng = rng

    def one(self):
        fields = [self.minute(), self.hour(), *self.dates()]
        if self.rng.random() < 0.1:
            fields.insert(0, self.pick(["0", "30", "*", "*/15", "*/7", "5,35", self.plain(0, 59)]))
        return " ".join(fields)

    def pick(self, options):
        return self.rng.choice(options)

    def plain(self, low, high):
        """A value, list, range or step."""
        first = self.rng.randint(low, high - 1)
        last = self.rng.randint(first + 1, high)
        step = self.rng.randint(1, 9)
        listed = ",".join(map(str, self.rng.sample(range(low, high + 1), 3)))
        return self.pick(
            [
                f"{first}",
                f"{first}",
                listed,
                f"{first}-{last}",
                f"{first}-{last}/{step}",
                f"{first}/{step}",
                f"*/{step}",
                f"{first},*/{step}",
            ]
        )

    def minute(self):
        return self.pick(
            ["*", "0", "0", "30", "*/15", "*/20", "*/7", "0,30", "59", self.plain(0, 59), self.plain(0, 59)]
        )

    def hour(self):
        return self.pick(
            [
                "*",
                "*",
                "0",
                "1",
                "2",
                "3",
                "23",
                "*/2",
                "*/3",
                "0-4",
                "1,2,3",
                self.plain(0, 23),
                self.plain(0, 23),
            ]
        )

    def dates(self):
        day = self.pick(["*"] * 6 + ["*/2", "1-31", "L", "L,15", self.plain(1, 31), self.plain(1, 31)])
        month = self.pick(["*"] * 8 + ["*/2", "JAN-APR,9-12", self.plain(1, 12)])
        weekday = self.pick(
            ["*"] * 6
            + [
                "MON-FRI",
                "0,6",
                "7",
                "FRI-SUN",
                "sat",
                "*/2",
                "SUN#1,3#2",
                "5L,0L",
                "1#5,2-4",
                self.plain(0, 6),
            ]
        )
        return day, month, weekday
