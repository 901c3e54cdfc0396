"""Threads that want the same thing at once: one call does it for all that wait, and what fails is told to those whom it concerns."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.waiting import until

from jobmanager.errors import StoreUnavailableError
from jobmanager.ledger.together import Together


class Slow:
    """Squares numbers. The first call lasts until it is released, so that others wait meanwhile."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.begun, self.released = threading.Event(), threading.Event()
        self.error: BaseException | None = None

    def __call__(self, asked: list[int]) -> list[int]:
        self.calls.append(sorted(asked))
        if len(self.calls) == 1:
            self.begun.set()
            assert self.released.wait(10)
        elif self.error is not None and 7 in asked:
            raise self.error
        return [number * number for number in asked]


def ask(slow: Slow, numbers: range) -> dict[int, object]:
    """Return what each number got, all asked while the call for 1 was under way."""
    together = Together(slow)

    def outcome(number: int) -> object:
        try:
            return together(number)
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(numbers) + 1) as threads:
        first = threads.submit(outcome, 1)
        assert slow.begun.wait(10)
        others = {number: threads.submit(outcome, number) for number in numbers}
        until(lambda: len(together._waiting) == len(numbers), within=10)
        slow.released.set()
        return {1: first.result(10), **{number: other.result(10) for number, other in others.items()}}


def test_what_comes_while_one_call_is_made_is_done_by_the_next() -> None:
    slow = Slow()

    got = ask(slow, range(2, 10))

    assert got == {number: number * number for number in range(1, 10)}
    assert slow.calls == [[1], list(range(2, 10))]


def test_what_fails_fails_alone() -> None:
    slow = Slow()
    slow.error = ValueError("seven")

    got = ask(slow, range(2, 10))

    assert isinstance(got.pop(7), ValueError)
    assert got == {number: number * number for number in range(1, 10) if number != 7}


def test_a_store_that_is_away_is_told_to_all_that_were_asked_together() -> None:
    slow = Slow()
    slow.error = StoreUnavailableError("no connection")

    got = ask(slow, range(2, 10))

    assert got[1] == 1
    assert all(isinstance(got[number], StoreUnavailableError) for number in range(2, 10))
    assert len(slow.calls) == 2, "each would wait for a store that is away, one after the other"


def test_alone_it_is_called_at_once_and_raises_at_once() -> None:
    def fails(asked: list[int]) -> list[int]:
        raise ValueError(str(asked))

    together = Together(fails)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"\[3\]"):
            together(3)
