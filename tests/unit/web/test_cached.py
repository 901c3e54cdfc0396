"""Values that pages may show a moment old."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from itertools import count

from tests.waiting import until

from jobmanager import Principal, acting
from jobmanager.access.acting import current
from jobmanager.testing import FakeClock
from jobmanager.web.cached import STALE, Cached, refreshing_afterwards

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


def test_a_value_is_computed_anew_beside_its_reader_and_at_once_when_it_is_old() -> None:
    clock, numbers = FakeClock(NOON), count()
    cached = Cached(clock)

    def read() -> int:
        return cached.get("key", 2, lambda: next(numbers))

    assert [read(), read()] == [0, 0]
    clock.advance(timedelta(seconds=3))
    assert read() == 0  # and the next one is computed meanwhile
    until(lambda: read() == 1)
    clock.advance(timedelta(seconds=STALE + 3))
    assert read() == 2
    cached.forget()
    assert read() == 3


def test_a_value_is_computed_for_the_principal_that_asks_and_by_one_thread() -> None:
    clock, may_end = FakeClock(NOON), threading.Event()
    cached = Cached(clock)
    names: list[str | None] = []

    def make() -> str | None:
        if names:
            assert may_end.wait(30)
        names.append(current().name)
        return current().name

    with acting(Principal("ana", ["viewer"])):
        assert cached.get("ana", 2, make) == "ana"
        clock.advance(timedelta(seconds=3))
        assert [cached.get("ana", 2, make) for _ in range(5)] == ["ana"] * 5
    may_end.set()
    until(lambda: len(names) == 2)
    assert names == ["ana", "ana"]


def test_what_was_read_before_a_change_is_not_kept_after_it() -> None:
    clock, may_end = FakeClock(NOON), threading.Event()
    cached = Cached(clock)
    values = ["first"]

    def make() -> str:
        found = values[-1]
        if len(values) == 1 and threading.current_thread().name == "jobmanager-pages":
            assert may_end.wait(30)
        return found

    assert cached.get("key", 2, make) == "first"
    clock.advance(timedelta(seconds=3))
    assert cached.get("key", 2, make) == "first"
    values.append("changed")
    cached.forget()
    may_end.set()
    assert cached.get("key", 2, make) == "changed"
    until(lambda: "jobmanager-pages" not in {thread.name for thread in threading.enumerate()})
    assert cached.get("key", 2, make) == "changed"


def test_a_failure_beside_a_reader_is_told_to_the_next_one_that_waits() -> None:
    clock = FakeClock(NOON)
    cached = Cached(clock)
    assert cached.get("key", 2, lambda: 1) == 1
    clock.advance(timedelta(seconds=3))
    assert cached.get("key", 2, lambda: 1 // 0) == 1
    until(lambda: "jobmanager-pages" not in {thread.name for thread in threading.enumerate()})
    assert cached.get("key", 2, lambda: 2) == 1


def test_what_a_request_shows_once_more_is_made_anew_after_it_on_one_thread() -> None:
    clock = FakeClock(NOON)
    cached = Cached(clock)
    made: list[tuple[str, int | None]] = []

    def read(key: str) -> None:
        cached.get(key, 2, lambda: made.append((key, threading.current_thread().ident)))

    def read_another() -> None:
        made.append(("outer", threading.current_thread().ident))
        read("inner")

    for key in ("a", "b", "inner"):
        read(key)
    cached.get("outer", 2, lambda: None)
    made.clear()
    clock.advance(timedelta(seconds=3))
    with refreshing_afterwards():
        read("a")
        read("b")
        cached.get("outer", 2, read_another)
        assert "jobmanager-pages" not in {thread.name for thread in threading.enumerate()}
        assert made == []
    until(lambda: {key for key, _ in made} == {"a", "b", "outer", "inner"})  # what one of them reads, too
    [thread] = {ident for key, ident in made if key != "inner"}
    assert thread != threading.get_ident()
