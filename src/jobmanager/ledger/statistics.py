"""The outcomes of runs over a period: counts by status and time, percentiles, success rate, backlog. Read from the hourly counts."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from math import ceil
from types import MappingProxyType
from typing import Literal, get_args

from jobmanager.access.view import View
from jobmanager.run import EPOCH, FAILED, MISSED, SUCCEEDED
from jobmanager.stores.base import RunStore
from jobmanager.stores.statistics import BOUNDS, BUCKETS, HOUR, RATIO, Cell, Spread, hour_of, start_of

Period = Literal["1h", "24h", "7d", "30d"]
PERIODS: Mapping[str, timedelta] = MappingProxyType(
    {"1h": HOUR, "24h": timedelta(hours=24), "7d": timedelta(days=7), "30d": timedelta(days=30)}
)
STEPS: Mapping[str, timedelta] = MappingProxyType(
    {"1h": timedelta(minutes=5), "24h": HOUR, "7d": timedelta(hours=6), "30d": timedelta(days=1)}
)
assert get_args(Period) == tuple(PERIODS) == tuple(STEPS)  # noqa: S101 - three spellings of one list
NEWEST = 5_000
"""Of the last hour so many runs are looked at."""
MOST_BACKLOG = 10_000
LATE_PLACE = bisect_right(BOUNDS, 60.0)
LATE_FROM = timedelta(seconds=BOUNDS[LATE_PLACE])
"""The end of the bucket in which a minute lies: from there on hourly counts know that a run began late."""
OFF_BY = round(RATIO**0.5, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Lengths of time of `count` runs. A true percentile lies between the given one divided and multiplied by `within`; 1.0 is exact."""

    count: int
    mean: timedelta
    p50: timedelta
    p95: timedelta
    p99: timedelta
    longest: timedelta
    within: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """The closed runs with instants from `since` up to before `until`, by status; statuses without a run are left out.

    `late` of those that succeeded began more than `LATE_FROM` after their instant.
    """

    since: datetime
    until: datetime
    counts: Mapping[str, int]
    late: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """The outcomes of the runs of one job, or of the namespace, whose instants lie in a period. Instants are in UTC.

    `counts`: closed runs by status; a row that stands for many skipped or missed instants counts that often. `duration` is that of
    the last attempt, `lateness` goes from a tick's instant to its first start; None where no run has one. `backlog`: pending runs
    that are due, counted up to 10,000; 10,001 says that there are more. `oldest_pending` is when the first of those was due.
    `counted_at`: the runs that ended since are missing; `newest_only`: the period has more runs, and so many of the newest were read.
    """

    job: str | None
    period: Period
    since: datetime
    until: datetime
    timezone: str
    counts: Mapping[str, int]
    buckets: Sequence[Bucket]
    duration: Lengths | None
    lateness: Lengths | None
    backlog: int
    oldest_pending: datetime | None
    counted_at: datetime | None
    newest_only: int | None = None

    @property
    def total(self) -> int:
        """All closed runs of the period."""
        return sum(self.counts.values())

    @property
    def share_good(self) -> float | None:
        """Succeeded runs divided by those that succeeded, failed or were missed, 0.0 to 1.0; None where there is none."""
        return _share_good(self.counts)

    @property
    def success_rate(self) -> float | None:
        """Succeeded runs divided by those that succeeded or failed, 0.0 to 1.0; None where there is neither."""
        judged = self.counts.get(SUCCEEDED, 0) + self.counts.get(FAILED, 0)
        return self.counts.get(SUCCEEDED, 0) / judged if judged else None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTotals:
    """The closed runs of one job over a period, by status, and how long they took; None where no run has a duration."""

    counts: Mapping[str, int]
    duration: Lengths | None

    @property
    def share_good(self) -> float | None:
        """Succeeded runs divided by those that succeeded, failed or were missed, 0.0 to 1.0; None where there is none."""
        return _share_good(self.counts)


def _share_good(counts: Mapping[str, int]) -> float | None:
    judged = sum(counts.get(status, 0) for status in (SUCCEEDED, FAILED, MISSED))
    return counts.get(SUCCEEDED, 0) / judged if judged else None


def totals_of(
    store: RunStore, namespace: str, job_ids: Collection[str], period: Period, *, seen: View | None = None
) -> dict[str, JobTotals]:
    """Return per job what its runs of a period that ends now came to, from the hourly counts; jobs without a run are left out."""
    until = hour_of(store.now()) + 1
    since = until - PERIODS[period] // HOUR
    cells = store.statistics.totals(namespace, since, until, job_ids=job_ids, seen=seen) if job_ids else []
    by_job: dict[str, list[Cell]] = {}
    for cell in cells:
        by_job.setdefault(cell.job_id, []).append(cell)
    return {
        job_id: JobTotals(
            counts=MappingProxyType({cell.status.value: cell.count for cell in of_job}),
            duration=_estimated([cell.duration for cell in of_job]),
        )
        for job_id, of_job in by_job.items()
    }


