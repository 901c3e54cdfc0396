"""Import of the jobs of an APScheduler 3 scheduler that is not started."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

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
from jobmanager.errors import HandlerNotFoundError
from jobmanager.registry import Handler
from jobmanager.schedule import Every
from jobmanager.schedule.dialect import WEEKDAYS
from jobmanager.schedule.instants import SECOND

_TOPS = {"minute": 59, "hour": 23, "day": 31, "month": 12, "day_of_week": 6, "second": 59}
_NONE, _DAY, _WEEK = timedelta(0), timedelta(days=1), timedelta(days=7)
_UNSET = object()

When = tuple[dict[str, Any], list[Remark]]


def is_scheduler(found: object) -> bool:
    """Return whether the object is a scheduler of APScheduler 3."""
    return any(
        f"{kind.__module__}.{kind.__qualname__}" == "apscheduler.schedulers.base.BaseScheduler"
        for kind in type(found).__mro__
    )


@contextmanager
def held() -> Iterator[None]:
    """Keep the schedulers of a module from starting while it is imported: nothing fires, no job store is connected."""
    from apscheduler.schedulers.base import BaseScheduler  # noqa: PLC0415 - only for who imports from it

    start = BaseScheduler.start
    BaseScheduler.start = lambda *_, **__: None
    try:
        yield
    finally:
        BaseScheduler.start = start


def bring(scheduler: Any, now: datetime) -> list[ImportedJob]:
    """Import each job of the scheduler: those that its module adds, and the others of its SQLAlchemy job stores, which are only read."""
    taken: set[str] = set()
    added = scheduler.get_jobs()
    found = [_job(job, scheduler, taken, now) for job in added]
    known = {job.id for job in added}
    for alias, store in scheduler._jobstores.items():  # noqa: SLF001 - they are told nowhere else before the start
        found += _stored(alias, store, scheduler, known, taken, now)
    return found


def _stored(
    alias: str, store: Any, scheduler: Any, known: set[str], taken: set[str], now: datetime
) -> Iterator[ImportedJob]:
    """Import the jobs of a store without starting it: a start makes its table, and its own reading deletes what it cannot load."""
    kind = type(store).__name__
    if kind == "MemoryJobStore":
        return
    if not hasattr(store, "jobs_t"):
        yield skipped(f"job store {alias}", f"a {kind} is not read: its jobs are to be written by hand.")
        return
    try:
        states = _states(store)
    except Exception as error:  # noqa: BLE001 - the database is away, or refuses us
        yield skipped(f"job store {alias}", f"it cannot be read: {type(error).__name__}: {error}")
        return
    for job_id, state in states:
        if job_id in known:  # added by the module, which replaces it at its start
            continue
        try:
            job = store._reconstitute_job(state)  # noqa: SLF001 - its public methods delete or write
        except Exception as error:  # noqa: BLE001 - whatever unpickling and its imports raise
            yield skipped(job_id, f"stored in job store {alias}, and cannot be loaded: {error}")
            continue
        yield _job(job, scheduler, taken, now, stored=True)


def _states(store: Any) -> list[tuple[str, bytes]]:
    """Return ids and pickles of the stored jobs, in the order of their ids; none without a table."""
    table, engine = store.jobs_t, store.engine
    file = engine.url.database if engine.dialect.name == "sqlite" else None
    if file and not file.startswith("file:") and not Path(file).exists():
        return []  # a connection would make it
    with engine.connect() as connection:
        if not engine.dialect.has_table(connection, table.name, schema=table.schema):
            return []
        rows = connection.execute(table.select().order_by(table.c.id))
        return [(row.id, row.job_state) for row in rows]


def _job(job: Any, scheduler: Any, taken: set[str], now: datetime, *, stored: bool = False) -> ImportedJob:
    # An id that APScheduler made up says less than the function's name.
    entry = job.name if len(job.id) == 32 and job.id.isalnum() else job.id
    try:
        when, remarks = _when(job.trigger, now)
    except Exception as error:  # noqa: BLE001 - whatever a foreign trigger raises, the other jobs go on
        return skipped(entry, f"its trigger cannot be carried over: {error}")
    if not when:
        return ImportedJob(entry=entry, remarks=tuple(remarks))
    job_id, title = titled(entry, taken)
    if not _importable(job):
        remarks.append(manual(f"no module names {job.name}: write a function that calls it, and name that."))
    config, fitting = arguments(job.func, tuple(job.args), dict(job.kwargs))
    policies, told = _policies(job, scheduler, stored=stored)
    return written(
        entry,
        job_id,
        job.func_ref or "module:function",
        {**title, **when, **config, **policies},
        [*remarks, *fitting, *told],
    )


def _importable(job: Any) -> bool:
    """Return whether the text that names the function leads to it; False for a lambda or an object's method."""
    try:
        return bool(job.func_ref) and Handler(job.id, job.func_ref).function == job.func
    except HandlerNotFoundError:
        return False


