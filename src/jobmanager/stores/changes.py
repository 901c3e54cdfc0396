"""`StoredChanges`: how a process learns that runs and jobs of other processes changed, without asking for their rows again and again."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from jobmanager.access.view import View
from jobmanager.run import RunStatus

SOMETHING: Collection[str] = ()
"""Something has changed, and nobody said what."""
POLL = 0.1
NOTICED_WITHIN = 1.0
"""Seconds after which every process that announces knows of a listener that began: until then the listener looks by itself."""


class RunState(NamedTuple):
    """The facts by which two states of a run differ: each start is a state."""

    id: str
    job_id: str
    status: RunStatus
    starts: int


class Signals(ABC):
    """The signals of a store to one process. For one thread at a time; closing twice is safe."""

    @abstractmethod
    def wait(self, seconds: float) -> Collection[str] | None:
        """Wait for a change, at most so long: the ids of runs that were announced, SOMETHING, or None if there was surely none.

        StoreUnavailableError if the signals are lost: changes may have been missed, and other signals are to be asked for.
        """

    @abstractmethod
    def close(self) -> None:
        """Give up what the waiting needs."""


class NoSignals(Signals):
    """Stands in where a store cannot tell: there may be a change each time."""

    def wait(self, seconds: float) -> Collection[str]:
        time.sleep(min(seconds, POLL))
        return SOMETHING

    def close(self) -> None:
        """Do nothing."""


class StoredChanges(ABC):
    """The changes of runs and jobs."""

    announces = False
    """True where processes hear only of the runs that `announce` names; elsewhere the store notices each change by itself."""

    def announce(self, run_ids: Collection[str]) -> bool:
        """Tell the processes that wait for signals that these runs have ended. Not durable.

        False if no process had signals at that moment, whatever its namespace: all that ends within NOTICED_WITHIN need not be
        announced, as a session that begins to listen looks by itself for so long.
        """
        return False

    def signals(self) -> Signals:
        """Return the signals from now on; StoreUnavailableError. A store that has none is asked ten times a second."""
        return NoSignals()

    @abstractmethod
    def states(self, namespace: str, since: datetime, *, most: int) -> list[RunState]:
        """Return runs opened since the moment and open ones of any age, the newest `most` of each, by id."""

    @abstractmethod
    def states_of(self, run_ids: Collection[str], *, seen: View | None = None) -> list[RunState]:
        """Return these runs, as far as they are on record and seen, by id."""

    @abstractmethod
    def moved_since(self, namespace: str, moment: datetime, *, newest: int) -> list[RunState]:
        """Return what was opened, started or ended since the moment, of the `newest` runs and of the running ones, by id."""
