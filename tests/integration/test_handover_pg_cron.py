"""Moves to pg_cron and away from it: every instant has one row, and none is started twice. `tests/behaviour/test_handover.py` has the others."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

pytest.importorskip("celery", reason="needs celery: pip install celery")

from tests.effort import examples, sampled
from tests.faults.conftest import until

from jobmanager import JobManager, RunContext, RunStatus, Settings
from jobmanager.backends.celery import CeleryBackend
from jobmanager.backends.celery.application import make_app
from jobmanager.backends.celery.publisher import Message
from jobmanager.run import Tick

pytestmark = [pytest.mark.servers, pytest.mark.slow]

MINUTE = timedelta(minutes=1)
TICKS = examples(200, sample=40)
PAIRS = [
    pytest.param(*pair)
    for other in ("local", "celery", "noop")
    for pair in ((other, "pg_cron"), ("pg_cron", other))
]


@pytest.fixture
def pg_cron_url(still_pg_cron_url: str) -> str:
    """Where no entry runs by itself: only the test lets minutes pass."""
    return still_pg_cron_url


class SentToItself(CeleryBackend):
    """Celery whose messages are executed in this process, as by a worker."""

    def __init__(self) -> None:
        super().__init__(make_app("memory://"))
        self._publisher.put = self._execute_elsewhere  # type: ignore[method-assign]

    def _execute_elsewhere(self, message: Message) -> None:
        threading.Thread(target=self.execute, args=([message.run_id],)).start()


class Move:
    """A job of every minute whose next instants lie in the past, but on time, and what its handler started."""

    def __init__(self, url: str) -> None:
        self.started: list[datetime] = []
        self._url = url
        self.database = psycopg.connect(url, autocommit=True)

    def make(self, backend: str) -> JobManager:
        """A process with this backend, not started."""
        given: dict[str, Any] = {"backend": SentToItself()} if backend == "celery" else {}
        settings: dict[str, Any] = {} if backend == "celery" else {"backend": backend}
        if backend == "pg_cron":
            settings["pg_cron_transport"] = "notify"
        # The grace is what lets a test bring minutes that are over: by the database's clock they are on time.
        manager = JobManager(
            Settings(database_url=self._url, grace_seconds=36_000, sweep_seconds=600, **settings), **given
        )
        manager.add_job("minute", self._note, cron="* * * * *", overlap="allow", catch_up_window=36_000)
        return manager

    @contextmanager
    def process(self, backend: str) -> Iterator[JobManager]:
        """A process with this backend, from its start to its stop."""
        jobs = self.make(backend)
        jobs.start()
        # It has lived since before the instants that the test brings: else only the newest of them would be on time.
        self.database.execute("UPDATE jobmanager.instances SET started_at = started_at - interval '1 day'")
        try:
            if backend == "pg_cron":
                self.database.execute("SELECT jobmanager.remove_entries()")
            yield jobs
        finally:
            jobs.stop(5)
            jobs.store.close()

    def _note(self, context: RunContext) -> None:
        assert context.scheduled_for is not None
        self.started.append(context.scheduled_for)

    def begin(self) -> list[datetime]:
        """Set the account back, and return the instants that are to come."""
        with self.process("pg_cron"):  # makes the plans
            pass
        first = datetime.now(UTC).replace(second=0, microsecond=0) - (TICKS + 5) * MINUTE
        self.database.execute("DELETE FROM jobmanager.runs")
        self.database.execute(
            "UPDATE jobmanager.jobs SET next_due_at = %s, accounted_until = %s", (first, first - MINUTE)
        )
        self.started.clear()
        return [first + number * MINUTE for number in range(TICKS)]

    def bring(self, jobs: JobManager, backend: str, instants: Sequence[datetime]) -> None:
        """Let the backend bring these instants, and wait until they have run; noop brings none."""
        if backend == "noop":
            return
        if backend == "pg_cron":
            self.database.execute("SELECT jobmanager.fire(NULL, %s)", (instants[-1],))
        else:
            row = jobs.store.jobs.get("minute")
            assert row is not None
            jobs._assembly.runner.deliver([Tick("minute", instant, row.schedule_rev) for instant in instants])
        until(lambda: set(instants) <= set(self.started), 30)


@pytest.fixture
def move(pg_cron_url: str) -> Iterator[Move]:
    made = Move(pg_cron_url)
    yield made
    made.database.close()


@pytest.mark.parametrize(
    ("before", "after"),
    sampled(PAIRS, every=3),
)
def test_a_move_loses_no_instant_and_starts_none_twice(move: Move, before: str, after: str) -> None:
    """Fails if what the database announces and what a process opens are two accounts of one instant."""
    expected = move.begin()
    half = len(expected) // 2
    for backend, instants in ((before, expected[:half]), (after, expected[half:])):
        with move.process(backend) as jobs:
            move.bring(jobs, backend, instants)
    with move.process("pg_cron") as jobs:  # what noop left, and it is on time still

        def recorded() -> Counter[datetime | None]:
            runs = jobs.runs("minute", "succeeded", limit=1000)
            return Counter(run.scheduled_for for run in runs)

        until(lambda: set(expected) <= recorded().keys(), 60)
        assert {instant: recorded()[instant] for instant in expected} == dict.fromkeys(expected, 1)
        rows = Counter(run.scheduled_for for run in jobs.runs("minute", limit=1000))
        assert max(rows.values()) == 1
        assert not jobs.runs("minute", [RunStatus.SKIPPED, RunStatus.FAILED])
    assert max(Counter(move.started).values()) == 1
