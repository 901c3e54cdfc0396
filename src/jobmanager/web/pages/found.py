"""Counts and dead letters beside the list of runs: read from the list itself where that is all there is, else from the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from jobmanager.manager.manager import JobManager
from jobmanager.run import FAILED, Run
from jobmanager.search import DeadLetters, FoundRuns, Mark, RunCount, RunCounts, RunFilter, grouped
from jobmanager.web.cached import Cached
from jobmanager.web.pages.board import seen_by

MOST_DEAD = 500
FIRST_LINE = 500
FRESH = 5.0
"""Seconds for which what stands beside all runs is kept."""
T = TypeVar("T")


class Beside:
    """Counts and dead letters of a filter. `found` is its first page, or None if the page shown is another one.

    A search for a text reads thousands of rows to find a few: these hold all that counts and dead letters would be read from again.
    """

    def __init__(
        self, jobs: JobManager, wanted: RunFilter, found: FoundRuns | None, cached: Cached | None = None
    ) -> None:
        # What stands beside all runs is the same for each choice among them.
        self._jobs = jobs
        self._cached = cached
        self._wanted = wanted
        self._all = found.runs if found is not None and found.next is None else None

    def counts(self) -> RunCounts:
        """Return the counts of all kinds; of the filter status, reason, error and trigger do not count, as they divide runs into kinds."""
        kinds = replace(self._wanted, statuses=(), reason=None, error_kind=None, trigger=None)
        if self._all is not None and kinds == replace(self._wanted, statuses=tuple(self._wanted.statuses)):
            return _counted(self._all)
        return self._kept("counts", kinds, lambda: self._jobs.count_runs(self._wanted))

    def dead_letters(self) -> list[DeadLetters]:
        """Return the dead letters of the same job, scope, time and error by their error; none where other statuses are wanted."""
        statuses = self._wanted.statuses
        if statuses and FAILED not in statuses:
            return []
        dead = _of_dead(self._wanted)
        if self._all is not None and dead == replace(self._wanted, statuses=(), dead=False):
            return grouped(
                _letter(run) for run in self._all if run.status is FAILED and run.discarded_at is None
            )
        return self._kept(
            "dead letters", dead, lambda: self._jobs.dead_letters_by_error(dead, limit=MOST_DEAD)
        )

    def _kept(self, name: str, wanted: RunFilter, make: Callable[[], T]) -> T:
        if self._cached is None or wanted != RunFilter():
            return make()
        return self._cached.get((name, seen_by()), FRESH, make)


def _of_dead(wanted: RunFilter) -> RunFilter:
    return RunFilter(
        job=wanted.job,
        scope=wanted.scope,
        since=wanted.since,
        until=wanted.until,
        error_kind=wanted.error_kind,
        text=wanted.text,
        requested_by=wanted.requested_by,
        trigger=wanted.trigger,
    )


def _counted(runs: Sequence[Run]) -> RunCounts:
    """Return a count for each run: they are added up by whatever they are shown by."""
    return RunCounts(
        [
            RunCount(
                run.status,
                run.job_id,
                run.reason,
                run.error.kind if run.error else None,
                run.trigger,
                1,
                run.ticks,
            )
            for run in runs
        ]
    )


def _letter(run: Run) -> tuple[tuple[str, str, str], Mark]:
    error = run.error
    text = "" if error is None else f"{error.type}: {error.message}" if error.type else error.message
    line = text[:FIRST_LINE].strip().partition("\n")[0]
    return (run.job_id, error.kind if error else "", line), Mark(run.instant, run.id)
