"""A call that may never return, waited for with a bound: reading a store that does not reply must not stop the thread that asks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from jobmanager.errors import StoreUnavailableError

T = TypeVar("T")


class BoundedCall(Generic[T]):
    """Calls one function on a thread of its own, at most one at a time. Any thread may ask.

    A call that has not returned is not repeated: the next caller waits for the same one, again at most its own bound. On a clock that
    is moved by hand (`threaded` False) the function runs on the thread that asks.
    """

    def __init__(self, act: Callable[[], T], *, threaded: bool = True) -> None:
        self._act = act
        self._threaded = threaded
        self._lock = threading.Lock()
        self._running: _Call[T] | None = None

    def ask(self, seconds: float) -> T:
        """Return what the function returns, or raise what it raises; StoreUnavailableError after so many seconds."""
        if not self._threaded:
            return self._act()
        with self._lock:
            call = self._running
            if call is None or call.done.is_set():
                call = self._running = _Call(self._act)
                call.start()
        if not call.done.wait(seconds):
            raise StoreUnavailableError(f"The store has not replied for {seconds:g} s.")
        return call.result()


class _Call(Generic[T]):
    def __init__(self, act: Callable[[], T]) -> None:
        self._act = act
        self._results: list[T] = []
        self._errors: list[BaseException] = []
        self.done = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="jobmanager-probe", daemon=True).start()

    def _run(self) -> None:
        try:
            self._results.append(self._act())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            self._errors.append(error)
        finally:
            self.done.set()

    def result(self) -> T:
        if self._errors:
            raise self._errors[0]
        return self._results[0]
