"""Thirty simulated days of an application that is well: no surface ever says otherwise.

Once as a whole, on a clock moved by hand, with jobs of every kind, restarts and long pauses between; and once as a model that is looked at
every few seconds, with the delays of a loaded machine, which a clock moved by hand does not have.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from jobmanager import JobManager, Settings
from jobmanager.doctor import examine
from jobmanager.explain import explain_now
from jobmanager.observe.prometheus import text_of
from jobmanager.process.health import (
    LedgerFacts,
    Limits,
    OverdueJob,
    ProcessJudgement,
    Vitals,
    judge_ledger,
)
from jobmanager.stores.values import Instance
from jobmanager.testing import FakeClock

START = datetime(2026, 3, 5, tzinfo=UTC)  # clocks change on 8 March in New York, on 29 March in Berlin
DAYS = 30


class World:
    """An application that lives, is restarted, and is looked at from inside and from outside."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.clock = FakeClock(START)
        self.settings = Settings(backend="local", database_url="memory://")
        self.store = JobManager(self.settings, clock=self.clock).store
        self.looks = 0
        self.jobs = self.declared().start()

    def manager(self) -> JobManager:
        return JobManager(self.settings, store=self.store, clock=self.clock)

    def declared(self) -> JobManager:
        jobs, clock = self.manager(), self.clock

        def quick() -> None:
            return None

        def long() -> None:
            # On this clock handlers run inline and hold up what no thread would: not longer than ticks may be late.
            clock.sleep(20)

        def failing() -> None:
            raise OSError("no disk")

        jobs.add_job("seconds", quick, every=1, overlap="allow", keep_runs=50)
        jobs.add_job("minutes", quick, every=1200, jitter=20)
        jobs.add_job("berlin", quick, cron="30 2 * * *", timezone="Europe/Berlin", catch_up="none")
        jobs.add_job("new-york", quick, cron="15 * * * *", timezone="America/New_York", catch_up="all")
        jobs.add_job("jittered", quick, cron="0 */2 * * *", jitter=900)
        jobs.add_job("long", long, cron="20 * * * *", overlap="skip")
        jobs.add_job("line", long, cron="0 */8 * * *", overlap="queue_all")
        jobs.add_job("failing", failing, every=3600, pause_after_failures=100)
        jobs.add_job("paused", quick, every=600)
        jobs.add_job("gated", quick, every=60, enabled_when=lambda: False)
        jobs.add_job("yearly", quick, cron="0 0 1 1 *")
        jobs.add_job("never", quick, cron="0 0 29 2 *")
        jobs.add_job("past", quick, at=START - timedelta(days=1))
        jobs.add_job("coming", quick, at=START + timedelta(days=11, hours=3))
        jobs.add_job("by-hand", quick)
        return jobs

    def restart(self, *, down: timedelta) -> None:
        self.jobs.stop()
        self.clock.advance(down)
        self.jobs = self.declared().start()

    def look(self) -> None:
        """Nothing is red: not in the process, not from another one, not in the gauges."""
        self.looks += 1
        before = None  # what was left behind inline handlers follows
        while before != self.clock.now():
            before = self.clock.now()
            self.clock.advance()
        for jobs in (self.jobs, self.manager()):
            report = jobs.health(thorough=True)
            assert report.symptoms == (), (self.clock.now(), report)
        assert self.jobs.health().ready

    def look_closely(self) -> None:
        self.look()
        tool = self.manager()
        faults = [f.text for f in examine(self.jobs) if f.level == "failing"]
        assert faults == [], self.clock.now()
        text = text_of(tool)
        assert "jobmanager_healthy 1.0" in text
        assert "jobmanager_next_due_overdue_seconds 0.0" in text
        assert not [
            line
            for line in text.splitlines()
            if line.startswith("jobmanager_symptom{") and line.endswith(" 1.0")
        ]
        for job_id in ("minutes", "berlin", "jittered", "yearly"):
            assert "overdue" not in {one.cause for one in explain_now(tool, job_id)}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("days", [6, pytest.param(DAYS, marks=pytest.mark.faults)])
def test_thirty_days_of_a_whole_application(days: int) -> None:
    world = World(seed=1)
    world.jobs.stop_job("seconds")
    world.jobs.stop_job("paused")
    end = START + timedelta(days=days)
    closely = START
    try:
        while world.clock.now() < end:
            event = world.random.random()
            if event < 0.02:
                world.restart(down=timedelta(seconds=world.random.choice([0, 2, 50, 100, 4000, 40_000])))
            elif event < 0.05:  # every second, for a while
                world.jobs.resume_job("seconds")
                for _ in range(4):
                    world.clock.advance(seconds=world.random.uniform(1, 10))
                    world.look()
                world.jobs.stop_job("seconds")
            elif event < 0.1:
                world.jobs.trigger_job("by-hand", delay=world.random.choice([0, 30, 3000]))
            elif event < 0.13:
                world.jobs.stop_job("minutes")
                world.clock.advance(seconds=world.random.uniform(1, 2000))
                world.look()
                world.jobs.resume_job("minutes")
            step = world.random.choice([5, 31, 95, 3600, 7200, 14_400, 28_800])
            world.clock.advance(seconds=step * world.random.uniform(0.5, 1.0))
            if world.clock.now() - closely > timedelta(hours=36):
                closely = world.clock.now()
                world.look_closely()
            else:
                world.look()
    finally:
        world.jobs.stop()
    assert world.looks > 8 * days


