"""Values that every page shows and that may be a moment old."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from jobmanager.clock import Clock

T = TypeVar("T")
MOST = 100


class Cached:
    """Values by key, each computed anew when it is older than its reader accepts. Any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._values: dict[Hashable, tuple[float, Any]] = {}

    def get(self, key: Hashable, seconds: float, make: Callable[[], T]) -> T:
        """Return the value if it is at most so many seconds old, else what `make` returns now."""
        with self._lock:
            made_at, value = self._values.get(key, (float("-inf"), None))
        if self._clock.monotonic() - made_at <= seconds:
            found: T = value
            return found
        made = make()
        with self._lock:
            if len(self._values) >= MOST and key not in self._values:
                self._values.pop(next(iter(self._values)))
            self._values[key] = self._clock.monotonic(), made
        return made

    def forget(self) -> None:
        """Forget all values: who has just changed something sees it at once."""
        with self._lock:
            self._values.clear()
