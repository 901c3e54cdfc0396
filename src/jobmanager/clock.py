"""The only source of time: the wall clock says when, the monotonic clock says how long. No other module asks the system."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

Due = Callable[[], datetime | None]


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
