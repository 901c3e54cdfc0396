"""Durable writes of steps, and their reading: those of several runs at once are one transaction."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import islice

from jobmanager.clock import Clock
from jobmanager.errors import StoreUnavailableError
from jobmanager.ledger.together import Together
from jobmanager.run import Run
from jobmanager.step import Awaited, Event, Step
from jobmanager.stores.base import RunStore
from jobmanager.stores.steps import StepWrite

PAUSES = (0.1, 0.5, 2.0)  # seconds after each vain attempt to keep a step: it would be done again
READ_FIRST = 20  # runs; how many steps they have says of how many the next ones are read
READ_AT_ONCE = 500  # steps, about: they are held until their run begins


class EarlierSteps:
    """The steps that runs which this process has taken on at once have from earlier starts. Any thread; one reads for those that come next.

    Nothing else may write them any more, so they are the same from the claim to the run's beginning.
    """

    def __init__(self, read: Callable[[Sequence[str]], Sequence[list[Step]]], runs: Sequence[Run]) -> None:
        self._read = read
        self._left = dict.fromkeys(run.id for run in runs if run.starts > 1)
        self._found: dict[str, list[Step]] = {}
        self._reading = threading.Lock()
        self._runs_at_once = READ_FIRST

    def of(self, run: Run) -> list[Step]:
        """Return the steps of one of the runs; the first start has none, and asks no store."""
        if run.starts <= 1:
            return []
        with self._reading:
            if run.id not in self._found:
                self._left.pop(run.id, None)
                wanted = [run.id, *islice(self._left, self._runs_at_once - 1)]
                found = self._read(wanted)
                self._found.update(zip(wanted, found, strict=True))
                for run_id in wanted[1:]:
                    del self._left[run_id]
                self._runs_at_once = max(1, READ_AT_ONCE * len(found) // max(1, sum(map(len, found))))
            return self._found.pop(run.id)


class StepLedger:
    """Reads and keeps the steps of runs. Any thread; the first one writes for all that wait."""

    def __init__(self, store: RunStore, clock: Clock, *, namespace: str) -> None:
        self._namespace = namespace
        self._store = store
        self._clock = clock
        self._record: Together[StepWrite, bool] = Together(self._write)

    def of(self, runs: Sequence[Run]) -> EarlierSteps:
        """Return what reads the steps of runs that this process has taken on at once."""
        return EarlierSteps(self._store.steps.of_runs, runs)

    def keep(self, write: StepWrite) -> bool:
        """Keep the step and return once it is durable; False if the run is another start's by now. Raises StoreUnavailableError."""
        for pause in PAUSES:
            try:
                return self._record(write)
            except StoreUnavailableError:
                self._clock.sleep(pause)
        return self._record(write)

    def _write(self, writes: Sequence[StepWrite]) -> list[bool]:
        return self._store.steps.record(writes)

    def event(self, awaited: Awaited) -> Event | None:
        """Return the event that a step waits for, if it was sent."""
        return self._store.steps.event(self._namespace, awaited)

    def children(self, run: Run, key_prefix: str) -> list[Run]:
        """Return the runs that this run has started under such keys."""
        return self._store.steps.children(run.id, key_prefix=key_prefix)

    def child_keys(self, run: Run, key_prefix: str) -> Mapping[str, bool]:
        """Return such keys of the runs that this run has started, and whether each is open."""
        return self._store.steps.child_keys(run.id, key_prefix)

    def now(self) -> datetime:
        """Return the time by which steps sleep: the store's."""
        return self._store.now()
