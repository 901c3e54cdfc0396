"""Announced runs that a process is about to open: they may be brought again meanwhile, and must not be opened twice."""

from __future__ import annotations

import threading
from collections.abc import Iterable


class InFlightRuns:
    """Ids that one thread is at. Any thread may ask."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._changed = threading.Condition()

    def acquire(self, run_id: str, *, patience: float = 0) -> bool:
        """True if it is the caller's now; False if after so many seconds somebody else still has it."""
        with self._changed:
            if not self._changed.wait_for(lambda: run_id not in self._ids, patience):
                return False
            self._ids.add(run_id)
            return True

    def release(self, run_ids: Iterable[str | None]) -> None:
        """They are decided, or given up; others that were never taken do not matter."""
        with self._changed:
            self._ids.difference_update(run_ids)
            self._changed.notify_all()
