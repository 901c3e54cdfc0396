"""The entries of a Celery `beat_schedule`. Celery is never imported from here: what there is to ask, the given objects answer."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import ModuleType, SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

from jobmanager.bridge.brought import (
    ImportedJob,
    Remark,
    arguments,
    changed,
    manual,
    same,
    skipped,
    titled,
    written,
    zone_name,
)
from jobmanager.bridge.comparison import Next, best, both_days, compare, day_fields, field_text
from jobmanager.job import KNOWN_OPTIONS
from jobmanager.schedule import Every

DICTIONARIES = ("beat_schedule", "CELERY_BEAT_SCHEDULE", "CELERYBEAT_SCHEDULE")
_OF_THE_TASK = ("autoretry_for", "time_limit", "soft_time_limit", "rate_limit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """A schedule and what is needed to read it. `tasks`: by name, empty if only a dict was found."""

    entries: Mapping[str, Any]
    zone: str
    tasks: Mapping[str, Any]
    remarks: tuple[Remark, ...] = ()


def is_app(found: object) -> bool:
    """Whether this is a Celery application."""
    return any(
        f"{kind.__module__}.{kind.__qualname__}" == "celery.app.base.Celery" for kind in type(found).__mro__
    )


def of_app(app: Any) -> Beat:
    """Import the schedule of an application; its tasks' modules are imported, as beat and worker do."""
    app.loader.import_default_modules()
    tasks = app.tasks  # finalizes, so that what is added after that is there
    conf = app.conf
    zone = zone_name(app.timezone)
    remarks = []
    if not conf.timezone and not conf.enable_utc:
        told = f"here {zone}" if zone else "which has no IANA name here: UTC was taken"
        remarks.append(
            manual(f"enable_utc is off and no timezone is set, so Celery takes the machine's zone, {told}.")
        )
    return Beat(entries=conf.beat_schedule or {}, zone=zone or "UTC", tasks=tasks, remarks=tuple(remarks))


def of_dict(entries: Mapping[str, Any], module: ModuleType) -> Beat:
    """Import a schedule without its application, in the zone that stands beside it, or UTC."""
    zone = getattr(module, "CELERY_TIMEZONE", None)
    remark = manual("the dict alone does not say its zone: UTC was taken. Naming the Celery app tells.")
    return Beat(entries=entries, zone=zone or "UTC", tasks={}, remarks=() if zone else (remark,))


def bring(beat: Beat, now: datetime) -> list[ImportedJob]:
    """One for each entry, after one for what is true of all."""
    taken: set[str] = set()
    whole = (
        [ImportedJob(entry="beat_schedule", remarks=beat.remarks)] if beat.remarks and beat.entries else []
    )
    return whole + [_entry(str(name), entry, beat, taken, now) for name, entry in beat.entries.items()]


def _entry(name: str, entry: Any, beat: Beat, taken: set[str], now: datetime) -> ImportedJob:
    if not (isinstance(entry, Mapping) and isinstance(entry.get("task"), str) and "schedule" in entry):
        return skipped(name, "it has no task and schedule: it is no entry.")
    try:
        when, remarks = _when(entry["schedule"], beat.zone, now, relative=bool(entry.get("relative")))
    except Exception as error:  # noqa: BLE001 - whatever a foreign schedule raises, the other entries go on
        return skipped(name, f"its schedule cannot be carried over: {error}")
    if not when:
        return ImportedJob(entry=name, remarks=tuple(remarks))
    job_id, title = titled(name, taken)
    task = beat.tasks.get(entry["task"])
    handler, about = _handler(entry["task"], task)
    config, fitting = arguments(
        task and task.run, tuple(entry.get("args") or ()), dict(entry.get("kwargs") or {})
    )
    options, optional = _options(entry.get("options") or {})
    return written(
        name,
        job_id,
        handler,
        {**title, **when, **config, "overlap": "allow", **options},
        [*remarks, *about, *fitting, *optional],
    )


# ---------------------------------------------------------------- when


def _when(
    schedule: Any,
    zone: str,
    now: datetime,
    *,
    relative: bool,
) -> tuple[dict[str, Any], list[Remark]]:
    """Convert a schedule to options; no options if no schedule here can express it."""
    if isinstance(schedule, int | float):
        schedule = timedelta(seconds=schedule)
    if isinstance(schedule, timedelta):
        return _interval(schedule, None, zone, now, relative=relative)
    # Exactly these: a subclass (django-celery-beat's has a zone of its own) may mean something else.
    kind = type(schedule).__name__ if type(schedule).__module__ == "celery.schedules" else ""
    if kind == "crontab":
        return _crontab(schedule, zone, now)
    if kind == "schedule":
        return _interval(schedule.run_every, schedule, zone, now, relative=schedule.relative)
    if kind == "solar":
        told = f"{schedule.event} at {schedule.lat}, {schedule.lon}"
        return {}, [
            manual(f"a job cannot follow the sun ({told}): take a fixed time, or let the handler look.")
        ]
    return {}, [manual(f"a schedule of the kind {type(schedule).__name__} is not known here.")]


