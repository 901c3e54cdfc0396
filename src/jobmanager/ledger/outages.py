"""When the store took no writes, as this process met it: the reason of ticks that could not be recorded in time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from jobmanager.clock import Clock
from jobmanager.run import Failure, Run

KEPT = 100
LONGEST_TEXT = 500


@dataclass(slots=True)
class _Outage:
    since: datetime
    until: datetime
    error: Exception


class Outages:
    """The last outages of the store. Any thread may call any method."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._outages: deque[_Outage] = deque(maxlen=KEPT)

    def note(self, began: datetime, runs: Sequence[Run], error: Exception) -> None:
        """Note that a write of these runs, tried since `began`, was not made until now; what meets an outage prolongs it."""
        until = self._clock.now()
        since = min([began, *(run.opened_at for run in runs)])
        with self._lock:
            last = self._outages[-1] if self._outages else None
            if last is not None and last.since <= since <= last.until:
                last.until = max(last.until, until)
                last.error = error
            else:
                self._outages.append(_Outage(since, until, error))

    def at(self, moment: datetime) -> Failure | None:
        """Return why the store took nothing at the moment; None if this process knows of no outage then."""
        with self._lock:
            for outage in reversed(self._outages):
                if outage.since <= moment <= outage.until:
                    return transport(f"the store could not take it: {outage.error}")
        return None


def transport(message: str) -> Failure:
    """Return the error of a tick that did not become a run although a process lived."""
    return Failure(kind="transport", message=message[:LONGEST_TEXT])
