"""A contract is worth something only if it notices: backends broken on purpose, each must be caught."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta, timezone
from typing import Any, ClassVar

import pytest

from jobmanager import Cron
from jobmanager.backends.base import Deliver, Health
from jobmanager.backends.local import LocalBackend
from jobmanager.backends.noop import NoopBackend
from jobmanager.backends.timetable import ScheduledJob
from jobmanager.clock import Clock
from jobmanager.errors import UnsupportedError
from jobmanager.job import Job
from jobmanager.run import Tick
from jobmanager.testing import BackendContract, broken_promises


class Sound(LocalBackend):
    """A backend that keeps its promises, to be broken in one place each."""

    def start(self, deliver: Deliver) -> None:
        super().start(lambda ticks: self.hand_on(deliver, ticks))

    def hand_on(self, deliver: Deliver, ticks: Sequence[Tick]) -> None:
        deliver(ticks)


class DropsATick(Sound):
    count = 0

    def hand_on(self, deliver: Deliver, ticks: Sequence[Tick]) -> None:
        self.count += 1
        if self.count != 3:
            deliver(ticks)


class DeliversTwice(Sound):
    def hand_on(self, deliver: Deliver, ticks: Sequence[Tick]) -> None:
        deliver(ticks)
        deliver(ticks)


class DeliversOneByOne(Sound):
    def hand_on(self, deliver: Deliver, ticks: Sequence[Tick]) -> None:
        for tick in ticks:
            deliver([tick])


class CountsWeekdaysFromMonday(Sound):
    """As a careless hand-over to a system whose week begins on Monday."""

    def sync(self, jobs: Sequence[ScheduledJob]) -> None:
        super().sync([self.shifted(item) for item in jobs])

    def shifted(self, item: ScheduledJob) -> ScheduledJob:
        day = item.schedule.expression.split()[-1] if isinstance(item.schedule, Cron) else "*"
        if not day.isdigit():
            return item
        schedule = Cron(f"0 12 * * {(int(day) + 1) % 7}")
        return ScheduledJob(
            replace(item.job, schedule=schedule), item.revision, schedule.next_after(self._clock.now())
        )


class TakesSevenForSaturday(CountsWeekdaysFromMonday):
    def shifted(self, item: ScheduledJob) -> ScheduledJob:
        if not (isinstance(item.schedule, Cron) and item.schedule.expression.endswith("7")):
            return item
        schedule = Cron("0 12 * * 6")
        return ScheduledJob(
            replace(item.job, schedule=schedule), item.revision, schedule.next_after(self._clock.now())
        )


class IgnoresZones(Sound):
    def sync(self, jobs: Sequence[ScheduledJob]) -> None:
        super().sync([self.in_utc(item) for item in jobs])

    def in_utc(self, item: ScheduledJob) -> ScheduledJob:
        if not isinstance(item.schedule, Cron):
            return item
        schedule = Cron(item.schedule.expression)
        return ScheduledJob(
            replace(item.job, schedule=schedule), item.revision, schedule.next_after(self._clock.now())
        )


class Retimes(Sound):
    def hand_on(self, deliver: Deliver, ticks: Sequence[Tick]) -> None:
        deliver([replace(tick, **self.changed(tick)) for tick in ticks])

    def changed(self, tick: Tick) -> dict[str, Any]:
        raise NotImplementedError


class DeliversNaiveInstants(Retimes):
    def changed(self, tick: Tick) -> dict[str, Any]:
        return {"scheduled_for": tick.scheduled_for.replace(tzinfo=None)}


class DeliversLocalInstants(Retimes):
    def changed(self, tick: Tick) -> dict[str, Any]:
        return {"scheduled_for": tick.scheduled_for.astimezone(timezone(timedelta(hours=2)))}


class DeliversTheTimeItIs(Retimes):
    def changed(self, tick: Tick) -> dict[str, Any]:
        return {"scheduled_for": self._clock.now().replace(microsecond=0)}


class ForgetsTheRevision(Retimes):
    def changed(self, tick: Tick) -> dict[str, Any]:
        return {"revision": 1}


class Hurries:
    """A clock that goes half a minute ahead."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self.clock, name)

    def now(self) -> Any:
        return self.clock.now() + timedelta(seconds=30)

    def drive(self, next_due: Any, act: Any) -> bool:
        def sooner() -> Any:
            due = next_due()
            return due and due - timedelta(seconds=30)

        return self.clock.drive(next_due and sooner, act)


class RingsEarly(Sound):
    def __init__(self, *, clock: Clock) -> None:
        super().__init__(clock=Hurries(clock))


class BlocksInStart(Sound):
    def start(self, deliver: Deliver) -> None:
        super().start(deliver)
        time.sleep(1.2)


