"""The facet `search`: runs by filter, counts of them, and dead letters by their error, each in a bounded number of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime, timedelta

from jobmanager.access.view import View
from jobmanager.run import Run
from jobmanager.search import DeadLetters, FoundRuns, Mark, RunCounts, RunFilter

SEARCHED = 100_000
"""The most rows that one search reads; it then says how far back it came."""

COUNTED, COUNTED_TROUBLE = 3_000, 2_000
"""The most rows that are read to be counted, of all and of each status that is not success: above, a count says "or more"."""

LATE_AFTER = timedelta(seconds=60)
OPENED_WITHIN, CLOSED_WITHIN = timedelta(minutes=5), timedelta(days=31)
"""How long after its instant a run may be opened for `until` to find it, where no job is named; the latter if it did not succeed."""


class StoredSearch(ABC):
    """Questions with filters. Each reads a bounded number of rows, however many there are."""

    @abstractmethod
    def runs(
        self, wanted: RunFilter, *, before: Mark | None = None, limit: int = 50, seen: View | None = None
    ) -> FoundRuns:
        """Return a page of the runs that the filter wants, newest first: of one job by instant, of all jobs by opening."""

    @abstractmethod
    def counts(self, wanted: RunFilter, *, seen: View | None = None) -> RunCounts:
        """Count the newest rows by kind. Of the filter job and range count, and what is no kind; statuses, reason, error and trigger do not."""

    @abstractmethod
    def dead_letters(
        self, wanted: RunFilter, *, limit: int = 1000, seen: View | None = None
    ) -> list[DeadLetters]:
        """Return the newest dead letters that the filter wants by their error, the largest group first."""

    @abstractmethod
    def beside(
        self, job_id: str, instant: datetime, *, seen: View | None = None
    ) -> tuple[Run | None, Run | None]:
        """Return the rows of the job's ticks next before and next after the instant; both None under a view that hides a run of the job."""
