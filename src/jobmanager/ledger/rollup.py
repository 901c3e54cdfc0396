"""The statistics kept up to date: hours of runs are counted again by the background thread, at the cost of a hundredth of its time.

An hour is counted anew from its rows, never by adding to what it came to before. So it does not matter which process counts it,
how often, or what died meanwhile; and the hot path only notes which hours its ends belong to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from jobmanager.clock import Clock
from jobmanager.stores.base import RunStore
from jobmanager.stores.statistics import Cell, CountedHour, hour_of, hours_of_ids, start_of

COUNT_EVERY = timedelta(seconds=5)
KEPT = timedelta(days=35)
SETTLED_AFTER = timedelta(minutes=10)
"""So long after its end an hour may still get rows: a store that was away gets them late."""
SHARE = 100
"""Counting takes one part in so many of a thread's time."""
PATIENCE = 0.05  # seconds of one round
AT_LEAST = 2  # hours of one round, so that a busy hour does not keep the past from being counted
UNCHANGED_FOR = timedelta(minutes=1)
OPEN_FRACTION = 50
"""An old hour with open runs is counted again when it is older by one part in so many: nearly always nothing has changed."""


class Rollup:
    """Counts hours of runs for the store's statistics. `note` may be called by any thread, `round` by one at a time."""

    def __init__(self, store: RunStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._ended: set[str] = set()
        self._present: set[int] = set()
        self._kept: dict[int, tuple[int, Sequence[Cell]]] = {}
        self._rests_until = 0.0

    def note(self, run_id: str) -> None:
        """Note that a run has ended: its hour is counted again soon, however old. Takes no lock and never waits."""
        self._ended.add(run_id[:15])

    def round(self) -> None:
        """Count the hours that are due, newest first, as far as this takes no more than its share of time. Any process may."""
        began = self._clock.monotonic()
        if began < self._rests_until:
            return
        now = self._store.now()
        self._know_hours(now)
        for number, counted in enumerate(self._due(now)):
            if number >= AT_LEAST and self._clock.monotonic() - began > PATIENCE:
                break
            self.count(counted, now)
        spent = self._clock.monotonic() - began
        if spent > PATIENCE:
            self._rests_until = began + spent * SHARE

    def count(self, counted: CountedHour, now: datetime) -> None:
        """Count one hour and keep it, unless another process was faster, or something changed meanwhile."""
        statistics, began = self._store.statistics, self._clock.monotonic()
        came_to = statistics.count(counted.hour)
        took = self._clock.monotonic() - began
        is_over = now >= start_of(counted.hour + 1) + SETTLED_AFTER
        settled = is_over and not came_to.open
        if not settled and self._is_kept(counted, came_to.cells, now):
            return
        statistics.keep(counted, came_to.cells, at=now, took=took, settled=settled)
        self._kept = {hour: kept for hour, kept in self._kept.items() if hour in self._recent(self._present)}
        self._kept[counted.hour] = counted.turn + 1, came_to.cells

    def _is_kept(self, counted: CountedHour, cells: Sequence[Cell], now: datetime) -> bool:
        """Return True if the store has just that already, and not since long: what does nothing writes once a minute."""
        if counted.counted_at is None or now - counted.counted_at > UNCHANGED_FOR:
            return False
        return self._kept.get(counted.hour) == (counted.turn, cells)

    def forget_old(self, now: datetime) -> None:
        """Delete what is older than any question goes back. Twice is once."""
        self._store.statistics.forget(hour_of(now - KEPT))

    def _due(self, now: datetime) -> list[CountedHour]:
        return [counted for counted in self._store.statistics.unsettled() if _is_due(counted, now)]

    def _know_hours(self, now: datetime) -> None:
        """See to it that every hour with runs is known: those of the past, the present one, and those of late ends."""
        statistics = self._store.statistics
        # The store decides what time it is, but ids are made by this host's clock, which may have been set back.
        present = {hour_of(now), hour_of(self._clock.now())}
        wanted = present - self._present
        if self._present:
            wanted |= set(statistics.hours_with_runs(max(self._present) + 1, hour_of(now)))
        else:
            past = statistics.hours_with_runs(hour_of(now - KEPT), hour_of(now))
            wanted = {*wanted, *past} - statistics.hours()
        ended = set(self._ended)
        self._ended.difference_update(
            ended
        )  # an end that is noted meanwhile is on record, and is counted below
        late = hours_of_ids(ended) - self._recent(present)
        statistics.recount(wanted | late)
        self._present = present

    def _recent(self, present: Iterable[int]) -> set[int]:
        """Return the hours that are counted every few seconds anyway."""
        return {hour for now in present for hour in (now, now - 1)}


def _is_due(counted: CountedHour, now: datetime) -> bool:
    if counted.counted_at is None or counted.counted_at > now:
        return True
    pause = max(COUNT_EVERY, timedelta(seconds=counted.took) * SHARE)
    age = now - start_of(counted.hour + 1) - SETTLED_AFTER
    return now - counted.counted_at >= max(pause, age / OPEN_FRACTION)
