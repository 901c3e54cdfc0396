"""Backfill: make up instants of the past by hand, one range at a time, and say beforehand what that would do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from jobmanager.errors import ConfigurationError, JobDisabledError
from jobmanager.ledger.missing_instants import pending_row, schedule_of
from jobmanager.ledger.reconciliation import in_line_again
from jobmanager.run import SUCCEEDED, Run
from jobmanager.stores.base import RunStore
from jobmanager.stores.job_transaction import JobTransaction
from jobmanager.stores.values import AuditEntry

MOST = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeUp:
    """What backfill does with one instant.

    `open` a new run, `redrive` the row it has, or leave it: `done`, `active`, `folded` into a row that stands for many, or
    `not due` yet by the account.
    """

    scheduled_for: datetime
    action: Literal["open", "redrive", "done", "active", "folded", "not due"]
    run_id: str | None = None


def backfill(
    store: RunStore,
    job_id: str,
    start: datetime,
    end: datetime,
    *,
    dry_run: bool,
    by: str | None,
    note: Callable[[Sequence[MadeUp]], AuditEntry | None] = lambda _: None,
) -> list[MadeUp]:
    """Give every instant of the job in (start, end] that its schedule does not exclude another chance, in order; with `dry_run` only say so.

    `note` makes the entry of the audit. Runs wait in line for the job's key. Raises ConfigurationError for a job without schedule or more than 1,000 instants.
    """
    with store.jobs.lock(job_id) as txn:
        schedule = schedule_of(txn.job)
        if schedule is None:
            raise ConfigurationError(f"Job {job_id!r} has no schedule; start it by hand instead.")
        if not txn.job.open:
            raise JobDisabledError(
                f"Job {job_id!r} is {txn.job.state}; enable it before backfilling.", job_id=job_id
            )
        instants = []
        for instant in schedule.between(start, min(end, txn.now)):
            if schedule.excluded(instant) is not None:
                continue
            instants.append(instant)
            if len(instants) > MOST:
                raise ConfigurationError(
                    f"More than {MOST:,} instants lie between start={start} and end={end}; take smaller steps."
                )
        made_up = [_make_up(txn, instant, dry_run=dry_run, by=by) for instant in instants]
        if not dry_run:
            txn.audit(note(made_up))
        return made_up


def _make_up(txn: JobTransaction, instant: datetime, *, dry_run: bool, by: str | None) -> MadeUp:
    row = txn.run_for(instant)
    if row is not None:
        return _again(txn, row, instant, dry_run=dry_run)
    if txn.range_over(instant) is not None:
        return MadeUp(scheduled_for=instant, action="folded")
    if instant > txn.job.accounted_until:
        return MadeUp(scheduled_for=instant, action="not due")
    run = pending_row(txn, instant, "backfill", by=by)
    if not dry_run:
        txn.insert(run)
    return MadeUp(scheduled_for=instant, action="open", run_id=None if dry_run else run.id)


def _again(txn: JobTransaction, row: Run, instant: datetime, *, dry_run: bool) -> MadeUp:
    if not row.status.closed:
        return MadeUp(scheduled_for=instant, action="active", run_id=row.id)
    if row.status is SUCCEEDED:
        return MadeUp(scheduled_for=instant, action="done", run_id=row.id)
    if row.ticks > 1:
        return MadeUp(scheduled_for=instant, action="folded", run_id=row.id)
    if not dry_run:
        in_line_again(txn, row)
    return MadeUp(scheduled_for=instant, action="redrive", run_id=row.id)
