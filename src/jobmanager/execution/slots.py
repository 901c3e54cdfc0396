"""Slots: how many runs this process may have taken at once. A slot is an object, so that no call site has to count."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

AHEAD_SECONDS = 1.0
MOST_AHEAD = 1000
MOST_LENT = 500
"""So many slots of a lane are lent at once, each with a thread that waits; runs that wait for one another deeper do not end."""


class Slot:
    """One place of a lane, held by one attempt. Any thread may release it; twice is once."""

    __slots__ = ("held", "lane")

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.held = True
        """False once it is back; changed by the lane alone, under its lock."""

    def release(self, *, seconds: float | None = None) -> None:
        """Return the slot to its lane, once; `seconds` is how long its run took, if one ended."""
        if self.held:
            self.lane.put_back(self, seconds)

    def lend(self) -> Slot | None:
        """Return a slot for the run that the holder waits for, in this one's place; None if that is lent, or back already."""
        return self.lane.lend(self)

    def keep(self) -> None:
        """Hold a place of its own, if this slot is lent: the lender goes on. Twice is once."""
        self.lane.keep(self)

    def moved_to(self, lane: Lane) -> Slot:
        """Return this slot if it is of the lane; else give it back and return one of the lane, even where none is free."""
        if self.lane is lane:
            return self
        self.release()
        return lane.take_unbounded()


class Reservation:
    """Slots that were reserved and not yet used: `take` hands one to an attempt, leaving the block returns the rest."""

    __slots__ = ("lane", "left")

    def __init__(self, lane: Lane, slots: int) -> None:
        self.lane = lane
        self.left = slots
        """How many slots are still unused."""

    def take(self) -> Slot | None:
        """Return a slot for one attempt, or None if all are used."""
        if not self.left:
            return None
        self.left -= 1
        return Slot(self.lane)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        unused, self.left = self.left, 0
        self.lane.unreserve(unused)


class Lane:
    """The slots of one kind of execution. Any thread may call any method.

    A lane that runs `ahead` gives more slots than it executes at once, but only for what it expects to begin within a second,
    judged by how long the last runs took; the rest stays pending in the store for the process that is free first.
    """

    def __init__(self, size: int, *, ahead: bool, lock: threading.Lock, emptied: threading.Condition) -> None:
        self.size = size
        self._ahead = ahead
        self._lock = lock
        self._emptied = emptied
        self.in_flight = 0
        """How many slots are taken: by runs that execute, or are about to. A slot and the one lent in its place count once."""
        self._lenders: dict[Slot, Slot] = {}
        self._mean_seconds: float | None = None
        self._closed = False

    @property
    def capacity(self) -> int:
        """How many slots there are at the moment."""
        if not self._ahead or self._mean_seconds is None:
            return self.size
        return self.size + int(min(MOST_AHEAD, self.size * AHEAD_SECONDS / max(self._mean_seconds, 1e-4)))

    @property
    def lent(self) -> int:
        """How many slots are lent: so many handlers wait for the end of another run of this lane."""
        return len(self._lenders)

    @property
    def has_room(self) -> bool:
        """True if a tenth of the slots is free: for less, asking the store for more runs is not worth it."""
        capacity = self.capacity
        return 10 * (capacity - self.in_flight) >= capacity

    def take(self, wanted: int) -> list[Slot]:
        """Return up to `wanted` slots, as many as are free."""
        return [Slot(self) for _ in range(self._reserved(wanted, 1))]

    def reserve(self, wanted: int, *, share: int = 1) -> Reservation:
        """Reserve up to `wanted` slots, and of the free ones only one in `share`."""
        return Reservation(self, self._reserved(wanted, share))

    def _reserved(self, wanted: int, share: int) -> int:
        if not wanted or self._closed:
            return 0
        with self._lock:
            free = self.capacity - self.in_flight
            given = max(0, min(wanted, -(-free // share)))
            self.in_flight += given
        return given

    def reserve_unbounded(self, wanted: int) -> Reservation:
        """Reserve slots even where none is free: for runs that a caller waits for."""
        with self._lock:
            self.in_flight += wanted
        return Reservation(self, wanted)

    def take_unbounded(self) -> Slot:
        """Return one slot even where none is free."""
        with self._lock:
            self.in_flight += 1
        return Slot(self)

    def close(self, *, closed: bool) -> None:
        """Reserve nothing while closed: what was taken cannot begin, so more would only wait here."""
        self._closed = closed

    def stop_running_ahead(self) -> None:
        """Give no slots beyond those that execute at once, until a run has ended again."""
        with self._lock:
            self._mean_seconds = None

    def put_back(self, slot: Slot, seconds: float | None) -> None:
        """Take a slot back, once; called by the slot."""
        with self._lock:
            if not slot.held:
                return
            slot.held = False
            self.in_flight -= 1
            if self._lenders:
                self.in_flight += self._end_loans_of(slot)
            if seconds is not None:
                mean = self._mean_seconds
                self._mean_seconds = seconds if mean is None else mean + (seconds - mean) * 0.2
            if not self.in_flight:
                self._emptied.notify_all()

    # ---------------------------------------------------------------- slots in place of others

    def lend(self, slot: Slot) -> Slot | None:
        """Return a slot in place of this one, until either is put back; called by the slot."""
        with self._lock:
            if not slot.held or slot in self._lenders.values() or len(self._lenders) >= MOST_LENT:
                return None
            lent = Slot(self)
            self._lenders[lent] = slot
            return lent

    def keep(self, lent: Slot) -> None:
        """Count a lent slot as one of its own from now on; called by the slot."""
        with self._lock:
            if self._lenders.pop(lent, None) is not None:
                self.in_flight += 1

    def _end_loans_of(self, slot: Slot) -> int:
        """Forget the loans in which the slot took part, and return how many: what is left of each has the place alone."""
        ended = [lent for lent, lender in self._lenders.items() if slot in (lent, lender)]
        for lent in ended:
            del self._lenders[lent]
        return len(ended)

    def unreserve(self, slots: int) -> None:
        """Take back slots that no attempt got; called by the reservation."""
        if slots:
            with self._lock:
                self.in_flight -= slots
                if not self.in_flight:
                    self._emptied.notify_all()
