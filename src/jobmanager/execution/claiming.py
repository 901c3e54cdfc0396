"""Pending runs find a worker: one of this process, or one that is sent for where others execute."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime

from jobmanager.clock import Clock
from jobmanager.execution.executor import Executor
from jobmanager.execution.worker_pool import WorkerPool
from jobmanager.job import Job
from jobmanager.process.background import BackgroundTasks
from jobmanager.process.heartbeat import Heartbeat
from jobmanager.registry import Registry
from jobmanager.run import Run
from jobmanager.stores.base import RunStore

MOST_CLAIMED = 1000


class Claiming:
    """What this process takes of the runs that wait in the store. Any thread may call; two claims never take the same run."""

    def __init__(
        self,
        *,
        registry: Registry,
        store: RunStore,
        executor: Executor,
        pool: WorkerPool,
        lease: Heartbeat,
        chores: BackgroundTasks,
        clock: Clock,
        executes: bool,
        dispatch: Callable[[Job, Run], None],
    ) -> None:
        self.accepting = False
        """Between the start of this process and its end."""
        self.unknown: set[str] = set()
        """Jobs that only other processes know; their runs are left to them."""
        self._registry = registry
        self._store = store
        self._executor = executor
        self._pool = pool
        self._lease = lease
        self._chores = chores
        self._clock = clock
        self._executes = executes
        self._dispatch = dispatch
        self._backlog = False
        self._claiming = threading.Lock()
        executor.on_retry = self.claim_at
        executor.on_place = self._place_is_free

    # ---------------------------------------------------------------- workers for what is opened here

    def reserve_slots(self, wanted: int, *, require_live_heartbeat: bool = False) -> int:
        """Workers for as many runs that are about to be opened as our own, or for fewer; none where others execute.

        With `require_live_heartbeat` none, either, if the store would not take what this process owns; on noop, where nothing beats, it registers.
        """
        if not wanted or not self._executes or (require_live_heartbeat and not self._is_alive()):
            return 0
        return self._pool.reserve(wanted)

    # ---------------------------------------------------------------- what waits in the store

    def claim(self) -> None:
        """Take as many due pending runs as there is room for; where others execute, send them what is due."""
        if not self._executes:
            self._send_due()
        while self.accepting and self._executes and self._claiming.acquire(blocking=False):
            claimed: list[Run] = []
            # Not all of them: ticks that come while the store is asked would find no place, and become pending as well.
            places = self._pool.reserve(MOST_CLAIMED, share=2)
            try:
                if places:
                    claimed = self._claimed(places)
                # With all places taken there may be more: the next place that is given back looks again.
                self._backlog = len(claimed) == places
            finally:
                self._pool.release(places - len(claimed))
                self._claiming.release()
            if not claimed:
                return
            self._executor.start(claimed)

    def claim_these(self, run_ids: Sequence[str], *, here: bool = False) -> int:
        """Take these pending runs now; answers how many: others may have them, and some may not be due.

        With `here` they are executed on this thread, before this returns.
        """
        places = len(run_ids)
        self._pool.reserve_unbounded(places)
        claimed: list[Run] = []
        try:
            claimed = self._claimed(places, run_ids)
        finally:
            self._pool.release(places - len(claimed))
        self._executor.start(claimed, here=here)
        return len(claimed)

    def claim_at(self, moment: datetime) -> None:
        """Claim when this moment has come."""
        if moment > self._clock.now():
            self._chores.run_at(moment, self.claim)
        else:
            self.claim_soon()

    def claim_soon(self) -> None:
        """Claim behind the caller's back."""
        self._chores.run_soon(self.claim)

    def send(self, runs: Sequence[Run]) -> None:
        """Tell the backend of runs that others are to execute."""
        for run in runs:
            job = self._registry.jobs.get(run.job_id)
            if job is not None:
                self._dispatch(job, run)

    def _is_alive(self) -> bool:
        return self._lease.ok() or self._lease.beat()

    def _claimed(self, limit: int, run_ids: Sequence[str] = ()) -> list[Run]:
        lease = self._lease
        if not self._is_alive():
            return []
        return self._store.claim(lease.id, lease.namespace, limit, unknown=self.unknown, run_ids=run_ids)

    def _send_due(self) -> None:
        """Send what is due and was sent to nobody, or so long ago that the message must be lost."""
        namespace, full = self._lease.namespace, True
        while full and self.accepting and self._is_alive():
            due = self._store.to_dispatch(namespace, MOST_CLAIMED, unknown=self.unknown)
            self.send(due)
            full = len(due) == MOST_CLAIMED

    def _place_is_free(self) -> None:
        if self._backlog and self._pool.has_room:
            self._backlog = False
            self.claim_soon()
