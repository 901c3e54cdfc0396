"""Durable writes of steps, and their reading: those of several runs at once are one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from jobmanager.clock import Clock
from jobmanager.errors import StoreUnavailableError
from jobmanager.ledger.together import Together
from jobmanager.run import Run
from jobmanager.step import Awaited, Event, Step
from jobmanager.stores.base import RunStore
from jobmanager.stores.steps import StepWrite

PAUSES = (0.1, 0.5, 2.0)  # seconds after each vain attempt to keep a step: it would be done again


class StepLedger:
    """Reads and keeps the steps of runs. Any thread; the first one reads and writes for all that wait."""

    def __init__(self, store: RunStore, clock: Clock, *, namespace: str) -> None:
        self._namespace = namespace
        self._store = store
        self._clock = clock
        self._record: Together[StepWrite, bool] = Together(self._write)
        self._read = Together(store.steps.of_runs)

    def of(self, run: Run) -> list[Step]:
        """Return the steps that earlier starts of the run have left; the first start has none, and asks no store."""
        return self._read(run.id) if run.starts > 1 else []

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
