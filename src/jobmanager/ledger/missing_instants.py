"""Gaps in a job's account: which expected instants have no row, and the rows that fill them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice, pairwise

from jobmanager.clock import later
from jobmanager.errors import CronError
from jobmanager.job import jittered
from jobmanager.ledger.outages import Outages, transport
from jobmanager.run import MISSED, PENDING, SKIPPED, Run, RunStatus, Trigger, new_id
from jobmanager.schedule import EXCEPT, Schedule, parse
from jobmanager.stores.job_transaction import JobTransaction
from jobmanager.stores.values import JobRow, JobSummary

NO_TICK = transport(
    "a process lived then, but its tick did not become a run in time; the log of that process says why"
)
SINGLE_ROWS = 100  # the newest missed instants get a row each, older ones share one


def schedule_of(job: JobRow | JobSummary) -> Schedule | None:
    """Return the stored schedule; CronError if this version cannot read it."""
    return None if job.schedule == "none" else parse(job.schedule)


def is_excluded(job: JobRow, instant: datetime) -> bool:
    """Return whether the stored schedule excludes one of its instants; False for a schedule that this version cannot read."""
    try:
        schedule = schedule_of(job)
    except CronError:
        return False
    return schedule is not None and schedule.excluded(instant) is not None


@dataclass(frozen=True, slots=True)
class Missing:
    """Expected instants without a row, in order, after the watermark and up to `until`; `covered` are those with one."""

    instants: Sequence[datetime]
    covered: set[datetime]
    until: datetime
    complete: bool = True
    ids: Mapping[datetime, str] = field(default_factory=dict)
    """Of instants that were announced: the ids their rows keep."""


def missing_of(
    txn: JobTransaction, schedule: Schedule | None, until: datetime, *, bite: int | None
) -> Missing:
    """Return what the account lacks up to the moment; of a stretch longer than `bite` the first part, so that the lock is short."""
    after = txn.job.accounted_until
    if schedule is None or until <= after:
        return Missing([], set(), until)
    expected = list(islice(schedule.between(after, until), None if bite is None else bite + 1))
    complete = bite is None or len(expected) <= bite
    if not complete:
        expected.pop()
        until = expected[-1]
    covered = txn.instants(after, until)
    return Missing([instant for instant in expected if instant not in covered], covered, until, complete)


def caught_up(txn: JobTransaction, account: Missing) -> Sequence[datetime]:
    """Return the instants that still run, oldest first: none, the latest unless a later one ran, or the newest up to the cap."""
    job = txn.job
    window = (
        job.catch_up_window if job.start_deadline is None else min(job.catch_up_window, job.start_deadline)
    )
    inside = [instant for instant in account.instants if instant > txn.now - window]
    if not account.complete or not inside:
        return []
    match job.catch_up:
        case "none":
            return []
        case "latest":
            return [] if txn.opened_after(inside[-1]) else inside[-1:]
        case "all":
            return inside[-job.catch_up_cap :]


def record_missed(
    txn: JobTransaction, missing: Sequence[datetime], account: Missing, outages: Outages
) -> None:
    """Record the newest instants one by one; older ones as one row for each stretch that no other row interrupts."""
    singles = min(len(missing), SINGLE_ROWS) if account.complete else 0
    older, newest = missing[: len(missing) - singles], missing[len(missing) - singles :]
    for stretch in _stretches(older, account.covered):
        txn.insert(replace(_missed(txn, stretch[-1], outages), first_for=stretch[0], ticks=len(stretch)))
    for instant in newest:
        row = _missed(txn, instant, outages)
        txn.insert(replace(row, id=account.ids.get(instant, row.id)))


def record_excluded(txn: JobTransaction, account: Missing) -> Missing:
    """Record the instants that the schedule excludes as skipped, many as one row for each stretch; return the account of the others."""
    if EXCEPT not in txn.job.schedule:
        return account
    excluded = [instant for instant in account.instants if is_excluded(txn.job, instant)]
    kept = set(account.instants).difference(excluded)
    covered = account.covered | kept
    for stretch in _stretches(excluded, covered):
        row = row_of(txn, stretch[-1], SKIPPED, "excluded")
        row = replace(row, id=account.ids.get(stretch[-1], row.id))
        txn.insert(row if len(stretch) == 1 else replace(row, first_for=stretch[0], ticks=len(stretch)))
    return replace(account, instants=sorted(kept), covered=account.covered.union(excluded))


def _stretches(instants: Sequence[datetime], covered: Collection[datetime]) -> Iterator[Sequence[datetime]]:
    """Cut the instants where another row stands between them."""
    cuts = sorted({bisect_left(instants, instant) for instant in covered} | {0, len(instants)})
    return (instants[start:end] for start, end in pairwise(cuts))


def _missed(txn: JobTransaction, instant: datetime, outages: Outages) -> Run:
    if not txn.was_alive(instant):
        return row_of(txn, instant, MISSED, "downtime")
    return replace(row_of(txn, instant, MISSED, "transport"), error=outages.at(instant) or NO_TICK)


def grow_pause(txn: JobTransaction, missing: Sequence[datetime], account: Missing) -> None:
    """One row stands for the whole pause; it grows while the pause lasts and its schedule is the same.

    What other rows stand between, such as ticks that ran before it, is a row for each stretch.
    """
    for stretch in _stretches(missing, account.covered):
        row = txn.pause_row()
        if row is None or row.instant > stretch[0] or not _of_this_schedule(txn, row):
            first = row_of(txn, stretch[-1], SKIPPED, "paused")
            txn.insert(replace(first, first_for=stretch[0], ticks=len(stretch)))
        else:
            txn.grow(
                replace(
                    row,
                    scheduled_for=stretch[-1],
                    first_for=row.first_for or row.scheduled_for,
                    ticks=row.ticks + len(stretch),
                )
            )


def _of_this_schedule(txn: JobTransaction, row: Run) -> bool:
    """Return the row is of the job's present revision, or of the one that this pause ended."""
    job = txn.job
    return row.schedule_rev == job.schedule_rev or (
        row.schedule_rev + 1 == job.schedule_rev and row.opened_at == job.state_at
    )


def row_of(
    txn: JobTransaction,
    instant: datetime,
    status: RunStatus,
    reason: str | None,
    *,
    trigger: Trigger = "sweep",
) -> Run:
    """Return the row of an instant as the account writes it: closed, or pending and first in line."""
    pending = status is PENDING
    return Run(
        id=new_id(txn.now),
        job_id=txn.job.id,
        status=status,
        reason=reason,
        trigger=trigger,
        schedule_rev=txn.job.schedule_rev,
        scheduled_for=instant,
        due_at=jittered(txn.job.id, instant, txn.job.jitter, schedule_of(txn.job)) if pending else instant,
        expires_at=None if txn.job.start_deadline is None else later(instant, txn.job.start_deadline),
        concurrency_key=txn.job.id,
        turn="holds" if pending and txn.job.overlap != "allow" else None,
        max_attempts=txn.job.max_attempts,
        retry_on_crash=txn.job.retry_on_crash,
        opened_at=txn.now,
        accepted_at=txn.now,
        finished_at=None if pending else txn.now,
    )


def pending_row(txn: JobTransaction, instant: datetime, trigger: Trigger, *, by: str | None = None) -> Run:
    """Return a run for an instant of the past, due now and waiting for its key."""
    row = row_of(txn, instant, PENDING, None, trigger=trigger)
    return replace(row, due_at=txn.now, expires_at=None, requested_by=by, turn="waits" if row.turn else None)
