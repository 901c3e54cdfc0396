"""How often an address may call this process: generous for authenticated calls, strict for failed authentications."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields
from math import isfinite

from jobmanager.errors import ConfigurationError
from jobmanager.validation.texts import shown

MOST_ADDRESSES = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Requests a second, and how many may come at once after a pause, for one address and process.

    The defaults for authenticated calls are above what a database sends: with one pg_cron entry for each of 1,000 jobs, 1,000
    calls come in one second. Failed authentications are counted apart, so that a stranger behind the same proxy cannot
    keep the database out; all addresses together may fail twice as often as one, whatever addresses the callers claim.
    ConfigurationError for a number that limits nothing or everything.
    """

    calls_per_second: float = 5_000
    calls_at_once: int = 10_000
    failures_per_second: float = 2
    failures_at_once: int = 100
    starts_per_minute: float = 5
    """Of each principal, by hand, on the pages and by the API together."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)
            least = 1 if each.name.endswith("_at_once") else 0
            if not is_number or value < least or value == 0:
                raise ConfigurationError(
                    f"Limits: {each.name}={shown(value)} cannot be used; use a number {'from 1' if least else 'above 0'}."
                )


class Limit:
    """A token bucket for each address; the addresses heard of last are remembered. Any thread."""

    def __init__(self, per_second: float, at_once: int, monotonic: Callable[[], float]) -> None:
        self._per_second = per_second
        self._at_once = float(at_once)
        self._monotonic = monotonic
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, address: str) -> float:
        """Take one if there is room, and return 0.0; else return the seconds until there will be."""
        now = self._monotonic()
        with self._lock:
            left, since = self._buckets.pop(address, (self._at_once, now))
            left = min(self._at_once, left + (now - since) * self._per_second)
            waits = 0.0 if left >= 1 else (1 - left) / self._per_second
            self._buckets[address] = (left if waits else left - 1, now)
            if len(self._buckets) > MOST_ADDRESSES:
                self._buckets.popitem(last=False)
        return waits
