"""Lookout: the facet of a store with what alarms look for: runs that are late, last long or were missed, and how many wait."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from datetime import datetime

from jobmanager.run import Run

NEWEST = 20_000
"""Runs among which dead letters are counted."""


class Lookout(ABC):
    """Questions about runs that something may be wrong with. Nothing here writes; any thread may ask."""

    @abstractmethod
    def missed(self, job_ids: Collection[str], since: datetime, limit: int) -> list[Run]:
        """Return runs of these jobs that were missed after the moment and whose instant is after it, oldest first."""

    @abstractmethod
    def running(self, job_ids: Collection[str], limit: int) -> list[Run]:
        """Return running runs of these jobs, oldest first."""

    @abstractmethod
    def not_started(self, job_ids: Collection[str], before: datetime, limit: int) -> list[Run]:
        """Return pending runs of these jobs that were due before the moment and never started, oldest first."""

    @abstractmethod
    def backlog(self, namespace: str, limit: int) -> int:
        """Return how many runs of the namespace are due and pending; counts no further than `limit`."""

    @abstractmethod
    def dead_letters(self, namespace: str, limit: int) -> int:
        """Return how many failed runs of the namespace nobody saw to, among the newest of the store; counts no further than `limit`."""
