"""A call with a bound of this process's own clock: what a thread waits for may never end, the thread goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable

from jobmanager.clock import Clock


def ended_within(seconds: float, act: Callable[[], object], *, name: str) -> bool:
    """Call `act` on a thread of its own; True if it ended within `seconds`, and then what it raised is raised here.

    What does not end in time is left to its daemon thread, called `jobmanager-NAME`.
    """
    raised: list[BaseException] = []

    def call() -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - raised again by the caller
            raised.append(error)

    thread = threading.Thread(target=call, name=f"jobmanager-{name}", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        return False
    if raised:
        raise raised[0]
    return True


class Budget:
    """Seconds that several waits share, so that all of them together end in time."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._until = clock.monotonic() + seconds

    def share(self, part: float) -> float:
        """Return a part (0.0 to 1.0) of the seconds that are left, never less than a tenth of a second."""
        return max(0.1, (self._until - self._clock.monotonic()) * part)
