"""Which instants a pass of the timetable brings: all of them when it is late, the newest after a start or a sleep."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from jobmanager import Every
from jobmanager.backends.timetable import ScheduledJob, Timetable
from jobmanager.job import Job
from jobmanager.run import Tick
from jobmanager.schedule import Schedule
from jobmanager.testing import FakeClock

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
GRACE = timedelta(seconds=60)


class Passes:
    """A timetable, and the seconds after START whose instants its passes brought."""

    def __init__(self, schedule: Schedule, *, jitter: float = 0) -> None:
        self.clock = FakeClock(START)
        self.timetable = Timetable()
        job = Job(id="work", name="work", handler="work", schedule=schedule, jitter=timedelta(seconds=jitter))
        self.timetable.replace([ScheduledJob(job, 1, schedule.next_after(START))])
        self.job = job

    def after(self, seconds: float) -> list[int]:
        """Let time pass, then let the timetable pass until nothing is due any more."""
        self.clock.advance(seconds=seconds)
        brought: list[Tick] = []

        def deliver(ticks: Sequence[Tick]) -> None:
            brought.extend(ticks)

        while (top := self.timetable.top()) is not None and top <= self.clock.now():
            self.timetable.deliver_due(self.clock, deliver, grace=GRACE)
        return [round((tick.scheduled_for - START).total_seconds()) for tick in brought]

    def look(self) -> None:
        """Pass with nothing due."""
        self.timetable.deliver_due(self.clock, lambda _: None, grace=GRACE)


@pytest.mark.parametrize("late", [30, 90])
def test_the_first_pass_brings_the_newest_instant_of_a_job(late: int) -> None:
    """Fails if a quick restart starts a run for every instant of the gap at once."""
    passes = Passes(Every(1))

    assert passes.after(late) == [late]
    assert passes.after(1) == [late + 1]


def test_a_pass_after_a_sleep_brings_the_newest_instant_of_a_job() -> None:
    """Fails if a machine that wakes starts a run for every instant that is within the grace."""
    passes = Passes(Every(1))
    passes.look()

    assert passes.after(10.5) == [10]
    assert passes.after(40) == [50]


def test_a_timetable_that_is_merely_late_brings_every_instant() -> None:
    """Fails if lateness loses instants: their overlap policy has to decide."""
    passes = Passes(Every(1))
    passes.look()

    assert passes.after(10) == list(range(1, 11))
    assert passes.after(3) == [11, 12, 13]


def test_a_timetable_that_begins_again_has_no_pass_before() -> None:
    """Fails if a short stop and start in one process counts as lateness."""
    passes = Passes(Every(1))
    passes.look()
    passes.timetable.begin()

    assert passes.after(5) == [5]


def test_the_newest_instant_is_one_whose_jitter_is_over() -> None:
    """Fails if a tick is brought before its own moment."""
    passes = Passes(Every(10), jitter=10)

    brought = passes.after(35)

    [newest] = brought
    due = [
        second
        for second in (10, 20, 30)
        if passes.job.due_at(START + timedelta(seconds=second)) <= passes.clock.now()
    ]
    assert newest == due[-1]