def statistics_of(
    store: RunStore, namespace: str, job_id: str | None, period: Period, *, seen: View | None = None
) -> Statistics:
    """Return the statistics of a period that ends now. One of an hour is read from the runs, longer ones read no run."""
    now, step = store.now(), STEPS[period]
    # Whole buckets, the last one still open: the first begins on a multiple of the step.
    since = _floor(now, step) - PERIODS[period] + step
    edges = [since + step * place for place in range(PERIODS[period] // step + 1)]
    if period == "1h":
        found = _read_runs(store, namespace, job_id, since, seen)
    else:
        found = _read_counts(store, namespace, job_id, (since, edges[-1]), seen)
    backlog = store.statistics.backlog(namespace, job_id=job_id, most=MOST_BACKLOG + 1, seen=seen)
    counts: Counter[str] = Counter()
    in_bucket: list[Counter[str]] = [Counter() for _ in edges[:-1]]
    late_in = [0] * len(in_bucket)
    for instant, count in found.late:
        place = (instant - since) // step
        if 0 <= place < len(late_in):
            late_in[place] += count
    for instant, status, count in found.counts:
        place = (instant - since) // step
        if 0 <= place < len(in_bucket):
            counts[status] += count
            in_bucket[place][status] += count
    return Statistics(
        job=job_id,
        period=period,
        since=since,
        until=now,
        timezone="UTC",
        counts=MappingProxyType(dict(counts)),
        buckets=tuple(
            Bucket(since=begin, until=end, counts=MappingProxyType(dict(counter)), late=late)
            for begin, end, counter, late in zip(edges, edges[1:], in_bucket, late_in, strict=False)
        ),
        duration=found.duration,
        lateness=found.lateness,
        backlog=backlog.count,
        oldest_pending=backlog.oldest,
        counted_at=found.counted_at,
        newest_only=found.newest_only,
    )


# ---------------------------------------------------------------- two ways to find them


@dataclass(frozen=True, slots=True)
class _Found:
    counts: Sequence[tuple[datetime, str, int]]
    late: Sequence[tuple[datetime, int]]
    duration: Lengths | None
    lateness: Lengths | None
    counted_at: datetime | None
    newest_only: int | None = None


def _read_counts(
    store: RunStore,
    namespace: str,
    job_id: str | None,
    stretch: tuple[datetime, datetime],
    seen: View | None,
) -> _Found:
    since, until = map(hour_of, stretch)
    cells = store.statistics.cells(namespace, since, until, job_id=job_id, seen=seen)
    return _Found(
        counts=[(start_of(cell.hour), cell.status.value, cell.count) for cell in cells],
        late=[
            (start_of(cell.hour), sum(cell.lateness.buckets[LATE_PLACE + 1 :]))
            for cell in cells
            if cell.status == SUCCEEDED
        ],
        duration=_estimated([cell.duration for cell in cells]),
        lateness=_estimated([cell.lateness for cell in cells]),
        counted_at=store.statistics.counted_until(),
    )


def _estimated(spreads: Sequence[Spread]) -> Lengths | None:
    together = Spread()
    for spread in spreads:
        together = together.plus(spread)
    if not together.count:
        return None
    p50, p95, p99 = (_percentile(together, share) for share in (0.5, 0.95, 0.99))
    return Lengths(
        count=together.count,
        mean=timedelta(seconds=together.total / together.count),
        p50=p50,
        p95=p95,
        p99=p99,
        longest=timedelta(seconds=together.longest),
        within=OFF_BY,
    )


def _percentile(spread: Spread, share: float) -> timedelta:
    """Return the geometric middle of the bucket in which the percentile lies, no more than the longest of all."""
    rank = ceil(share * spread.count)
    place = next(place for place, reached in enumerate(accumulate(spread.buckets)) if reached >= rank)
    end = BOUNDS[place] if place < BUCKETS - 1 else BOUNDS[-1] * RATIO
    return timedelta(seconds=min(end / RATIO**0.5, spread.longest))


def _read_runs(
    store: RunStore, namespace: str, job_id: str | None, since: datetime, seen: View | None
) -> _Found:
    runs = store.statistics.ended_since(namespace, since, job_id=job_id, limit=NEWEST, seen=seen)
    inside = [run for run in runs if run.instants]
    return _Found(
        counts=[(instant, run.status.value, 1) for run in inside for instant in run.instants],
        late=[
            (run.instants[-1], 1)
            for run in inside
            if run.status == SUCCEEDED
            and run.lateness is not None
            and run.lateness >= LATE_FROM.total_seconds()
        ],
        duration=_exact([run.duration for run in inside]),
        lateness=_exact([run.lateness for run in inside]),
        counted_at=store.now(),
        newest_only=NEWEST if len(runs) == NEWEST else None,
    )


def _exact(seconds: Sequence[float | None]) -> Lengths | None:
    found = sorted(max(0.0, length) for length in seconds if length is not None)
    if not found:
        return None
    ranks = [ceil(share * len(found)) - 1 for share in (0.5, 0.95, 0.99)]
    p50, p95, p99 = (timedelta(seconds=found[rank]) for rank in ranks)
    mean = timedelta(seconds=sum(found) / len(found))
    longest = timedelta(seconds=found[-1])
    return Lengths(count=len(found), mean=mean, p50=p50, p95=p95, p99=p99, longest=longest, within=1.0)


def _floor(moment: datetime, step: timedelta) -> datetime:
    return EPOCH + (moment - EPOCH) // step * step