def _policies(job: Any, scheduler: Any, *, stored: bool) -> When:
    """Convert a job's policies; those it leaves to the scheduler come from the scheduler's defaults.

    A stored job knows its next instant, which its trigger has computed.
    """
    defaults = scheduler._job_defaults  # noqa: SLF001 - they are told nowhere else before the start
    late, coalesce, most = (
        getattr(job, word, defaults[word]) for word in ("misfire_grace_time", "coalesce", "max_instances")
    )
    options: dict[str, Any] = {} if coalesce else {"catch_up": "all"}
    remarks = []
    if late is None:
        remarks.append(changed("it ran however late it was; here only within catch_up_window, one hour."))
    else:
        options["start_deadline"] = late
        options |= {"catch_up_window": late} if late > 3600 else {}
    if most > 1:
        options["overlap"] = "allow"
        remarks.append(changed(f"max_instances={most}: here there is no limit to runs at once."))
    if getattr(job, "executor", "default") != "default":
        remarks.append(
            manual(f'executor {job.executor!r}: for a process of its own write isolation="process".')
        )
    first = getattr(job, "next_run_time", _UNSET)
    if first is None:
        options["enabled_when"] = False
        remarks.append(manual("it is paused there, and off here by enabled_when=False."))
    elif first is not _UNSET and not stored:
        remarks.append(manual(f"next_run_time={first}: here it first fires when its schedule says."))
    return options, remarks


# ---------------------------------------------------------------- when


def _when(trigger: Any, now: datetime) -> When:
    """Convert a trigger to options; no options if no schedule can express it."""
    kind = type(trigger).__name__
    make: dict[str, Callable[[Any, datetime], When]] = {
        "CronTrigger": _cron,
        "IntervalTrigger": _interval,
        "DateTrigger": _date,
    }
    if kind not in make or not type(trigger).__module__.startswith("apscheduler.triggers."):
        return {}, [manual(f"{kind} has no equivalent: write what it means as one job or several.")]
    when, remarks = make[kind](trigger, now)
    start, end = getattr(trigger, "start_date", None), getattr(trigger, "end_date", None)
    if start and start > now + getattr(trigger, "interval", _NONE):
        remarks.append(manual(f"it does not fire before {start}; here it fires as soon as it is declared."))
    if end:
        remarks.append(manual(f"it ends on {end}; here it goes on until the job is taken out."))
    if getattr(trigger, "jitter", None):
        when["jitter"] = trigger.jitter
    return when, remarks


def _date(trigger: Any, now: datetime) -> When:
    moment = trigger.run_date.replace(microsecond=0)
    past = manual("it lies in the past: it will not fire here.")
    # In UTC: an offset without its zone would only look like one.
    return {"at": moment.astimezone(UTC)}, [past if moment <= now else same("it fires at the same instant.")]


def _interval(trigger: Any, now: datetime) -> When:
    """Convert an interval from the same anchor: to `every`, or to a cron line in UTC if it divides a day or is a week."""
    length, anchor = trigger.interval, trigger.start_date.astimezone(UTC)
    every = Every(length)
    if anchor.microsecond:
        return {"every": int(length.total_seconds())}, [
            changed(
                "it names no start_date: there it counts from the start of the process, here from fixed instants."
            )
        ]
    theirs = _following(trigger)
    plain = compare(theirs, every, "UTC", now)
    line = _line(length, anchor)
    if plain.calendar and line:
        cron, outcome, _ = best(theirs, [line], "UTC", now)
        return {"cron": cron.expression}, outcome.remarks()
    told = changed(f"it counts from {anchor:%Y-%m-%d %H:%M:%S} UTC; every= from 1970-01-01 00:00:00 UTC.")
    return {"every": int(length.total_seconds())}, [told] * bool(plain.calendar) + plain.remarks()


