"""Calls of tickers that came a little before their instant, and wait for it: how long, and how many at once in a process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from jobmanager.web.response import Response, held_by_too_many

MOST_HELD = 100
SHORTEST_HELD = 0.001
LONGEST_HELD = 6.0
"""Seconds; one more than a call may be early, for clocks that differ."""


@dataclass(frozen=True, slots=True)
class Early:
    """A call that came `seconds` before its instant and may wait, to be tried `again` then; `come_again` is the response to one that does not."""

    seconds: float
    come_again: Response
    again: Callable[[], Response | Early]


class Held:
    """One call that waits, if there was a place for it."""

    def __init__(self, monotonic: Callable[[], float], *, has_place: bool) -> None:
        self._has_place = has_place
        self._monotonic = monotonic
        self._until = monotonic() + LONGEST_HELD

    def wait(self, early: Early) -> float:
        """Return the seconds until the call may be tried again; 0.0 if it must not wait, or not any longer."""
        seconds = max(early.seconds, SHORTEST_HELD)
        return seconds if self._has_place and self._monotonic() + seconds <= self._until else 0.0

    def response(self, ticked: Response | Early) -> Response:
        """Return the response to the call in the end."""
        if isinstance(ticked, Response):
            return ticked
        return ticked.come_again if self._has_place else held_by_too_many(ticked.seconds)


class HeldCalls:
    """The places for calls that wait. Any thread."""

    def __init__(self, most: int = MOST_HELD) -> None:
        self._free = threading.BoundedSemaphore(most)

    @contextmanager
    def hold(self, monotonic: Callable[[], float]) -> Iterator[Held]:
        """Give the call a place as long as the block lasts, if there is one."""
        has_place = self._free.acquire(blocking=False)
        try:
            yield Held(monotonic, has_place=has_place)
        finally:
            if has_place:
                self._free.release()


OF_THIS_PROCESS = HeldCalls()
