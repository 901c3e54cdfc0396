"""When pending runs of the store are to be looked for, and what else follows from the end of a run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Protocol

from jobmanager.execution.worker_pool import WorkerPool
from jobmanager.ledger.reconciliation import Reconciliation
from jobmanager.process.background import BackgroundTasks
from jobmanager.registry import Registry
from jobmanager.run import FAILED, Run, RunStatus

CLAIM = "claim poll"
FOLLOW_CHANGES = "change poll"
SWEEP = "sweep"
GIVE_BACK = "give back"
WAKE = "wake"


class RunEvents(Protocol):
    """Receives the reports of the executor: any thread may call, and each call returns at once."""

    def retry_due(self, moment: datetime) -> None:
        """Act on another attempt of a run, recorded and due at this moment."""

    def ended(self, run: Run, status: RunStatus) -> None:
        """Act on the end of a run, which is on record."""

    def may_wake(self) -> None:
        """Act on the end of a run that another one may wait for, or on a run that waits now."""

    def slot_freed(self) -> None:
        """Act on a slot that a run gave back."""


class Demand:
    """Asks for claims where there may be something to claim: `RunEvents` of this process. Any thread."""

    def __init__(
        self,
        *,
        background: BackgroundTasks,
        pool: WorkerPool,
        registry: Registry,
        account: Reconciliation,
        on_end: Callable[[str], None],
    ) -> None:
        self._background = background
        self._pool = pool
        self._registry = registry
        self._account = account
        self._on_end = on_end
        self._backlog = False

    def claim_soon(self) -> None:
        """Look for pending runs as soon as the background thread is free."""
        self._background.run_task_soon(CLAIM)

    def claim_at(self, moment: datetime) -> None:
        """Look for pending runs when this moment has come."""
        self._background.run_task_at(CLAIM, moment)

    def give_back_soon(self) -> None:
        """Make withdrawn runs pending again as soon as the background thread is free."""
        self._background.run_task_soon(GIVE_BACK)

    def claimed(self, *, all_slots: bool) -> None:
        """Note what a claim took: with all slots there may be more, and the next slots that are freed look again."""
        self._backlog = all_slots

    def retry_due(self, moment: datetime) -> None:
        """Claim when the next attempt is due."""
        self.claim_at(moment)

    def ended(self, run: Run, status: RunStatus) -> None:
        """Note the end, claim what waits in line for the run's key, and pause a job that fails too often."""
        self._on_end(run.id)
        job = self._registry.jobs.get(run.job_id)
        if job is None:
            return
        if job.queues or job.catch_up == "all":
            self.claim_soon()
        if status is FAILED and job.pause_after_failures:
            self._background.run_soon(partial(self._pause_if_failing, job.id))

    def may_wake(self) -> None:
        """Look for resting runs whose event or children are there."""
        self._background.run_task_soon(WAKE)

    def slot_freed(self) -> None:
        """Claim more, once a tenth of the slots is free again."""
        if self._backlog and self._pool.threads.has_room:
            self._backlog = False
            self.claim_soon()

    def _pause_if_failing(self, job_id: str) -> None:
        if self._account.pause_if_failing(job_id):
            self._background.run_task_soon(FOLLOW_CHANGES)
