"""A call with a bound of this process's own clock: what a thread waits for may never end, the thread goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from jobmanager.clock import Clock
from jobmanager.errors import StoreUnavailableError

T = TypeVar("T")


def ended_within(seconds: float, act: Callable[[], object], *, name: str) -> bool:
    """Call `act` on a thread of its own; True if it ended within `seconds`, and then what it raised is raised here.

    What does not end in time is left to its daemon thread, called `jobmanager-NAME`.
    """
    call = _Call(act, name)
    if not call.ended.wait(seconds):
        return False
    call.result()
    return True


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
            if call is None or call.ended.is_set():
                call = self._running = _Call(self._act, "probe")
        if not call.ended.wait(seconds):
            raise StoreUnavailableError(f"The store has not replied for {seconds:g} s.")
        return call.result()


class _Call(Generic[T]):
    """A call that runs on a daemon thread from now on."""

    def __init__(self, act: Callable[[], T], name: str) -> None:
        self._act = act
        self._results: list[T] = []
        self._errors: list[BaseException] = []
        self.ended = threading.Event()
        threading.Thread(target=self._run, name=f"jobmanager-{name}", daemon=True).start()

    def _run(self) -> None:
        try:
            self._results.append(self._act())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            self._errors.append(error)
        finally:
            self.ended.set()

    def result(self) -> T:
        """Return what the call returned, or raise what it raised. Only after its end."""
        if self._errors:
            raise self._errors[0]
        return self._results[0]


class Budget:
    """Seconds that several waits share, so that all of them together end in time."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._until = clock.monotonic() + seconds

    def extend(self, seconds: float) -> None:
        """Add seconds that were waited for something else meanwhile."""
        self._until += seconds

    def share(self, part: float) -> float:
        """Return a part (0.0 to 1.0) of the seconds that are left, never less than a tenth of a second."""
        return max(0.1, (self._until - self._clock.monotonic()) * part)
