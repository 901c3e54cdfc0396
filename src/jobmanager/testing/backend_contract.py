"""BackendContract: every promise of `jobmanager.backends.base` as a test that a backend has to pass.

    class TestMyBackend(BackendContract):
        def make_backend(self, clock):
            return MyBackend(clock=clock)

By default time is moved by hand, from instant to instant. A backend that rings by itself when the clock gets there needs no
more. Where something outside must happen first, say it in `make_due`; where time cannot be moved, return a SystemClock from
`make_clock`: then the tests that would take longer than seconds are skipped.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobmanager.backends.base import Backend, Capabilities, Entry, Health
from jobmanager.backends.timetable import ScheduledJob
from jobmanager.clock import Clock
from jobmanager.errors import ConfigurationError, UnsupportedError
from jobmanager.job import SLUG, First, Job, Overlap
from jobmanager.manager.manager import JobManager
from jobmanager.run import PENDING, SKIPPED, SUCCEEDED, Run, Tick
from jobmanager.schedule import Cron, Every, Schedule
from jobmanager.settings import Settings
from jobmanager.testing.clock import FakeClock


class Rings:
    """What a backend delivered: `calls`, each with its ticks, and `arrived`, when they came."""

    def __init__(self, clock: Clock) -> None:
        self.calls: list[list[Tick]] = []
        self.arrived: list[datetime] = []
        self._clock = clock
        self._rung = threading.Condition()

    def __call__(self, ticks: Sequence[Tick]) -> None:
        with self._rung:
            self.calls.append(list(ticks))
            self.arrived.append(self._clock.now())
            self._rung.notify_all()

    @property
    def ticks(self) -> list[Tick]:
        """All that was delivered, in order."""
        return [tick for call in self.calls for tick in call]

    def wait_for(self, count: int, seconds: float) -> None:
        """Wait until so many ticks have come, at most so long."""
        with self._rung:
            self._rung.wait_for(lambda: len(self.ticks) >= count, seconds)


class BackendContract:
    """Subclass it, name the subclass `Test...` and say in `make_backend` how a backend is made."""

    clock: Clock
    patience: float = 10.0
    """Seconds until something that should have happened counts as not happening."""

    # ---------------------------------------------------------------- what a subclass says

    def make_backend(self, clock: Clock) -> Backend:
        """Return a backend that keeps time by this clock, not yet started. Two of them see the same outside system."""
        raise NotImplementedError("Say in make_backend() how a backend is made.")

    def make_clock(self) -> Clock:
        """Return the clock of a test: a FakeClock, or a SystemClock for a backend whose outside system has its own time."""
        return FakeClock()

    def make_due(self, backend: Backend, scheduled: ScheduledJob, instant: datetime) -> None:
        """Do what must happen outside so that the backend delivers this job's tick at this instant; called before it."""

    # ---------------------------------------------------------------- the ground of each test

    @pytest.fixture(autouse=True)
    def _fresh_clock(self) -> Iterator[None]:
        self.open()
        yield
        self.close()

    def open(self) -> None:
        """Prepare each test."""
        self.clock = self.make_clock()
        self._stops: list[Callable[[], object]] = []

    def close(self) -> None:
        """Stop what the test has left running; called after each test."""
        for stop in reversed(self._stops):
            stop()

    def backend(self) -> Backend:
        """Return a fresh backend that is stopped after the test."""
        backend = self.make_backend(self.clock)
        self._stops.append(lambda: backend.stop(timedelta(seconds=2)))
        return backend

    def started(self, *scheduled: ScheduledJob) -> tuple[Backend, Rings]:
        """Start a backend that keeps time for these jobs; return it with the list of delivered ticks."""
        backend, rings = self.backend(), Rings(self.clock)
        backend.sync(scheduled)
        backend.start(rings)
        return backend, rings

    @property
    def interval(self) -> timedelta:
        """A minute, or on a real clock the least the backend can."""
        smallest = self.capabilities.smallest_interval
        return max(smallest, timedelta(minutes=1)) if isinstance(self.clock, FakeClock) else smallest

    @property
    def capabilities(self) -> Capabilities:
        """What the backend says it can do."""
        return self.make_backend(self.clock).capabilities

    def moved_by_hand(self) -> FakeClock:
        """Return the clock if a test may move it by days; otherwise skip the test."""
        if not isinstance(self.clock, FakeClock):
            pytest.skip("needs a clock that can be moved")
        return self.clock

    def scheduled(
        self, job_id: str = "job", schedule: Schedule | None = None, *, revision: int = 1
    ) -> ScheduledJob:
        """Schedule a job from its next instant on."""
        schedule = schedule or Every(self.interval)
        job = Job(id=job_id, name=job_id, handler=job_id, schedule=schedule)
        return ScheduledJob(job, revision, schedule.next_after(self.clock.now()))

    def instants(self, scheduled: ScheduledJob, count: int) -> list[datetime]:
        """Return the first instants that are due."""
        assert scheduled.next_due_at is not None
        return [scheduled.next_due_at, *scheduled.schedule.upcoming(scheduled.next_due_at, count - 1)]

    def pass_until(self, moment: datetime) -> None:
        """Let time pass, if that moment is still to come."""
        if isinstance(self.clock, FakeClock):
            self.clock.advance_to(max(moment, self.clock.now()))
        else:
            self.clock.sleep(max(0.0, (moment - self.clock.now()).total_seconds()))

    def ring(self, backend: Backend, *expected: tuple[ScheduledJob, datetime]) -> None:
        """Let these jobs become due, in the order of their instants."""
        for instant in sorted({instant for _, instant in expected}):
            for scheduled, due in expected:
                if due == instant:
                    self.make_due(backend, scheduled, instant)
            self.pass_until(instant)

    def wait_for(self, rings: Rings, count: int) -> None:
        """Wait until so many ticks have come; not for a backend that keeps no time."""
        rings.wait_for(count, self.patience if self.capabilities.keeps_time else 0)

    def expect(self, rings: Rings, *expected: tuple[ScheduledJob, datetime]) -> None:
        """Hold that exactly these ticks were delivered; none at all by a backend that keeps no time."""
        if not self.capabilities.keeps_time:
            expected = ()
        self.wait_for(rings, len(expected))
        found = Counter((tick.job_id, tick.scheduled_for) for tick in rings.ticks)
        wanted = Counter((scheduled.job.id, instant) for scheduled, instant in expected)
        assert found == wanted, (
            f"not delivered: {sorted((wanted - found).elements())}; "
            f"delivered beyond that: {sorted((found - wanted).elements())}"
        )

    def rings_as_expected(
        self, backend: Backend, rings: Rings, *expected: tuple[ScheduledJob, datetime]
    ) -> None:
        """Let these jobs become due, and hold that exactly these ticks were delivered, ever."""
        self.ring(backend, *expected)
        self.expect(rings, *expected)

    # ---------------------------------------------------------------- before it starts

    def test_it_has_a_short_name_and_says_what_it_can_do(self) -> None:
        backend = self.backend()

        assert SLUG.fullmatch(backend.name), f"{backend.name!r} is no short name"
        assert isinstance(backend.capabilities, Capabilities)
        assert backend.capabilities.smallest_interval >= timedelta(seconds=1)

    def test_making_one_starts_nothing(self) -> None:
        before = set(threading.enumerate())

        self.backend()

        assert set(threading.enumerate()) <= before

    def test_settings_make_one_or_a_sentence_says_what_is_missing(self) -> None:
        settings = Settings(database_url="memory://")
        try:
            made = type(self.backend()).from_settings(settings, clock=self.clock)
        except ConfigurationError as error:
            assert len(str(error)) > 20, f"{error} does not say what to do"
        else:
            assert isinstance(made, Backend)

    def test_it_can_be_asked_and_stopped_before_it_starts(self) -> None:
        backend = self.backend()

        assert backend.entries() == []
        assert isinstance(backend.health(), Health)
        assert backend.health().detail
        backend.stop(timedelta(seconds=1))
        backend.stop(timedelta(seconds=1))

    def test_what_it_finds_fault_with_comes_with_a_fix(self) -> None:
        for found in self.backend().findings([self.scheduled().job]):
            assert found.text
            assert found.fix or found.level in ("ok", "note"), f"{found.text!r} does not say what to do"

    # ---------------------------------------------------------------- what it cannot do

    def test_what_it_can_do_is_accepted(self) -> None:
        smallest = self.capabilities.smallest_interval

        for schedule in (Every(smallest), Every(timedelta(days=1)), Cron("0 2 * * *"), None):
            type(self.backend()).check(Job(id="job", name="Job", handler="job", schedule=schedule))

    def test_what_it_cannot_do_is_refused_with_a_sentence(self) -> None:
        backend = self.backend()
        beyond: list[dict[str, Any]] = []
        if backend.capabilities.smallest_interval > timedelta(seconds=1):
            beyond.append({"every": backend.capabilities.smallest_interval - timedelta(seconds=1)})
        if not backend.capabilities.per_job_timezone:
            beyond.append({"cron": "0 2 * * *", "timezone": "Europe/Berlin"})
        manager = JobManager(Settings(database_url="memory://"), backend=backend, clock=self.clock)

        for schedule in beyond:
            with pytest.raises(UnsupportedError) as refused:
                manager.add_job("too-much", lambda: None, **schedule)
            assert "too-much" in str(refused.value)
            assert backend.name in str(refused.value)

    # ---------------------------------------------------------------- sync

    def test_entries_show_every_job_once_and_when_it_is_due(self) -> None:
        scheduled = [
            self.scheduled("often"),
            self.scheduled("daily", Cron("0 2 * * *")),
            self.scheduled("sundays", Cron("0 12 * * 0")),
        ]
        backend, _ = self.started(*scheduled)

        self.shows(backend, *scheduled)

    def shows(self, backend: Backend, *scheduled: ScheduledJob) -> None:
        """Hold that these jobs are planned outside, as declared, and nothing else is."""
        entries: list[Entry] = backend.entries()
        due = {item.job.id: item.next_due_at for item in scheduled}
        assert sorted(str(entry.job_id) for entry in entries) == sorted(due)
        for entry in entries:
            assert entry.drift == "", f"{entry} differs from its declaration right after sync"
            assert entry.next_due_at in (None, due[str(entry.job_id)])

    def test_a_second_sync_changes_nothing(self) -> None:
        scheduled = self.scheduled()
        first, second = self.instants(scheduled, 2)
        backend, rings = self.started(scheduled)
        backend.sync([scheduled])
        before = backend.entries()
        backend.sync([scheduled])

        assert backend.entries() == before
        self.ring(backend, (scheduled, first))
        self.wait_for(rings, 1)
        backend.sync([scheduled])
        self.ring(backend, (scheduled, second))
        self.expect(rings, (scheduled, first), (scheduled, second))

    def test_a_job_that_is_gone_rings_no_more(self) -> None:
        kept, gone = self.scheduled("kept"), self.scheduled("gone")
        first, second = self.instants(kept, 2)
        backend, rings = self.started(kept, gone)
        self.ring(backend, (kept, first), (gone, first))
        self.wait_for(rings, 2)

        backend.sync([kept])

        assert [entry.job_id for entry in backend.entries()] == ["kept"]
        self.make_due(backend, gone, second)
        self.ring(backend, (kept, second))
        self.expect(rings, (kept, first), (gone, first), (kept, second))

    def test_nothing_is_left_when_all_jobs_are_gone(self) -> None:
        scheduled = self.scheduled()
        [first] = self.instants(scheduled, 1)
        backend, rings = self.started(scheduled)

        backend.sync([])

        assert backend.entries() == []
        self.ring(backend, (scheduled, first))
        self.expect(rings)

    def test_a_job_that_comes_while_it_runs_rings(self) -> None:
        early, late = self.scheduled("early"), self.scheduled("late")
        [first] = self.instants(early, 1)
        backend, rings = self.started(early)

        backend.sync([early, late])

        self.shows(backend, early, late)
        self.rings_as_expected(backend, rings, (early, first), (late, first))

    def test_an_edited_job_rings_by_its_new_schedule_and_revision(self) -> None:
        before = self.scheduled(schedule=Every(self.interval))
        after = self.scheduled(schedule=Every(2 * self.interval), revision=2)
        [instant] = self.instants(after, 1)
        backend, rings = self.started(before)

        backend.sync([after])

        self.shows(backend, after)
        self.rings_as_expected(backend, rings, (after, instant))
        assert {tick.revision for tick in rings.ticks} <= {2}

    def test_a_job_does_not_ring_before_it_is_to_begin(self) -> None:
        whole = self.scheduled()
        _, second = self.instants(whole, 2)
        later = ScheduledJob(whole.job, 1, second)
        backend, rings = self.started(later)

        self.rings_as_expected(backend, rings, (later, second))

    # ---------------------------------------------------------------- ticks

    def test_every_instant_rings_once(self) -> None:
        scheduled = self.scheduled()
        backend, rings = self.started(scheduled)
        count = 10 if isinstance(self.clock, FakeClock) else 2

        self.rings_as_expected(
            backend, rings, *((scheduled, instant) for instant in self.instants(scheduled, count))
        )

    def test_a_tick_carries_its_instant_in_utc_and_its_revision(self) -> None:
        scheduled = self.scheduled(revision=7)
        [instant] = self.instants(scheduled, 1)
        backend, rings = self.started(scheduled)

        self.rings_as_expected(backend, rings, (scheduled, instant))

        for tick in rings.ticks:
            assert tick.scheduled_for.utcoffset() == timedelta(0), f"{tick.scheduled_for!r} is not in UTC"
            assert (tick.scheduled_for.microsecond, tick.revision) == (0, 7)

    def test_no_tick_is_early(self) -> None:
        scheduled = self.scheduled()
        [instant] = self.instants(scheduled, 1)
        backend, rings = self.started(scheduled)
        self.make_due(backend, scheduled, instant)
        clock = self.clock
        if isinstance(clock, FakeClock):
            for before in (self.interval / 2, timedelta(seconds=1), timedelta(microseconds=1)):
                clock.advance_to(instant - before)
                assert rings.ticks == [], f"{before.total_seconds():g} s before its time"

        self.pass_until(instant)

        self.expect(rings, (scheduled, instant))
        assert all(
            tick.scheduled_for <= arrived
            for call, arrived in zip(rings.calls, rings.arrived, strict=True)
            for tick in call
        )

    def test_a_late_tick_carries_the_instant_it_was_due_for(self) -> None:
        clock = self.moved_by_hand()
        scheduled = self.scheduled()
        [instant] = self.instants(scheduled, 1)
        backend, rings = self.started(scheduled)
        self.make_due(backend, scheduled, instant)

        clock.step(instant - clock.now() + timedelta(seconds=17))
        clock.advance()

        self.expect(rings, (scheduled, instant))

    def test_all_that_is_due_together_is_delivered_together(self) -> None:
        scheduled = [self.scheduled(f"job-{number}") for number in range(20)]
        [instant] = self.instants(scheduled[0], 1)
        backend, rings = self.started(*scheduled)

        self.rings_as_expected(backend, rings, *((item, instant) for item in scheduled))

        assert len(rings.calls) <= 1, f"20 ticks of one instant came in {len(rings.calls)} calls"

    def test_weekdays_are_those_of_the_calendar(self) -> None:
        clock = self.moved_by_hand()
        days = {"0": 6, "7": 6, "sun": 6, "1": 0, "mon": 0, "5": 4, "6": 5, "sat": 5}  # cron's word: Python's
        scheduled = {word: self.scheduled(f"on-{word}", Cron(f"0 12 * * {word}")) for word in days}
        backend, rings = self.started(*scheduled.values())
        noons = [
            clock.now().replace(hour=12, minute=0, second=0, microsecond=0) + timedelta(days=day)
            for day in range(1, 8)
        ]

        due = [
            (scheduled[word], noon)
            for noon in noons
            for word, weekday in days.items()
            if noon.weekday() == weekday
        ]
        first = [(item, at) for item in scheduled.values() for at in self.instants(item, 1) if at < noons[0]]
        self.rings_as_expected(backend, rings, *first, *due)

    def test_a_job_keeps_the_time_of_its_zone(self) -> None:
        clock = self.moved_by_hand()
        if not self.capabilities.per_job_timezone:
            pytest.skip("this backend has no zones, and refuses them")
        clock.advance_to(datetime(2026, 3, 27, 12, tzinfo=UTC))
        scheduled = self.scheduled(schedule=Cron("30 2 * * *", timezone="Europe/Berlin"))
        backend, rings = self.started(scheduled)

        self.rings_as_expected(
            backend,
            rings,
            (scheduled, datetime(2026, 3, 28, 1, 30, tzinfo=UTC)),
            (scheduled, datetime(2026, 3, 29, 1, 0, tzinfo=UTC)),  # 02:30 was skipped; it rings after the gap
            (scheduled, datetime(2026, 3, 30, 0, 30, tzinfo=UTC)),
        )

    def test_a_backend_that_keeps_no_time_says_so_and_is_well(self) -> None:
        backend, _ = self.started(self.scheduled())

        health = backend.health()

        assert health.ok, health.detail
        assert self.capabilities.keeps_time or "nothing" in health.detail

    # ---------------------------------------------------------------- who takes the ticks

    def test_a_deliver_that_raises_does_not_end_it(self) -> None:
        scheduled = self.scheduled()
        first, second = self.instants(scheduled, 2)
        backend, rings = self.backend(), Rings(self.clock)

        def deliver(ticks: Sequence[Tick]) -> None:
            rings(ticks)
            if len(rings.calls) == 1:
                raise LookupError("whoever takes the ticks has a bug")

        backend.sync([scheduled])
        backend.start(deliver)
        with suppress(LookupError):
            self.ring(backend, (scheduled, first))
        self.wait_for(rings, 1)
        with suppress(LookupError):
            self.ring(backend, (scheduled, second))
        self.wait_for(rings, 2)

        instants = {tick.scheduled_for for tick in rings.ticks}
        assert instants == ({first, second} if self.capabilities.keeps_time else set())

    def test_a_deliver_that_takes_long_delays_but_loses_nothing(self) -> None:
        scheduled = self.scheduled()
        instants = self.instants(scheduled, 3 if isinstance(self.clock, FakeClock) else 2)
        backend, rings = self.backend(), Rings(self.clock)

        def deliver(ticks: Sequence[Tick]) -> None:
            rings(ticks)
            if len(rings.calls) == 1:
                self.clock.sleep(self.interval.total_seconds() * 0.7)

        backend.sync([scheduled])
        backend.start(deliver)

        self.rings_as_expected(backend, rings, *((scheduled, instant) for instant in instants))

    # ---------------------------------------------------------------- starting and stopping

    def test_start_does_not_block(self) -> None:
        backend = self.backend()
        backend.sync([self.scheduled()])
        starting = threading.Thread(target=backend.start, args=(Rings(self.clock),), daemon=True)

        starting.start()
        starting.join(1)

        assert not starting.is_alive(), "start() has not returned after a second"

    def test_starting_twice_rings_once(self) -> None:
        scheduled = self.scheduled()
        [instant] = self.instants(scheduled, 1)
        backend, rings = self.started(scheduled)

        backend.start(rings)

        self.rings_as_expected(backend, rings, (scheduled, instant))

    def test_nothing_is_delivered_after_stop(self) -> None:
        scheduled = self.scheduled()
        first, second = self.instants(scheduled, 2)
        backend, rings = self.started(scheduled)
        self.ring(backend, (scheduled, first))
        self.expect(rings, (scheduled, first))

        before = time.monotonic()
        backend.stop(timedelta(seconds=2))
        backend.stop(timedelta(seconds=2))

        assert time.monotonic() - before < 5
        self.ring(backend, (scheduled, second))
        self.pass_until(self.clock.now() + timedelta(seconds=0.2))
        self.expect(rings, (scheduled, first))

    def test_it_can_be_started_again(self) -> None:
        scheduled = self.scheduled()
        first, second = self.instants(scheduled, 2)
        backend, rings = self.started(scheduled)
        self.ring(backend, (scheduled, first))
        self.expect(rings, (scheduled, first))
        backend.stop(timedelta(seconds=2))

        again = Rings(self.clock)
        backend.sync([ScheduledJob(scheduled.job, 1, second)])
        backend.start(again)

        self.rings_as_expected(backend, again, (scheduled, second))
        self.expect(rings, (scheduled, first))

    # ---------------------------------------------------------------- under a manager

    def test_one_due_instant_gives_one_run(self) -> None:
        calls: list[datetime | None] = []
        manager = self.manager(calls)

        instants = self.passes(manager)

        self.has_one_run_each(manager, instants, calls)

    def test_two_processes_give_one_run_too(self) -> None:
        if not self.capabilities.several_processes:
            pytest.skip("this backend lives in one process")
        calls: list[datetime | None] = []
        manager = self.manager(calls)
        self.manager(calls, beside=manager)

        instants = self.passes(manager)

        self.has_one_run_each(manager, instants, calls)

    def test_an_excluded_instant_is_recorded_and_does_not_run(self) -> None:
        every_other = "*/2 * * * *" if self.interval >= timedelta(minutes=1) else "*/2 * * * * *"
        calls: list[datetime | None] = []
        manager = self.manager(calls, exclude=every_other)

        instants = self.passes(manager)

        schedule = manager.registry.jobs["job"].schedule
        assert schedule is not None
        excluded = {instant for instant in instants if schedule.excluded(instant) is not None}
        self.has_one_run_each(manager, instants, calls, excluded=excluded)

    def test_a_new_job_starts_once_if_it_says_so(self) -> None:
        manager = self.manager([], first="now")
        if self.capabilities.several_processes:
            self.manager([], beside=manager, first="now")

        started = [run for run in manager.runs("job") if run.scheduled_for is None]
        assert len(started) == int(self.capabilities.keeps_time)

    def manager(
        self,
        calls: list[datetime | None],
        *,
        beside: JobManager | None = None,
        exclude: str | None = None,
        first: First = "next",
    ) -> JobManager:
        """Start a manager on a backend of its own and the store of `beside`, with a job that notes its instants."""
        manager = JobManager(
            Settings(database_url="memory://", capture_logs=False),
            backend=self.backend(),
            store=None if beside is None else beside.store,
            clock=self.clock,
        )
        # What nobody executes here stays pending, and must not be in the way of the next.
        overlap: Overlap = "skip" if self.capabilities.executes_in_process else "allow"
        manager.add_job(
            "job",
            lambda context: calls.append(context.scheduled_for),
            every=self.interval,
            overlap=overlap,
            exclude=exclude,
            first=first,
        )
        self._stops.append(lambda: manager.stop(1))
        return manager.start()

    def passes(self, manager: JobManager) -> list[datetime]:
        """Let the manager's job become due a few times; answers its instants."""
        row = manager.store.jobs.get("job")
        assert row is not None
        scheduled = ScheduledJob(manager.registry.jobs["job"], row.schedule_rev, row.next_due_at)
        instants = self.instants(scheduled, 5 if isinstance(self.clock, FakeClock) else 2)
        self.ring(manager.backend, *((scheduled, instant) for instant in instants))
        return instants

    def has_one_run_each(
        self,
        manager: JobManager,
        instants: Sequence[datetime],
        calls: list[datetime | None],
        *,
        excluded: Collection[datetime] = (),
    ) -> None:
        """Hold that the record has one run for each of these ticks, and that it was executed once, unless it is `excluded`."""
        if not self.capabilities.keeps_time:
            assert manager.runs("job") == []
            return
        status = SUCCEEDED if self.capabilities.executes_in_process else PENDING

        def as_expected(run: Run) -> bool:
            if run.scheduled_for in excluded:
                return (run.status, run.reason) == (SKIPPED, "excluded")
            is_beyond = bool(excluded) and run.scheduled_for not in instants
            return is_beyond or run.status is status

        def recorded() -> bool:
            runs = manager.runs("job", limit=1000)
            return len(runs) >= len(instants) and all(as_expected(run) for run in runs)

        deadline = time.monotonic() + self.patience
        while not recorded() and time.monotonic() < deadline:
            time.sleep(0.01)
        manager.stop(1)
        runs = manager.runs("job", limit=1000)
        found = sorted(run.scheduled_for for run in runs if run.scheduled_for is not None)
        # On a real clock the next instant may come while we look.
        assert found[: len(instants)] == list(instants)
        assert len(found) == len(runs) == len(set(found)) <= len(instants) + 1
        assert all(as_expected(run) for run in runs), [
            (run.scheduled_for, run.status, run.reason) for run in runs
        ]
        if self.capabilities.executes_in_process:
            executed = [run.scheduled_for for run in runs if run.status is SUCCEEDED]
            assert sorted(call for call in calls if call is not None) == sorted(filter(None, executed))
