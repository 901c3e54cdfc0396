"""A schedule before it is kept: in words, its next instants, and what the clock changes of the coming year do to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, Literal, cast

from jobmanager.job import make_job
from jobmanager.present.phrases import iso
from jobmanager.schedule import At, Cron, Every, Schedule
from jobmanager.schedule.describe import describe_cron
from jobmanager.schedule.instants import EPOCH, SECOND

if TYPE_CHECKING:
    from jobmanager.job import JobOptions

YEAR = timedelta(days=366)
SHOWN = 5
MOST_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockChange:
    """One change of the clocks in the zone of a schedule, and what it does to the job.

    `wall_before` and `wall_after` are what the clock on the wall shows at that moment. `times` are the job's times of day, the first three, in
    the hour that is left out, or that comes twice; without one the change is not met.
    """

    at: datetime
    direction: Literal["forward", "back"]
    wall_before: datetime
    wall_after: datetime
    times: Sequence[str]
    note: str

    @property
    def is_met(self) -> bool:
        """Whether the job has an instant in the hour that is left out or comes twice."""
        return bool(self.times)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A schedule as people read it: `text` as it is written, its zone (None where it has none), and its next instants in UTC."""

    words: str
    text: str
    timezone: str | None
    instants: Sequence[datetime]
    clock_changes: Sequence[ClockChange]


def preview_of(schedule: Schedule | None, now: datetime, *, number: int = SHOWN) -> Preview:
    """Return the preview of a schedule, None for a job that is started by hand; nothing is read or written."""
    return Preview(
        words="by hand" if schedule is None else schedule.describe(),
        text=schedule_text(schedule),
        timezone=schedule.timezone if isinstance(schedule, Cron) else None,
        instants=() if schedule is None else tuple(schedule.upcoming(now, number)),
        clock_changes=clock_changes(schedule, now) if isinstance(schedule, Cron) else (),
    )


def schedule_of(job_id: str, **words: Any) -> Schedule | None:
    """Return the schedule that `cron` and `timezone`, `every` or `at` would give the job; None without any.

    Raises ConfigurationError and CronError as a declaration does.
    """
    return make_job(job_id, job_id, cast("JobOptions", words)).schedule


def preview_record(preview: Preview) -> dict[str, Any]:
    """Return a preview as a JSON document."""
    return {
        "schedule": preview.text,
        "schedule_in_words": preview.words,
        "timezone": preview.timezone,
        "next": [iso(instant) for instant in preview.instants],
        "clock_changes": [
            {
                "at": iso(change.at),
                "direction": change.direction,
                "clock_before": f"{change.wall_before:%Y-%m-%dT%H:%M:%S}",
                "clock_after": f"{change.wall_after:%Y-%m-%dT%H:%M:%S}",
                "met": change.is_met,
                "times": list(change.times),
                "note": change.note,
            }
            for change in preview.clock_changes
        ],
    }


def schedule_text(schedule: Schedule | None) -> str:
    """Return the schedule as it is written: the cron line without its zone, `every 30 s` in whole seconds, or the instant."""
    match schedule:
        case Cron():
            return schedule.expression
        case Every():
            return f"every {schedule.interval // SECOND} s"
        case At():
            return f"at {iso(schedule.moment)}"
        case None:
            return ""


def in_words(schedule: Schedule | None) -> str:
    """Return the schedule in words without its zone, for pages that say the zone once."""
    if isinstance(schedule, Cron):
        return describe_cron(schedule.fields, "UTC")
    return "by hand" if schedule is None else schedule.describe()


def other_readings(cron: Cron) -> list[tuple[str, bool, str]]:
    """Return how other schedulers read the line: their names, whether they read it the same, and what differs."""
    columns = cron.expression.split()
    if len(columns) != 5:
        return [("cron, Celery beat, pg_cron", False, "they know no column of seconds, or no such alias")]
    days, weekday = columns[2], columns[4]
    zone = "" if cron.timezone == "UTC" else f"pg_cron alone would take it in UTC, not in {cron.timezone}"
    if days != "*" and weekday != "*":
        both = "day of month and weekday must both fit; here one of them is enough"
        return [("cron, pg_cron", True, zone), ("Celery beat, APScheduler 3", False, both)]
    readings = [("cron, Celery beat, pg_cron", True, zone)]
    if any(sign.isdigit() for sign in weekday.partition("/")[0]):
        readings.append(("APScheduler 3", False, "it counts weekdays from Monday = 0: one day later"))
    else:
        readings.append(("APScheduler 3", True, ""))
    return readings


def clock_changes(cron: Cron, now: datetime) -> list[ClockChange]:
    """Return the changes of the clocks in the schedule's zone within a year, in order."""
    from jobmanager.schedule.calendar import offsets

    start = (now - EPOCH) // SECOND
    kept = offsets(cron.timezone, start, start + YEAR // SECOND)
    return [
        _change(cron, EPOCH + timedelta(seconds=at), timedelta(seconds=before), timedelta(seconds=after))
        for (_, before), (at, after) in pairwise(kept)
    ]


def _change(cron: Cron, at: datetime, before: timedelta, after: timedelta) -> ClockChange:
    length = abs(after - before)
    wall_before, wall_after = at + before, at + after
    times = _times(cron, min(wall_before, wall_after), length)
    forward = after > before
    return ClockChange(
        at=at,
        direction="forward" if forward else "back",
        wall_before=wall_before.replace(tzinfo=None),
        wall_after=wall_after.replace(tzinfo=None),
        times=times,
        note=_forward(cron, at, wall_after, times) if forward else _back(cron, at, length, times),
    )


def _times(cron: Cron, wall: datetime, length: timedelta) -> list[str]:
    """Return the first times of day that the schedule has on the wall's clock in [wall, wall + length)."""
    on_the_wall = Cron(cron.expression, "UTC").between(wall - SECOND, wall + length - SECOND)
    return [f"{moment:%H:%M:%S}".removesuffix(":00") for moment in islice(on_the_wall, MOST_NAMED)]


def _forward(cron: Cron, at: datetime, wall_after: datetime, times: Sequence[str]) -> str:
    if not times:
        return "No instant lies in the time that is left out."
    if cron.next_after(at - SECOND) == at and not cron.fields.wildcard:
        return f"{times[0]} is not on the clock that day: it runs at {wall_after:%H:%M}."
    return f"{_named(times)} left out that day: the job follows the clock."


def _back(cron: Cron, at: datetime, length: timedelta, times: Sequence[str]) -> str:
    if not times:
        return "No instant lies in the time that comes twice."
    again = next(cron.between(at - SECOND, at + length - SECOND), None)
    if again is None:
        return f"{times[0]} comes twice that day: it runs once, the first time."
    return f"{_named(times)} there twice that day, and the job runs both times."


def _named(times: Sequence[str]) -> str:
    if len(times) == 1:
        return f"{times[0]} is"
    return f"{', '.join(times[:-1])} and {times[-1]} are"
