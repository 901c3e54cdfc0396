"""The watchdog's thread: one line for an episode, immune to what it meets, and an end that nothing holds up; and bounded calls."""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from jobmanager.errors import StoreUnavailableError
from jobmanager.process.bounded import BoundedCall
from jobmanager.process.health import Limits, Symptom, Vitals
from jobmanager.process.watchdog import DeliveryTimer, Watchdog, stacks_of_our_threads

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
QUICK = Limits(grace=timedelta(seconds=0.2), sweep=timedelta(seconds=0.2), lease=timedelta(seconds=30))


class Machine:
    """The real monotonic clock, and a wall clock beside it."""

    def now(self):
        return datetime.now(UTC)

    monotonic = staticmethod(time.monotonic)


def stuck():
    return Vitals(now=datetime.now(UTC), workers=1, waiting=1, last_beat_at=time.monotonic())


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def watching(vitals, **more):
    return Watchdog(vitals, limits=QUICK, clock=Machine(), **more)


def test_an_episode_is_logged_once_with_the_stacks_of_our_threads_and_counted(caplog):
    caplog.set_level(logging.INFO, "jobmanager")
    hangs, counted = threading.Event(), []
    worker = threading.Thread(target=hangs.wait, name="jobmanager-worker", daemon=True)
    worker.start()
    is_stuck = True
    dog = watching(lambda: stuck() if is_stuck else None, on_stall=counted.append)
    dog.start()
    try:
        until(lambda: "threads of this process" in caplog.text)
        time.sleep(0.5)  # several looks: the episode goes on
        is_stuck = False
        until(lambda: "watchdog: over: not_begun" in caplog.text)
    finally:
        dog.stop()
        hangs.set()

    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert counted == ["not_begun"]
    assert len(errors) == 2
    assert errors[0].startswith("watchdog: not_begun: 1 run is taken and not begun")
    assert "jobmanager-worker:" in errors[1]
    assert "in wait" in errors[1]
    assert "MainThread" not in errors[1]


def test_what_the_watchdog_meets_does_not_end_it(caplog):
    troubles = [ZeroDivisionError("vitals"), SystemError("again")]

    def vitals():
        if troubles:
            raise troubles.pop()
        return stuck()

    def unreadable():
        raise StoreUnavailableError("away")

    counted = []
    dog = watching(vitals, read_ledger=unreadable, on_stall=counted.append)
    dog.start()
    until(lambda: counted == ["not_begun"])
    dog.stop()
    assert caplog.text.count("the watchdog met an error; it goes on") == 2


def test_a_store_that_never_replies_does_not_hold_the_watchdog():
    never, counted = threading.Event(), []
    dog = watching(stuck, read_ledger=lambda: never.wait() and (), on_stall=counted.append)
    dog.start()
    until(lambda: counted == ["not_begun"])
    dog.stop()
    never.set()


def test_a_log_handler_that_never_returns_does_not_keep_the_process_from_ending(monkeypatch):
    monkeypatch.setattr("jobmanager.process.watchdog.PATIENCE_WITH_LOGS", 0.1)
    never, ended = threading.Event(), []

    class Blocked(logging.Handler):
        def emit(self, record):
            never.wait()

    blocked = Blocked()
    logging.getLogger("jobmanager.process.watchdog").addHandler(blocked)
    dog = watching(stuck, mode="exit", end=ended.append)
    try:
        dog.start()
        until(lambda: ended == [70])
    finally:
        dog.stop()
        never.set()
        logging.getLogger("jobmanager.process.watchdog").removeHandler(blocked)


def test_the_process_does_not_end_for_what_a_restart_does_not_mend(caplog):
    ended = []
    silent = Symptom(kind="not_brought", text="No tick comes.", fix="Start a beat.")
    dog = watching(lambda: None, mode="exit", read_ledger=lambda: [silent], end=ended.append)
    dog.start()
    until(lambda: "not_brought" in caplog.text)
    dog.stop()
    assert ended == []


def test_a_store_that_is_away_is_the_only_cause_that_is_named():
    short = Limits(grace=timedelta(0), sweep=timedelta(0), lease=timedelta(0))
    facts = Vitals(now=NOON, workers=1, waiting=1, timetable_next=NOON - timedelta(hours=1), last_beat_at=1.0)
    dog = Watchdog(lambda: facts, limits=short, clock=Machine())
    dog.look()
    assert [symptom.kind for symptom in dog.look()] == ["store_silent"]
    assert dog.stalled_since() is None


def test_off_starts_no_thread_and_still_judges_for_those_who_ask():
    before = set(threading.enumerate())  # a manager of another test may have left its own
    dog = watching(stuck, mode="off")
    dog.start()
    until(lambda: [symptom.kind for symptom in dog.look()] == ["not_begun"])
    assert dog.stalled_since() is not None
    started = set(threading.enumerate()) - before
    assert not [thread for thread in started if thread.name == "jobmanager-watchdog"]


def test_a_delivery_is_timed_until_it_returns():
    begin, seen = threading.Event(), []
    timer = DeliveryTimer(lambda _: (seen.append(timer.since), begin.wait()), Machine())
    thread = threading.Thread(target=timer, args=([],))
    thread.start()
    until(lambda: timer.since is not None)
    begin.set()
    thread.join()
    assert timer.since is None
    assert seen != [None]


def test_stacks_show_places_and_no_values():
    done = threading.Event()
    secret = "correct-horse"
    thread = threading.Thread(
        target=lambda _: done.wait(), args=(secret,), name="jobmanager-loop", daemon=True
    )
    thread.start()
    shown = stacks_of_our_threads()
    done.set()
    assert "jobmanager-loop:" in shown
    assert secret not in shown


# ---------------------------------------------------------------- a bounded call


def test_a_call_that_does_not_return_is_given_up_and_not_repeated():
    called, go_on = [], threading.Event()

    def act():
        called.append(1)
        go_on.wait()
        return 42

    call = BoundedCall(act)
    for _ in range(3):
        with pytest.raises(StoreUnavailableError, match=r"not replied for 0\.05 s"):
            call.ask(0.05)
    assert called == [1]
    go_on.set()
    assert call.ask(10) == 42


def test_what_a_bounded_call_raises_is_raised_to_the_one_who_asks():
    def act():
        raise KeyError("x")

    with pytest.raises(KeyError):
        BoundedCall(act).ask(10)
