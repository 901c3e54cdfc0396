"""Many ticks that the store refuses at once: each gets the row that it would get alone, in few transactions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.tick_source import TickSource

from jobmanager import JobManager, RunStatus, Settings
from jobmanager.run import Tick
from jobmanager.testing import FakeClock

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
MANY = 60
POLICIES = ("skip", "queue", "queue_all", "cancel_running")


class Sender(TickSource):
    """Opens runs that others execute, so that each of them stays active."""

    capabilities = TickSource.capabilities.__class__(executes_in_process=False)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def jobs(clock: FakeClock) -> Iterator[JobManager]:
    manager = JobManager(Settings(database_url="memory://"), backend=Sender(), clock=clock)
    for number in range(MANY):
        overlap: Any = POLICIES[number % len(POLICIES)]
        manager.add_job(f"job-{number}", lambda: None, cron="* * * * *", overlap=overlap)
    manager.start()
    yield manager
    manager.stop()


def bring(jobs: JobManager, instant: datetime) -> None:
    ticks: Any = jobs.backend
    ticks._deliver([Tick(f"job-{number}", instant, 1) for number in range(MANY)])


def test_ticks_that_are_refused_together_are_decided_in_few_transactions(
    jobs: JobManager, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if each refused tick has a transaction of its own: thousands of them are not recorded within their minute."""
    opened: list[int] = []
    stored: Any = jobs.store.jobs
    many = stored.lock_many

    @contextmanager
    def counted(runs: Any) -> Iterator[Any]:
        opened.append(len(runs))
        with many(runs) as txns:
            yield txns

    def alone(job_id: str) -> Any:
        raise AssertionError(f"{job_id} was locked alone")

    clock.step(60)
    bring(jobs, START + timedelta(minutes=1))
    clock.step(60)
    clock.advance()
    first = Counter(run.status for run in jobs.runs(limit=1000))
    monkeypatch.setattr(stored, "lock_many", counted)
    monkeypatch.setattr(stored, "lock", alone)
    bring(jobs, START + timedelta(minutes=2))
    clock.advance()

    rows = {
        run.job_id: run for run in jobs.runs(limit=1000) if run.scheduled_for == START + timedelta(minutes=2)
    }
    assert first[RunStatus.PENDING] == MANY
    assert opened == [MANY]
    became = {POLICIES[int(job_id[4:]) % 4]: (run.status, run.turn) for job_id, run in rows.items()}
    assert became == {
        "skip": (RunStatus.SKIPPED, None),
        "queue": (RunStatus.PENDING, "waits"),
        "queue_all": (RunStatus.PENDING, "waits"),
        "cancel_running": (RunStatus.PENDING, "holds"),
    }
    assert {run.reason for run in rows.values()} == {None, "overlap"}
    assert all(run.blocked_by for run in rows.values() if run.reason)