class ReallyStartsTwice(Sound):
    second: LocalBackend | None = None

    def start(self, deliver: Deliver) -> None:
        if self.second is None and self._deliver is not None:
            self.second = LocalBackend(clock=self._clock)
            self.second.sync(self.synced)
            self.second.start(deliver)
        super().start(deliver)

    def sync(self, jobs: Sequence[ScheduledJob]) -> None:
        self.synced = jobs
        super().sync(jobs)

    def stop(self, timeout: timedelta) -> None:
        super().stop(timeout)
        if self.second is not None:
            self.second.stop(timeout)


class StaysStopped(Sound):
    stopped = False

    def start(self, deliver: Deliver) -> None:
        if not self.stopped:
            super().start(deliver)

    def stop(self, timeout: timedelta) -> None:
        self.stopped = True
        super().stop(timeout)


class DeliversAfterStop(Sound):
    def stop(self, timeout: timedelta) -> None:
        pass


class MustBeStartedBeforeItIsStopped(Sound):
    def stop(self, timeout: timedelta) -> None:
        assert self._deliver is not None
        super().stop(timeout)


class AppendsInsteadOfReplacing(Sound):
    def sync(self, jobs: Sequence[ScheduledJob]) -> None:
        synced = {**getattr(self, "synced", {}), **{item.job.id: item for item in jobs}}
        self.synced = synced
        super().sync(list(synced.values()))


class SyncsOnceOnly(Sound):
    synced = False

    def sync(self, jobs: Sequence[ScheduledJob]) -> None:
        if not self.synced:
            super().sync(jobs)
        self.synced = True


class KeepsWhatWasEdited(Sound):
    def sync(self, jobs: Sequence[ScheduledJob]) -> None:
        first = {**{item.job.id: item for item in jobs}, **getattr(self, "first", {})}
        self.first = first
        super().sync([first[item.job.id] for item in jobs])


class PlansAgainFromNow(Sound):
    """Each sync plans anew, later than now: what is due at this moment is forgotten, what was to begin later begins."""

    def sync(self, jobs: Sequence[ScheduledJob]) -> None:
        now = self._clock.now()
        super().sync([ScheduledJob(item.job, item.revision, item.schedule.next_after(now)) for item in jobs])


class DiesWithAnError(Sound):
    """It swallows the error of whoever takes the ticks, and rings no more."""

    def hand_on(self, deliver: Deliver, ticks: Sequence[Tick]) -> None:
        try:
            deliver(ticks)
        except LookupError:
            self.stop(timedelta(0))


class LosesWhatComesWhileItDelivers(Sound):
    def hand_on(self, deliver: Deliver, ticks: Sequence[Tick]) -> None:
        super().hand_on(deliver, ticks)
        now = self._clock.now()
        self.timetable.advance(
            [
                (Tick(job_id=tick.job_id, scheduled_for=now, revision=1), item)
                for tick, item in self.timetable.take_due(now)
            ],
            now,
        )
        if now - ticks[0].scheduled_for > timedelta(seconds=30):
            self.timetable.clear()


