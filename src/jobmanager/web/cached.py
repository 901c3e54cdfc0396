"""Values that every page shows and that may be a moment old."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar

from jobmanager.clock import Clock
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

T = TypeVar("T")
Refresh = tuple[Context, Callable[[], None]]
_afterwards: ContextVar[list[Refresh] | None] = ContextVar("afterwards", default=None)
MOST = 100
STALE = 10.0
"""Seconds for which an older value is still shown while a new one is computed: a page then waits for none."""


class Cached:
    """Values by key, each computed anew when it is older than its reader accepts. Any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._values: dict[Hashable, tuple[float, Any]] = {}
        self._computed: set[Hashable] = set()
        self._forgotten = 0

    def get(self, key: Hashable, seconds: float, make: Callable[[], T]) -> T:
        """Return the value if it is at most so many seconds old, else what `make` returns.

        One that is too old by less than ten seconds is returned once more, and `make` is called on a thread for the next reader: inside
        `refreshing_afterwards` at its end, as the thread would take half of the processor from the page that does not wait for it.
        """
        with self._lock:
            made_at, value = self._values.get(key, (float("-inf"), None))
        age = self._clock.monotonic() - made_at
        if age > seconds + STALE:
            return self._make(key, make)
        if age > seconds:
            self._make_beside(key, make)
        found: T = value
        return found

    def forget(self) -> None:
        """Forget all values: who has just changed something sees it at once."""
        with self._lock:
            self._values.clear()
            self._forgotten += 1

    def _make(self, key: Hashable, make: Callable[[], T]) -> T:
        forgotten = self._forgotten
        made = make()
        with self._lock:
            if forgotten == self._forgotten:
                if len(self._values) >= MOST and key not in self._values:
                    self._values.pop(next(iter(self._values)))
                self._values[key] = self._clock.monotonic(), made
        return made

    def _make_beside(self, key: Hashable, make: Callable[[], object]) -> None:
        with self._lock:
            if key in self._computed:
                return
            self._computed.add(key)
        context = copy_context()  # it is made for the principal that asks
        context.run(_afterwards.set, None)
        refresh = context, lambda: self._refresh(key, make)
        afterwards = _afterwards.get()
        if afterwards is None:
            _start([refresh])
        else:
            afterwards.append(refresh)

    def _refresh(self, key: Hashable, make: Callable[[], object]) -> None:
        try:
            self._make(key, make)
        except Exception as error:  # noqa: BLE001 - the page that waits for it next says it
            logger.info("a value of the pages could not be read again: %s", error)
        finally:
            with self._lock:
                self._computed.discard(key)


@contextmanager
def refreshing_afterwards() -> Iterator[None]:
    """Make in the block no value anew that is shown once more, but all of them on one thread after it."""
    wanted: list[Refresh] = []
    token = _afterwards.set(wanted)
    try:
        yield
    finally:
        _afterwards.reset(token)
        if wanted:
            _start(wanted)


def _start(refreshes: Sequence[Refresh]) -> None:
    threading.Thread(target=_run, args=(refreshes,), name="jobmanager-pages", daemon=True).start()


def _run(refreshes: Sequence[Refresh]) -> None:
    for context, refresh in refreshes:
        context.run(refresh)
