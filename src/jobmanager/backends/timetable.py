"""Time in memory: a heap of what is due next. Shared by every backend that keeps time inside a process."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import itemgetter

from jobmanager.cheap import cheap
from jobmanager.clock import Clock
from jobmanager.job import Job
from jobmanager.run import MICROSECOND, Tick
from jobmanager.schedule import Schedule


@cheap
@dataclass(frozen=True, slots=True)
class ScheduledJob:
    """A job to keep time for: from `next_due_at` on, by the schedule of this revision."""

    job: Job
    revision: int
    next_due_at: datetime | None

    @property
    def schedule(self) -> Schedule:
        assert self.job.schedule is not None  # noqa: S101 - only jobs with a schedule are scheduled
        return self.job.schedule


_Item = tuple[datetime, int, ScheduledJob, datetime]  # due, generation, job, instant


SHORTEST_INTERVAL = timedelta(seconds=1)
ASLEEP = timedelta(seconds=10)
"""A longer pause between two passes is no mere lateness: the machine slept, or nobody kept the time."""


class Timetable:
    """Which job is due when. Any thread may call any method; the lock is held for microseconds.

    An item that is replaced or removed stays in the heap until it surfaces; it is stale if it is not the job's entry. Its
    generation keeps items that are due together in the order they were planned first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heap: list[_Item] = []
        self._entries: dict[str, _Item] = {}
        self._generation = 0
        self._passed_at: datetime | None = None

    def replace(self, jobs: Iterable[ScheduledJob]) -> None:
        """Keep time for exactly these jobs; unchanged ones keep their place."""
        with self._lock:
            before, self._entries = self._entries, {}
            for scheduled in jobs:
                known = before.get(scheduled.job.id)
                if (
                    known is not None
                    and known[2].revision == scheduled.revision
                    and known[2].job == scheduled.job
                ):
                    self._entries[scheduled.job.id] = known
                elif scheduled.next_due_at is not None:
                    self._generation += 1
                    due = scheduled.job.due_at(scheduled.next_due_at)
                    item = (due, self._generation, scheduled, scheduled.next_due_at)
                    self._entries[scheduled.job.id] = item
                    self._heap.append(item)
            if before:
                self._heap = [item for item in self._heap if self._is_current(item)]
            heapq.heapify(self._heap)

    def begin(self) -> None:
        """Say that the time is kept from now on: the next pass is the first one."""
        self._passed_at = None

    def top(self) -> datetime | None:
        """When the next job is due; None if there is none."""
        with self._lock:
            while self._heap and not self._is_current(self._heap[0]):
                heapq.heappop(self._heap)
            return self._heap[0][0] if self._heap else None

    def deliver_due(
        self, clock: Clock, deliver: Callable[[Sequence[Tick]], None], *, grace: timedelta
    ) -> None:
        """Deliver everything due in one list, then plan. In this order: planning a thousand jobs must not delay one.

        The first pass, and one that follows the last after more than `ASLEEP`, finds what came due meanwhile: of each job only the
        newest instant is delivered, and the older ones are left to the account.
        """
        now, before = clock.now(), self._passed_at
        taken = self.take_due(now)
        if before is None or now - before > ASLEEP:
            taken = [_newest(tick, scheduled, now) for tick, scheduled in taken]
        try:
            if taken:
                try:
                    deliver([tick for tick, _ in taken])
                finally:
                    self.advance(taken, now - grace)
        finally:
            self._passed_at = clock.now()

    def take_due(self, now: datetime) -> list[tuple[Tick, ScheduledJob]]:
        """Take out everything due at `now`; `advance` puts the jobs back with their next instant."""
        taken = []
        with self._lock:
            while self._heap and self._heap[0][0] <= now:
                item = heapq.heappop(self._heap)
                if self._is_current(item):
                    scheduled = item[2]
                    tick = Tick(scheduled.job.id, item[3], scheduled.revision)
                    taken.append((tick, scheduled))
        return taken

    def advance(self, taken: Sequence[tuple[Tick, ScheduledJob]], earliest: datetime) -> None:
        """Plan the next instant of each job that was taken, none at or before `earliest`: those are the account's."""
        following = []
        found: dict[
            tuple[Schedule, datetime], datetime | None
        ] = {}  # a burst is of one instant and of few schedules
        for tick, scheduled in taken:
            asked = scheduled.schedule, max(tick.scheduled_for, earliest - scheduled.job.jitter)
            if asked not in found:
                found[asked] = scheduled.schedule.next_after(asked[1])
            instant = found[asked]
            if instant is not None:
                following.append((scheduled, scheduled.job.due_at(instant), instant))
        with self._lock:
            for scheduled, due, instant in following:
                entry = self._entries.get(scheduled.job.id)
                if entry is not None and entry[2] is scheduled:
                    item = (due, entry[1], scheduled, instant)
                    self._entries[scheduled.job.id] = item
                    heapq.heappush(self._heap, item)

    def entries(self) -> list[tuple[str, datetime]]:
        """Job ids and when they are due, earliest first."""
        with self._lock:
            return [
                (item[2].job.id, item[0]) for item in sorted(filter(self._is_current, self._heap), key=_order)
            ]

    def clear(self) -> None:
        """Forget everything: nothing is due any more."""
        with self._lock:
            self._heap.clear()
            self._entries.clear()

    def _is_current(self, item: _Item) -> bool:
        return self._entries.get(item[2].job.id) is item


_order = itemgetter(0, 1)


def _newest(tick: Tick, scheduled: ScheduledJob, now: datetime) -> tuple[Tick, ScheduledJob]:
    """Return the tick of the job's newest instant that is due, if there is a newer one than that of this tick."""
    if now - tick.scheduled_for < SHORTEST_INTERVAL:
        return tick, scheduled  # as nearly always, and in a burst of very many
    schedule = scheduled.schedule
    instant = schedule.previous_before(now + MICROSECOND)
    while instant is not None and instant > tick.scheduled_for and scheduled.job.due_at(instant) > now:
        instant = schedule.previous_before(instant)
    if instant is None or instant <= tick.scheduled_for:
        return tick, scheduled
    return Tick(tick.job_id, instant, tick.revision), scheduled