# ---------------------------------------------------------------- a model under load

LIMITS = Limits(grace=timedelta(seconds=60), sweep=timedelta(seconds=30), lease=timedelta(seconds=30))


class Loaded:
    """A process that is well, on a machine that is not: everything happens, and everything is late by some seconds.

    Ticks come up to 50 s late, sweeps take up to 20 s and heartbeats up to 15 s, queues stand for minutes behind busy workers, and the whole
    machine is suspended now and then.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.monotonic = 0.0
        self.asleep = 0.0
        self.lives_since = -9e5
        self.beat_at = 0.0
        self.begun = 0
        self.turned = self.beat = 0.0
        self.next_turn = self.next_beat = self.next_sweep = 0.0
        self.settled = 0.0
        self.tick_due = 60.0
        self.tick_comes = 60.0
        self.last_tick: tuple[float, float] | None = None
        self.long_until = 0.0

    @property
    def now(self) -> float:
        return self.monotonic + self.asleep

    def pass_to(self, monotonic: float) -> None:
        """Do what is due until then, each thing late by its own delay."""
        late = self.random
        self.monotonic = monotonic
        if late.random() < 1e-4:
            self.asleep += late.uniform(10, 40_000)
        if self.now >= self.tick_comes:
            self.last_tick = self.tick_due, self.now - self.tick_due
            while self.tick_due <= self.now:
                self.tick_due += 60.0
            # After a pause the timetable wakes within a minute of its own clock.
            self.tick_comes = self.tick_due + late.expovariate(1 / 2) % 50
            self.begun += 1
            if late.random() < 0.001:
                self.long_until = monotonic + late.uniform(100, 5000)
        if monotonic >= self.next_turn:
            self.turned, self.next_turn = monotonic, monotonic + 5 + late.expovariate(1 / 3) % 60
        if monotonic >= self.next_beat:
            if self.now - self.beat_at > LIMITS.lease.total_seconds() / 2:
                self.lives_since = self.now  # as `Heartbeat` notices it
            self.beat_at = self.now
            self.beat, self.next_beat = monotonic, monotonic + 7.5 + late.expovariate(1 / 2) % 15
        if monotonic >= self.next_sweep:
            self.settled = self.now - 60
            self.next_sweep = monotonic + 30 * late.uniform(0.9, 1.1) - late.random() % 3

    def vitals(self) -> Vitals:
        busy = self.monotonic < self.long_until
        return Vitals(
            now=moment(self.now),
            workers=10,
            waiting=self.random.randrange(50) if busy else self.random.randrange(2) * (self.begun % 3),
            busy_workers=10 if busy else 1,
            handlers_begun=self.begun,
            timetable_next=moment(self.tick_due),
            background_turned_at=self.turned,
            last_beat_at=self.beat,
            loop_lag=self.random.expovariate(2),
        )

    def ledger(self) -> LedgerFacts:
        at, lag = self.last_tick or (0.0, 0.0)
        due = self.settled - self.settled % 60 + 60
        by = timedelta(seconds=self.now - due) - LIMITS.patience
        process = Instance(
            id="one", namespace="default", host="here", pid=1, executes=True, started_at=moment(self.lives_since),
            seen_at=moment(self.beat_at),
            last_tick_at=moment(at), lag_seconds=lag,
        )  # fmt: skip
        late = [OverdueJob(job_id="work", due_at=moment(due), by=by)] if by > LIMITS.sweep / 3 else []
        return LedgerFacts(now=moment(self.now), processes=[process], overdue=late)


def moment(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def looks(days: int, seed: int) -> Iterator[float]:
    """Instants of the monotonic clock, about five seconds apart, as the watchdog's thread would look."""
    late, monotonic = random.Random(seed), 0.0
    while monotonic < days * 86_400:
        monotonic += 5 + late.expovariate(1 / 2) % 30
        yield monotonic


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_thirty_days_of_a_loaded_process_looked_at_every_few_seconds() -> None:
    model, judgement = Loaded(seed=7), ProcessJudgement(LIMITS)
    looked = 0
    for monotonic in looks(DAYS, seed=8):
        model.pass_to(monotonic)
        found = judgement.judge(model.vitals(), monotonic)
        assert not found, (monotonic, found)
        assert judge_ledger(model.ledger(), LIMITS) == [], monotonic
        looked += 1
    assert looked > 300_000


@pytest.mark.timeout(300)
def test_the_same_model_that_stops_is_red_within_grace_and_sweep_and_some_looks() -> None:
    model, judgement = Loaded(seed=9), ProcessJudgement(LIMITS)
    for monotonic in looks(1, seed=10):
        model.pass_to(monotonic)
        judgement.judge(model.vitals(), monotonic)
    stopped = model.monotonic
    due = model.vitals().timetable_next
    assert due is not None
    for late in range(0, 300, 5):
        model.monotonic = stopped + late
        found = judgement.judge(model.vitals(), model.monotonic)
        if found:
            assert moment(model.now) - due < LIMITS.patience + timedelta(seconds=70)
            return
    pytest.fail("it was never found")
