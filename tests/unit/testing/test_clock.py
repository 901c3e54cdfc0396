"""Time that a test moves by hand: what is due fires, in order, on the spot."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from tests.effort import examples

from jobmanager import JobManager, Retry, RunContext, Settings
from jobmanager.errors import WaitTimeoutError
from jobmanager.testing import FakeClock, FakeClockError

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
START = datetime(2026, 1, 1, tzinfo=UTC)


class Bell:
    """Rings every so often, as a backend would."""

    def __init__(self, clock: FakeClock, every: timedelta, name: str = "bell") -> None:
        self.clock, self.every, self.name = clock, every, name
        self.next = clock.now() + every
        self.rung: list[datetime] = []
        clock.drive(self.due, self.ring)

    def due(self) -> datetime | None:
        return self.next

    def ring(self) -> None:
        self.rung.append(self.clock.now())
        self.next += self.every


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def jobs(clock: FakeClock) -> Iterator[JobManager]:
    manager = JobManager(Settings(backend="local", database_url="memory://"), clock=clock)
    yield manager
    manager.stop(0)


# ---------------------------------------------------------------- the clock alone


def test_it_stands_still_until_it_is_moved(clock: FakeClock) -> None:
    assert [clock.now(), clock.now()] == [START, START]
    assert clock.monotonic() == clock.monotonic()


def test_it_goes_by_units_by_a_timedelta_and_to_a_moment(clock: FakeClock) -> None:
    assert clock.advance(days=1, hours=2, minutes=3, seconds=4.5) == START + timedelta(days=1, seconds=7384.5)
    assert clock.advance(HOUR) - HOUR == START + timedelta(days=1, seconds=7384.5)
    assert clock.monotonic() == 86_400 + 7_384.5 + 3_600

    clock.advance_to(datetime(2026, 2, 1, 2, tzinfo=timezone(2 * HOUR)))

    assert clock.now() == datetime(2026, 2, 1, tzinfo=UTC)
    assert clock.now().tzinfo is UTC


def test_naive_moments_and_steps_into_the_past_are_refused(clock: FakeClock) -> None:
    with pytest.raises(ValueError, match="has no zone"):
        FakeClock(datetime(2026, 1, 1))
    with pytest.raises(ValueError, match="has no zone"):
        clock.advance_to(datetime(2026, 1, 2))
    with pytest.raises(ValueError, match=r"use step\(\)"):
        clock.advance(seconds=-1)
    assert clock.now() == START


def test_duties_act_at_their_instants_earliest_first(clock: FakeClock) -> None:
    rung: list[tuple[str, datetime]] = []
    bells = [Bell(clock, timedelta(minutes=minutes), str(minutes)) for minutes in (3, 2)]
    for bell in bells:
        ring = bell.ring
        clock.release(bell.ring)
        clock.drive(bell.due, lambda bell=bell, ring=ring: (rung.append((bell.name, clock.now())), ring()))

    clock.advance(minutes=6)

    assert rung == [
        ("2", START + 2 * MINUTE),
        ("3", START + 3 * MINUTE),
        ("2", START + 4 * MINUTE),
        ("3", START + 6 * MINUTE),  # of one instant, in the order of their coming
        ("2", START + 6 * MINUTE),
    ]


def test_monotonic_moves_with_every_jump(clock: FakeClock) -> None:
    seen: list[float] = []
    bell = Bell(clock, MINUTE)
    clock.drive(bell.due, lambda: (seen.append(clock.monotonic()), bell.ring()))
    clock.release(bell.ring)

    clock.advance(minutes=2, seconds=30)

    assert seen == [60, 120]
    assert clock.monotonic() == 150


def test_duties_without_an_instant_act_once_at_the_end_of_each_move(clock: FakeClock) -> None:
    beats: list[datetime] = []
    bell = Bell(clock, MINUTE)
    clock.drive(None, lambda: beats.append(clock.now()))

    clock.advance(hours=1)
    clock.advance()

    assert beats == [START + HOUR, START + HOUR]
    assert len(bell.rung) == 60


def test_what_the_last_duties_plan_for_now_is_done_too(clock: FakeClock) -> None:
    due: list[datetime] = []
    done: list[datetime] = []
    clock.drive(lambda: due[0] if due else None, lambda: done.append(due.pop()))
    clock.drive(None, lambda: due.append(clock.now()) if not done else None)

    clock.advance(minutes=1)

    assert done == [START + MINUTE]


def test_a_released_duty_is_not_called_even_when_released_by_another(clock: FakeClock) -> None:
    second = Bell(clock, MINUTE)
    first = Bell(clock, timedelta(seconds=30))
    clock.release(first.ring)
    clock.drive(first.due, lambda: (clock.release(second.ring), first.ring()))
    clock.release(lambda: None)

    clock.advance(minutes=5)

    assert second.rung == []
    assert len(first.rung) == 10


def test_driving_the_same_duty_again_replaces_it(clock: FakeClock) -> None:
    bell = Bell(clock, HOUR)

    clock.drive(bell.due, bell.ring)
    clock.advance(hours=2)

    assert bell.rung == [START + HOUR, START + 2 * HOUR]


def test_a_duty_that_never_gets_done_is_named(clock: FakeClock) -> None:
    bell = Bell(clock, MINUTE)
    bell.every = timedelta(0)

    with pytest.raises(FakeClockError, match=r"test_clock\.Bell\.ring was called 100 times .* still due"):
        clock.advance(hours=1)

    clock.release(bell.ring)
    assert clock.advance(hours=1) == START + MINUTE + HOUR


def test_an_error_of_a_duty_comes_out_and_the_clock_can_go_on(clock: FakeClock) -> None:
    bell = Bell(clock, MINUTE)

    def fail() -> None:
        bell.ring()
        raise LookupError("outside")

    clock.release(bell.ring)
    clock.drive(bell.due, fail)

    with pytest.raises(LookupError):
        clock.advance(minutes=5)
    assert clock.now() == START + MINUTE
    clock.release(fail)
    assert clock.advance(minutes=5) == START + 6 * MINUTE


def test_a_move_inside_a_move_is_refused(clock: FakeClock) -> None:
    bell = Bell(clock, MINUTE)
    refused: list[FakeClockError] = []

    def move() -> None:
        bell.ring()
        try_to_move()
        thread = threading.Thread(target=try_to_move)
        thread.start()
        thread.join()

    def try_to_move() -> None:
        try:
            clock.advance(minutes=1)
        except FakeClockError as error:
            refused.append(error)

    clock.release(bell.ring)
    clock.drive(bell.due, move)

    clock.advance(minutes=1)

    assert ["clock.sleep()" in str(error) for error in refused] == [True, True]
    assert clock.now() == START + MINUTE


def test_sleep_lets_time_pass(clock: FakeClock) -> None:
    bell = Bell(clock, MINUTE)

    clock.sleep(90)
    clock.sleep(-5)

    assert clock.now() == START + timedelta(seconds=90)
    assert len(bell.rung) == 1


def test_a_duty_that_sleeps_makes_the_next_ones_late_and_time_never_goes_back(clock: FakeClock) -> None:
    bell = Bell(clock, MINUTE)
    clock.release(bell.ring)
    clock.drive(bell.due, lambda: (bell.ring(), clock.sleep(90)))

    clock.advance(minutes=2)

    assert bell.rung == [START + MINUTE, START + timedelta(seconds=150)]
    assert clock.now() == START + 4 * MINUTE


def test_a_step_moves_the_wall_clock_alone(clock: FakeClock) -> None:
    bell = Bell(clock, MINUTE)

    clock.step(3600)

    assert (clock.now(), clock.monotonic(), bell.rung) == (START + HOUR, 0, [])
    clock.advance()
    assert len(bell.rung) == 60
    clock.step(-HOUR)
    assert (clock.now(), clock.monotonic()) == (START, 0)
    clock.advance(hours=1)
    assert len(bell.rung) == 60


# ---------------------------------------------------------------- the clock under a manager


def test_thirty_days_fire_what_simulate_says_within_seconds(jobs: JobManager, clock: FakeClock) -> None:
    fired: list[tuple[datetime | None, str]] = []

    def note(context: RunContext) -> None:
        assert context.started_at == context.scheduled_for
        fired.append((context.scheduled_for, context.job.id))

    for number in range(5):
        jobs.add_job(f"hourly-{number}", note, cron=f"{number * 7} * * * *")
    for number in range(15):
        jobs.add_job(f"daily-{number:02}", note, cron=f"30 {number} * * *", timezone="America/New_York")
    jobs.start()

    before = (
        time.process_time()
    )  # one thread, no waiting: what other processes take from the machine does not count
    days = examples(30, sample=10)
    clock.advance(days=days)
    seconds = time.process_time() - before

    planned = [(item.scheduled_for, item.job_id) for item in jobs.simulate(START, clock.now())]
    assert sorted(fired) == planned
    assert len(fired) == 5 * days * 24 + 15 * days
    assert all(earlier[0] <= later[0] for earlier, later in itertools.pairwise(fired))
    assert {run.status.value for run in jobs.runs(limit=10_000)} == {"succeeded"}
    assert seconds < days / 2


def test_nothing_starts_a_thread(jobs: JobManager, clock: FakeClock) -> None:
    here: set[threading.Thread] = set()
    jobs.add_job("plain", lambda: here.add(threading.current_thread()), every=60)

    @jobs.job("coroutine", every=60)
    async def coroutine() -> None:
        await asyncio.sleep(0)
        here.add(threading.current_thread())

    before = set(threading.enumerate())
    jobs.start()
    clock.advance(minutes=3)

    assert here == {threading.current_thread()}
    assert set(threading.enumerate()) <= before


async def test_it_can_be_moved_inside_an_event_loop(jobs: JobManager, clock: FakeClock) -> None:
    done: list[datetime] = []

    @jobs.job("coroutine", every=60)
    async def coroutine(context: RunContext) -> None:
        await asyncio.sleep(0)
        done.append(context.started_at)

    async with jobs.lifespan():
        clock.advance(minutes=3)

    assert done == [START + MINUTE, START + 2 * MINUTE, START + 3 * MINUTE]


def test_two_managers_share_one_clock_and_each_tick_has_one_run(clock: FakeClock) -> None:
    calls: list[str] = []
    one = JobManager(Settings(backend="local", database_url="memory://"), clock=clock)
    other = JobManager(Settings(backend="local"), store=one.store, clock=clock)
    for name, manager in (("one", one), ("other", other)):
        manager.add_job("shared", lambda name=name: calls.append(name), every=60)
        manager.start()

    clock.advance(minutes=30)

    assert len(calls) == 30
    assert len(one.runs("shared", limit=100)) == 30
    other.stop(0)
    clock.advance(minutes=30)
    assert len(one.runs("shared", limit=100)) == 60
    one.stop(0)
    clock.advance(minutes=30)
    assert len(one.runs("shared", limit=100)) == 60


def test_retries_and_delayed_starts_come_at_their_moment(jobs: JobManager, clock: FakeClock) -> None:
    started: list[datetime] = []

    @jobs.job("flaky", retry=Retry(max_attempts=3, delays=[10, 600], jitter=0))
    def flaky(context: RunContext) -> None:
        started.append(context.started_at)
        raise OSError("not yet")

    jobs.start()
    run = jobs.trigger_job("flaky", delay=120)
    clock.advance(hours=1)

    assert [(moment - START).total_seconds() for moment in started] == [120, 130, 730]
    assert jobs.run(run.id).status.value == "failed"
    assert [attempt.attempt for attempt in jobs.store.history.attempts(run.id)] == [1, 2]


def test_waiting_for_a_run_lets_time_pass_until_it_has_ended_or_the_time_is_over(
    jobs: JobManager, clock: FakeClock
) -> None:
    jobs.add_job("later", lambda: "done")
    jobs.start()

    ended = jobs.wait(jobs.trigger_job("later", delay=20).id, timeout=30)

    assert (ended.output, ended.started_at) == ("done", START + timedelta(seconds=20))
    with pytest.raises(WaitTimeoutError):
        jobs.wait(jobs.trigger_job("later", delay=3600).id, timeout=30)
    assert clock.now() < START + MINUTE


def test_runs_of_one_instant_are_on_record_in_their_order(jobs: JobManager, clock: FakeClock) -> None:
    fired: list[str] = []
    for number in range(30):
        jobs.add_job(f"at-noon-{number}", lambda context: fired.append(context.job.id), cron="0 12 * * *")
    jobs.start()

    clock.advance(days=1)

    assert [run.job_id for run in reversed(jobs.runs())] == fired
    assert len(fired) == 30


def test_a_handler_that_sleeps_takes_that_long(jobs: JobManager, clock: FakeClock) -> None:
    jobs.add_job("slow", lambda: clock.sleep(5), every=60)
    jobs.start()

    clock.advance(minutes=1)

    [run] = jobs.runs("slow")
    assert run.duration == timedelta(seconds=5)


def test_the_sweep_follows_at_the_end_of_a_move(jobs: JobManager, clock: FakeClock) -> None:
    jobs.add_job("hourly", lambda: None, cron="0 * * * *")
    jobs.start()
    jobs.stop()

    clock.advance(hours=5, minutes=30)
    jobs.start()
    clock.advance(minutes=5)

    newest, *older = jobs.runs("hourly")
    assert (newest.trigger, newest.status.value, newest.scheduled_for) == (
        "catch_up",
        "succeeded",
        START + 5 * HOUR,
    )
    assert [(run.status.value, run.reason) for run in older] == [("missed", "downtime")] * 4


def test_a_clock_set_back_repeats_nothing_and_one_set_forward_is_accounted_for(
    jobs: JobManager, clock: FakeClock
) -> None:
    fired: list[datetime | None] = []
    jobs.add_job("minutely", lambda context: fired.append(context.scheduled_for), every=60)
    jobs.start()
    clock.advance(hours=2)

    clock.step(-3600)
    clock.advance(minutes=90)

    assert len(fired) == len(set(fired)) == 150
    clock.step(3600)
    clock.advance(minutes=3)
    ticks = [run.scheduled_for for run in jobs.runs("minutely", limit=1000)]
    assert len(ticks) == len(set(ticks)) == 213
    assert len(fired) == len(set(fired))


def test_a_handler_that_advances_the_clock_fails_with_advice(jobs: JobManager, clock: FakeClock) -> None:
    jobs.add_job("meddler", lambda: clock.advance(hours=1), every=3600)
    jobs.start()

    clock.advance(hours=1)

    [run] = jobs.runs("meddler")
    assert run.error is not None
    assert (run.error.type, "clock.sleep()" in run.error.message) == ("FakeClockError", True)
