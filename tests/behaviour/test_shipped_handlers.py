"""The handlers that come with the package: operators make jobs of them, and no such job is there before."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from jobmanager import JobManager, Settings
from jobmanager.stores.values import Instance
from jobmanager.testing import FakeClock

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def jobs(clock: FakeClock) -> Iterator[JobManager]:
    manager = JobManager(Settings(database_url="memory://", retention_days=1), clock=clock)
    manager.start()
    yield manager
    manager.stop()


def test_they_are_offered_and_no_job_of_them_exists(jobs: JobManager) -> None:
    assert {"test-job", "test-fail-job", "purge-runs", "rescue-stale"} == {
        handler.key for handler in jobs.handlers() if handler.creatable and handler.description
    }
    assert jobs.get_all_job_statuses() == []


def test_one_succeeds_and_one_fails(jobs: JobManager) -> None:
    jobs.create_job("works", handler="test-job", config={"message": "hello"})
    jobs.create_job("breaks", handler="test-fail-job")

    works, breaks = jobs.trigger_job("works"), jobs.trigger_job("breaks", {"message": "as planned"})

    assert jobs.run(works.id).output == {"message": "hello"}
    [(_, _, line)] = jobs.store.history.lines(works.id)
    assert line.text.endswith("hello")
    failed = jobs.run(breaks.id)
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.message == "as planned"


def test_one_purges_as_retention_says(jobs: JobManager, clock: FakeClock) -> None:
    jobs.create_job("works", handler="test-job")
    jobs.create_job("tidy", handler="purge-runs")
    old = jobs.trigger_job("works")
    clock.step(timedelta(days=2))

    run = jobs.trigger_job("tidy")

    assert jobs.run(run.id).output == {"deleted": 1}
    assert old.id not in {found.id for found in jobs.runs()}


def test_one_ends_the_runs_of_a_dead_process(jobs: JobManager, clock: FakeClock) -> None:
    jobs.create_job("works", handler="test-job")
    jobs.create_job("rescue", handler="rescue-stale")
    other = Instance(
        id="01900000-0000-7000-8000-000000000009",
        namespace="default",
        host="there",
        pid=1,
        executes=True,
        started_at=START,
        seen_at=START,
    )
    jobs.store.processes.register(other)
    lost = jobs.trigger_job("works", delay=60, scope="theirs")
    clock.step(61)
    [taken] = jobs.store.runs.claim(other.id, "default", 1, run_ids=[lost.id])
    jobs.store.processes.deregister(other.id)

    jobs.trigger_job("rescue")

    assert jobs.run(taken.id).status == "failed"


def test_a_handler_of_the_application_replaces_one_of_the_package(clock: FakeClock) -> None:
    jobs = JobManager(Settings(database_url="memory://"), clock=clock)
    jobs.add_job("test-job", lambda: "ours")
    jobs.start()

    assert jobs.run(jobs.trigger_job("test-job").id).output == "ours"
    jobs.stop()
