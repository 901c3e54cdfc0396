"""How jobs stand, seen through the manager."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa

from jobmanager import JobManager, Settings
from jobmanager.errors import JobNotFoundError, PayloadError
from jobmanager.run import RunStatus
from jobmanager.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def jobs(tmp_path, clock: FakeClock) -> Iterator[JobManager]:
    """A manager with a job that works, one that fails, one by hand, and one whose handler only it has."""
    jobs = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db", backend="local"), clock=clock)
    jobs.add_job("good", lambda: None, every=60, name="Good")
    jobs.add_job("bad", lambda: 1 / 0, every=60)
    jobs.add_job("by-hand", lambda: None)
    yield jobs
    jobs.stop()
    jobs.store.close()


def test_jobs_that_no_process_has_started_with_stand_as_declared(jobs, clock):
    standings = {found.id: found for found in jobs.standings()}

    assert standings.keys() == {"good", "bad", "by-hand"}
    assert (standings["good"].name, standings["good"].state) == ("Good", "active")
    assert standings["good"].next_due == clock.now() + timedelta(seconds=60)
    assert standings["by-hand"].next_due is None
    assert all(found.has_handler and not found.runs.ran for found in standings.values())


def test_each_job_stands_by_how_its_last_instant_ended(jobs, clock):
    with jobs:
        clock.advance(seconds=130)
        jobs.stop_job("good")
        clock.advance(seconds=60)
        standings = {found.id: found for found in jobs.standings()}

    good, bad = standings["good"], standings["bad"]
    assert (bad.state, bad.runs.instant.status) == ("active", RunStatus.FAILED)
    assert bad.runs.instant.scheduled_for == jobs.runs("bad")[0].scheduled_for
    assert (good.state, good.next_due, good.runs.instant.status) == ("paused", None, RunStatus.SUCCEEDED)
    assert bad.next_due > clock.now()


def test_a_handler_that_no_living_process_has_is_told(jobs, tmp_path, clock):
    with jobs:
        other = JobManager(jobs.settings, clock=clock)
        other.add_job("elsewhere", lambda: None, every=60)
        other.sync()
        assert {found.id: found.has_handler for found in jobs.standings()} == {
            "good": True, "bad": True, "by-hand": True, "elsewhere": False,
        }  # fmt: skip
        other.store.close()


def test_some_jobs_stand_as_they_do_among_all(jobs, clock):
    with jobs:
        clock.advance(seconds=130)
        every = {found.id: found for found in jobs.standings()}
        assert jobs.standings(ids=["good", "bad", "nobody", "a\0b"]) == [every["bad"], every["good"]]
        assert not any(found.runs.ran for found in jobs.standings(runs=False))


def test_jobs_stand_in_pages_by_id_without_a_gap_for_one_that_cannot_be_read(jobs, clock):
    with jobs:
        other = JobManager(jobs.settings, clock=clock)
        for number in range(6):
            other.add_job(f"made-{number}", lambda: None, every=60)
        other.sync()
        other.store.close()
        with jobs.store.database.writing() as connection:
            connection.exec_driver_sql("UPDATE jobmanager_jobs SET declared = x'ff' WHERE id = 'made-3'")
            connection.exec_driver_sql("UPDATE jobmanager_jobs SET state = 'deleted' WHERE id = 'made-1'")
        every = [found.id for found in jobs.standings()]

        assert every == ["bad", "by-hand", "good", "made-0", "made-2", "made-4", "made-5"]
        for size in (1, 2, 3, 7, 50):
            found, lengths = [], []
            while page := jobs.standings(after=found[-1] if found else None, limit=size):
                found += [standing.id for standing in page]
                lengths.append(len(page))
            assert found == every
            assert set(lengths[:-1]) <= {size}
        assert [found.id for found in jobs.standings(after="good", limit=2)] == ["made-0", "made-2"]
        assert [found.id for found in jobs.standings(ids=["good", "made-5"], after="good")] == ["made-5"]
        assert jobs.standings(limit=0) == []
        assert [found.id for found in jobs.standings(limit=1, runs=False)] == ["bad"]


def test_deleted_jobs_stand_nowhere(jobs):
    with jobs:
        jobs.create_job("made", handler="by-hand", by="ana")
        assert "made" in {found.id for found in jobs.standings()}
        jobs.delete_job("made", by="ana")
        assert "made" not in {found.id for found in jobs.standings()}


def test_some_jobs_are_listed_by_their_ids(jobs):
    with jobs:
        assert [view.id for view in jobs.list_jobs(ids=["good", "by-hand", "nobody", "a\0b"])] == [
            "by-hand",
            "good",
        ]
        assert jobs.list_jobs(ids=[]) == []
        assert jobs.get_job("good").name == "Good"
        with pytest.raises(JobNotFoundError, match="Did you mean 'good'"):
            jobs.get_job("goood")


def test_totals_say_what_the_runs_of_each_job_came_to(jobs, clock):
    with jobs:
        clock.advance(seconds=130)
    totals = jobs.totals(["good", "bad", "by-hand", "nobody"], "24h")

    assert totals.keys() == {"good", "bad"}
    assert (totals["good"].counts, totals["good"].share_good) == ({"succeeded": 2}, 1.0)
    assert (totals["bad"].counts, totals["bad"].share_good) == ({"failed": 2}, 0.0)
    assert totals["good"].duration.count == 2
    assert jobs.totals([]) == {}
    with pytest.raises(PayloadError, match="period='1y'"):
        jobs.totals(["good"], "1y")


def test_a_hundred_jobs_are_read_in_as_many_statements_as_ten(jobs):
    for number in range(100):
        jobs.add_job(f"more-{number}", lambda: None, every=60)

    def statements(count: int) -> int:
        seen = []
        engine = jobs.store.database._engine
        listen = lambda *_: seen.append(1)  # noqa: E731 - the same object is removed
        sa.event.listen(engine, "before_cursor_execute", listen)
        jobs.list_jobs(ids=[f"more-{number}" for number in range(count)])
        jobs.standings()
        sa.event.remove(engine, "before_cursor_execute", listen)
        return len(seen)

    with jobs:
        statements(1)  # the first one also asks whether the store is there
        assert statements(100) == statements(10)
