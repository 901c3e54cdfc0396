"""Time in memory: a heap of what is due next. Shared by every backend that keeps time inside a process."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from jobmanager.job import Job
from jobmanager.run import Tick
from jobmanager.schedule import Schedule


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


_Item = tuple[datetime, int, str, datetime]  # due, generation, job id, instant


class Timetable:
    """Which job is due when. Any thread may call any method; the lock is held for microseconds.

    An entry that is replaced or removed stays in the heap until it surfaces; its generation tells that it is stale.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heap: list[_Item] = []
        self._entries: dict[str, tuple[int, ScheduledJob]] = {}
        self._generation = 0

    def replace(self, jobs: Iterable[ScheduledJob]) -> None:
        """Keep time for exactly these jobs; unchanged ones keep their place."""
        with self._lock:
            before, self._entries = self._entries, {}
            for scheduled in jobs:
                known = before.get(scheduled.job.id)
                if (
                    known is not None
                    and known[1].revision == scheduled.revision
                    and known[1].job == scheduled.job
                ):
                    self._entries[scheduled.job.id] = known
                elif scheduled.next_due_at is not None:
                    self._generation += 1
                    self._entries[scheduled.job.id] = (self._generation, scheduled)
                    due = scheduled.job.due_at(scheduled.next_due_at)
                    self._heap.append((due, self._generation, scheduled.job.id, scheduled.next_due_at))
            if before:
                self._heap = [item for item in self._heap if self._is_current(item)]
            heapq.heapify(self._heap)

    def top(self) -> datetime | None:
        """When the next job is due; None if there is none."""
        with self._lock:
            while self._heap and not self._is_current(self._heap[0]):
                heapq.heappop(self._heap)
            return self._heap[0][0] if self._heap else None

    def deliver_due(
        self, now: datetime, deliver: Callable[[Sequence[Tick]], None], *, earliest: datetime
    ) -> None:
        """Deliver everything due in one list, then plan. In this order: planning a thousand jobs must not delay one."""
        taken = self.take_due(now)
        if taken:
            try:
                deliver([tick for tick, _ in taken])
            finally:
                self.advance(taken, earliest)

    def take_due(self, now: datetime) -> list[tuple[Tick, ScheduledJob]]:
        """Take out everything due at `now`; `advance` puts the jobs back with their next instant."""
        taken = []
        with self._lock:
            while self._heap and self._heap[0][0] <= now:
                item = heapq.heappop(self._heap)
                if self._is_current(item):
                    scheduled = self._entries[item[2]][1]
                    tick = Tick(job_id=item[2], scheduled_for=item[3], revision=scheduled.revision)
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
                if entry is not None and entry[1] is scheduled:
                    heapq.heappush(self._heap, (due, entry[0], scheduled.job.id, instant))

    def entries(self) -> list[tuple[str, datetime]]:
        """Job ids and when they are due, earliest first."""
        with self._lock:
            return [(job_id, due) for due, _, job_id, _ in sorted(filter(self._is_current, self._heap))]

    def clear(self) -> None:
        """Forget everything: nothing is due any more."""
        with self._lock:
            self._heap.clear()
            self._entries.clear()

    def _is_current(self, item: _Item) -> bool:
        entry = self._entries.get(item[2])
        return entry is not None and entry[0] == item[1]
