"""Clocks that jump, drift apart and keep summer time (F14, F15, F16): no tick twice, no burst above the cap, no hole."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from tests.faults.conftest import Process, effects, until

from jobmanager import JobManager, RunContext
from jobmanager.testing import FakeClock

MakeManager = Callable[..., JobManager]
CAP = 100
GRACE = 60

HOUR, DAY = 3600.0, 86400.0


@pytest.mark.parametrize("step", [5, -5, HOUR, -HOUR, DAY, -DAY])
@pytest.mark.parametrize("catch_up", ["all", "latest", "none"])
def test_a_step_of_the_clock_starts_no_tick_twice_and_leaves_none_without_a_row(
    make_manager: MakeManager, step: float, catch_up: str
) -> None:
    """F14. Fails without the unique tick (back), the cap (forward), or the watermark."""
    clock = FakeClock(datetime(2026, 3, 1, 12, tzinfo=UTC))
    jobs = make_manager("memory://", clock=clock, lease_seconds=30, sweep_seconds=30, grace_seconds=GRACE)
    starts: list[int] = []

    @jobs.job("second", every=1, catch_up=catch_up, catch_up_cap=CAP, catch_up_window=2 * DAY)  # type: ignore[arg-type]
    def second(context: RunContext) -> None:
        assert context.scheduled_for is not None
        starts.append(int(context.scheduled_for.timestamp()))

    jobs.start()
    clock.advance(seconds=10)
    before = len(starts)
    clock.step(step)
    clock.advance(seconds=1)
    burst = len(starts) - before
    clock.advance(seconds=30)
    clock.advance(seconds=GRACE)
    clock.advance(seconds=1)

    assert max(Counter(starts).values()) == 1
    assert burst <= CAP + GRACE + 1
    row = jobs.store.jobs.get("second")
    assert row is not None
    covered: Counter[int] = Counter()
    for run in jobs.runs("second", limit=200_000):
        assert run.scheduled_for is not None
        last = int(run.scheduled_for.timestamp())
        first = last if run.first_for is None else int(run.first_for.timestamp())
        assert run.ticks == last - first + 1
        covered.update(range(first, last + 1))
    accounted = range(int(row.history_from.timestamp()) + 1, int(row.accounted_until.timestamp()) + 1)
    assert all(covered[instant] == 1 for instant in accounted)
    assert max(covered.values()) == 1


ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/St_Johns", "Asia/Kolkata"]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("month", [3, 4, 10, 11])
def test_a_daily_job_runs_once_a_day_whatever_the_hour_does(
    make_manager: MakeManager, zone: str, month: int
) -> None:
    """F15: spring and autumn. Fails if an hour that does not exist has no tick, or one that comes twice has two."""
    start = datetime(2026, month, 1, tzinfo=ZoneInfo(zone)).astimezone(UTC)
    clock = FakeClock(start)
    jobs = make_manager("memory://", clock=clock, lease_seconds=30, sweep_seconds=30)
    jobs.add_job("early", lambda: None, cron="30 2 * * *", timezone=zone)
    jobs.add_job("noon", lambda: None, cron="0 12 * * *", timezone=zone)
    jobs.start()
    clock.advance(days=28)
    for job_id in ("early", "noon"):
        runs = jobs.runs(job_id, limit=100)
        days = [run.scheduled_for.astimezone(ZoneInfo(zone)).date() for run in runs if run.scheduled_for]
        assert {str(run.status) for run in runs} == {"succeeded"}
        assert len(set(days)) == len(days) == 28


SECOND = """
@jobs.job("second", every=1, catch_up="all", overlap="allow")
def second(context):
    note("start", int(context.scheduled_for.timestamp()), context.attempt)
"""


@pytest.mark.parametrize("jump", [HOUR, *(pytest.param(jump, marks=pytest.mark.faults) for jump in (5, -5))])
def test_a_process_under_a_jumping_clock_runs_the_ticks_of_the_new_time(
    start_process: Callable[..., Process], tmp_path: Path, jump: float
) -> None:
    """F14 with real threads. Fails if a wait is computed from the wall clock alone: silence until the old time comes again."""
    process = start_process(f"sqlite:///{tmp_path}/jobs.db", SECOND, grace_seconds=3, sweep_seconds=0.5)
    until(lambda: len(effects(tmp_path)) >= 2)
    process(f"skew_by({jump})")
    wanted = int(time.time() + jump) + 2
    resumed = time.monotonic()
    until(lambda: any(int(line[1]) >= wanted for line in effects(tmp_path)))
    took = time.monotonic() - resumed

    starts = Counter(tuple(line) for line in effects(tmp_path))
    assert max(starts.values()) == 1
    assert took < 20 + max(0, -jump)
    assert len(starts) <= CAP + 90


@pytest.mark.faults
def test_hosts_whose_clocks_are_apart_start_every_tick_once(
    store_url: str, start_process: Callable[..., Process], make_manager: MakeManager, tmp_path: Path
) -> None:
    """F16: 45 s ahead and 45 s behind. Fails without the unique tick; on PostgreSQL the database's clock also keeps it from
    being early."""
    processes = [start_process(store_url, SECOND, skew=skew) for skew in (45, -45, 0)]
    until(lambda: len(effects(tmp_path)) >= 6)
    time.sleep(3)  # so that all three had ticks to race for

    def starts() -> Counter[int]:
        return Counter(int(line[1]) for line in effects(tmp_path))

    assert max(starts().values()) == 1
    if store_url.startswith("postgresql"):
        last = max(starts())
        assert last <= time.time()
        until(lambda: set(range(min(starts()), last + 1)) <= starts().keys())
    for process in processes:
        assert "Traceback" not in process.errors()
    runs = make_manager(store_url).runs("second", limit=1000)
    assert len({run.scheduled_for for run in runs}) == len(runs)


def test_a_day_of_missed_seconds_is_settled_in_a_moment(make_manager: MakeManager) -> None:
    """F14, F30: one long stretch is one row. Fails if each instant gets a row of its own."""
    clock = FakeClock(datetime(2026, 3, 1, 12, tzinfo=UTC))
    jobs = make_manager("memory://", clock=clock, lease_seconds=30, sweep_seconds=30, grace_seconds=GRACE)
    jobs.add_job("second", lambda: None, every=1, catch_up="none")
    jobs.start()
    clock.advance(seconds=2)
    clock.step(timedelta(days=1))
    begin = time.monotonic()
    clock.advance(seconds=1)
    took = time.monotonic() - begin
    rows = jobs.runs("second", limit=10_000)

    assert sum(run.ticks for run in rows if str(run.status) == "missed") > 86_000
    assert len(rows) < 400
    assert took < 20
