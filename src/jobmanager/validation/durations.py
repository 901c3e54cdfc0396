"""Durations as people give them: seconds, a timedelta, or a text such as `5m`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

LONGEST = timedelta(days=36_500)
HOW_TO_WRITE = "30s, 5m, 1h30m, 90d or 2w"

_SIZES = {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_PART = re.compile(r"\s*(\d{1,12}(?:\.\d{1,9})?)\s*(ms|sec|min|s|m|h|d|w)?", re.ASCII)


def parse_duration(text: str) -> timedelta:
    """Read `90` (seconds), `30s`, `5m`, `1h30m`, `90d` or `2w`; ValueError for any other text and beyond a century."""
    compact, seconds, place = text.strip().lower(), 0.0, 0
    while place < len(compact):
        part = _PART.match(compact, place)
        if part is None:
            raise ValueError(text)
        seconds += float(part[1]) * _SIZES[part[2] or "s"]
        place = part.end()
    if not compact or seconds > LONGEST.total_seconds():
        raise ValueError(text)
    return timedelta(seconds=seconds)


def as_duration(value: Any) -> timedelta:
    """Return the timedelta meant by a number of seconds, a timedelta or a text; ValueError if none is meant.

    NaN, infinity, bools and what is longer than a century in either direction mean none.
    """
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, bool) or not isinstance(value, (int, float, timedelta)):
        raise ValueError(value)  # noqa: TRY004 - one error for whatever means no duration
    try:
        length = value if isinstance(value, timedelta) else timedelta(seconds=value)
    except OverflowError:
        raise ValueError(value) from None
    if not -LONGEST <= length <= LONGEST:
        raise ValueError(value)
    return length
