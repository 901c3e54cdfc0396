"""A schedule before it is kept: in words, its next instants, and what the clock changes of the coming year do to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from jobmanager.job import make_job
from jobmanager.ledger.job_view import start_words
from jobmanager.present.phrases import iso
from jobmanager.schedule import At, Cron, Every, Schedule
from jobmanager.schedule.changes import ClockChange, clock_changes
from jobmanager.schedule.describe import describe_cron, describe_end
from jobmanager.schedule.dst import Dst
from jobmanager.schedule.instants import SECOND

if TYPE_CHECKING:
    from jobmanager.job import JobOptions

YEAR = timedelta(days=366)
SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A schedule as people read it: `text` as it is written, its zone and policy (None where it has none), its next instants in UTC."""

    words: str
    text: str
    timezone: str | None
    dst: Dst | None
    instants: Sequence[datetime]
    clock_changes: Sequence[ClockChange]


def preview_of(schedule: Schedule | None, now: datetime, *, number: int = SHOWN) -> Preview:
    """Return the preview of a schedule, None for a job that is started by hand; nothing is read or written."""
    return Preview(
        words="by hand" if schedule is None else schedule.describe(),
        text=schedule_text(schedule),
        timezone=schedule.timezone if isinstance(schedule, Cron) else None,
        dst=schedule.dst if isinstance(schedule, Cron) else None,
        instants=() if schedule is None else tuple(schedule.runs_after(now, number)),
        clock_changes=clock_changes(schedule, now, YEAR) if isinstance(schedule, Cron) else (),
    )


def schedule_of(job_id: str, **words: Any) -> Schedule | None:
    """Return the schedule that `cron` with `timezone` and `dst`, `every` or `at` would give the job; None without any.

    Raises ConfigurationError and CronError as a declaration does.
    """
    return make_job(job_id, job_id, cast("JobOptions", words)).schedule


def preview_record(preview: Preview) -> dict[str, Any]:
    """Return a preview as a JSON document."""
    return {
        "schedule": preview.text,
        "schedule_in_words": preview.words,
        "timezone": preview.timezone,
        "dst": asdict(preview.dst) if preview.dst else None,
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


def in_words(schedule: Schedule | None, on: str | None = None) -> str:
    """Return what starts a job in words, without the zone, for pages that say the zone once."""
    if not isinstance(schedule, Cron):
        return start_words(schedule, on)
    words = describe_cron(schedule.fields, "UTC", schedule.dst)
    words += schedule.exclude.describe() + describe_end(schedule.until)
    return f"{words} and {start_words(None, on)}" if on else words


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
