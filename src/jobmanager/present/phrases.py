"""Values in words for people: instants in the reader's zone, durations, the ends of ids."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from math import floor
from typing import Any

from jobmanager.validation.printable import printable_json, printable_lines

TAIL = 8  # characters of an id that are shown: ids begin with the time and look alike, their ends do not

_UNITS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))


def tail(run_id: str) -> str:
    """Return the end of an id, which every verb accepts for the id."""
    return run_id[-TAIL:]


def length(duration: timedelta | None) -> str:
    """Format a duration: `340 ms`, `2.4 s`, `3 min 20 s`, `2 h 5 min` or `4 d 1 h`; nothing for None."""
    if duration is None:
        return ""
    seconds = abs(duration.total_seconds())
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, smaller, smaller_unit in _UNITS:
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {smaller_unit}" if rest else "")
    return f"{whole} s"


def distance(moment: datetime | None, now: datetime) -> str:
    """Format a distance in time: `in 4 min` or `100 s ago`, in the largest unit of which there are two; nothing for None."""
    if moment is None:
        return ""
    seconds = (moment - now).total_seconds()
    if abs(seconds) < 1:
        return "now"
    size, unit = next(((s, u) for s, u, *_ in _UNITS if abs(seconds) >= 2 * s), (1, "s"))
    told = f"{int(abs(seconds) // size)} {unit}"
    return f"in {told}" if seconds > 0 else f"{told} ago"


def clock(moment: datetime | None, now: datetime) -> str:
    """Format a moment in the reader's zone: `14:02:11 CET` today, `24 Nov 14:02:11 CET` this year; nothing for None."""
    if moment is None:
        return ""
    local, today = moment.astimezone(), now.astimezone()
    if local.date() == today.date():
        return f"{local:%H:%M:%S %Z}"
    return (
        f"{local.day} {local:%b %H:%M:%S %Z}" if local.year == today.year else f"{local:%Y-%m-%d %H:%M:%S %Z}"
    )


def both(moment: datetime, zone: tzinfo | None = None) -> str:
    """Format a moment in the reader's zone (or `zone`) and in UTC, once if they are the same."""
    local = moment.astimezone(zone)
    told = f"{local:%a %Y-%m-%d %H:%M:%S %Z}"
    return told if not local.utcoffset() else f"{told} ({utc(moment)})"


def utc(moment: datetime) -> str:
    """Format a moment in UTC: `2026-11-23 01:00:00 UTC`."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def iso(moment: datetime | None) -> str | None:
    """Format a moment for machines: ISO 8601, UTC, with a Z."""
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def seconds(duration: timedelta | None) -> float | None:
    """Return a duration for machines, in seconds."""
    return None if duration is None else round(duration.total_seconds(), 6)


def compact(value: Any) -> str:
    """Return a JSON value on one line; '' for None."""
    return "" if value is None else printable_json(value)


class Block(str):
    """A text of several lines of which each is ours."""

    __slots__ = ()


def continued(text: str) -> str:
    """Return a text of several lines whose further lines are indented: none looks like one of ours."""
    return printable_lines(text).replace("\n", "\n  ")


def count(number: int, noun: str, plural: str = "") -> str:
    """Format a number of things: `1 job`, `2 jobs`, `1,000 jobs`; `plural` for a noun that does not just take an s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def size(number: int) -> str:
    """Format a number of bytes: `340 B`, `2.4 KiB`, `120 MiB`."""
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"


def share(part: float) -> str:
    """Format a share, 0.0 to 1.0, in per cent: `94.8 %`, `100 %`. What is less than all of it is never told as all."""
    return f"{floor(part * 1000 + 1e-9) / 10:g} %"
