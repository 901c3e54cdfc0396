"""The ledger against a model of fifty lines, by histories that Hypothesis invents and shortens.

Several managers share one store and one clock; the model only knows the rules: an instant is expected unless its job was
retired, it starts at most once per attempt, and every one up to the watermark has exactly one row.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from jobmanager import JobManager, Retry, RunConflictError, RunContext, Settings
from jobmanager.errors import JobDisabledError, TransitionError
from jobmanager.execution.opening import OpenRequest
from jobmanager.run import Tick
from jobmanager.stores.sql.memory import MemoryStore
from jobmanager.testing import FakeClock

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
GRACE = timedelta(seconds=200)
MICRO = 1_000_000
EVERY = {"skip": 300, "all": 420, "queue": 240, "none": 600}
INTERVALS = (120, 300, 420, 1800)
EXAMPLES = int(os.environ.get("JOBMANAGER_TEST_EXAMPLES", "40"))


class Model:
    """What must be: per job the stretches in which a rule of so many seconds held, and who was started. In whole seconds."""

    def __init__(self) -> None:
        self.rules: dict[str, list[tuple[int, int]]] = {}
        self.open = dict.fromkeys(EVERY, True)
        self.starts: Counter[tuple[str, int]] = Counter()
        self.ticks: dict[tuple[str, datetime], str] = {}
        self.watermarks: dict[str, int] = {}
        self.broken: list[str] = []

    def changed(self, job_id: str, seconds: int | None, since: datetime) -> None:
        """After `since` this rule holds; None: nothing is expected."""
        self.rules.setdefault(job_id, []).append((seconds or 0, int(since.timestamp())))

    def expected(self, job_id: str, after: int, until: int) -> set[int]:
        """The instants in (after, until]."""
        rules = self.rules[job_id]
        ends = [since for _, since in rules[1:]] + [until]
        found: set[int] = set()
        for (seconds, since), end in zip(rules, ends, strict=True):
            first, last = max(since, after), min(end, until)
            if seconds and last > first:
                found.update(range((first // seconds + 1) * seconds, last + 1, seconds))
        return found

    def started(self, context: RunContext, now: datetime) -> None:
        """What no handler may see; kept for later, since what a handler raises is only a failed run."""
        self.starts[context.run_id, context.attempt] += 1
        if self.starts[context.run_id, context.attempt] > 1:
            self.broken.append("an attempt started twice")
        if context.scheduled_for is not None:
            key = (context.job.id, context.scheduled_for)
            if self.ticks.setdefault(key, context.run_id) != context.run_id:
                self.broken.append("a tick started twice")
            if context.run.due_at > now:
                self.broken.append("it started early")


class Ledger(RuleBasedStateMachine):
    """Several processes on one memory store, on a clock moved by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock(START)
        self.store = MemoryStore(clock=self.clock, grace=GRACE)
        self.model = Model()
        self.every = dict(EVERY)
        self.failing: set[str] = set()
        self.managers: list[JobManager] = []
        self.start_process()
        for job_id, seconds in EVERY.items():
            self.model.changed(job_id, seconds, self.clock.now())

    def manager(self) -> JobManager:
        manager = JobManager(
            Settings(database_url="memory://", grace_seconds=GRACE.total_seconds()),
            store=self.store,
            clock=self.clock,
        )
        again = Retry(max_attempts=2, delays=[45])
        for job_id, policies in (
            ("skip", {"catch_up": "latest", "retry": again}),
            ("all", {"catch_up": "all", "catch_up_cap": 5}),
            ("queue", {"overlap": "queue", "retry": again}),
            ("none", {"catch_up": "none", "overlap": "allow"}),
        ):
            options: Any = policies
            manager.add_job(job_id, self.handler, every=self.every[job_id], **options)
        chores = manager._assembly.background
        chores._tasks = {
            name: task
            for name, task in chores._tasks.items()
            if name in ("claim poll", "change poll", "sweep")
        }
        return manager

    def handler(self, context: RunContext) -> str:
        self.model.started(context, self.clock.now())
        if context.job.id in self.failing:
            raise RuntimeError("told to fail")
        return f"{context.run_id} {context.attempt}"

    # ---------------------------------------------------------------- what happens

    @precondition(lambda self: len(self.managers) < 3)
    @rule()
    def start_process(self) -> None:
        manager = self.manager()
        manager.start()
        self.managers.append(manager)

    @precondition(lambda self: self.managers)
    @rule(which=st.integers(0, 2))
    def stop_process(self, which: int) -> None:
        self.managers.pop(which % len(self.managers)).stop(drain=0)

    @precondition(lambda self: self.managers)
    @rule(which=st.integers(0, 2))
    def process_vanishes(self, which: int) -> None:
        """As by kill -9: no good-bye, nothing ended; others will notice."""
        manager = self.managers.pop(which % len(self.managers))
        retire, self.store.processes.deregister = self.store.processes.deregister, lambda _id: None  # type: ignore[method-assign]
        manager.stop(drain=0)
        self.store.processes.deregister = retire  # type: ignore[method-assign]

    @precondition(lambda self: self.managers)
    @rule(job_id=st.sampled_from(sorted(EVERY)), attempts=st.integers(1, 2))
    def dies_with_a_run(self, job_id: str, attempts: int) -> None:
        """A process opens a run as its own and is gone before the handler's first instruction."""
        manager = self.managers.pop()
        retire = self.store.processes.deregister
        run = manager._assembly.factory.build(
            OpenRequest(manager.registry.job(job_id)), self.clock.now(), ours=True
        )
        self.store.runs.write([run], ())
        self.store.processes.deregister = lambda _id: None  # type: ignore[method-assign]
        manager.stop(drain=0)
        self.store.processes.deregister = retire  # type: ignore[method-assign]

    @rule(seconds=st.sampled_from([1, 30, 60, 61, 150, 300, 900]))
    def advance(self, seconds: int) -> None:
        self.clock.advance(seconds=seconds)
        self.nobody_waits_for_the_account()

    @rule(seconds=st.sampled_from([-3600, -60, -5, 5, 61, 3600, 7200]))
    def step(self, seconds: int) -> None:
        self.clock.step(seconds)
        self.clock.advance()
        self.nobody_waits_for_the_account()

    @rule(job_id=st.sampled_from(sorted(EVERY)), fails=st.booleans())
    def handlers_change(self, job_id: str, fails: bool) -> None:
        (self.failing.add if fails else self.failing.discard)(job_id)

    @precondition(lambda self: self.managers)
    @rule(job_id=st.sampled_from(sorted(EVERY)), delay=st.sampled_from([None, 100]))
    def trigger(self, job_id: str, delay: int | None) -> None:
        with suppress(RunConflictError, JobDisabledError):
            self.managers[0].trigger_job(job_id, delay=delay)

    @precondition(lambda self: self.managers)
    @rule(
        job_id=st.sampled_from(sorted(EVERY)),
        back=st.sampled_from([-2, -1, 0, 0, 0, 1, 1, 5, 20]),
        stale=st.integers(0, 1),
    )
    def ring(self, job_id: str, back: int, stale: int) -> None:
        """An alarm clock outside brings a tick early, late, twice, or by a rule that is no more."""
        row = self.store.jobs.get(job_id)
        assert row is not None
        seconds = self.stored_interval(job_id)
        instant = (int(self.clock.now().timestamp()) // seconds - back) * seconds
        tick = Tick(
            job_id=job_id,
            scheduled_for=datetime.fromtimestamp(instant, UTC),
            revision=row.schedule_rev - stale,
        )
        self.managers[0]._assembly.runner.deliver([tick])

    @precondition(lambda self: self.managers)
    @rule(job_id=st.sampled_from(sorted(EVERY)), paused=st.booleans())
    def pause_or_resume(self, job_id: str, paused: bool) -> None:
        with suppress(JobDisabledError):
            manager = self.managers[-1]
            (manager.stop_job if paused else manager.resume_job)(job_id)

    @precondition(lambda self: self.managers)
    @rule(job_id=st.sampled_from(sorted(EVERY)))
    def disable_or_enable(self, job_id: str) -> None:
        is_open = self.model.open[job_id]
        row = self.managers[0]._assembly.account.change(
            job_id, state="disabled" if is_open else "active", by="model"
        )
        self.model.open[job_id] = not is_open
        self.model.changed(job_id, None if is_open else self.stored_interval(job_id), row.accounted_until)

    @precondition(lambda self: len(self.managers) < 3)
    @rule(job_id=st.sampled_from(sorted(EVERY)), seconds=st.sampled_from(INTERVALS))
    def edit(self, job_id: str, seconds: int) -> None:
        """A process with another definition starts; the last to start wins."""
        before = {job: self.stored_interval(job) for job in EVERY}
        self.every[job_id] = seconds
        self.start_process()
        for job, interval in before.items():
            now = self.stored_interval(job)
            row = self.store.jobs.get(job)
            if now != interval and row is not None and self.model.open[job]:
                self.model.changed(job, now, row.accounted_until)

    @precondition(lambda self: self.managers)
    @rule(number=st.integers(0, 20))
    def redrive(self, number: int) -> None:
        ended = [run for run in self.store.history.runs(limit=200) if run.status.closed]
        if ended:
            with suppress(TransitionError, JobDisabledError):
                self.managers[0].redrive(ended[number % len(ended)].id)

    @rule(age=st.sampled_from([60, 3600]))
    def purge(self, age: int) -> None:
        self.store.maintenance.purge(self.clock.now() - timedelta(seconds=age))

    def stored_interval(self, job_id: str) -> int:
        row = self.store.jobs.get(job_id)
        assert row is not None
        return int(row.schedule.removeprefix("every ").removesuffix("s"))

    def nobody_waits_for_the_account(self) -> None:
        """I2: with somebody alive, a sweep leaves no expected instant behind that is older than the grace."""
        overdue = int((self.clock.now() - GRACE).timestamp())
        for row in self.store.jobs.rows() if self.managers else ():
            after = int(row.accounted_until.timestamp())
            assert not self.model.expected(row.id, after, overdue), (
                f"{row.id} is accounted for only until {after}"
            )

    # ---------------------------------------------------------------- what must hold

    @invariant()
    def the_books_balance(self) -> None:
        """I1-I4, I6-I8, I10, I12, I14, by plain SQL."""
        assert not self.model.broken
        with self.store.database.reading() as connection:
            driver: Any = connection.connection.driver_connection
            jobs = driver.execute("SELECT id, history_from, accounted_until FROM jobmanager_jobs").fetchall()
            rows = driver.execute(
                "SELECT job_id, scheduled_for, first_for, ticks, status, id, attempt, output, turn, concurrency_key, owner,"
                " trigger, opened_at FROM jobmanager_runs"
            ).fetchall()
            living = {
                row[0] for row in driver.execute("SELECT id FROM jobmanager_instances WHERE dead_at IS NULL")
            }
        covered: dict[str, Counter[int]] = {job_id: Counter() for job_id in EVERY}
        holders: Counter[str] = Counter()
        for (
            job_id,
            last,
            first,
            ticks,
            status,
            run_id,
            attempt,
            output,
            turn,
            key,
            owner,
            trigger,
            opened,
        ) in rows:
            if last is not None and first is None:
                covered[job_id][last // MICRO] += 1
            elif last is not None:
                inside = self.model.expected(job_id, first // MICRO - 1, last // MICRO)
                assert len(inside) == ticks, f"{job_id}: a stretch of {ticks} stands for {len(inside)}"
                covered[job_id].update(inside)
            if status == "succeeded":
                assert self.model.starts[run_id, attempt] == 1, "it succeeded and was never started"
                assert output == f'"{run_id} {attempt}"', "the output of another attempt"
            assert status != "running" or owner in living, "it runs without a living owner"
            holders[key] += turn == "holds"
            if trigger == "schedule" and last is not None:
                assert opened - last <= GRACE.total_seconds() * MICRO, "it was opened as on time, and is late"
        assert max(holders.values(), default=1) <= 1, "two runs hold one key"
        for job_id, history_from, accounted_until in jobs:
            after, until = history_from // MICRO, accounted_until // MICRO
            assert until >= self.model.watermarks.get(job_id, until), "the watermark fell"
            self.model.watermarks[job_id] = until
            mine, expected = covered[job_id], self.model.expected(job_id, after, until)
            assert not expected - mine.keys(), f"{job_id}: no row for {sorted(expected - mine.keys())[:3]}"
            assert max(mine.values(), default=1) == 1, f"{job_id}: an instant is covered twice"
            asked = {instant for instant in mine if after < instant <= until}
            assert asked <= expected, f"{job_id}: rows nobody asked for: {sorted(asked - expected)[:3]}"

    def teardown(self) -> None:
        for manager in self.managers:
            manager.stop(drain=0)


# A history that shows a removed mechanism need not be the shortest.
PHASES = [Phase.generate] if "JOBMANAGER_TEST_MUTATION" in os.environ else list(Phase)

Ledger.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=PHASES,
    derandomize="JOBMANAGER_TEST_EXAMPLES" not in os.environ,
)
TestLedger = pytest.mark.timeout(900)(Ledger.TestCase)  # as below


@pytest.mark.faults
@pytest.mark.timeout(1200)  # a minute of pure computing, when nobody else wants the cores
def test_three_hundred_histories_leave_the_books_balanced() -> None:
    """The same, at length: other histories at every call."""
    run_state_machine_as_test(
        Ledger, settings=settings(Ledger.TestCase.settings, max_examples=300, derandomize=False)
    )
