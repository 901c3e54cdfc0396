"""kill -9 at every point of a run's life (F2, F21), and races for the same ticks (F1): one row per tick, one start per attempt."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.faults.conftest import QUICK, STORES, Process, effects, shape, skip_if_unsupported, until
from tests.servers import FreshDatabases

from jobmanager import JobManager, Retry, Run, Settings

POINTS = ("before_claim", "after_claim", "before_handler", "mid_handler", "before_finish", "after_finish")

ONE_TICK = """
from datetime import datetime
from jobmanager import Retry

start = False

def work(context):
    note("start", context.job.id, context.run_id, context.attempt)
    crash_point("mid_handler")
    note("end", context.job.id, context.run_id, context.attempt)

def begin(at):
    for job_id, attempts in {jobs}.items():
        jobs.add_job(job_id, work, at=datetime.fromisoformat(at), retry=Retry(max_attempts=attempts))
    jobs.start()
"""


@dataclass
class History:
    """What is left of twelve processes that each had one tick to run and died at one point of it."""

    rows: dict[str, list[Run]]
    starts: Counter[tuple[str, str, int]]

    def of(self, job_id: str) -> tuple[tuple[str, str | None], int, list[int]]:
        """(status and why, attempts by the row, attempts that were really started)."""
        (run,) = self.rows[job_id]
        return shape(run), run.attempt, sorted(attempt for job, _, attempt in self.starts if job == job_id)


def job_of(point: str, attempts: int) -> str:
    return f"{point.replace('_', '-')}-{attempts}"


@pytest.fixture(scope="module", params=STORES)
def history(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """All points at once, with one and with two attempts; then another process finds what they left."""
    folder = tmp_path_factory.mktemp("killed")
    if request.param == "sqlite":
        yield kill_everywhere(f"sqlite:///{folder}/jobs.db", folder)
        return
    with FreshDatabases(request.getfixturevalue("postgres_server")) as databases:
        yield kill_everywhere(databases.make(), folder)


def kill_everywhere(url: str, folder: Path) -> History:
    skip_if_unsupported(url)
    jobs_here = JobManager(Settings(database_url=url))
    cases = [(point, attempts) for point in POINTS for attempts in (1, 2)]
    jobs = {job_of(point, attempts): attempts for point, attempts in cases}
    processes = [
        Process(url, ONE_TICK.format(jobs={job_of(point, attempts): attempts}), folder, crash_at=point)
        for point, attempts in cases
    ]
    try:
        for process in processes:
            process.up()
        at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=3)
        # On record before they start: to one that comes up only after the instant it would be an `At` that has passed.
        for job_id, attempts in jobs.items():
            jobs_here.add_job(job_id, lambda: None, at=at, retry=Retry(max_attempts=attempts))
        jobs_here.sync()
        for process in processes:
            process.tell(f"begin('{at.isoformat()}')")
        assert {process.wait() for process in processes} == {-signal.SIGKILL}
        processes.append(Process(url, ONE_TICK.format(jobs=jobs), folder).up())
        processes[-1](f"begin('{at.isoformat()}')")
        until(
            lambda: all(
                (runs := jobs_here.runs(job_id)) and all(run.status.closed for run in runs) for job_id in jobs
            )
        )
        rows = {job_id: jobs_here.runs(job_id) for job_id in jobs}
        jobs_here.store.close()
    finally:
        for process in processes:
            process.close()
    starts = Counter((line[1], line[2], int(line[3])) for line in effects(folder) if line[0] == "start")
    return History(rows, starts)


@pytest.mark.parametrize(
    ("point", "row", "started"),
    [
        ("before_claim", ("succeeded", None), [1]),
        ("after_claim", ("failed", "crashed"), []),
        ("before_handler", ("failed", "crashed"), []),
        ("mid_handler", ("failed", "crashed"), [1]),
        ("before_finish", ("failed", "crashed"), [1]),
        ("after_finish", ("succeeded", None), [1]),
    ],
)
def test_a_process_killed_there_leaves_one_row_that_tells_the_truth(
    history: History, point: str, row: tuple[str, str | None], started: list[int]
) -> None:
    """Fails without the takeover (rows stay running), and without the unique tick (the finder opens the tick again)."""
    assert history.of(job_of(point, 1)) == (row, 1, started)


@pytest.mark.parametrize(
    ("point", "attempts", "started"),
    [
        ("before_claim", 1, [1]),
        ("after_claim", 2, [2]),
        ("before_handler", 2, [2]),
        ("mid_handler", 2, [1, 2]),
        ("before_finish", 2, [1, 2]),
        ("after_finish", 1, [1]),
    ],
)
def test_with_attempts_left_another_process_tries_again_and_no_attempt_starts_twice(
    history: History, point: str, attempts: int, started: list[int]
) -> None:
    """Fails without the takeover, and if the takeover does not count the attempt that died."""
    assert history.of(job_of(point, 2)) == (("succeeded", None), attempts, started)
    assert set(history.starts.values()) == {1}


POISON = """
from jobmanager import Retry

