"""The statistics equal a recount of the runs, whatever happened to them; and counting takes no more than its share of time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from jobmanager import JobManager, Run, Settings
from jobmanager.errors import JobManagerError
from jobmanager.ledger.rollup import KEPT, SHARE, Rollup
from jobmanager.run import SUCCEEDED, new_id
from jobmanager.stores.base import RunStore
from jobmanager.stores.sql.memory import MemoryStore
from jobmanager.stores.statistics import HOUR, HourCount, hour_of
from jobmanager.testing import FakeClock

START = datetime(2026, 3, 27, 12, tzinfo=UTC)  # two days before a change of clocks


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def store(clock: FakeClock) -> RunStore:
    return MemoryStore(clock=clock)


@pytest.fixture
def process(clock: FakeClock, store: RunStore) -> Iterator[Callable[[], JobManager]]:
    """Start another process of the same application."""
    made: list[JobManager] = []

    def start() -> JobManager:
        jobs = JobManager(Settings(database_url="memory://"), store=store, clock=clock)
        jobs.add_job("steady", lambda: clock.sleep(chance.choice((0, 0.03, 2, 50))), cron="*/7 * * * *")
        jobs.add_job("shaky", fail_sometimes, every=timedelta(minutes=11), retry=2, catch_up="none")
        jobs.add_job("daily", lambda: None, cron="30 2 * * *", timezone="Europe/Berlin", catch_up="none")
        made.append(jobs)
        return jobs.start()

    chance = random.Random(7)

    def fail_sometimes() -> None:
        if chance.random() < 0.4:
            raise ValueError("shaky")

    yield start
    for jobs in made:
        jobs.stop()


def instants(run: Run, jobs: JobManager) -> list[datetime]:
    """Return the instants that a row stands for, by the schedule of its job."""
    if run.ticks == 1:
        return [run.instant]
    schedule = jobs.registry.jobs[run.job_id].schedule
    assert schedule is not None
    assert run.first_for is not None
    found = list(schedule.between(run.first_for - timedelta(seconds=1), run.instant))
    assert len(found) == run.ticks
    return found


def recounted(runs: dict[str, Run], jobs: JobManager) -> Counter[tuple[str, int, str]]:
    return Counter(
        (run.job_id, hour_of(instant), run.status.value)
        for run in runs.values()
        if run.status.closed
        for instant in instants(run, jobs)
    )


def kept(store: RunStore, jobs: JobManager, now: datetime) -> Counter[tuple[str, int, str]]:
    until = hour_of(now) + 2
    return Counter(
        {
            (job_id, cell.hour, cell.status.value): cell.count
            for job_id in jobs.registry.jobs
            for cell in store.statistics.cells("default", until - 5000, until, job_id=job_id)
        }
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_after_any_sequence_the_counts_equal_a_recount_of_the_runs(
    process: Callable[[], JobManager], clock: FakeClock, store: RunStore, seed: int
) -> None:
    """Starts by hand, failures, redrives, cancels, pauses, downtimes, crashes, purges, a clock set back: all in any order."""
    chance = random.Random(seed)
    jobs = process()
    known: dict[str, Run] = {}

    def remember() -> None:
        known.update({run.id: run for run in jobs.runs(limit=10_000)})

    def pick(*statuses: str) -> str | None:
        found = jobs.runs(status=statuses, limit=200)
        return chance.choice(found).id if found else None

    def redrive() -> None:
        run_id = pick("failed", "missed")
        if run_id:
            known.pop(run_id)
            jobs.redrive(run_id)

    def restart() -> None:
        nonlocal jobs
        jobs.stop()
        clock.step(timedelta(hours=chance.choice((1, 5, 30))))
        jobs = process()

    def purge() -> None:
        clock.advance(seconds=30)
        remember()
        store.maintenance.purge(clock.now() - timedelta(hours=chance.choice((2, 8))))

    def crash() -> None:
        """A process dies between two rounds: nothing of what it had in memory is left."""
        jobs._parts.assembly.rollup._ended.clear()
        jobs._parts.assembly.rollup._present.clear()

    acts: list[Callable[[], Any]] = [
        lambda: clock.advance(minutes=chance.choice((1, 20, 90, 500))),
        lambda: jobs.trigger_job(chance.choice(("steady", "shaky"))),
        lambda: jobs.trigger_job("steady", delay=timedelta(hours=chance.randrange(1, 40)), scope=str(chance.random())),
        redrive,
        lambda: jobs.cancel(pick("pending") or jobs.runs(limit=1)[0].id),
        lambda: jobs.stop_job("steady"),
        lambda: jobs.resume_job("steady"),
        restart,
        purge,
        crash,
        lambda: clock.step(timedelta(minutes=-chance.choice((3, 90)))),
    ]  # fmt: skip
    clock.advance(minutes=30)
    for _ in range(30):
        try:
            chance.choice(acts)()
        except JobManagerError:  # an active run is in the way, or the run has another status by now
            continue
        remember()
    jobs.resume_job("steady")
    clock.advance(
        hours=60
    )  # every open run has ended, and every hour is old enough to be settled or counted again
    clock.advance(seconds=30)
    remember()

    assert kept(store, jobs, clock.now()) == recounted(known, jobs)


# ---------------------------------------------------------------- rounds


@pytest.fixture
def installed(store: RunStore, clock: FakeClock) -> RunStore:
    jobs = JobManager(Settings(database_url="memory://"), store=store, clock=clock)
    jobs.add_job("work", lambda: None)
    jobs.sync()
    jobs.stop()
    return store


def add_run(store: RunStore, moment: datetime) -> Run:
    """Put the row of a run into the store as a process leaves it that dies before it counts anything."""
    run = Run(
        id=new_id(moment),
        job_id="work",
        status=SUCCEEDED,
        concurrency_key="work",
        trigger="manual",
        opened_at=moment,
        due_at=moment,
        accepted_at=moment,
        started_at=moment,
        finished_at=moment,
        starts=1,
        attempt=1,
    )
    with store.jobs.lock("work") as txn:
        txn.insert(run)
    return run


def total(store: RunStore, now: datetime) -> int:
    until = hour_of(now) + 1
    return sum(cell.count for cell in store.statistics.cells("default", until - 2000, until))


def test_what_a_killed_process_left_uncounted_another_one_counts(
    installed: RunStore, clock: FakeClock
) -> None:
    for hours in (0, 1, 30, 24 * 34, 24 * 40):
        add_run(installed, clock.now() - hours * HOUR)

    Rollup(installed, clock).round()

    assert total(installed, clock.now()) == 4  # what is older than the counts are kept is not asked for
    assert [counted.hour for counted in installed.statistics.unsettled()] == [
        hour_of(clock.now()),
        hour_of(clock.now()) - 1,
    ]


def test_two_processes_count_what_both_ended_once(installed: RunStore, clock: FakeClock) -> None:
    one, other = Rollup(installed, clock), Rollup(installed, clock)
    for rollup in (one, other, one, other):
        add_run(installed, clock.now())
        rollup.round()
        clock.step(3)
    clock.step(10)
    one.round()
    other.round()

    assert total(installed, clock.now()) == 4


def test_a_late_end_in_an_hour_that_was_settled_is_counted_at_once(
    installed: RunStore, clock: FakeClock
) -> None:
    rollup = Rollup(installed, clock)
    clock.step(timedelta(days=2))
    rollup.round()
    late = clock.now() - 40 * HOUR
    add_run(installed, late)
    rollup.note(new_id(late))

    rollup.round()

    assert total(installed, clock.now()) == 1


def test_hours_that_passed_while_the_process_stood_still_are_counted(
    installed: RunStore, clock: FakeClock
) -> None:
    rollup = Rollup(installed, clock)
    rollup.round()
    clock.step(timedelta(hours=9))
    add_run(installed, clock.now() - 4 * HOUR)

    rollup.round()

    assert total(installed, clock.now()) == 1


def test_an_hour_that_takes_long_is_counted_seldom(
    installed: RunStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One part in a hundred of the thread's time: after a second of counting the next round comes 100 s later."""
    began: list[float] = []

    def slowly(_hour: int) -> HourCount:
        began.append(clock.monotonic())
        clock.sleep(1)
        return HourCount([], 0)

    monkeypatch.setattr(installed.statistics, "count", slowly)
    rollup = Rollup(installed, clock)
    for _ in range(250):
        rollup.round()
        clock.sleep(1)

    assert len(began) in (2, 3)
    assert all(after - before >= SHARE for before, after in pairwise(began))


