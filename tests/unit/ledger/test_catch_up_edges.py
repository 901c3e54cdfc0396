"""Which of the instants that nobody ran still run: the edges of the window, and holes that a later run has overtaken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.tick_source import TickSource

from jobmanager import JobManager, Settings
from jobmanager.testing import FakeClock

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def ticks() -> TickSource:
    return TickSource()


@pytest.fixture
def start(clock: FakeClock, ticks: TickSource, tmp_path: Path) -> Iterator[Callable[..., JobManager]]:
    made: list[JobManager] = []

    def begin(**options: Any) -> JobManager:
        manager = JobManager(
            Settings(database_url=f"sqlite:///{tmp_path}/jobs.db"), backend=ticks, clock=clock
        )
        manager.add_job("work", lambda: None, cron="* * * * *", **options)
        made.append(manager)
        return manager.start()

    yield begin
    for manager in made:
        manager.stop()


def minute(number: int) -> datetime:
    return START + timedelta(minutes=number)


def without_a_sweep_until_minute_two(
    clock: FakeClock, *, before: Callable[[], object] = lambda: None
) -> None:
    """The process lives through the first minute, whose tick is lost; the account has not been looked at since."""
    clock.advance(seconds=90)
    before()
    clock.step(30)


def fates(jobs: JobManager) -> dict[int, str]:
    """What became of each minute: `succeeded` on time, `catch_up`, or why there was no run."""
    return {
        (run.scheduled_for - START) // timedelta(minutes=1): run.reason
        or ("catch_up" if run.trigger == "catch_up" else str(run.status))
        for run in jobs.runs("work", limit=1000)
        if run.scheduled_for
    }


def test_a_hole_is_not_caught_up_when_a_later_instant_has_run(
    start: Callable[..., JobManager], clock: FakeClock, ticks: TickSource
) -> None:
    """The tick of the first minute is lost; that of the second comes, and the account finds the hole after it."""
    jobs = start(catch_up="latest")
    without_a_sweep_until_minute_two(clock)
    ticks.bring("work", minute(2))
    clock.advance(seconds=30)

    assert fates(jobs) == {1: "transport", 2: "succeeded"}


def test_a_hole_is_caught_up_when_no_later_instant_has_run(
    start: Callable[..., JobManager], clock: FakeClock
) -> None:
    jobs = start(catch_up="latest")
    without_a_sweep_until_minute_two(clock)
    clock.advance(minutes=1)

    assert fates(jobs) == {1: "transport", 2: "catch_up"}


def test_a_later_instant_that_was_skipped_has_not_run(
    start: Callable[..., JobManager], clock: FakeClock, ticks: TickSource
) -> None:
    """The tick of the second minute meets a run that waits for its turn."""
    jobs = start(catch_up="latest", overlap="queue")
    without_a_sweep_until_minute_two(clock, before=lambda: jobs.trigger_job("work", delay=20))
    ticks.bring("work", minute(2))
    clock.advance(seconds=30)

    assert fates(jobs) == {1: "catch_up", 2: "overlap"}


def test_every_hole_is_caught_up_under_all_whatever_has_run_since(
    start: Callable[..., JobManager], clock: FakeClock, ticks: TickSource
) -> None:
    jobs = start(catch_up="all")
    without_a_sweep_until_minute_two(clock)
    ticks.bring("work", minute(2))
    clock.advance(seconds=30)

    assert fates(jobs) == {1: "catch_up", 2: "succeeded"}


@pytest.mark.parametrize(
    ("options", "oldest"),
    [
        ({"catch_up_window": 600}, 21),
        ({"catch_up_window": 601}, 20),
        ({"start_deadline": 600}, 21),
        ({"start_deadline": 601}, 20),
        ({"catch_up_window": 600, "start_deadline": 900}, 21),
        ({"catch_up_window": 900, "start_deadline": 600}, 21),
    ],
)
def test_the_window_begins_after_the_moment_so_long_ago(
    start: Callable[..., JobManager], clock: FakeClock, options: dict[str, Any], oldest: int
) -> None:
    """docs/internals/ledger.md#sweep: what is *newer* than now minus the window. The twentieth minute is exactly as old as that."""
    start(catch_up="all", **options).stop()
    clock.advance_to(minute(30))
    jobs = start(catch_up="all", **options)

    made_up = sorted(number for number, fate in fates(jobs).items() if fate == "catch_up")
    assert made_up == list(range(oldest, 30))


def test_latest_catches_up_nothing_outside_the_window(
    start: Callable[..., JobManager], clock: FakeClock
) -> None:
    start(catch_up_window=60).stop()
    clock.advance_to(minute(30))
    jobs = start(catch_up_window=60)

    assert "catch_up" not in fates(jobs).values()


def test_of_many_holes_the_newest_up_to_the_cap_are_caught_up(
    start: Callable[..., JobManager], clock: FakeClock
) -> None:
    start(catch_up="all", catch_up_cap=3).stop()
    clock.advance_to(minute(30))
    jobs = start(catch_up="all", catch_up_cap=3)

    assert [number for number, fate in sorted(fates(jobs).items()) if fate == "catch_up"] == [27, 28, 29]


def test_a_tick_that_never_came_says_so_in_its_error(
    start: Callable[..., JobManager], clock: FakeClock, ticks: TickSource
) -> None:
    """Fails if a missed (transport) of the sweep has no error: its reader would not know where to look."""
    jobs = start(catch_up="none")
    without_a_sweep_until_minute_two(clock)
    clock.advance(minutes=1)

    run = jobs.runs("work", "missed")[-1]
    assert (run.reason, run.error and run.error.kind) == ("transport", "transport")
    assert "a process lived then" in (run.error.message if run.error else "")
