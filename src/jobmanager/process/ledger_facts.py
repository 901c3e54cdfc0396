"""Reads from the store what `health` judges: a few indexed statements, and with `thorough` every job's row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from jobmanager.errors import CronError
from jobmanager.process.health import LedgerFacts, Limits, OverdueJob
from jobmanager.process.heartbeat import living
from jobmanager.run import MISSED, PENDING, Run
from jobmanager.schedule import parse
from jobmanager.settings import Settings
from jobmanager.stores.base import RunStore
from jobmanager.stores.values import Instance, JobRow

MOST_DUE = 100
NEWEST = 200


def read_ledger(
    store: RunStore, settings: Settings, *, executes_in_process: bool, thorough: bool = False
) -> LedgerFacts:
    """Return what the store says of the namespace's processes. Never creates a store; StoreUnavailableError.

    `thorough` also reads the jobs whose next instant is unknown to the store, which costs a row for each job.
    """
    if not store.exists():
        return LedgerFacts(now=store.now())
    limits, now = Limits.of(settings), store.now()
    processes = tuple(living(store, settings))
    newest = store.history.runs(limit=NEWEST)
    return LedgerFacts(
        now=now,
        processes=processes,
        overdue=tuple(overdue_jobs(_candidates(store, now, limits, thorough=thorough), settings, now)),
        not_brought=_not_brought(store, newest, processes, settings, executes_in_process=executes_in_process),
        not_taken=_not_taken(store, processes, now - limits.patience, settings.namespace),
    )


def _candidates(store: RunStore, now: datetime, limits: Limits, *, thorough: bool) -> list[JobRow]:
    if thorough:
        return store.jobs.rows()
    due = store.jobs.due(now - limits.patience, MOST_DUE)
    return store.jobs.rows(ids=due) if due else []


def overdue_jobs(rows: Iterable[JobRow], settings: Settings, now: datetime) -> Iterable[OverdueJob]:
    """Yield the active jobs of the namespace whose next instant should be accounted for by now, and is not.

    A sweep comes a tenth later than it says, and takes its time.
    """
    patience = Limits.of(settings).patience
    for row in rows:
        if row.state != "active" or row.namespace != settings.namespace:
            continue
        due_at = next_due(row)
        by = timedelta(0) if due_at is None else now - due_at - patience - settings.sweep / 3 - row.jitter
        if due_at is not None and by > timedelta(0):
            yield OverdueJob(job_id=row.id, due_at=due_at, by=by)


def next_due(row: JobRow) -> datetime | None:
    """Return the first instant that is not accounted for, also where the store does not say it."""
    if row.next_due_at is not None or row.schedule == "none":
        return row.next_due_at
    try:
        schedule = parse(row.schedule)
    except CronError:  # of a newer version: its own processes know
        return None
    return schedule.next_after(row.accounted_until)


def _not_brought(
    store: RunStore,
    newest: Sequence[Run],
    processes: Sequence[Instance],
    settings: Settings,
    *,
    executes_in_process: bool,
) -> tuple[str, datetime] | None:
    """Return the newest instant that only the sweep noticed, if no tick came after it.

    Instants of before the youngest process that may keep the time prove nothing: it was not there. Nor do those that were made up
    late: the sweep, too, stood still then (an outage, a suspended machine), and a tick that came may have found the store away.
    """
    keepers = [item for item in processes if executes_in_process or not item.executes] or processes
    since = max((item.started_at for item in keepers), default=None)
    ticks = [run for run in newest if run.scheduled_for is not None]
    made_up = [run for run in ticks if _is_made_up(run)]
    if since is None or not made_up:
        return None
    came = [run.scheduled_for for run in ticks if run.trigger == "schedule" and run.status is not MISSED]
    came += [item.last_tick_at for item in processes]
    last_came = max((moment for moment in came if moment is not None), default=since)
    rows = {row.id: row for row in store.jobs.rows(ids={run.job_id for run in made_up})}
    prompt = settings.grace + 2 * settings.sweep
    absent = [
        (run.scheduled_for, run.job_id)
        for run in made_up
        if run.scheduled_for is not None
        and run.scheduled_for > max(since, last_came)
        and (row := rows.get(run.job_id)) is not None
        and row.namespace == settings.namespace
        and run.opened_at - run.scheduled_for <= prompt + row.jitter
    ]
    if not absent:
        return None
    instant, job_id = max(absent)
    return job_id, instant


def _is_made_up(run: Run) -> bool:
    return run.trigger == "catch_up" or (run.status is MISSED and run.reason == "transport")


def _not_taken(
    store: RunStore, processes: Sequence[Instance], before: datetime, namespace: str
) -> datetime | None:
    """Return since when the longest waiting run waits, where processes live and none of them executes."""
    if not processes or any(item.executes for item in processes):
        return None
    waiting = [
        run
        for run in store.history.runs(statuses=[PENDING], limit=NEWEST)
        if run.accepted_at is not None and run.due_at < before
    ]
    if not waiting:
        return None
    ours = {
        row.id for row in store.jobs.rows(ids={run.job_id for run in waiting}) if row.namespace == namespace
    }
    return min((run.due_at for run in waiting if run.job_id in ours), default=None)
