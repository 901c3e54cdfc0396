"""Requests to open runs, and what became of each."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self

from jobmanager.cheap import cheap
from jobmanager.execution.in_flight import Hold
from jobmanager.execution.slots import Slot
from jobmanager.job import Job
from jobmanager.ledger.overlap import OpenResult
from jobmanager.run import TICKED, ByHand, Run, Tick
from jobmanager.stores.values import Note


@cheap
@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A tick, or a start by hand, that wants a run. With `here` it may execute in this process at once.

    With `note` its opening is audited, in the transaction that opens it: under the job's lock, as the group commit knows runs alone.
    """

    job: Job
    tick: Tick | None = None
    due_at: datetime | None = None
    by_hand: ByHand = TICKED
    here: bool = True
    note: Note | None = None


class Opening:
    """Runs on their way into the store: their slots until they execute, and what became of each once that is known.

    `undecided` are runs that the store refused, or that wait in a line: what becomes of them is settled under the job's lock.
    """

    __slots__ = ("_committed", "errors", "hold", "notes", "results", "slots", "undecided")

    def __init__(self, hold: Hold, *, waited_for: bool) -> None:
        self.hold = hold
        self.slots: dict[str, Slot] = {}
        self.undecided: list[Run] = []
        self.notes: dict[str, Note] = {}
        self.errors: Mapping[str, Exception] = {}
        self.results: list[OpenResult] = []
        self._committed = threading.Event() if waited_for else None

    def committed(self, refused: Iterable[Run], errors: Mapping[str, Exception]) -> None:
        """Note what the store said. Once, on the writer's thread."""
        self.errors = errors
        self.undecided += [run for run in refused if run.id not in errors]
        if self._committed is not None:
            self._committed.set()

    @property
    def is_waited_for(self) -> bool:
        """True if the thread that asked for the opening settles it, too."""
        return self._committed is not None

    def wait(self, seconds: float) -> bool:
        """Wait until the store has said what it takes; False if it did not within `seconds`."""
        return self._committed is None or self._committed.wait(seconds)

    def leave_undecided(self, run: Run, note: Note | None) -> None:
        """Have the job's lock decide about this run; `note` makes the entry of the audit if that opens it."""
        self.undecided.append(run)
        if note is not None:
            self.notes[run.id] = note

    def release_slot(self, run: Run) -> None:
        """Return the slot of a run that does not execute here, if it has one."""
        slot = self.slots.pop(run.id, None)
        if slot is not None:
            slot.release()

    def close(self) -> None:
        """Return what is still held: slots of runs that do not execute here, and announced runs. Twice is once."""
        while self.slots:
            self.slots.popitem()[1].release()
        self.hold.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
