"""Pending runs find a worker: one of this process, or one that they are sent to where others execute."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from jobmanager.clock import Clock
from jobmanager.execution.demand import Demand
from jobmanager.execution.executor import Executor
from jobmanager.execution.opening import OpenRequest
from jobmanager.execution.slots import Lane, Reservation, Slot
from jobmanager.execution.worker_pool import WorkerPool
from jobmanager.job import Job
from jobmanager.process.heartbeat import Heartbeat
from jobmanager.registry import Registry
from jobmanager.run import PENDING, RUNNING, Run
from jobmanager.stores.base import RunStore
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

MOST_CLAIMED = 1000
PAUSES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.0)  # seconds after each vain claim of runs by their ids


class KnownJobs(Protocol):
    """Which jobs the code of this process does not know."""

    @property
    def unknown(self) -> Collection[str]:
        """Jobs that only other processes declare; their runs are left to them."""
        ...

    def of_others(self, job_id: str) -> Job | None:
        """Return a job that an operator made and that only other processes execute."""
        ...


class Claiming:
    """Claims runs that wait in the store for this process. Any thread may call; two claims never take the same run."""

    def __init__(
        self,
        *,
        registry: Registry,
        store: RunStore,
        executor: Executor,
        pool: WorkerPool,
        heartbeat: Heartbeat,
        demand: Demand,
        jobs: KnownJobs,
        executes: bool,
        dispatch: Callable[[Job, Run], None],
        clock: Clock,
    ) -> None:
        self._clock = clock
        self._registry = registry
        self._store = store
        self._executor = executor
        self._pool = pool
        self._heartbeat = heartbeat
        self._demand = demand
        self._jobs = jobs
        self._executes = executes
        self._dispatch = dispatch
        self._accepting = False
        self._claiming = threading.Lock()

    @property
    def executes(self) -> bool:
        """True where this process executes what is due; False where it is sent to others."""
        return self._executes

    @property
    def accepting(self) -> bool:
        """True between the start of this process and its end."""
        return self._accepting

    def open(self) -> None:
        """Claim from now on."""
        self._accepting = True

    def close(self) -> None:
        """Claim nothing more."""
        self._accepting = False

    # ---------------------------------------------------------------- slots for what is opened here

    def slots_for(
        self, requests: Sequence[OpenRequest], *, require_live_heartbeat: bool = False
    ) -> list[Slot | None]:
        """Return a slot for each request that may begin here at once, None for those that have to wait, or run elsewhere.

        No slots where others execute; with `require_live_heartbeat` none if the store would not take what this process owns.
        """
        slots: list[Slot | None] = [None] * len(requests)
        here = [place for place, request in enumerate(requests) if request.here]
        if not self._executes or not here:
            return slots  # and no beat: a process that only asks must not count as living
        if require_live_heartbeat and not self.is_alive():
            return slots
        on_loop = {place for place in here if self._executor.runs_on_loop(requests[place].job)}
        tasks = self._pool.coroutines.take(len(on_loop))
        threads = self._pool.threads.take(len(here) - len(on_loop))
        for place in here:
            free = tasks if place in on_loop else threads
            slots[place] = free.pop() if free else None
        return slots

    def is_alive(self) -> bool:
        """Return True if the store takes runs that this process owns; registers where nothing beats (noop)."""
        return self._heartbeat.ok() or self._heartbeat.beat()

    # ---------------------------------------------------------------- what waits in the store

    def claim(self) -> None:
        """Take as many due pending runs as there are slots for; where others execute, send them what is due."""
        if not self._executes:
            self._send_due()
            return
        while self._accepting and self._claiming.acquire(blocking=False):
            try:
                taken = self._claim_once()
            finally:
                self._claiming.release()
            if not taken:
                return

    def _claim_once(self) -> int:
        # Not all slots: ticks that come while the store is asked would find none, and become pending as well.
        with self._pool.threads.reserve(MOST_CLAIMED, share=2) as slots:
            wanted = slots.left
            if not wanted:
                self._demand.claimed(all_slots=True)
                return self._claim_coroutines()
            claimed = self._claimed(wanted)
            self._demand.claimed(all_slots=len(claimed) == wanted)
            self._start(claimed, slots)
        return len(claimed)

    def _claim_coroutines(self) -> int:
        """With every thread busy, take what needs none."""
        plain = {job.id for job in self._registry.jobs.values() if not self._executor.runs_on_loop(job)}
        if len(plain) == len(self._registry.jobs):
            return 0
        with self._pool.coroutines.reserve(MOST_CLAIMED, share=2) as slots:
            claimed = self._claimed(slots.left, leaving=plain) if slots.left else []
            self._start(claimed, slots)
        return len(claimed)

    def claim_these(self, run_ids: Sequence[str], *, here: bool = False) -> int:
        """Take these pending runs now; return how many: others may have some, and some may not be due.

        With `here` they are executed on this thread, before this returns. A run that another process looks at in this moment is
        asked for again for a second or so.
        """
        taken, left = 0, list(run_ids)
        for pause in PAUSES if self._pool.threaded else (0.0,):
            with self._pool.threads.reserve_unbounded(len(left)) as slots:
                claimed = self._claimed(len(left), run_ids=left)
                self._start(claimed, slots, here=here)
            taken += len(claimed)
            ours = {run.id for run in claimed}
            left = [run_id for run_id in left if run_id not in ours]
            if left:
                left = self._store.runs.note_unclaimed(self._known(left))
            if not left:
                break
            self._clock.sleep(pause)
        return taken

    def lend(self, slot: Slot, run: Run) -> Slot | None:
        """Have an open run, or what its line waits for, begin in place of a handler that waits for it; return the slot lent to it.

        None if nothing needs one: all runs elsewhere, or is not due, or has slots of another kind, or this one is lent.
        """
        job = self._registry.jobs.get(run.job_id)
        if not self._executes or job is None or self._lane_of(job) is not slot.lane:
            return None
        line = self._line_of(run) if run.turn == "waits" else [run]
        queued = [attempt for each in line if (attempt := self._executor.waiting(each.id)) is not None]
        now = self._clock.now()
        due = [each.id for each in line if each.status is PENDING and each.due_at <= now]
        lent = slot.lend() if queued or due else None
        if lent is None:
            return None
        begun = False
        try:
            begun = any(self._executor.restart_first(attempt, lent) for attempt in queued[:1])
            claimed = self._claimed(1, run_ids=due) if due and not begun else []
            self._executor.start([(each, lent) for each in claimed], first=True)
            begun = begun or bool(claimed)
        finally:
            if not begun:
                lent.release()
        return lent if begun else None

    def _lane_of(self, job: Job) -> Lane:
        return self._pool.coroutines if self._executor.runs_on_loop(job) else self._pool.threads

    def _line_of(self, run: Run) -> list[Run]:
        """Return the open runs with the key of this one: the first of them that can begin is the one to begin."""
        found = self._store.history.runs(job_id=run.job_id, statuses=[PENDING, RUNNING], limit=MOST_CLAIMED)
        return [each for each in found if each.concurrency_key == run.concurrency_key]

    def claim_one_here(self) -> Run | None:
        """Take one due pending run, execute it on this thread, and return it as it was taken; None if none is due, or if others execute."""
        if not (self._executes and self._accepting):
            return None
        with self._pool.threads.reserve_unbounded(1) as slots:
            claimed = self._claimed(1)
            self._start(claimed, slots, here=True)
        return claimed[0] if claimed else None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Leave what is pending to the calls of `claim_one_here` as long as the block lasts; `claim` takes nothing here meanwhile."""
        ours = self._claiming.acquire(blocking=False)  # else another call has it
        try:
            yield
        finally:
            if ours:
                self._claiming.release()

    def count_due(self) -> int:
        """Count the due pending runs that processes such as this one would take, as far as 1,000."""
        return self._store.runs.count_due(self._heartbeat.namespace, MOST_CLAIMED, unknown=self._jobs.unknown)

    def _known(self, run_ids: Sequence[str]) -> list[str]:
        """Return those of the runs whose job this process declares; it will never get the others."""
        return [run.id for run in self._store.runs.by_id(run_ids) if run.job_id in self._registry.jobs]

    def _start(self, claimed: Sequence[Run], slots: Reservation, *, here: bool = False) -> None:
        self._executor.start([(run, slots.take()) for run in claimed], here=here)

    def send(self, runs: Sequence[Run]) -> None:
        """Tell the backend of runs that others are to execute."""
        for run in runs:
            job = self._registry.jobs.get(run.job_id) or self._jobs.of_others(run.job_id)
            if job is None:
                continue
            try:
                self._dispatch(job, run)
            except Exception:  # the row is there, and is sent again
                logger.exception("job=%s run_id=%s could not be sent now", run.job_id, run.id)

    def _claimed(
        self, limit: int, *, leaving: Collection[str] = (), run_ids: Sequence[str] = ()
    ) -> list[Run]:
        if not self.is_alive():
            return []
        heartbeat = self._heartbeat
        left = {*self._jobs.unknown, *leaving}
        return self._store.runs.claim(heartbeat.id, heartbeat.namespace, limit, unknown=left, run_ids=run_ids)

    def _send_due(self) -> None:
        """Send what is due and was sent to no worker, or so long ago that the message must be lost."""
        namespace, full = self._heartbeat.namespace, True
        while full and self._accepting and self.is_alive():
            due = self._store.runs.to_dispatch(namespace, MOST_CLAIMED, unknown=self._jobs.unknown)
            self.send(due)
            full = len(due) == MOST_CLAIMED
