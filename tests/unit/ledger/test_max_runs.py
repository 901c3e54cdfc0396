"""`max_runs`: the schedule ends after so many due instants, counted once from when it was stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobmanager import JobManager, Settings
from jobmanager.errors import ConfigurationError
from jobmanager.explain import explain
from jobmanager.stores.base import RunStore
from jobmanager.stores.sql.memory import MemoryStore
from jobmanager.testing import FakeClock

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
Begin = Callable[..., JobManager]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def store(clock: FakeClock) -> RunStore:
    return MemoryStore(clock=clock)


@pytest.fixture
def begin(clock: FakeClock, store: RunStore) -> Iterator[Begin]:
    made: list[JobManager] = []

    def start(**options: Any) -> JobManager:
        manager = JobManager(Settings(database_url="memory://", backend="local"), store=store, clock=clock)
        manager.add_job("work", lambda: None, **{"cron": "* * * * *", **options})
        made.append(manager)
        return manager.start()

    yield start
    for manager in made:
        manager.stop()


def minutes(jobs: JobManager, job: str = "work") -> list[tuple[int, str]]:
    """(minute, status) of every row, in order."""
    runs = sorted(jobs.runs(job, limit=1000), key=lambda run: run.instant)
    return [((run.instant - START) // timedelta(minutes=1), str(run.status)) for run in runs]


@pytest.mark.parametrize("schedule", [{"cron": "* * * * *"}, {"cron": None, "every": "1m"}])
def test_the_schedule_ends_after_so_many_instants(
    begin: Begin, clock: FakeClock, schedule: dict[str, Any]
) -> None:
    jobs = begin(max_runs=3, **schedule)
    clock.advance(minutes=6)

    assert minutes(jobs) == [(1, "succeeded"), (2, "succeeded"), (3, "succeeded")]
    assert jobs.get_job_status("work").next_run is None
    why = explain(jobs, "work", START + timedelta(minutes=4))
    assert "the schedule ends at 2026-03-01 12:03:00 UTC" in why.because
    assert jobs.sync(plan=True) == []


def test_another_start_does_not_count_anew(begin: Begin, clock: FakeClock) -> None:
    jobs = begin(max_runs=3, timeout=5)
    clock.advance(minutes=2)
    jobs.stop()

    jobs = begin(max_runs=3, timeout=6)
    clock.advance(minutes=4)
    assert [row[0] for row in minutes(jobs)] == [1, 2, 3]


@pytest.mark.parametrize("changed", [{"max_runs": 2}, {"max_runs": 3, "cron": "*/2 * * * *"}])
def test_another_number_or_schedule_counts_anew(
    begin: Begin, clock: FakeClock, changed: dict[str, Any]
) -> None:
    begin(max_runs=3).stop()
    clock.advance(minutes=10)

    jobs = begin(**changed)
    clock.advance(minutes=20)

    ran = [row[0] for row in minutes(jobs) if row[1] == "succeeded"]
    assert ran == ([11, 12] if "cron" not in changed else [12, 14, 16])


def test_what_is_excluded_does_not_count_and_what_is_missed_does(begin: Begin, clock: FakeClock) -> None:
    begin(max_runs=3, exclude="2-3 12 * * *", catch_up="none").stop()
    clock.step(timedelta(minutes=3, seconds=30))
    jobs = begin(max_runs=3, exclude="2-3 12 * * *", catch_up="none")
    clock.advance(minutes=10)

    assert [row for row in minutes(jobs) if row[1] != "skipped"] == [
        (1, "missed"),
        (4, "succeeded"),
        (5, "succeeded"),
    ]


def test_a_schedule_that_excludes_everything_ends_at_once(
    begin: Begin, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobmanager.schedule.instants.MOST_EXCLUDED", 100)
    jobs = begin(max_runs=3, exclude="* * * * *")
    clock.advance(minutes=2)
    assert minutes(jobs) == []


def test_an_operator_gives_another_end_and_takes_it_back(begin: Begin, clock: FakeClock) -> None:
    jobs = begin(max_runs=3)
    clock.advance(minutes=1)

    jobs.update_job("work", until=START + timedelta(minutes=5))
    assert jobs.registry.jobs["work"].max_runs is None
    clock.advance(minutes=1)
    jobs.update_job("work", max_runs=2)
    clock.advance(minutes=8)
    assert [row[0] for row in minutes(jobs)] == [1, 2, 3, 4]

    jobs.update_job("work", timeout=5)
    jobs.reset_job("work")
    clock.advance(minutes=8)
    assert [row[0] for row in minutes(jobs)] == [1, 2, 3, 4, 11, 12, 13]
    jobs.update_job("work", max_runs=None)
    clock.advance(minutes=1)
    assert minutes(jobs)[-1] == (19, "succeeded")


def test_a_job_in_code_that_ends_at_a_moment_may_end_after_a_number(begin: Begin, clock: FakeClock) -> None:
    jobs = begin(until=START + timedelta(minutes=5))
    jobs.update_job("work", max_runs=1)
    clock.advance(minutes=8)
    assert [row[0] for row in minutes(jobs)] == [1]


def test_a_stored_job_ends_and_counts_anew_when_it_is_edited(begin: Begin, clock: FakeClock) -> None:
    jobs = begin()
    jobs.handler("report")(lambda: None)
    jobs.create_job("made", handler="report", cron="* * * * *", max_runs=2)
    clock.advance(minutes=1)
    jobs.update_job("made", timeout=5)
    clock.advance(minutes=4)
    assert [row[0] for row in minutes(jobs, "made")] == [1, 2]

    jobs.update_job("made", max_runs=1)
    clock.advance(minutes=3)
    assert [row[0] for row in minutes(jobs, "made")] == [1, 2, 6]
    jobs.update_job("made", at=START + timedelta(minutes=10))
    assert jobs.registry.jobs["made"].max_runs is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"cron": "* * * * *", "max_runs": 2, "until": "2030-01-01T00:00Z"}, "exclude each other"),
        ({"at": START, "max_runs": 2}, r"max_runs=2 belongs to cron= or every="),
        ({"max_runs": 2}, r"max_runs=2 belongs to cron= or every="),
        ({"every": 60, "max_runs": 0}, "1 to 10,000"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], told: str) -> None:
    jobs = JobManager(Settings(database_url="memory://", backend="noop"))
    with pytest.raises(ConfigurationError, match=told):
        jobs.add_job("work", lambda: None, **options)


def test_both_ends_at_once_cannot_be_an_override(begin: Begin) -> None:
    jobs = begin()
    with pytest.raises(ConfigurationError, match="until and max_runs exclude each other"):
        jobs.update_job("work", max_runs=2, until="2030-01-01T00:00Z")