def _line(length: timedelta, anchor: datetime) -> str:
    """Write the cron line in UTC of an interval from an anchor; '' if there is none."""
    if length == _WEEK:
        return f"{anchor.second} {anchor.minute} {anchor.hour} * * {WEEKDAYS[anchor.isoweekday() % 7]}".removeprefix(
            "0 "
        )
    if _DAY % length or length < timedelta(minutes=1) or length % timedelta(minutes=1):
        return ""
    start = anchor.hour * 60 + anchor.minute
    step = length // timedelta(minutes=1)
    times = sorted({(start + n * step) % 1440 for n in range(1440 // step)})
    minutes, hours = sorted({t % 60 for t in times}), sorted({t // 60 for t in times})
    if len(minutes) * len(hours) != len(times):
        return ""
    fields = [field_text(0, "", set(minutes)), field_text(1, "", set(hours)), "* * *"]
    return " ".join([str(anchor.second), *fields] if anchor.second else fields)


def _following(trigger: Any) -> Next:
    """APScheduler's own answer, from a copy without its bounds and without chance."""
    probe = copy.copy(trigger)
    probe.jitter = probe.end_date = None
    if type(trigger).__name__ == "CronTrigger":
        probe.start_date = None
    else:
        probe.start_date = datetime.fromtimestamp(
            trigger.start_date.timestamp() % trigger.interval_length, UTC
        )
    before: list[datetime | None] = [None]

    def following(moment: datetime) -> datetime | None:
        # Only what it said itself may be told as its last fire: an interval counts on from that.
        said = before[0] if before[0] == moment else None
        before[0] = probe.get_next_fire_time(said, moment + (SECOND if said else timedelta(microseconds=1)))
        return before[0]

    return following


def _cron(trigger: Any, now: datetime) -> When:
    """Convert a cron trigger: names for weekday numbers, and `L` for the last days of a month."""
    zone = zone_name(trigger.timezone)
    if not zone:
        return {}, [manual(f"its zone {trigger.timezone} has no IANA name: choose one.")]
    fields = {field.name: field for field in trigger.fields}
    special = _last_days(fields["day"])
    values = {name: _values(fields[name]) for name in _TOPS}
    minute, hour, month = (
        field_text(place, str(fields[name]), values[name])
        for place, name in ((0, "minute"), (1, "hour"), (3, "month"))
    )
    weekdays = {(value + 1) % 7 for value in values["day_of_week"]}
    weekday = field_text(4, "", weekdays)
    plain = field_text(2, str(fields["day"]), values["day"]) if values["day"] else ""
    day = ",".join(filter(None, [plain, *(text for text in special if text == "L")]))
    counted = ",".join(text for text in special if text != "L")
    pairs: Sequence[tuple[str, str]] = day_fields(
        day or "*", weekday, set() if "L" in day else values["day"] or set(range(1, 32)), weekdays
    )
    if counted and weekday == "*":
        pairs = [(day or "*", counted)]
    seconds = str(fields["second"])
    lines = [f"{seconds} {minute} {hour} {some} {month} {other}".removeprefix("0 ") for some, other in pairs]
    cron, outcome, alike = best(_following(trigger), lines, zone, now)
    remarks = _fields(fields)
    if not alike and "*" not in (day or "*", weekday):
        remarks.insert(0, manual(both_days(cron, day, weekday)))
    return {"cron": cron.expression} | (
        {} if zone == "UTC" else {"timezone": zone}
    ), remarks + outcome.remarks()


def _fields(fields: dict[str, Any]) -> list[Remark]:
    """Remark on what a cron line has no field for, and on numbers that mean something else here."""
    remarks = [
        manual(f"there is no field for {name}={str(fields[name])!r}: let the handler return at other times.")
        for name in ("year", "week")
        if str(fields[name]) != "*"
    ]
    numbers = [e for e in fields["day_of_week"].expressions if type(e).__name__ == "RangeExpression"]
    if numbers or "/" in str(fields["day_of_week"]):
        remarks.append(
            manual(
                f"day_of_week={str(fields['day_of_week'])!r} counts from Monday = 0 there; if cron's numbers were meant, correct it."
            )
        )
    return remarks


def _values(field: Any) -> set[int]:
    """List the values of a field's ranges, except last days and counted weekdays, which `_last_days` converts."""
    low = 1 if field.name in ("day", "month") else 0
    found: set[int] = set()
    for part in field.expressions:
        if hasattr(part, "first") or type(part).__name__ == "AllExpression":
            first, last = getattr(part, "first", low), getattr(part, "last", None)
            found |= set(range(first, (_TOPS[field.name] if last is None else last) + 1, part.step or 1))
    return found


def _last_days(field: Any) -> list[str]:
    """`L`, `FRIL` or `MON#1` for what only the day field of APScheduler knows."""
    found = []
    for part in field.expressions:
        if type(part).__name__ == "LastDayOfMonthExpression":
            found.append("L")
        elif type(part).__name__ == "WeekdayPositionExpression":
            name = WEEKDAYS[(part.weekday + 1) % 7]
            found.append(f"{name}L" if part.option_num == 5 else f"{name}#{part.option_num + 1}")
    return found