def test_where_nothing_happens_a_count_is_written_once_a_minute(
    installed: RunStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    keep = installed.statistics.keep

    def watched(counted: Any, cells: Any, **how: Any) -> bool:
        written.append(counted.hour)
        return keep(counted, cells, **how)

    monkeypatch.setattr(installed.statistics, "keep", watched)
    rollup = Rollup(installed, clock)
    for _ in range(36):
        rollup.round()
        clock.step(5)

    assert len(written) == 3


def test_counts_are_forgotten_after_35_days(installed: RunStore, clock: FakeClock) -> None:
    rollup = Rollup(installed, clock)
    add_run(installed, clock.now())
    rollup.round()
    clock.step(KEPT)
    rollup.forget_old(clock.now())
    assert total(installed, clock.now()) == 1

    clock.step(HOUR)
    rollup.forget_old(clock.now())

    assert total(installed, clock.now()) == 0


@pytest.mark.parametrize(
    "strange", ["f81d4fae-7dec-41d0-a765-00a0c91e6bf6", "ffffffff-ffff-7fff-8000-000000000000"]
)
def test_an_id_that_no_clock_made_does_not_keep_others_from_being_counted(
    strange: str, installed: RunStore, clock: FakeClock
) -> None:
    rollup = Rollup(installed, clock)
    run = add_run(installed, clock.now())
    with installed.jobs.lock(run.job_id) as txn:
        txn.insert(replace(run, id=strange))
        txn.reopen(replace(run, id=strange), max_attempts=3, turn=None)
    rollup.note(strange)

    rollup.round()

    assert [counted.hour for counted in installed.statistics.unsettled()] == [hour_of(clock.now())]
    assert total(installed, clock.now()) == 1
