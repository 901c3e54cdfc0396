"""Searches of runs as values: the filter, and what was found, counted or grouped."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import NamedTuple

from jobmanager.run import EPOCH, MICROSECOND, Run, RunStatus, Trigger


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs are wanted; what is None, empty or False is of no account.

    `text` is looked for in the type and the message of the error, without regard to case. `since` and `until` bound
    `Run.instant`, the latter excluded. `duration` is the least length of the last attempt, `retried` wants a second attempt, `late`
    a start more than a minute after the instant, `dead` failed runs that nobody saw to.
    """

    job: str | None = None
    statuses: Collection[RunStatus] = ()
    reason: str | None = None
    error_kind: str | None = None
    text: str | None = None
    trigger: Trigger | None = None
    scope: str | None = None
    requested_by: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    duration: timedelta | None = None
    retried: bool = False
    late: bool = False
    dead: bool = False


class Mark(NamedTuple):
    """A place in the order of a search: the runs of one job by their instants, those of all jobs by their ids."""

    instant: datetime
    id: str

    @property
    def cursor(self) -> str:
        """The mark as a text without spaces, for addresses."""
        return f"{(self.instant - EPOCH) // MICROSECOND}.{self.id}"

    @classmethod
    def of(cls, cursor: str) -> Mark:
        """Return the mark that a cursor stands for; ValueError or OverflowError if it stands for none."""
        micros, _, run_id = cursor.partition(".")
        if len(run_id) != 36:
            raise ValueError(cursor)
        return cls(EPOCH + int(micros) * MICROSECOND, run_id)


@dataclass(frozen=True, slots=True)
class FoundRuns:
    """A page of a search, newest first. `next` is the cursor of the page after it, None at the end.

    `searched_to` is None, or the instant at which the search stopped after 100,000 rows: older runs are found with `next`.
    """

    runs: Sequence[Run]
    next: str | None = None
    searched_to: datetime | None = None


class RunCount(NamedTuple):
    """How many rows there are of one kind, and how many instants or starts they stand for."""

    status: RunStatus
    job_id: str
    reason: str | None
    error_kind: str | None
    trigger: str
    rows: int
    ticks: int


@dataclass(frozen=True, slots=True)
class RunCounts:
    """Counts of the newest rows by status, job, reason, kind of error and trigger; of the statuses in `more` there are older ones too."""

    counts: Sequence[RunCount]
    more: frozenset[RunStatus] = frozenset()


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Failed runs of a job that nobody saw to and that have the same error: its kind, and the first line of its text."""

    job_id: str
    error_kind: str
    text: str
    run_ids: Sequence[str]
    """Newest first."""
    oldest: datetime
    newest: datetime


def grouped(letters: Iterable[tuple[tuple[str, str, str], Mark]]) -> list[DeadLetters]:
    """Return dead letters as groups, the largest first: of each its job, the kind of its error and the text of that, and its mark."""
    groups = [
        (key, [mark for _, mark in some]) for key, some in groupby(sorted(letters), lambda each: each[0])
    ]
    groups.sort(key=lambda group: (-len(group[1]), group[0]))
    return [
        DeadLetters(
            job_id=job_id,
            error_kind=error_kind,
            text=text,
            run_ids=[mark.id for mark in reversed(marks)],
            oldest=marks[0].instant,
            newest=marks[-1].instant,
        )
        for (job_id, error_kind, text), marks in groups
    ]
