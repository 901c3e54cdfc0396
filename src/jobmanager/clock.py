"""The only source of time: the wall clock says when, the monotonic clock says how long. No other module asks the system.

Lengths of time are read here as well, as people give them: seconds, a timedelta, or a text such as `5m`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

LONGEST = timedelta(days=36_500)
HOW_TO_WRITE = "30s, 5m, 1h30m, 90d or 2w"

_SIZES = {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_PART = re.compile(r"\s*(\d{1,12}(?:\.\d{1,9})?)\s*(ms|sec|min|s|m|h|d|w)?", re.ASCII)

Due = Callable[[], datetime | None]


LATEST = datetime(9999, 12, 31, tzinfo=UTC)
"""The last day that there is in Python: no moment that is computed lies after it."""

EARLIEST = datetime(1, 1, 2, tzinfo=UTC)
"""The second day that there is in Python: no moment that is computed lies before it."""


def later(moment: datetime, length: timedelta) -> datetime:
    """Return the moment so much later; `LATEST` where it would lie beyond, unless the moment itself already does."""
    if length <= timedelta(0):
        return moment
    return moment + length if moment < LATEST and length < LATEST - moment else max(moment, LATEST)


def earlier(moment: datetime, length: timedelta) -> datetime:
    """Return the moment so much earlier; `EARLIEST` where it would lie before, unless the moment itself already does."""
    return moment - length if length <= moment - EARLIEST else min(moment, EARLIEST)


class Clock(Protocol):
    """Time as the library reads it. Every method may be called by any thread."""

    def now(self) -> datetime:
        """Return the wall clock's time, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never decrease; only differences between two readings have a meaning."""
        ...

    def sleep(self, seconds: float) -> None:
        """Block until `seconds` have passed on this clock."""
        ...

    def drive(self, next_due: Due | None, act: Callable[[], object]) -> bool:
        """Take over the calls of a recurring duty, if this clock does that; return whether it does.

        True: the clock itself calls `act` whenever the instant `next_due()` has come (`next_due` None: once after each move of
        the clock). False: the component must wait in a thread of its own.
        """
        ...

    def release(self, act: Callable[[], object]) -> None:
        """Forget a duty that `drive` took over. An unknown duty is ignored."""
        ...


class SystemClock:
    """The machine's clock. It takes over no duty: components keep threads of their own."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def drive(self, next_due: Due | None, act: Callable[[], object]) -> bool:
        return False

    def release(self, act: Callable[[], object]) -> None:
        return None


def parse_duration(text: str) -> timedelta:
    """Read `90` (seconds), `30s`, `5m`, `1h30m`, `90d` or `2w`; ValueError for any other text and beyond a century."""
    compact, seconds, place = text.strip().lower(), 0.0, 0
    while place < len(compact):
        part = _PART.match(compact, place)
        alone = place == 0 and part is not None and part.end() == len(compact)
        if part is None or not (part[2] or alone):  # "1h30" leaves open whether minutes are meant
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