class StartsAThreadWhenMade(Sound):
    def __init__(self, *, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.done = threading.Event()
        threading.Thread(target=self.done.wait, daemon=True).start()

    def stop(self, timeout: timedelta) -> None:
        self.done.set()
        super().stop(timeout)


class HasALongName(Sound):
    name: ClassVar[str] = "The local backend"


class ShowsNothing(Sound):
    def entries(self) -> list[Any]:
        return []


class ShowsDrift(Sound):
    def entries(self) -> list[Any]:
        return [replace(entry, drift="command differs") for entry in super().entries()]


class ShowsAnotherInstant(Sound):
    def entries(self) -> list[Any]:
        return [
            replace(entry, next_due_at=entry.next_due_at and entry.next_due_at + timedelta(hours=1))
            for entry in super().entries()
        ]


class CannotBeAsked(Sound):
    def health(self) -> Health:
        raise ConnectionError("not connected yet")


class IsNeverWell(Sound):
    def health(self) -> Health:
        return Health(ok=False, detail="never")


class AcceptsWhatItCannotDo(Sound):
    capabilities = replace(LocalBackend.capabilities, smallest_interval=timedelta(seconds=60))

    @classmethod
    def check(cls, job: Job) -> None:
        return None


class AcceptsZonesItDoesNotHave(Sound):
    capabilities = replace(LocalBackend.capabilities, per_job_timezone=False)

    @classmethod
    def check(cls, job: Job) -> None:
        return None


class RefusesWithoutASentence(Sound):
    capabilities = replace(LocalBackend.capabilities, smallest_interval=timedelta(seconds=60))

    @classmethod
    def check(cls, job: Job) -> None:
        if job.schedule is not None and job.schedule.resolution < timedelta(seconds=60):
            raise UnsupportedError("no")


class RefusesWhatItCanDo(Sound):
    @classmethod
    def check(cls, job: Job) -> None:
        if isinstance(job.schedule, Cron):
            raise UnsupportedError(f"Job {job.id!r}: backend 'local' has no cron.")


class RingsAlthoughItKeepsNoTime(Sound):
    capabilities = NoopBackend.capabilities


class PretendsToKeepTime(NoopBackend):
    capabilities = LocalBackend.capabilities


class InventsTicks(Sound):
    """It rings for its own entries again a minute later, as a backend that repeats what it could not confirm."""

    def hand_on(self, deliver: Deliver, ticks: Sequence[Tick]) -> None:
        deliver(
            [
                *ticks,
                *(replace(tick, scheduled_for=tick.scheduled_for - timedelta(seconds=7)) for tick in ticks),
            ]
        )


BROKEN_BACKENDS: Mapping[type[Any], str] = {
    DropsATick: "test_every_instant_rings_once",
    DeliversTwice: "test_every_instant_rings_once",
    DeliversOneByOne: "test_all_that_is_due_together_is_delivered_together",
    CountsWeekdaysFromMonday: "test_weekdays_are_those_of_the_calendar",
    TakesSevenForSaturday: "test_weekdays_are_those_of_the_calendar",
    IgnoresZones: "test_a_job_keeps_the_time_of_its_zone",
    DeliversNaiveInstants: "test_a_tick_carries_its_instant_in_utc_and_its_revision",
    DeliversLocalInstants: "test_a_tick_carries_its_instant_in_utc_and_its_revision",
    DeliversTheTimeItIs: "test_a_late_tick_carries_the_instant_it_was_due_for",
    ForgetsTheRevision: "test_a_tick_carries_its_instant_in_utc_and_its_revision",
    RingsEarly: "test_no_tick_is_early",
    BlocksInStart: "test_start_does_not_block",
    ReallyStartsTwice: "test_starting_twice_rings_once",
    StaysStopped: "test_it_can_be_started_again",
    DeliversAfterStop: "test_nothing_is_delivered_after_stop",
    MustBeStartedBeforeItIsStopped: "test_it_can_be_asked_and_stopped_before_it_starts",
    AppendsInsteadOfReplacing: "test_a_job_that_is_gone_rings_no_more",
    SyncsOnceOnly: "test_a_job_that_comes_while_it_runs_rings",
    KeepsWhatWasEdited: "test_an_edited_job_rings_by_its_new_schedule_and_revision",
    PlansAgainFromNow: "test_a_job_does_not_ring_before_it_is_to_begin",
    DiesWithAnError: "test_a_deliver_that_raises_does_not_end_it",
    LosesWhatComesWhileItDelivers: "test_a_deliver_that_takes_long_delays_but_loses_nothing",
    StartsAThreadWhenMade: "test_making_one_starts_nothing",
    HasALongName: "test_it_has_a_short_name_and_says_what_it_can_do",
    ShowsNothing: "test_entries_show_every_job_once_and_when_it_is_due",
    ShowsDrift: "test_entries_show_every_job_once_and_when_it_is_due",
    ShowsAnotherInstant: "test_entries_show_every_job_once_and_when_it_is_due",
    CannotBeAsked: "test_it_can_be_asked_and_stopped_before_it_starts",
    IsNeverWell: "test_a_backend_that_keeps_no_time_says_so_and_is_well",
    AcceptsWhatItCannotDo: "test_what_it_cannot_do_is_refused_with_a_sentence",
    AcceptsZonesItDoesNotHave: "test_what_it_cannot_do_is_refused_with_a_sentence",
    RefusesWithoutASentence: "test_what_it_cannot_do_is_refused_with_a_sentence",
    RefusesWhatItCanDo: "test_what_it_can_do_is_accepted",
    RingsAlthoughItKeepsNoTime: "test_every_instant_rings_once",
    PretendsToKeepTime: "test_every_instant_rings_once",
    InventsTicks: "test_every_instant_rings_once",
}


def backend_contract(broken: type[Any]) -> BackendContract:
    class Checked(BackendContract):
        patience = 0.2

        def make_backend(self, clock: Clock) -> Any:
            return broken(clock=clock) if issubclass(broken, LocalBackend) else broken()

    return Checked()


@pytest.mark.parametrize("broken", BROKEN_BACKENDS, ids=lambda broken: broken.__name__)
def test_a_broken_backend_is_caught(broken: type[Any]) -> None:
    name = BROKEN_BACKENDS[broken]

    assert broken_promises(backend_contract(broken), [name]) == [name]


def test_a_sound_backend_is_not_accused() -> None:
    assert broken_promises(backend_contract(Sound)) == []


class CanDoLess(Sound):
    capabilities = replace(
        LocalBackend.capabilities, smallest_interval=timedelta(minutes=1), per_job_timezone=False
    )


def test_a_backend_that_can_do_less_and_says_so_is_not_accused() -> None:
    assert broken_promises(backend_contract(CanDoLess)) == []


def test_a_tick_that_comes_twice_is_one_run_all_the_same() -> None:
    names = ["test_one_due_instant_gives_one_run", "test_two_processes_give_one_run_too"]

    assert broken_promises(backend_contract(DeliversTwice), names) == []
