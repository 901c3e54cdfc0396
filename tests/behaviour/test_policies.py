"""Overlap, catch-up, deadline, jitter and pause after failures: the decision tables, one by one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobmanager import JobManager, Run, RunConflictError, RunContext, RunStatus, Settings
from jobmanager.job import jittered
from jobmanager.schedule import Every
from jobmanager.testing import FakeClock

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Gate:
    """Handlers stay inside until they are let out, one by one or all."""

    def __init__(self) -> None:
        self.inside = threading.Semaphore(0)
        self._out = threading.Semaphore(0)

    def handler(self, context: RunContext) -> str:
        self.inside.release()
        while not self._out.acquire(timeout=0.01):
            context.raise_if_cancelled()
        return context.payload.get("who", "tick")

    def wait_inside(self) -> None:
        assert self.inside.acquire(timeout=10)

    def let_out(self, count: int = 1) -> None:
        self._out.release(count)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.let_out(100)


@pytest.fixture
def jobs(tmp_path: Path, gate: Gate) -> Iterator[JobManager]:
    manager = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db"))
    yield manager
    gate.let_out(100)
    manager.stop(drain=2)


def declared(jobs: JobManager, gate: Gate, overlap: Any, **options: Any) -> Callable[[str], Run]:
    jobs.add_job("work", gate.handler, overlap=overlap, **options)
    jobs.start()
    return lambda who: jobs.trigger_job("work", {"who": who})


def test_queue_lets_one_wait_and_refuses_the_newcomer(jobs: JobManager, gate: Gate) -> None:
    trigger = declared(jobs, gate, "queue")
    first = trigger("first")
    gate.wait_inside()
    second = trigger("second")
    with pytest.raises(RunConflictError) as conflict:
        trigger("third")
    gate.let_out(2)

    assert conflict.value.run_id == second.id
    assert second.status is RunStatus.PENDING
    assert [jobs.wait(run.id).output for run in (first, second)] == ["first", "second"]
    ended, started = jobs.run(first.id).finished_at, jobs.run(second.id).started_at
    assert ended is not None
    assert started is not None
    assert started >= ended


def test_queue_all_lets_as_many_wait_as_its_cap_and_keeps_their_order(jobs: JobManager, gate: Gate) -> None:
    trigger = declared(jobs, gate, "queue_all", queue_cap=3)
    runs = [trigger("0")]
    gate.wait_inside()
    runs += [trigger(str(number)) for number in (1, 2, 3)]
    with pytest.raises(RunConflictError):
        trigger("too many")
    gate.let_out(4)

    ended = [jobs.wait(run.id) for run in runs]
    assert [run.output for run in ended] == ["0", "1", "2", "3"]
    starts = [run.started_at for run in ended]
    assert starts == sorted(starts)  # type: ignore[type-var]


def test_cancel_running_ends_the_holder_and_whoever_waits(jobs: JobManager, gate: Gate) -> None:
    trigger = declared(jobs, gate, "cancel_running")
    first = trigger("first")
    gate.wait_inside()
    second = trigger("second")
    third = trigger("third")
    after = [jobs.wait(run.id) for run in (first, second)]
    gate.wait_inside()
    gate.let_out()

    assert [(run.status, run.reason) for run in after] == [
        (RunStatus.CANCELLED, "requested"),
        (RunStatus.CANCELLED, "superseded"),
    ]
    assert jobs.wait(third.id).output == "third"


def test_allow_starts_as_many_as_come(jobs: JobManager, gate: Gate) -> None:
    trigger = declared(jobs, gate, "allow")
    runs = [trigger("a"), trigger("b")]
    gate.wait_inside()
    gate.wait_inside()
    gate.let_out(2)

    assert {jobs.wait(run.id).output for run in runs} == {"a", "b"}


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        ("skip", {"succeeded": 1, "skipped": 2}),
        ("queue", {"succeeded": 2, "skipped": 1}),
        ("queue_all", {"succeeded": 3}),
        ("allow", {"succeeded": 3}),
        ("cancel_running", {"cancelled": 2, "succeeded": 1}),
    ],
)
def test_ticks_meet_a_running_run_by_the_same_table(
    tmp_path: Path, gate: Gate, overlap: Any, expected: dict[str, int]
) -> None:
    # One tick at a time is brought by hand, so that the test needs no real seconds.
    from jobmanager.run import Tick

    jobs = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db"))
    jobs.add_job("work", gate.handler, overlap=overlap, at=datetime(2099, 1, 1, tzinfo=UTC))
    jobs.start()
    runner = jobs._assembly.runner  # the backend's place, taken by the test
    now = datetime.now(UTC).replace(microsecond=0)
    with jobs.store.jobs.lock("work") as page:
        from dataclasses import replace

        page.save(replace(page.job, accounted_until=now - timedelta(seconds=30)))
    for number in range(3):
        runner.deliver([Tick(job_id="work", scheduled_for=now - timedelta(seconds=20 - number), revision=1)])
        deadline = time.monotonic() + 10
        while len(jobs.runs("work")) < number + 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        if number == 0 or overlap == "allow":
            gate.wait_inside()
    deadline = time.monotonic() + 10
    while len(jobs.runs("work", "cancelled")) < expected.get("cancelled", 0):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    gate.let_out(10)
    for run in jobs.runs("work"):
        jobs.wait(run.id)

    statuses = [str(run.status) for run in jobs.runs("work")]
    assert {status: statuses.count(status) for status in set(statuses)} == expected
    assert {run.reason for run in jobs.runs("work") if run.status is RunStatus.SKIPPED} <= {"overlap"}
    jobs.stop(drain=2)


# ---------------------------------------------------------------- on a clock moved by hand


def restarted(tmp_path: Path, clock: FakeClock, **options: Any) -> JobManager:
    manager = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db"), clock=clock)
    manager.add_job("minutely", lambda: None, cron="* * * * *", **options)
    return manager


@pytest.mark.parametrize(
    ("options", "caught_up"),
    [
        ({"catch_up": "none"}, []),
        ({"catch_up": "latest"}, [28]),
        ({"catch_up": "all"}, list(range(1, 29))),
        ({"catch_up": "all", "catch_up_cap": 3}, [26, 27, 28]),
        ({"catch_up": "all", "catch_up_window": 600}, list(range(20, 29))),
        ({"catch_up": "all", "start_deadline": 300}, list(range(25, 29))),
    ],
)
def test_what_a_downtime_of_half_an_hour_makes_up(
    tmp_path: Path, options: dict[str, Any], caught_up: list[int]
) -> None:
    clock = FakeClock(START)
    before = restarted(tmp_path, clock, **options)
    before.start()
    before.stop()
    clock.advance(minutes=29, seconds=30)
    after = restarted(tmp_path, clock, **options)
    after.start()
    clock.advance()

    rows = after.runs("minutely", limit=1000)
    made_up = sorted(run.scheduled_for for run in rows if run.trigger == "catch_up" and run.scheduled_for)
    assert made_up == [START + timedelta(minutes=minute) for minute in caught_up]
    assert {run.status for run in rows if run.trigger == "catch_up"} <= {RunStatus.SUCCEEDED}
    assert sum(run.ticks for run in rows) == 29
    assert sum(run.ticks for run in rows if run.status is RunStatus.MISSED) == 28 - len(caught_up)
    after.stop()


def test_a_tick_nobody_could_start_in_time_is_missed_deadline(tmp_path: Path, gate: Gate) -> None:
    jobs = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db", workers=1, sweep_seconds=0.3))
    jobs.add_job("blocker", gate.handler)
    jobs.add_job("urgent", lambda: None, every=1, start_deadline=0.2)
    jobs.start()
    jobs.trigger_job("blocker")
    gate.wait_inside()
    deadline = time.monotonic() + 10
    while not [run for run in jobs.runs("urgent") if run.reason == "deadline"]:
        assert time.monotonic() < deadline, jobs.runs("urgent")
        time.sleep(0.02)
    gate.let_out(10)
    jobs.stop(drain=2)


def test_jitter_moves_the_start_the_same_way_everywhere_and_never_beyond_the_next_instant() -> None:
    every = Every(60)
    offsets = [
        (jittered("a", instant, timedelta(minutes=5), every) - instant).total_seconds()
        for instant in every.upcoming(START, 200)
    ]

    assert all(0 <= offset < 60 for offset in offsets)
    assert max(offsets) - min(offsets) > 30
    assert offsets == [
        (jittered("a", instant, timedelta(minutes=5), every) - instant).total_seconds()
        for instant in every.upcoming(START, 200)
    ]
    assert jittered("a", START, timedelta(0), every) == START


def test_a_jittered_tick_starts_later_and_keeps_its_instant(tmp_path: Path) -> None:
    clock = FakeClock(START)
    jobs = restarted(tmp_path, clock, jitter=40)
    jobs.start()
    clock.advance(minutes=10)
    jobs.stop()

    rows = [run for run in jobs.runs("minutely", limit=100) if run.status is RunStatus.SUCCEEDED]
    assert len(rows) >= 9
    for run in rows:
        assert run.scheduled_for is not None
        assert run.scheduled_for.second == 0
        assert run.started_at == run.due_at
        assert timedelta(0) <= run.due_at - run.scheduled_for < timedelta(seconds=40)
    assert len({run.due_at - run.scheduled_for for run in rows if run.scheduled_for}) > 3


def test_a_job_that_keeps_failing_is_paused(tmp_path: Path) -> None:
    clock = FakeClock(START)
    jobs = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db"), clock=clock)

    @jobs.job("failing", cron="* * * * *", pause_after_failures=3)
    def failing() -> None:
        raise OSError("no")

    jobs.start()
    clock.advance(minutes=10)

    row = jobs.store.jobs.get("failing")
    assert row is not None
    assert (row.state, row.state_reason, row.state_by) == ("paused", "failures", "pause_after_failures")
    assert len(jobs.runs("failing", "failed")) == 3
    jobs.resume_job("failing")
    clock.advance(minutes=1)
    assert len(jobs.runs("failing", "failed")) == 4
    jobs.stop()
