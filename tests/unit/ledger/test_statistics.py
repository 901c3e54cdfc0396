"""What `jobs.stats` says: counts, buckets, percentiles with their error, rates, and what it refuses."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobmanager import JobManager, Settings
from jobmanager.access.acting import acting
from jobmanager.access.principal import Principal
from jobmanager.errors import JobNotFoundError, PayloadError
from jobmanager.ledger.statistics import OFF_BY, Period, _estimated, _exact
from jobmanager.stores.sql.statistics import hours_of
from jobmanager.stores.statistics import BOUNDS, BUCKETS, Spread, bucket_of
from jobmanager.testing import FakeClock

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def jobs(clock: FakeClock) -> Iterator[JobManager]:
    def work() -> None:
        clock.sleep(2)
        if clock.now().minute % 4 == 0:
            raise ValueError("every fourth minute")

    manager = JobManager(Settings(database_url="memory://"), clock=clock)
    manager.add_job("work", work, cron="* * * * *")
    manager.add_job("quiet", lambda: None)
    manager.start()
    yield manager
    manager.stop()


@pytest.mark.parametrize(("period", "buckets"), [("1h", 12), ("24h", 24), ("7d", 28), ("30d", 30)])
def test_every_period_ends_now_and_its_buckets_follow_each_other(
    jobs: JobManager, clock: FakeClock, period: str, buckets: int
) -> None:
    clock.advance(hours=3)

    found = jobs.stats(period=period)  # type: ignore[arg-type]

    assert len(found.buckets) == buckets
    assert (found.until, found.timezone, found.buckets[0].since) == (clock.now(), "UTC", found.since)
    assert all(one.until == after.since for one, after in zip(found.buckets, found.buckets[1:], strict=False))
    assert found.buckets[-1].since <= found.until <= found.buckets[-1].until
    assert found.total == sum(sum(bucket.counts.values()) for bucket in found.buckets)


def test_short_and_long_periods_agree_about_the_same_runs(jobs: JobManager, clock: FakeClock) -> None:
    clock.advance(minutes=40)

    hour, day = jobs.stats("work", "1h"), jobs.stats("work", "24h")

    assert hour.counts == day.counts == {"succeeded": 30, "failed": 10}
    assert hour.success_rate == day.success_rate == 0.75
    assert hour.duration is not None
    assert day.duration is not None
    assert (hour.duration.p50, hour.duration.within) == (timedelta(seconds=2), 1.0)
    assert hour.duration.mean == day.duration.mean == hour.duration.longest == day.duration.longest
    assert hour.lateness is not None
    assert hour.lateness.count == 40


def test_hours_are_counted_by_who_asks_only_where_no_process_lives_that_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(database_url=f"sqlite:///{tmp_path}/jobs.db", backend="external")
    other, started = JobManager(settings), JobManager(settings)
    started.add_job("work", lambda: None)
    counted: list[str] = []
    monkeypatch.setattr(other._parts.ready().rollup, "round", lambda: counted.append("here"))
    with started:
        other.stats("work", "24h")
        other.totals(["work"])
        assert not counted
    other.stats("work", "24h")
    other.totals(["work"])
    assert len(counted) == 2
    other.store.close()


def test_a_job_without_runs_has_no_lengths_and_no_rate(jobs: JobManager, clock: FakeClock) -> None:
    clock.advance(minutes=2)

    found = jobs.stats("quiet", "7d")

    assert (found.total, found.success_rate, found.duration, found.lateness) == (0, None, None, None)
    assert (found.backlog, found.oldest_pending) == (0, None)


def test_the_backlog_is_what_waits_and_since_when(clock: FakeClock) -> None:
    jobs = JobManager(Settings(database_url="memory://"), clock=clock)
    jobs.add_job("work", lambda: None, overlap="allow")
    for _ in range(3):
        jobs.trigger_job("work")
        clock.step(20)

    found = jobs.stats()

    assert (found.backlog, found.oldest_pending) == (3, START)


def test_purged_runs_stay_in_the_statistics(jobs: JobManager, clock: FakeClock) -> None:
    clock.advance(hours=5)
    before = jobs.stats("work", "24h")
    jobs.store.maintenance.purge(clock.now() - timedelta(hours=1))

    after = jobs.stats("work", "24h")

    assert len(jobs.runs("work", limit=1000)) < before.total
    assert (after.counts, after.duration, after.lateness) == (before.counts, before.duration, before.lateness)


def test_unknown_jobs_and_periods_are_refused(jobs: JobManager) -> None:
    with pytest.raises(JobNotFoundError, match="'nobody'"):
        jobs.stats("nobody")
    with pytest.raises(PayloadError, match="'2h' is not one of 1h, 24h, 7d, 30d"):
        jobs.stats(period="2h")  # type: ignore[arg-type]


@pytest.mark.parametrize("period", ["1h", "24h"])
def test_a_principal_gets_no_statistics_of_jobs_of_which_it_does_not_see_every_run(
    clock: FakeClock, period: Period
) -> None:
    jobs = JobManager(Settings(database_url="memory://"), clock=clock)
    for job_id, visibility in (("team", "team"), ("project", "project"), ("system", "system")):
        jobs.add_job(job_id, lambda: None, overlap="allow", visibility=visibility, cron="* * * * *")
    jobs.start()
    clock.advance(minutes=10)
    jobs.stop()

    def totals(principal: Principal) -> dict[str | None, int]:
        with acting(principal):
            return {job: jobs.stats(job, period).total for job in (None, "team", "project")}

    assert totals(Principal("limited", ["viewer"], scopes=["blue"])) == {None: 10, "team": 10, "project": 0}
    assert totals(Principal("viewer", ["viewer"])) == {None: 20, "team": 10, "project": 10}
    assert totals(Principal("admin", ["admin"])) == {None: 30, "team": 10, "project": 10}
    with acting(Principal("viewer", ["viewer"])), pytest.raises(JobNotFoundError):
        jobs.stats("system", period)


def test_a_percentile_of_the_counts_is_within_its_stated_error() -> None:
    chance = random.Random(1)
    for spread in (0.5, 2.0, 4.0):
        lengths = [min(40 * 3600, max(0.011, chance.lognormvariate(1, spread))) for _ in range(3000)]
        buckets = [0] * BUCKETS
        for length in lengths:
            buckets[bucket_of(length)] += 1
        told, exact = _estimated([Spread(tuple(buckets), sum(lengths), max(lengths))]), _exact(lengths)
        assert told is not None
        assert exact is not None
        for name in ("p50", "p95", "p99"):
            factor = getattr(told, name) / getattr(exact, name)
            assert 1 / (OFF_BY + 0.01) <= factor <= OFF_BY + 0.01, (spread, name)


def test_the_buckets_go_from_ten_milliseconds_to_forty_hours() -> None:
    assert (BOUNDS[0], round(BOUNDS[-1] / 3600)) == (0.01, 40)
    assert [bucket_of(seconds) for seconds in (0, 0.0099, 0.01, 0.025, 1e9)] == [0, 0, 1, 2, BUCKETS - 1]


def test_the_instants_of_a_stretch_are_those_of_its_schedule_or_evenly_spread() -> None:
    first, last = START, START + timedelta(hours=3)
    hour = int(START.timestamp()) // 3600

    assert hours_of(first, last, 4, "every 3600") == {hour: 1, hour + 1: 1, hour + 2: 1, hour + 3: 1}
    weekdays = hours_of(START - timedelta(days=2), START + timedelta(days=1), 2, "cron 0 12 * * 1-5 in UTC")
    assert weekdays == {hour - 48: 1, hour + 24: 1}
    assert hours_of(first, last, 7, "none") == {hour: 2, hour + 1: 2, hour + 2: 2, hour + 3: 1}
    many = hours_of(first, last, 20_001, "every 1")
    assert sum(many.values()) == 20_001
    assert set(many) == {hour, hour + 1, hour + 2, hour + 3}