@jobs.job("poison", retry=Retry(max_attempts=3))
def poison(context):
    note("start", context.attempt)
    os._exit(7)
"""


def test_a_job_that_takes_its_process_along_each_time_stops_at_its_last_attempt(
    store_url: str, start_process: Callable[..., Any], tmp_path: Path
) -> None:
    """F20, F21. Fails if the takeover forgets `max_attempts`."""
    jobs = JobManager(Settings(database_url=store_url, **QUICK))
    jobs.add_job("poison", lambda: None, retry=Retry(max_attempts=3))
    run_id = jobs.trigger_job("poison").id
    for attempt in (1, 2, 3):
        process = start_process(store_url, POISON, wait=False)  # it may be gone before it says that it is up
        assert process.wait() == 7
        assert effects(tmp_path)[-1] == ["start", str(attempt)]
    healthy = start_process(store_url, POISON)
    until(lambda: jobs.run(run_id).status.closed)

    assert shape(jobs.run(run_id)) == ("failed", "crashed")
    assert [attempt.attempt for attempt in jobs.store.history.attempts(run_id)] == [1, 2]
    assert len(effects(tmp_path)) == 3
    assert healthy("jobs.started")
    jobs.store.close()


RACER = """
from datetime import UTC, datetime, timedelta
from jobmanager.run import PENDING, Run, new_id

start = False

def race(first, ticks):
    won = 0
    for number in range(ticks):
        now = datetime.now(UTC)
        instant = datetime.fromisoformat(first) + timedelta(seconds=number)
        run = Run(id=new_id(now), job_id="raced", status=PENDING, trigger="schedule", schedule_rev=1, scheduled_for=instant,
                  due_at=instant, attempt=0, max_attempts=1, retry_on_crash=True, concurrency_key="raced", turn=None,
                  opened_at=now, accepted_at=now)
        won += run.id in jobs.store.runs.write([run], ()).opened
    return won
"""


@pytest.mark.parametrize(("racers", "ticks"), [(4, 200), pytest.param(8, 1000, marks=pytest.mark.faults)])
def test_of_many_processes_that_race_for_a_tick_exactly_one_wins(
    each_store_url: str, start_process: Callable[..., Process], racers: int, ticks: int
) -> None:
    """F1. Fails without the unique tick; on SQLite with deferred transactions by errors."""
    jobs = JobManager(Settings(database_url=each_store_url))
    jobs.add_job("raced", lambda: None, every=1, overlap="allow")
    first = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=ticks + 10)
    jobs.sync()
    with jobs.store.jobs.lock("raced") as page:
        page.save(replace(page.job, accounted_until=first - timedelta(seconds=1), next_due_at=None))
    processes = [start_process(each_store_url, RACER, grace_seconds=3600) for _ in range(racers)]
    for process in processes:
        process.tell(f"race('{first.isoformat()}', {ticks})")
    won = [process.answer() for process in processes]

    assert sum(won) == ticks
    assert sum(run.ticks for run in jobs.runs("raced", limit=10_000)) == ticks
    jobs.store.close()
