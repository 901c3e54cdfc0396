"""What becomes of times of day that clocks skip or show twice, read off a walk minute by minute: the definition, and none of our code."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise, product
from zoneinfo import ZoneInfo

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
GAPS, FOLDS = ("end", "shift", "skip"), ("first", "second", "both")
POLICIES = list(product(GAPS, FOLDS))

# A zone, minutes and hours of a job, the day whose clock skips some of these, and the day whose clock shows some twice.
ZONES = [
    ("Australia/Lord_Howe", "5,50 1,2", "2026-10-04", "2026-04-05"),  # by half an hour
    (
        "Europe/Dublin",
        "5,35 1",
        "2026-03-29",
        "2026-10-25",
    ),  # summer is the standard time, winter the other one
    ("Africa/Casablanca", "5,35 2", "2026-03-22", "2026-02-15"),  # around Ramadan
    ("America/Santiago", "5,35 0,23", "2026-09-06", "2026-04-04"),  # at midnight
    ("Europe/Berlin", "5,35 2", "2026-03-29", "2026-10-25"),
    ("America/New_York", "5,35 1,2", "2026-03-08", "2026-11-01"),
    ("Africa/Cairo", "5,35 0,23", "2026-04-24", "2026-10-29"),  # at midnight
    (
        "Pacific/Chatham",
        "5,50 2,3",
        "2026-09-27",
        "2026-04-05",
    ),  # at a quarter to: 02:50 may be shifted to 03:50, which is due anyway
    ("Asia/Tehran", "5,35 0,23", "2022-03-22", "2022-09-21"),  # before it gave up summer time
]
TRANSITIONS = [(zone, day) for zone, _, *days in ZONES for day in days]
TIMES = {zone: times for zone, times, *_ in ZONES}


class Walk:
    """The minutes of three days around a change, each with what the wall shows then."""

    def __init__(self, zone, day):
        place, first = ZoneInfo(zone), day.replace(tzinfo=UTC) - 2 * DAY
        instants = (first + count * MINUTE for count in range(5 * 24 * 60))
        self.day, self.line = day, f"{TIMES[zone]} * * *"
        minutes, hours = (map(int, values.split(",")) for values in TIMES[zone].split())
        self.times = [timedelta(hours=hour, minutes=minute) for hour, minute in product(hours, minutes)]
        self.minutes = [(instant, instant.astimezone(place).replace(tzinfo=None)) for instant in instants]
        self.shown = defaultdict(list)
        for instant, wall in self.minutes:
            self.shown[wall].append(instant)
        # The last second before the local day before the change, and the last one of the day after it.
        self.start = self.shown[day - DAY][0] - timedelta(seconds=1)
        self.end = self.shown[day + 2 * DAY][0] - timedelta(seconds=1)

    def instants(self, gap, fold):
        """The instants of the line, of the three local days."""
        found = set()
        for day, time in product((self.day - DAY, self.day, self.day + DAY), self.times):
            match self.shown.get(day + time, []):
                case []:
                    found |= self.of_a_skipped_time(day + time, gap)
                case [only]:
                    found.add(only)
                case [first, second]:
                    found |= {"first": {first}, "second": {second}, "both": {first, second}}[fold]
        return sorted(found)

    def of_a_skipped_time(self, wall, gap):
        (before, shown_before), (after, _) = next(
            (one, two) for one, two in pairwise(self.minutes) if one[1] < wall < two[1]
        )
        offset_before = shown_before - before.replace(tzinfo=None)
        shifted = (wall - offset_before).replace(tzinfo=UTC)
        return {"end": {after}, "shift": {shifted}, "skip": set()}[gap]


@cache
def walk(zone, day):
    return Walk(zone, datetime.fromisoformat(day))
