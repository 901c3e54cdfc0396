"""Statistics over the API."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request

from jobmanager.access.principal import READ
from jobmanager.ledger.statistics import Period
from jobmanager.present.account import statistics_record
from jobmanager.web.api.models import Instant, Seconds, Shown
from jobmanager.web.api.routing import Routes
from jobmanager.web.site import site_of

router = Routes(tags=["statistics"])
Counts = dict[str, int]


class LengthsModel(Shown):
    """Lengths of time of `count` runs, in seconds. A true percentile lies between the given one divided and multiplied by `within`."""

    count: int
    mean: Seconds
    p50: Seconds
    p95: Seconds
    p99: Seconds
    longest: Seconds
    within: float


class BucketModel(Shown):
    """The closed runs with instants from `since` up to before `until`, by status."""

    since: Instant
    until: Instant
    counts: Counts


class StatisticsModel(Shown):
    """The outcomes of runs over a period. `backlog` is counted up to 10,000; 10,001 says that there are more."""

    job: str | None
    period: Period
    since: Instant
    until: Instant
    timezone: str
    total: int
    success_rate: float | None
    counts: Counts
    duration: LengthsModel | None
    lateness: LengthsModel | None
    backlog: int
    oldest_pending: Instant | None
    counted_at: Instant | None
    newest_only: int | None
    buckets: list[BucketModel]


def get_statistics(
    request: Request,
    period: Annotated[Period, Query()] = "24h",
    job: Annotated[
        str | None, Query(max_length=128, description="The id of a job; without it all of them.")
    ] = None,
) -> dict[str, Any]:
    """Get counts by status and time, percentiles of duration and lateness, success rate and backlog, up to now."""
    return statistics_record(site_of(request).jobs.stats(job, period))


router.add("GET", "/stats", READ, get_statistics, response_model=StatisticsModel)
