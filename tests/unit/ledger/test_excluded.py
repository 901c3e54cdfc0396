"""What the account makes of excluded instants: a row each as they come, one for a stretch that nobody brought, and no run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobmanager import JobManager, Settings
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
        settings = Settings(database_url="memory://", backend="local")
        manager = JobManager(settings, store=store, clock=clock)
        manager.add_job("work", lambda: None, **{"cron": "* * * * *", **options})
        made.append(manager)
        return manager.start()

    yield start
    for manager in made:
        manager.stop()


def minute(number: int) -> datetime:
    return START + timedelta(minutes=number)


def account(jobs: JobManager) -> list[tuple[int, str, str | None, int]]:
    """(minute, status, reason, ticks) of every row, in order."""
    runs = sorted(
        (run for run in jobs.runs("work", limit=1000) if run.scheduled_for), key=lambda run: run.instant
    )
    return [
        ((run.instant - START) // timedelta(minutes=1), str(run.status), run.reason, run.ticks)
        for run in runs
    ]


@pytest.mark.parametrize("overlap", ["skip", "queue", "allow"])
def test_an_excluded_tick_is_a_row_and_no_run(begin: Begin, clock: FakeClock, overlap: str) -> None:
    jobs = begin(exclude="2-3 12 * * *", overlap=overlap)

    clock.advance(minutes=4)

    ran, skipped = ("succeeded", None, 1), ("skipped", "excluded", 1)
    assert account(jobs) == [(1, *ran), (2, *skipped), (3, *skipped), (4, *ran)]


def test_after_a_downtime_what_is_excluded_is_neither_missed_nor_caught_up(
    begin: Begin, clock: FakeClock
) -> None:
    """The newest instants are excluded: the one before them is caught up, and the stretch is one row."""
    jobs = begin(exclude="10-30 12 * * *")
    clock.advance(minutes=1)
    jobs.stop()
    clock.step(timedelta(minutes=24, seconds=30))

    jobs = begin(exclude="10-30 12 * * *")
    clock.advance(minutes=6)

    rows = account(jobs)
    assert next(row for row in rows if row[2] == "excluded") == (24, "skipped", "excluded", 15)
    assert (9, "succeeded", None, 1) in rows
    assert [row[0] for row in rows if row[1] == "missed"] == list(range(2, 9))
    assert sum(row[3] for row in rows) == 31
    assert rows[-1] == (31, "succeeded", None, 1)


def test_a_pause_covers_what_is_excluded(begin: Begin, clock: FakeClock) -> None:
    jobs = begin(exclude="2-3 12 * * *")
    clock.advance(minutes=1)
    jobs.stop_job("work")
    clock.advance(minutes=4)

    assert [row[1:3] for row in account(jobs)] == [("succeeded", None), ("skipped", "paused")]


def test_the_schedule_that_is_stored_excludes(begin: Begin, clock: FakeClock) -> None:
    """An operator excludes what this code does not, and takes it back."""
    jobs = begin()
    jobs.update_job("work", exclude="* 12 * * *")
    clock.advance(minutes=2)
    assert [row[2] for row in account(jobs)] == ["excluded", "excluded"]

    jobs.update_job("work", exclude=None)
    clock.advance(minutes=1)
    assert account(jobs)[-1] == (3, "succeeded", None, 1)


def test_a_declaration_of_another_release_excludes(begin: Begin, clock: FakeClock) -> None:
    old = begin()
    begin(exclude="* 12 * * *").stop()
    clock.advance(minutes=2)

    assert [row[1:3] for row in account(old)] == [("skipped", "excluded")] * 2


def test_what_is_shown_passes_over_it_and_says_why(begin: Begin, clock: FakeClock) -> None:
    jobs = begin(exclude="2-3 12 * * *")
    clock.advance(minutes=1)

    assert jobs.get_job_status("work").next_run == minute(4)
    assert [(each.scheduled_for, each.fires) for each in jobs.simulate(minute(1), minute(4))] == [
        (minute(2), False),
        (minute(3), False),
        (minute(4), True),
    ]
    coming = explain(jobs, "work", minute(2))
    assert (coming.verdict, coming.cause) == ("will_not_run", "excluded")
    assert (
        "excludes that instant: 2-3 12 * * *. The next instant that runs is 2026-03-01 12:04:00 UTC"
        in coming.because
    )

    clock.advance(minutes=2)
    past = explain(jobs, "work", minute(2))
    assert (past.verdict, past.cause) == ("did_not_run", "excluded")
    assert "`jobmanager trigger work`" in past.advice


def test_a_backfill_leaves_it_out(begin: Begin, clock: FakeClock) -> None:
    jobs = begin(exclude="2-3 12 * * *")
    clock.advance(minutes=4)

    made_up = jobs.backfill("work", START, minute(4), dry_run=True)
    assert [each.scheduled_for for each in made_up] == [minute(1), minute(4)]
