"""Alarms: what no run reports by itself is told in time, and nothing where all is well; on a clock moved by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from jobmanager import JobManager, Settings
from jobmanager.errors import StoreUnavailableError
from jobmanager.notify import Message, Notifier
from jobmanager.testing import FakeClock

pytestmark = pytest.mark.slow  # hours and days, a sweep at a time

Make = Callable[..., JobManager]
GRACE = timedelta(seconds=60)


class Chat(Notifier):
    """A channel that keeps what it gets."""

    name = "email"

    def __init__(self) -> None:
        self.got: list[Message] = []

    def send(self, message: Message) -> None:
        self.got.append(message)

    @property
    def events(self) -> list[str]:
        return [message.event for message in self.got]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def chat() -> Chat:
    return Chat()


@pytest.fixture
def make(clock: FakeClock, chat: Chat) -> Iterator[Make]:
    made: list[JobManager] = []

    def manager(**settings: Any) -> JobManager:
        given = {
            "backend": "local",
            "database_url": "memory://",
            "alerts_email": "ops@example.org",
            "smtp_url": "smtp://127.0.0.1:1",
        }
        jobs = JobManager(Settings(**{**given, **settings}), clock=clock, notifiers=[chat])
        made.append(jobs)
        return jobs

    yield manager
    for jobs in made:
        jobs.stop()


def go_on(clock: FakeClock, length: timedelta, step: float = 30) -> None:
    """Let time pass in steps of a sweep, as it does for a process."""
    for _ in range(round(length.total_seconds() / step)):
        clock.advance(seconds=step)


def stand_still(jobs: JobManager, clock: FakeClock) -> None:
    """Bring no tick any more; the rest of the process lives."""
    clock.release(jobs.backend._drain)  # type: ignore[attr-defined]


# ---------------------------------------------------------------- nobody keeps time


def test_time_that_nobody_keeps_is_told_within_grace_and_one_interval(
    make: Make, clock: FakeClock, chat: Chat
) -> None:
    jobs = make()
    jobs.add_job("work", lambda: None, every=60)
    jobs.start()
    go_on(clock, timedelta(minutes=5))
    assert chat.events == []

    stand_still(jobs, clock)
    began = clock.now()
    while not chat.got and clock.now() - began < timedelta(minutes=10):
        clock.advance(seconds=10)

    [alarm] = chat.got
    assert alarm.event == "no_time_kept"
    assert "work" in alarm.text
    # The first instant without a tick comes up to one interval after the clock stopped; a sweep (30 s) notices.
    assert clock.now() - began <= GRACE + timedelta(seconds=60) + timedelta(seconds=60)


def test_a_clock_outside_that_never_calls_is_told(make: Make, clock: FakeClock, chat: Chat) -> None:
    jobs = make(backend="external")
    jobs.add_job("work", lambda: None, every=60)
    jobs.start()
    began = clock.now()

    while not chat.got and clock.now() - began < timedelta(minutes=10):
        clock.advance(seconds=10)

    assert chat.events == ["no_time_kept"]
    assert clock.now() - began <= timedelta(seconds=60) + GRACE + timedelta(seconds=60)


def test_many_processes_tell_it_once(make: Make, clock: FakeClock, chat: Chat, tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    processes = [make(database_url=url) for _ in range(3)]
    for jobs in processes:
        jobs.add_job("work", lambda: None, every=300)
        jobs.start()
    go_on(clock, timedelta(minutes=6))
    for jobs in processes:
        stand_still(jobs, clock)
    go_on(clock, timedelta(minutes=7))

    assert chat.events.count("no_time_kept") == 1


@pytest.mark.parametrize("days", [1, pytest.param(30, marks=[pytest.mark.faults, pytest.mark.timeout(900)])])
def test_days_without_a_false_alarm(make: Make, clock: FakeClock, chat: Chat, days: int) -> None:
    jobs = make(alerts_backlog=10, alerts_dead_letters=10)
    events = ["failed", "recovered", "missed", "paused"]
    rules: dict[str, Any] = {"alert_on": events, "alert_late": "2m", "alert_running": "5m"}
    jobs.add_job("quarterly", lambda: None, cron="*/15 * * * *", **rules)
    jobs.add_job("nightly", lambda: None, cron="0 2 * * *", timezone="Europe/Berlin", **rules)
    jobs.start()

    go_on(clock, timedelta(days=days), step=300)

    assert chat.got == []
    assert len(jobs.runs("nightly", limit=100)) == days


# ---------------------------------------------------------------- runs


def test_a_missed_instant_is_told(make: Make, clock: FakeClock, chat: Chat, tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    first = make(database_url=url)
    first.add_job("nightly", lambda: None, every=3600, catch_up="none", alert_on="missed")
    first.start()
    clock.advance(minutes=30)
    first.stop()
    clock.advance(hours=3)

    second = make(database_url=url)
    second.add_job("nightly", lambda: None, every=3600, catch_up="none", alert_on="missed")
    second.start()
    go_on(clock, timedelta(minutes=5))

    assert chat.events == ["missed"]
    assert chat.got[0].count == 3
    go_on(clock, timedelta(hours=1))
    assert chat.events == ["missed"], "each is told once"


def test_a_run_that_starts_late_is_told(make: Make, clock: FakeClock, chat: Chat) -> None:
    jobs = make(workers=1)
    jobs.add_job("nightly", lambda: None, every=3600, jitter="10m", alert_late="30s")
    jobs.start()

    go_on(clock, timedelta(minutes=75))

    assert chat.events == ["late"]
    assert "nightly is late" in chat.got[0].subject


def test_a_run_that_lasts_too_long_is_told_when_it_ends_at_the_latest(
    make: Make, clock: FakeClock, chat: Chat
) -> None:
    jobs = make()
    jobs.add_job("nightly", lambda: clock.sleep(700), every=3600, alert_running="10m")
    jobs.start()

    clock.advance(minutes=90)

    assert chat.events == ["running_long"]


def test_the_rules_of_a_job_that_an_operator_makes_or_changes_hold_at_once(
    make: Make, clock: FakeClock, chat: Chat
) -> None:
    """Fails if alarms keep the jobs that were there when the process began."""
    jobs = make()

    def broken() -> None:
        raise OSError("no disk")

    jobs.handler("broken")(broken)
    jobs.handler("slow")(lambda: clock.sleep(700))
    with jobs:
        jobs.create_job("made", handler="broken", every=60, pause_after_failures=2, alert_on=["paused"])
        jobs.create_job("late", handler="slow", every=3600)
        jobs.update_job("late", alert_running=60)
        go_on(clock, timedelta(hours=2))

    assert {(message.event, message.job_id) for message in chat.got} >= {
        ("paused", "made"),
        ("running_long", "late"),
    }


def test_a_pause_by_failures_is_told(make: Make, clock: FakeClock, chat: Chat) -> None:
    jobs = make()

    def fail() -> None:
        raise OSError("no disk")

    jobs.add_job("nightly", fail, every=3600, pause_after_failures=2, alert_on="paused")
    jobs.start()

    go_on(clock, timedelta(hours=3))

    assert chat.events == ["paused"]
    assert chat.got[0].subject == "nightly is paused: 2 failures in a row"


# ---------------------------------------------------------------- queues and store


def test_a_backlog_is_told_once_an_hour(
    make: Make, clock: FakeClock, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = make(alerts_backlog=2)
    jobs.add_job("work", lambda: None, overlap="allow")
    jobs.start()
    monkeypatch.setattr(jobs.store.runs, "claim", lambda *_, **__: [])
    for number in range(4):
        jobs.trigger_job("work", delay=1, key=str(number))

    go_on(clock, timedelta(minutes=40))

    assert chat.events == ["backlog"]
    assert chat.got[0].subject == "more than 2 runs wait"


def test_dead_letters_are_told(make: Make, clock: FakeClock, chat: Chat) -> None:
    jobs = make(alerts_dead_letters=2)

    def fail() -> None:
        raise OSError("no disk")

    jobs.add_job("work", fail, every=60)
    jobs.start()

    go_on(clock, timedelta(minutes=10))

    assert chat.events == ["dead_letters"]
    assert chat.got[0].subject == "more than 2 dead letters"


def test_a_store_that_is_away_is_told_and_that_it_is_back(
    make: Make, clock: FakeClock, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = make()
    jobs.add_job("work", lambda: None)
    jobs.start()
    go_on(clock, timedelta(minutes=1))

    def away() -> bool:
        raise StoreUnavailableError("the database does not reply")

    with monkeypatch.context() as patched:
        patched.setattr(jobs.store, "exists", away)
        go_on(clock, timedelta(minutes=1))
        assert chat.events == []
        go_on(clock, timedelta(minutes=5))
        assert chat.events == ["store_away"]
    go_on(clock, timedelta(minutes=2))

    assert chat.events == ["store_away", "store_back"]
    assert "the database does not reply" in chat.got[0].text


def test_a_short_outage_is_not_told(
    make: Make, clock: FakeClock, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = make()
    jobs.add_job("work", lambda: None)
    jobs.start()

    def away() -> bool:
        raise StoreUnavailableError("the database does not reply")

    with monkeypatch.context() as patched:
        patched.setattr(jobs.store, "exists", away)
        clock.advance(seconds=30)
    go_on(clock, timedelta(minutes=5))

    assert chat.events == []


def test_a_row_of_a_job_that_is_gone_is_left_out(make: Make, clock: FakeClock, chat: Chat) -> None:
    jobs = make()
    jobs.add_job("work", lambda: None, every=60, alert_on="missed")
    jobs.start()
    row = jobs.store.jobs.get("work")
    assert row is not None

    assert jobs._assembly.notifying.of_pause(replace(row, id="gone", state_at=clock.now())) == ()
