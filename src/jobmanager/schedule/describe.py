"""Schedules in English, written from the canonical sets and therefore exact, about "and" and "or" too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import chain, islice, product

from jobmanager.schedule.dst import DEBIAN, Dst
from jobmanager.schedule.fields import Fields

_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_COUNTS = ("first", "second", "third", "fourth", "fifth")
_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))
_MOST_TIMES_LISTED = 6


def describe_cron(fields: Fields, timezone: str, dst: Dst = DEBIAN) -> str:
    """For example "at 09:00 on Monday to Friday, Europe/Berlin"; neither UTC nor what makes no difference is named."""
    times, dates = list(islice(_clock_times(fields), _MOST_TIMES_LISTED + 1)), _dates(fields)
    rhythm = _regular(fields) or (_rhythm(fields) if len(times) > _MOST_TIMES_LISTED else "")
    phrase = f"{rhythm} {dates}".rstrip() if rhythm else f"at {_join(times)} {dates or 'every day'}"
    if fields.months != tuple(range(1, 13)):
        phrase += f" in {_list(fields.months, _MONTHS, first=1)}"
    if not fields.day_rules():
        phrase += " (no such date)"
    changes = "" if fields.wildcard else dst.describe()
    return ", ".join(filter(None, (phrase, "" if timezone == "UTC" else timezone, changes)))


def describe_every(interval: timedelta, anchor: datetime | None) -> str:
    """For example "every 90 minutes"; an anchor that is given is named."""
    seconds = int(interval.total_seconds())
    unit, size = next((unit, size) for unit, size in _UNITS if seconds % size == 0)
    return _each(seconds // size, unit) + (f", counted from {_moment(anchor)}" if anchor else "")


def describe_end(until: datetime | None) -> str:
    """For example ", until 2026-12-31 at 23:59:00 UTC"; nothing for a schedule that does not end."""
    return "" if until is None else f", until {_moment(until)}"


def describe_at(moment: datetime) -> str:
    """For example "once, on 2026-01-01 at 00:00:00 UTC"."""
    return f"once, on {_moment(moment)}"


def _moment(moment: datetime) -> str:
    return f"{moment.date()} at {moment.time()} UTC"


def _each(count: int, unit: str) -> str:
    return f"every {unit}" if count == 1 else f"every {count} {unit}s"


def _clock_times(fields: Fields) -> Iterator[str]:
    """09:00, or 09:00:30 if any second but 0 occurs."""
    for hour, minute, second in product(fields.hours, fields.minutes, fields.seconds):
        yield f"{hour:02}:{minute:02}" if fields.seconds == (0,) else f"{hour:02}:{minute:02}:{second:02}"


def _regular(fields: Fields) -> str:
    """Say "every 15 minutes" if that is the whole truth about the time of day, else nothing."""
    all_minutes, all_hours = len(fields.minutes) == 60, len(fields.hours) == 24
    if fields.seconds != (0,):
        return _evenly(fields.seconds, 60, "second") if all_minutes and all_hours else ""
    if fields.minutes != (0,):
        return _evenly(fields.minutes, 60, "minute") if all_hours else ""
    return _evenly(fields.hours, 24, "hour")


def _evenly(values: Sequence[int], size: int, unit: str) -> str:
    """Say "every 15 minutes" if several values divide the whole evenly from 0 on, else nothing."""
    step = size // len(values)
    even = len(values) > 1 and size % step == 0 and tuple(values) == tuple(range(0, size, step))
    return _each(step, unit) if even else ""


def _rhythm(fields: Fields) -> str:
    """For example "at minute 5 and 35 of the hours 9 to 17"."""
    hours = "every hour" if len(fields.hours) == 24 else _counted("the hour", fields.hours)
    if fields.seconds == (0,):
        return f"{_leading(fields.minutes, 'minute')} of {hours}"
    leading = _leading(fields.seconds, "second")
    if len(fields.minutes) < 60:
        return f"{leading} of {_counted('the minute', fields.minutes)} of {hours}"
    return f"{leading} of every minute" + ("" if len(fields.hours) == 24 else f" of {hours}")


def _leading(values: Sequence[int], unit: str) -> str:
    return _evenly(values, 60, unit) or f"at {_counted(unit, values)}"


def _counted(unit: str, values: Sequence[int]) -> str:
    plural = "s" if len(values) > 1 and unit.startswith("the ") else ""
    return f"{unit}{plural} {_list(values)}"


def _dates(fields: Fields) -> str:
    """Which days; nothing if every day."""
    every_day, every_weekday = len(fields.days) == 31, len(fields.weekdays) == 7
    if fields.either:
        return "" if every_day or every_weekday else f"on {_days(fields)} or on {_weekdays(fields)}"
    if every_day and every_weekday:
        return ""
    if every_day:
        return f"on {_weekdays(fields)}"
    if every_weekday:
        return f"on {_days(fields)}"
    return f"on {_weekdays(fields)} if it is {_days(fields, 'or')}"


def _days(fields: Fields, conjunction: str = "and") -> str:
    days = [f"day {_list(fields.days, conjunction=conjunction)}"] if fields.days else []
    return _join([*days, *["the last day"] * fields.last_day], conjunction) + " of the month"


def _weekdays(fields: Fields) -> str:
    # The week is told from Monday to Sunday, so that FRI-SUN stays one stretch.
    plain = [_list(sorted((day - 1) % 7 for day in fields.weekdays), _WEEKDAYS)] if fields.weekdays else []
    counted = [f"the {_COUNTS[count - 1]} {_WEEKDAYS[day - 1]} of the month" for day, count in fields.nth]
    last = [f"the last {_WEEKDAYS[day - 1]} of the month" for day in fields.last_weekdays]
    return _join([*plain, *counted, *last])


def _list(
    values: Sequence[int], names: Sequence[str] = (), *, first: int = 0, conjunction: str = "and"
) -> str:
    """Numbers, or their names, as "1, 5 to 9 and 12": stretches of three and more are drawn together."""
    stretches: list[list[str]] = []
    for previous, value in zip((None, *values), values, strict=False):
        word = names[value - first] if names else str(value)
        if previous == value - 1:
            stretches[-1].append(word)
        else:
            stretches.append([word])
    told = [words if len(words) < 3 else [f"{words[0]} to {words[-1]}"] for words in stretches]
    return _join(list(chain.from_iterable(told)), conjunction)


def _join(words: Sequence[str], conjunction: str = "and") -> str:
    return f" {conjunction} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
