"""What a run becomes when its concurrency key is taken: the decision table of docs/internals/ledger.md#overlap.

Decided under the job's lock, so that nobody else decides the same at the same time. Ticks, starts by hand and catch-up meet here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from jobmanager.run import MISSED, PENDING, SKIPPED, Run
from jobmanager.stores.base import JobTransaction

OpenOutcome = Literal[
    "opened", "duplicate", "stale", "paused", "disabled", "accounted", "early", "late", "deadline", "dead", "skipped", "conflict"
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class OpenResult:
    """What became of a run that was to be opened; `run` is the row that answers for it, if there is one."""

    finding: OpenOutcome
    run: Run | None = None


def apply_overlap(txn: JobTransaction, run: Run) -> OpenResult:
    """Insert the run as what the job's overlap policy makes of it.

    A run that comes with turn None (allow) or `waits` (delayed, redriven, catch-up of all) is inserted as it is.
    """
    if run.turn != "holds":
        return _inserted(txn, run)
    holder, waiting = txn.holder(run.concurrency_key), txn.waiting(run.concurrency_key)
    if holder is None and not waiting:
        return _inserted(txn, run)
    match txn.job.overlap:
        case "queue" if not waiting:
            return _inserted(txn, in_line(run))
        case "queue_all" if len(waiting) < txn.job.queue_cap:
            return _inserted(txn, in_line(run))
        case "cancel_running":
            return _inserted(txn, _make_way(txn, run, holder, waiting))
        case "queue" if waiting:
            return _refused(txn, run, waiting[0])
    return _refused(txn, run, holder or waiting[0])


def in_line(run: Run) -> Run:
    """The run, not yet started, waiting for its key."""
    return replace(unstarted(run), turn="waits")


def unstarted(run: Run) -> Run:
    """The run as somebody later, or somebody else, will start it; it is sent to nobody yet."""
    return replace(run, status=PENDING, attempt=0, starts=0, owner=None, started_at=None, dispatched_at=None)


def _make_way(txn: JobTransaction, run: Run, holder: Run | None, waiting: list[Run]) -> Run:
    """Cancel what is in the newcomer's way; it holds the key at once unless a handler has to end first."""
    for other in waiting:
        txn.supersede(other)
    if holder is None:
        return run
    if holder.status is PENDING:
        txn.supersede(holder)
        return run
    txn.request_cancel(holder)
    return in_line(run)


def _inserted(txn: JobTransaction, run: Run) -> OpenResult:
    return OpenResult("opened" if txn.insert(run) else "duplicate", run)


def _refused(txn: JobTransaction, run: Run, active: Run) -> OpenResult:
    if run.scheduled_for is None:
        return OpenResult("conflict", active)
    skipped = skipped_run(run, active, txn.now)
    txn.insert(skipped)
    return OpenResult("skipped", skipped)


def missed_deadline(run: Run, now: datetime) -> Run:
    """The row of a tick that nobody could start before its `start_deadline`."""
    return replace(unstarted(run), status=MISSED, reason="deadline", turn=None, finished_at=now)


def skipped_run(run: Run, active: Run, now: datetime) -> Run:
    """The row of a tick that met a run of its job."""
    return replace(
        unstarted(run), status=SKIPPED, reason="overlap", blocked_by=active.id, turn=None, finished_at=now
    )