def _crontab(schedule: Any, zone: str, now: datetime) -> tuple[dict[str, Any], list[Remark]]:
    """Convert a crontab: each field as written where it means the same, else its values."""
    fields = (
        (schedule._orig_minute, schedule.minute),  # noqa: SLF001 - Celery keeps the text nowhere else
        (schedule._orig_hour, schedule.hour),  # noqa: SLF001
        (schedule._orig_day_of_month, schedule.day_of_month),  # noqa: SLF001
        (schedule._orig_month_of_year, schedule.month_of_year),  # noqa: SLF001
        (schedule._orig_day_of_week, schedule.day_of_week),  # noqa: SLF001
    )
    minute, hour, day, month, weekday = (
        field_text(place, text.replace(" ", "") if isinstance(text, str) else "", set(values))
        for place, (text, values) in enumerate(fields)
    )
    pairs = day_fields(day, weekday, set(schedule.day_of_month), set(schedule.day_of_week))
    lines = [f"{minute} {hour} {some} {month} {other}" for some, other in pairs]
    cron, outcome, alike = best(_following(schedule, zone), lines, zone, now)
    remarks = outcome.remarks()
    if not alike and "*" not in (day, weekday):
        remarks.insert(0, manual(both_days(cron, day, weekday)))
    return {"cron": cron.expression} | ({} if zone == "UTC" else {"timezone": zone}), remarks


def _interval(
    length: timedelta, schedule: Any, zone: str, now: datetime, *, relative: bool
) -> tuple[dict[str, Any], list[Remark]]:
    """Convert an interval. It is compared with Celery's own only if that does not count from the start of beat."""
    every = Every(length)
    seconds = int(length.total_seconds())
    if relative and schedule is not None:
        return {"every": seconds}, compare(_following(schedule, zone), every, zone, now).remarks()
    if relative:
        return {"every": seconds}, [
            manual("relative: Celery rounds it to its unit; look at the instants here.")
        ]
    following = every.next_after(now)
    told = (
        f"here from fixed instants, next {following:%H:%M:%S} UTC"
        if following
        else "here from fixed instants"
    )
    return {"every": seconds}, [changed(f"Celery counts from the last run and from beat's start, {told}.")]


def _following(schedule: Any, zone: str) -> Next:
    """Celery's own answer, from a copy in this zone whose clock stands at the moment asked for."""
    probe = copy.copy(schedule)
    probe.__dict__.pop("tz", None)
    probe.app = SimpleNamespace(
        timezone=ZoneInfo(zone),
        conf=SimpleNamespace(enable_utc=True, beat_cron_starting_deadline=None),
    )

    def following(moment: datetime) -> datetime:
        local = moment.astimezone(ZoneInfo(zone))
        probe.nowfun = lambda: local
        return moment + timedelta(seconds=probe.remaining_estimate(local).total_seconds())

    return following


# ---------------------------------------------------------------- what


def _handler(name: str, task: Any) -> tuple[str, list[Remark]]:
    """Where the task's function is found, and what it leaves behind in Celery."""
    if task is None:
        module, _, function = name.rpartition(".")
        guess = f"{module or 'module'}:{function}"
        return guess, [manual(f"no task {name!r} was found; its function is guessed from its name.")]
    path = _path(task)
    remarks = [] if path else [manual(f"its function has no name in {task.__module__}: give it one.")]
    if inspect.ismethod(inspect.unwrap(task.run)):
        remarks.append(manual("it is bound: without Celery, its self knows no request and cannot retry."))
    kept = [word for word in _OF_THE_TASK if getattr(task, word, None)]
    if kept:
        remarks.append(
            manual(f"{', '.join(kept)} of the task: write retry=Retry(...) and timeout= instead of it.")
        )
    return path or f"{task.__module__}:{task.name.rpartition('.')[2]}", remarks


def _path(task: Any) -> str:
    """`module:function`: a plain function beside the task, or the one inside it; '' if the module names neither."""
    module = sys.modules.get(task.__module__)
    found: dict[str, Any] = dict(vars(module)) if module else {}
    run: Callable[..., Any] = inspect.unwrap(task.run)
    for name, value in found.items():
        if value is run:
            return f"{task.__module__}:{name}"
    for name, value in found.items():
        if getattr(value, "name", None) == task.name and hasattr(value, "apply_async"):
            return f"{task.__module__}:{name}.run"
    return ""


def _options(options: Mapping[str, Any]) -> tuple[dict[str, Any], list[Remark]]:
    """Convert an entry's options to those of a job."""
    known: dict[str, Any] = {}
    remarks = []
    for word, value in _meant(options):
        if word == "expires" and isinstance(value, int | float | timedelta):
            known["start_deadline"] = value.total_seconds() if isinstance(value, timedelta) else value
            remarks.append(same("expires is start_deadline here, counted from the instant."))
        elif word in KNOWN_OPTIONS and word == "queue":
            known[word] = value
        elif word == "queue":
            remarks.append(manual(f"queue={value!r}: there are no queues; any live process may run it."))
        elif word == "priority":
            remarks.append(
                manual(f"priority={value!r}: here the higher one goes first, there the broker decides.")
            )
        else:
            remarks.append(manual(f"{word}={value!r} has no equivalent."))
    return known, remarks


def _meant(options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((word, value) for word, value in options.items() if value is not None)
