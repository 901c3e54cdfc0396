"""`StoredStatistics`: what the runs of each hour come to, kept apart from the runs, so that a question about a month reads no run.

Runs are counted by the hour in which their id was made. What such an hour comes to is a function of its rows alone, so it may be
counted any number of times, by any process, and after a crash of any other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from jobmanager.access.view import View
from jobmanager.run import EPOCH, RunStatus

HOUR = timedelta(hours=1)
BUCKETS = 20
RATIO = 2.5
BOUNDS = tuple(0.01 * RATIO**exponent for exponent in range(BUCKETS - 1))
"""Seconds at which one bucket ends and the next begins: 10 ms at first, 40 hours at last."""

Histogram = tuple[int, ...]
EMPTY: Histogram = (0,) * BUCKETS


def hour_of(moment: datetime) -> int:
    """Return the number of the hour in which the moment lies, counted since 1970 in UTC."""
    return (moment - EPOCH) // HOUR


def start_of(hour: int) -> datetime:
    """Return the moment at which the hour of this number begins."""
    return EPOCH + hour * HOUR


def hour_of_id(run_id: str) -> int:
    """Return the hour in which the id of a run was made, as its first thirteen characters tell."""
    milliseconds = int(f"{run_id[:8]}{run_id[9:13]}", 16)
    return milliseconds // (HOUR // timedelta(milliseconds=1))


def hours_of_ids(run_ids: Iterable[str]) -> set[int]:
    """Return the hours in which these ids were made. Ids that name no hour are left out, as a row from outside may have any UUID.

    Of the versions of RFC 9562 only the seventh begins with its time, and that may be beyond the calendar.
    """
    hours = {hour_of_id(run_id) for run_id in run_ids if run_id[14:15] == "7"}
    return {hour for hour in hours if hour <= LAST_HOUR}


def bucket_of(seconds: float) -> int:
    """Return the number of the bucket for a length of time."""
    return bisect_right(BOUNDS, seconds)


LAST_HOUR = hour_of(datetime.max.replace(tzinfo=UTC)) - 1
"""The last hour with a successor in the calendar."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Lengths of time, counted in buckets; `total` and `longest` in seconds."""

    buckets: Histogram = EMPTY
    total: float = 0.0
    longest: float = 0.0

    @property
    def count(self) -> int:
        """The number of lengths that were counted."""
        return sum(self.buckets)

    def plus(self, other: Spread, times: int = 1) -> Spread:
        """Return both together; with -1 `other` is taken away, and the longest of both stays."""
        buckets = tuple(mine + times * more for mine, more in zip(self.buckets, other.buckets, strict=True))
        return Spread(buckets, self.total + times * other.total, max(self.longest, other.longest))


@dataclass(frozen=True, slots=True)
class Cell:
    """The sums over the closed runs of one job and status whose instants lie in one hour."""

    job_id: str
    hour: int
    status: RunStatus
    count: int
    duration: Spread = Spread()
    lateness: Spread = Spread()


@dataclass(frozen=True, slots=True)
class CountedHour:
    """An hour that is to be counted again, now or later.

    `turn` rises with each count and each change: a count that began before another one ended is not kept. `took` is in seconds.
    """

    hour: int
    turn: int
    counted_at: datetime | None
    took: float


@dataclass(frozen=True, slots=True)
class HourCount:
    """The sums of an hour; its `open` runs will still change them."""

    cells: Sequence[Cell]
    open: int


@dataclass(frozen=True, slots=True)
class EndedRun:
    """One closed run: the instants it stands for, newest last, and its lengths of time in seconds, where it has them."""

    status: RunStatus
    instants: Sequence[datetime]
    duration: float | None
    lateness: float | None


@dataclass(frozen=True, slots=True)
class Backlog:
    """The pending runs that are due, as far as they were counted, and since when the oldest of them is."""

    count: int
    oldest: datetime | None


class StoredStatistics(ABC):
    """Counts of the runs, by the hour."""

    @abstractmethod
    def hours_with_runs(self, since: int, until: int) -> list[int]:
        """Return the hours from the one up to before the other in which ids of runs on record were made, in order."""

    @abstractmethod
    def hours(self) -> set[int]:
        """Return the hours that are known: settled, or to be counted."""

    @abstractmethod
    def unsettled(self) -> list[CountedHour]:
        """Return the hours that are to be counted again, newest first."""

    @abstractmethod
    def recount(self, hours: Collection[int]) -> None:
        """See to it that these hours are counted again, at once; they need not be known. Twice is once."""

    @abstractmethod
    def count(self, hour: int) -> HourCount:
        """Return what the runs on record come to whose ids were made in the hour. Reads those alone, and locks nothing."""

    @abstractmethod
    def keep(
        self, counted: CountedHour, cells: Sequence[Cell], *, at: datetime, took: float, settled: bool
    ) -> bool:
        """Replace what the hour came to before; False, and nothing changes, if it was counted or changed since `counted` was read.

        A settled hour is not counted again unless a change asks for it. What purged runs came to stays.
        """

    @abstractmethod
    def cells(
        self, namespace: str, since: int, until: int, *, job_id: str | None = None, seen: View | None = None
    ) -> list[Cell]:
        """Return what runs with instants in the hours `since` up to before `until` came to, purged ones included.

        Of one job, or of all jobs of the namespace together: then `job_id` is ''. Reads no run. With `seen` only of jobs of which
        all runs are seen, as a sum over them shows each; so do the other methods that take it.
        """

    @abstractmethod
    def totals(
        self,
        namespace: str,
        since: int,
        until: int,
        *,
        job_ids: Collection[str],
        seen: View | None = None,
    ) -> list[Cell]:
        """Return per job and status what these jobs' runs with instants in the hours came to, as one cell of the hour `since`, without lateness.

        Jobs without such a run are left out. Reads no run. `seen` as with `cells`.
        """

    @abstractmethod
    def ended_since(
        self,
        namespace: str,
        since: datetime,
        *,
        job_id: str | None = None,
        limit: int,
        seen: View | None = None,
    ) -> list[EndedRun]:
        """Return the closed runs whose ids were made since the moment, the newest `limit` of them, without instants before it."""

    @abstractmethod
    def counted_until(self) -> datetime | None:
        """Return the moment of the last count of any hour; None before the first."""

    @abstractmethod
    def backlog(
        self, namespace: str, *, job_id: str | None = None, most: int = 10_001, seen: View | None = None
    ) -> Backlog:
        """Count the due pending runs, no more than `most` of them, those of the highest priority first."""

    @abstractmethod
    def forget(self, before: int) -> None:
        """Delete what runs came to whose ids were made before the hour. Twice is once."""
