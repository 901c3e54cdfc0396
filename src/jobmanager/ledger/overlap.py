"""What a run becomes when its concurrency key is taken: the decision table of docs/internals/ledger.md#overlap.

Decided under the job's lock, so that no other process decides the same at the same time. Ticks, starts by hand and catch-up meet here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from jobmanager.run import MISSED, PENDING, SKIPPED, Failure, Run
from jobmanager.stores.job_transaction import JobTransaction

MOST_LOOKS = 5  # at a key that claims take meanwhile; after them the run waits for it

OpenOutcome = Literal[
    "opened", "duplicate", "stale", "paused", "disabled", "accounted", "early", "late", "deadline", "dead", "skipped", "conflict",
    "missed",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class OpenResult:
    """What became of a run that was to be opened; `run` is the row that answers for it, if there is one."""

    finding: OpenOutcome
    run: Run | None = None


@dataclass(frozen=True, slots=True)
class QueueState:
    """The runs of one concurrency key at one moment: the holder, and those that wait for it, next in line first."""

    holder: Run | None
    waiting: list[Run]

    @property
    def first(self) -> Run | None:
        """The run that a newcomer meets: the holder, else the next in line; None if the key is free."""
        return self.holder or (self.waiting[0] if self.waiting else None)


def apply_overlap(txn: JobTransaction, run: Run, *, held_up: Failure | None = None) -> OpenResult:
    """Insert the run as what the job's overlap policy makes of it.

    A run that comes with turn None (allow) or `waits` (delayed, redriven, catch-up of all) is inserted as it is. `held_up` says why
    a tick comes late: one that is refused then did not meet a run when it was due, so it is missed and not skipped.
    """
    if run.turn != "holds":
        return _inserted(txn, run)
    for _ in range(MOST_LOOKS):
        result = _by_policy(txn, run, held_up)
        if result.finding != "duplicate" or _has_row(txn, run):
            return result
    return _inserted(txn, as_waiting(run))


def _by_policy(txn: JobTransaction, run: Run, held_up: Failure | None) -> OpenResult:
    holder = txn.holder(run.concurrency_key)
    if holder is not None and txn.job.overlap == "skip":
        return _refused(txn, run, holder, held_up)  # the runs that wait do not count
    queue = QueueState(holder, txn.waiting(run.concurrency_key))
    if queue.first is None:
        return _inserted(txn, run)
    match txn.job.overlap:
        case "queue" if not queue.waiting:
            return _inserted(txn, as_waiting(run))
        case "queue":
            return _refused(txn, run, queue.waiting[0], held_up)
        case "queue_all" if len(queue.waiting) < txn.job.queue_cap:
            return _inserted(txn, as_waiting(run))
        case "cancel_running":
            return _inserted(txn, _make_way(txn, run, queue))
    return _refused(txn, run, queue.first, held_up)


def _has_row(txn: JobTransaction, run: Run) -> bool:
    """Return whether the run, its tick or its idempotency key has a row; if none has, a claim took the key since it was looked at.

    Claims do not wait for the job's lock: a run that waited may begin to hold the key at any moment.
    """
    return (
        txn.get(run.id) is not None
        or (run.scheduled_for is not None and txn.run_for(run.scheduled_for) is not None)
        or (run.idempotency_key is not None and txn.run_with_key(run.idempotency_key) is not None)
    )


def as_waiting(run: Run) -> Run:
    """Return the run, not yet started, waiting for its key."""
    return replace(unstarted(run), turn="waits")


def unstarted(run: Run) -> Run:
    """Return the run as it is before any start: pending, owned by no process and sent to none."""
    return replace(run, status=PENDING, attempt=0, starts=0, owner=None, started_at=None, dispatched_at=None)


def _make_way(txn: JobTransaction, run: Run, queue: QueueState) -> Run:
    """Cancel what is in the newcomer's way; it holds the key at once unless a handler has to end first."""
    for other in queue.waiting:
        txn.supersede(other)
    if queue.holder is None:
        return run
    if queue.holder.status is PENDING:
        txn.supersede(queue.holder)
        return run
    txn.request_cancel(queue.holder)
    return as_waiting(run)


def _inserted(txn: JobTransaction, run: Run) -> OpenResult:
    return OpenResult("opened" if txn.insert(run) else "duplicate", run)


def _refused(txn: JobTransaction, run: Run, active: Run, held_up: Failure | None) -> OpenResult:
    if run.scheduled_for is None:
        return OpenResult("conflict", active)
    if held_up is not None and txn.job.catch_up == "all":
        return _inserted(txn, replace(as_waiting(run), trigger="catch_up"))
    if held_up is not None:
        missed = missed_by_outage(run, held_up, txn.now)
        txn.insert(missed)
        return OpenResult("missed", missed)
    skipped = skipped_run(run, active, txn.now)
    txn.insert(skipped)
    return OpenResult("skipped", skipped)


def missed_deadline(run: Run, now: datetime) -> Run:
    """Return the row of a tick that no process could start before its `start_deadline`."""
    return replace(unstarted(run), status=MISSED, reason="deadline", turn=None, finished_at=now)


def excluded_run(run: Run, now: datetime) -> Run:
    """Return the row of a tick that the schedule excludes."""
    return replace(unstarted(run), status=SKIPPED, reason="excluded", turn=None, finished_at=now)


def missed_by_outage(run: Run, why: Failure, now: datetime) -> Run:
    """Return the row of a tick that the store could not take while it was due."""
    return replace(unstarted(run), status=MISSED, reason="transport", error=why, turn=None, finished_at=now)


def skipped_run(run: Run, active: Run, now: datetime) -> Run:
    """Return the row of a tick that met a run of its job."""
    return replace(
        unstarted(run), status=SKIPPED, reason="overlap", blocked_by=active.id, turn=None, finished_at=now
    )
