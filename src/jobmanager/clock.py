"""Where every "now" comes from. Wall clock says when, monotonic clock says how long; nobody else asks the system."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

Due = Callable[[], datetime | None]


class Clock(Protocol):
    """Time as the library sees it; any thread may ask."""

    def now(self) -> datetime:
        """The wall clock, aware, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean anything."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait on this clock."""
        ...

    def drive(self, next_due: Due | None, act: Callable[[], object]) -> bool:
        """True: this clock will call `act` itself when `next_due()` has come (None: once after each move).

        False: the component that asks must wait in a thread of its own.
        """
        ...

    def release(self, act: Callable[[], object]) -> None:
        """Forget a duty that `drive` took over; unknown ones are ignored."""
        ...


class SystemClock:
    """The machine's clock. It drives nobody: components keep their own threads."""

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
