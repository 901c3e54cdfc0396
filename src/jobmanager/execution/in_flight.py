"""The work that this process has in hand: the attempts it took on, and announced runs that one of its threads is about to open."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

from jobmanager.execution.attempt import Attempt
from jobmanager.run import Run


class Attempts:
    """The attempts of this process by the id of their run: from being taken on until their end is on record.

    Any thread may call any method. A later attempt of the same run may be taken on while the end of the earlier one is written.
    """

    def __init__(self) -> None:
        self._taken: dict[str, Attempt] = {}
        self._ending: dict[str, Attempt] = {}
        self.handlers_begun = 0
        """How many handlers this process has called so far."""

    def __iter__(self) -> Iterator[Attempt]:
        return iter(list(self._taken.values()))

    def __len__(self) -> int:
        return len(self._taken)

    def add(self, attempt: Attempt) -> None:
        """Note that the attempt waits for a worker."""
        self._taken[attempt.run.id] = attempt

    def get(self, run_id: str) -> Attempt | None:
        """Return the attempt of this run that waits or is under way, if there is one."""
        return self._taken.get(run_id)

    def ending(self, attempt: Attempt) -> None:
        """Note that the end of the attempt is on its way into the store."""
        self._ending[attempt.run.id] = attempt
        self._drop(self._taken, attempt)

    def remove(self, attempt: Attempt) -> None:
        """Forget an attempt: another process owns its run, or its end cannot be written."""
        self._drop(self._taken, attempt)
        self._drop(self._ending, attempt)

    def recorded(self, run: Run) -> None:
        """Forget the attempt of exactly this start of the run: its end is on record, or lost for good."""
        attempt = self._ending.get(run.id)
        if attempt is not None and attempt.run is run:
            del self._ending[run.id]

    def knows(self, run_id: str) -> bool:
        """Return True if the run waits for a worker here, its handler runs, or its end is being written."""
        return run_id in self._taken or run_id in self._ending

    def begun(self) -> list[Attempt]:
        """Return the attempts whose handler was called and has not ended."""
        return [attempt for attempt in self if attempt.begun]

    def waiting(self) -> list[Attempt]:
        """Return the attempts that wait for a worker."""
        return [attempt for attempt in self if not attempt.begun]

    @staticmethod
    def _drop(attempts: dict[str, Attempt], attempt: Attempt) -> None:
        if attempts.get(attempt.run.id) is attempt:
            del attempts[attempt.run.id]


class InFlightRuns:
    """Announced runs that a thread is about to open: they may be brought again meanwhile, and must not be opened twice."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._changed = threading.Condition()

    def acquire(self, run_ids: Iterable[str], *, patience: float = 0) -> Hold:
        """Hold those of the runs that no other thread holds, after at most `patience` seconds of waiting for the others."""
        wanted = dict.fromkeys(run_ids)
        with self._changed:
            self._changed.wait_for(lambda: self._ids.isdisjoint(wanted), patience)
            mine = [run_id for run_id in wanted if run_id not in self._ids]
            self._ids.update(mine)
        return Hold(self, mine)

    def release(self, run_ids: Iterable[str]) -> None:
        """Let other threads have these runs; called by the hold."""
        with self._changed:
            self._ids.difference_update(run_ids)
            self._changed.notify_all()


class Hold:
    """Runs that one thread holds until it leaves the block or calls `release`; twice is once."""

    __slots__ = ("_runs", "ids")

    def __init__(self, runs: InFlightRuns, ids: Sequence[str]) -> None:
        self._runs = runs
        self.ids = ids

    def release(self) -> None:
        """Let other threads have the runs."""
        ids, self.ids = self.ids, ()
        if ids:
            self._runs.release(ids)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


NOTHING = Hold(InFlightRuns(), ())
"""A hold on no run."""
