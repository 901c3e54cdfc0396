"""`first="now"` and `on_change="now"`: the runs that a deployment or an edit starts, each once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobmanager import JobManager, Settings
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

    def start(backend: str = "local", **options: Any) -> JobManager:
        manager = JobManager(Settings(database_url="memory://", backend=backend), store=store, clock=clock)
        manager.handler("report")(lambda: None)
        manager.add_job("work", lambda: None, **{"cron": "0 * * * *", **options})
        made.append(manager)
        return manager.start()

    yield start
    for manager in made:
        manager.stop()


def started(jobs: JobManager, job: str = "work") -> list[tuple[str, str | None, str]]:
    """(status, who, trigger) of the runs that no instant asked for, oldest first."""
    return [
        (str(run.status), run.requested_by, run.trigger)
        for run in reversed(jobs.runs(job, limit=1000))
        if run.scheduled_for is None
    ]


BY_CODE = ("succeeded", "code", "manual")


@pytest.mark.parametrize("schedule", [{}, {"cron": None}, {"cron": None, "at": START + timedelta(days=1)}])
def test_a_new_job_starts_once_whatever_the_number_of_processes_and_starts(
    begin: Begin, clock: FakeClock, schedule: dict[str, Any]
) -> None:
    jobs = begin(first="now", **schedule)
    clock.advance(seconds=10)
    assert started(jobs) == [BY_CODE]

    begin(first="now", **schedule)
    jobs.stop()
    begin(first="now", **schedule)
    clock.advance(minutes=20)
    begin(first="now", **schedule)
    clock.advance(seconds=10)
    assert started(jobs) == [BY_CODE]


def test_a_process_that_died_before_it_could_start_the_run_is_made_good(
    begin: Begin, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobmanager.ledger.reconciliation import Reconciliation

    with monkeypatch.context() as patched:
        patched.setattr(Reconciliation, "open_first", lambda *_, **__: None)
        jobs = begin(first="now")
        jobs.stop()
    assert started(jobs) == []

    clock.advance(minutes=1)
    jobs = begin(first="now")
    clock.advance(seconds=10)
    assert started(jobs) == [BY_CODE]


@pytest.mark.parametrize("before", [{}, {"enabled_when": False, "first": "now"}])
def test_a_job_that_is_there_already_is_not_started(
    begin: Begin, clock: FakeClock, before: dict[str, Any]
) -> None:
    begin(**before).stop()
    begin(first="now").stop()
    jobs = begin(first="now")
    clock.advance(seconds=10)
    assert started(jobs) == []


def test_a_stored_job_starts_when_it_is_made(begin: Begin, clock: FakeClock) -> None:
    jobs = begin()
    jobs.create_job("made", handler="report", cron="0 * * * *", first="now", by="ada")
    clock.advance(seconds=1)
    assert started(jobs, "made") == [("succeeded", "ada", "manual")]

    jobs.update_job("made", cron="5 * * * *")
    clock.advance(seconds=10)
    assert len(started(jobs, "made")) == 1
    jobs.delete_job("made")
    jobs.create_job("made", handler="report", first="now")
    clock.advance(seconds=1)
    assert started(jobs, "made")[1:] == [BY_CODE]


def test_where_nothing_keeps_time_nothing_is_started(begin: Begin, clock: FakeClock) -> None:
    jobs = begin("noop", first="now", on_change="now")
    jobs.update_job("work", cron="5 * * * *")
    clock.advance(seconds=10)
    assert started(jobs) == []


def test_another_schedule_starts_a_run_if_the_job_says_so(begin: Begin, clock: FakeClock) -> None:
    jobs = begin(on_change="now")
    clock.advance(seconds=10)
    assert started(jobs) == []
    jobs.stop()

    jobs = begin(on_change="now", cron="5 * * * *")
    clock.advance(seconds=10)
    assert started(jobs) == [BY_CODE]
    jobs.update_job("work", timeout=5)
    jobs.stop_job("work")
    jobs.resume_job("work")
    clock.advance(seconds=10)
    assert len(started(jobs)) == 1

    jobs.update_job("work", cron="6 * * * *", by="ada")
    clock.advance(seconds=1)
    assert started(jobs)[1:] == [("succeeded", "ada", "manual")]
    jobs.update_job("work", on_change="keep", cron="7 * * * *")
    clock.advance(seconds=10)
    assert len(started(jobs)) == 2


def test_a_paused_job_is_edited_without_a_start(begin: Begin, clock: FakeClock) -> None:
    jobs = begin(on_change="now")
    jobs.stop_job("work")
    jobs.update_job("work", cron="5 * * * *")
    clock.advance(seconds=10)
    assert started(jobs) == []


def test_a_stored_job_starts_when_its_schedule_is_edited(begin: Begin, clock: FakeClock) -> None:
    jobs = begin()
    jobs.create_job("made", handler="report", cron="0 * * * *", on_change="now")
    clock.advance(seconds=1)
    assert started(jobs, "made") == []
    jobs.update_job("made", cron="5 * * * *")
    clock.advance(seconds=1)
    assert started(jobs, "made") == [BY_CODE]


def test_processes_that_make_a_job_at_once_start_it_once(tmp_path: Path) -> None:
    """On a file that they share, each with connections of its own; none is started, so the run stays pending."""
    settings = Settings(database_url=f"sqlite:///{tmp_path}/jobs.db", backend="local")
    managers = [JobManager(settings) for _ in range(6)]
    for manager in managers:
        manager.add_job("work", lambda: None, every=3600, first="now")
    managers[0].store.install()

    with ThreadPoolExecutor(len(managers)) as pool:
        list(pool.map(lambda manager: manager.sync(), managers))

    assert started(managers[0]) == [("pending", "code", "manual")]


def test_nothing_is_started_while_the_library_is_switched_off(clock: FakeClock, store: RunStore) -> None:
    jobs = JobManager(
        Settings(database_url="memory://", backend="local", disabled=True), store=store, clock=clock
    )
    jobs.add_job("work", lambda: None, every=3600, first="now")
    with jobs:
        clock.advance(seconds=10)
    assert started(jobs) == []
