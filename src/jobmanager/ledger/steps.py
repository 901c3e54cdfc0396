"""Durable writes of steps: what comes while one transaction is written makes the next one together."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import datetime

from jobmanager.clock import Clock
from jobmanager.errors import StoreUnavailableError
from jobmanager.run import Run
from jobmanager.step import Awaited, Event, Step
from jobmanager.stores.base import RunStore
from jobmanager.stores.steps import StepWrite

PAUSES = (0.1, 0.5, 2.0)  # seconds after each vain attempt to keep a step: it would be done again
MOST_TOGETHER = 500
LONGEST_WAIT = 1.0  # seconds before a thread looks itself whether it may write


class _Pending:
    """A write that waits until the thread that writes takes it along, or has this one's thread write next."""

    __slots__ = ("_awake", "error", "taken", "write")

    def __init__(self, write: StepWrite) -> None:
        self.write = write
        self.taken: bool | None = None
        self.error: BaseException | None = None
        self._awake = threading.Lock()
        self._awake.acquire()

    @property
    def is_done(self) -> bool:
        return self.taken is not None or self.error is not None

    def wait(self) -> None:
        """Wait to be woken; not for ever, as the thread that was to do so may have been ended."""
        self._awake.acquire(timeout=LONGEST_WAIT)

    def wake(self) -> None:
        """End the wait, or the next one; one thread at a time calls it."""
        if self._awake.locked():
            self._awake.release()


class StepLedger:
    """Reads and keeps the steps of runs. Any thread; the first one writes for all that wait."""

    def __init__(self, store: RunStore, clock: Clock, *, namespace: str) -> None:
        self._namespace = namespace
        self._store = store
        self._clock = clock
        self._waiting: list[_Pending] = []
        self._queue = threading.Lock()
        self._writing = threading.Lock()

    def of(self, run: Run) -> list[Step]:
        """Return the steps that earlier starts of the run have left; the first start has none, and asks no store."""
        return self._store.steps.of(run.id) if run.starts > 1 else []

    def keep(self, write: StepWrite) -> bool:
        """Keep the step and return once it is durable; False if the run is another start's by now. Raises StoreUnavailableError."""
        for pause in PAUSES:
            try:
                return self._keep(write)
            except StoreUnavailableError:
                self._clock.sleep(pause)
        return self._keep(write)

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

    def _keep(self, write: StepWrite) -> bool:
        if not self._waiting and self._writing.acquire(blocking=False):  # nothing else is in flight
            try:
                return self._store.steps.record([write])[0]
            finally:
                self._writing.release()
                self._hand_over()
        mine = _Pending(write)
        with self._queue:
            self._waiting.append(mine)
        while not mine.is_done:
            if not self._writing.acquire(blocking=False):
                mine.wait()
                continue
            try:
                if not mine.is_done:
                    self._write_some()
            finally:
                self._writing.release()
            self._hand_over()
        if mine.error is not None:
            raise mine.error
        return bool(mine.taken)

    def _hand_over(self) -> None:
        """Have the thread of the first that waits write next: it may have found this one at it."""
        with self._queue:
            if self._waiting:
                self._waiting[0].wake()

    def _write_some(self) -> None:
        with self._queue:
            batch, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
        try:
            self._write(batch)
        except StoreUnavailableError as error:
            for each in batch:
                each.error = error
        except Exception:  # noqa: BLE001 - one of them; the others must not fail with it
            for each in batch:
                self._write_one(each)
        except BaseException as error:  # what ends this thread ends no other one, which would wait for ever
            for each in batch:
                each.error = error
            raise
        finally:
            with self._queue:
                for each in batch:
                    each.wake()

    def _write(self, batch: list[_Pending]) -> None:
        taken = self._store.steps.record([each.write for each in batch])
        for each, is_taken in zip(batch, taken, strict=True):
            each.taken = is_taken

    def _write_one(self, each: _Pending) -> None:
        try:
            self._write([each])
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            each.error = error
