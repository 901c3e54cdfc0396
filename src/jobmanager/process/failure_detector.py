"""Detect dead processes: a beat counter that did not move for a whole lease, watched by a process whose own beats were all accepted.

Timestamps would fail healthy runs after an outage or a step of the clock (docs/internals/ledger.md#life-and-death-of-a-process); a counter and our own
monotonic clock do not. After a pause of its own, the watcher gives every process a whole lease again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from jobmanager.clock import Clock
from jobmanager.errors import StoreError
from jobmanager.stores.base import RunStore
from jobmanager.stores.values import Instance
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)


class FailureDetector:
    """Watches the others at each beat of ours. Called by the lease's thread only."""

    def __init__(
        self, store: RunStore, clock: Clock, *, length: timedelta, on_dead: Callable[[], object]
    ) -> None:
        self._store = store
        self._clock = clock
        self._length = length.total_seconds()
        self._first_seen: dict[str, tuple[int, float]] = {}
        self._last_beat = float("-inf")
        self._on_dead = on_dead

    def check(self, own_id: str) -> None:
        """Mark processes dead that have been silent for longer than a lease; after each accepted beat of this process."""
        now = self._clock.monotonic()
        if now - self._last_beat > self._length / 2:
            # We may have slept ourselves, and then everybody looks silent.
            self._first_seen.clear()
        self._last_beat = now
        try:
            others = [instance for instance in self._store.processes.living() if instance.id != own_id]
            read = self._clock.monotonic()
            dead = [
                other
                for other in others
                if self._is_silent(other, now, read) and self._store.processes.mark_dead(other)
            ]
        except StoreError as error:
            logger.debug("others could not be watched: %s", error)
            self.forget()
            return
        alive = {other.id for other in others} - {other.id for other in dead}
        self._first_seen = {known: seen for known, seen in self._first_seen.items() if known in alive}
        for other in dead:
            logger.warning(
                "process %d on %s is dead: no beat for %.0f s; its runs are taken over",
                other.pid,
                other.host,
                self._length,
            )
        if dead:
            self._on_dead()

    def forget(self) -> None:
        """Forget what was seen: a beat of this process failed or came late, so it proves nothing any more."""
        self._first_seen.clear()

    def _is_silent(self, other: Instance, now: float, read: float) -> bool:
        """Return True if it did not move since longer than a lease: from after the first reading to before this one."""
        beats, since = self._first_seen.get(other.id, (None, read))
        if beats != other.beats:
            self._first_seen[other.id] = (other.beats, read)
            return False
        return now - since > self._length
