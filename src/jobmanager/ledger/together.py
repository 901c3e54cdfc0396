"""One call for all that several threads want at the same time: what comes while one is made is done by the next one together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, cast

from jobmanager.errors import StoreUnavailableError

A = TypeVar("A")
R = TypeVar("R")

MOST_TOGETHER = 500
LONGEST_WAIT = 1.0  # seconds before a thread looks itself whether it may act


class _Pending(Generic[A, R]):
    """A request that waits: another thread does it along with its own, or wakes the thread that made it to act next."""

    __slots__ = ("_awake", "asked", "error", "is_done", "result")

    def __init__(self, asked: A) -> None:
        self.asked = asked
        self.is_done = False
        self.result: R | None = None
        self.error: BaseException | None = None
        self._awake = threading.Lock()
        self._awake.acquire()

    def returned(self, result: R) -> None:
        self.result, self.is_done = result, True

    def raised(self, error: BaseException) -> None:
        self.error, self.is_done = error, True

    def wait(self) -> None:
        """Wait to be woken; not for ever, as the thread that was to do so may have been ended."""
        self._awake.acquire(timeout=LONGEST_WAIT)

    def wake(self) -> None:
        """End the wait, or the next one; one thread at a time calls it."""
        if self._awake.locked():
            self._awake.release()


class Together(Generic[A, R]):
    """Calls `act` with what threads ask for, and gives each its result, in the same order. Any thread; the first acts for all that wait."""

    def __init__(self, act: Callable[[list[A]], Sequence[R]]) -> None:
        self._act = act
        self._waiting: list[_Pending[A, R]] = []
        self._queue = threading.Lock()
        self._acting = threading.Lock()

    def __call__(self, asked: A) -> R:
        """Return the result for what is asked; raises what `act` raises for it, and StoreUnavailableError of all that were asked together."""
        if not self._waiting and self._acting.acquire(blocking=False):  # nothing else is in flight
            try:
                return self._act([asked])[0]
            finally:
                self._acting.release()
                self._hand_over()
        mine: _Pending[A, R] = _Pending(asked)
        with self._queue:
            self._waiting.append(mine)
        while not mine.is_done:
            if not self._acting.acquire(blocking=False):
                mine.wait()
                continue
            try:
                if not mine.is_done:
                    self._act_for_some()
            finally:
                self._acting.release()
            self._hand_over()
        if mine.error is not None:
            raise mine.error
        return cast("R", mine.result)

    def _hand_over(self) -> None:
        """Have the thread of the first that waits act next: it may have found this one at it."""
        with self._queue:
            if self._waiting:
                self._waiting[0].wake()

    def _act_for_some(self) -> None:
        with self._queue:
            batch, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
        try:
            self._act_for(batch)
        except StoreUnavailableError as error:
            for each in batch:
                each.raised(error)
        except Exception:  # noqa: BLE001 - one of them; the others must not fail with it
            for each in batch:
                self._act_for_one(each)
        except BaseException as error:  # what ends this thread ends no other one, which would wait for ever
            for each in batch:
                each.raised(error)
            raise
        finally:
            with self._queue:
                for each in batch:
                    each.wake()

    def _act_for(self, batch: list[_Pending[A, R]]) -> None:
        results = self._act([each.asked for each in batch])
        for each, result in zip(batch, results, strict=True):
            each.returned(result)

    def _act_for_one(self, each: _Pending[A, R]) -> None:
        try:
            self._act_for([each])
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            each.raised(error)
