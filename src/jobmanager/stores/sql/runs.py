"""Runs while they last: dispatch, progress, log lines, cancel requests."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta

import sqlalchemy as sa

from jobmanager.run import (
    CANCELLED,
    KEEPS_ATTEMPT,
    PENDING,
    RUNNING,
    Ending,
    LogLine,
    Progress,
    Run,
    RunStatus,
)
from jobmanager.stores.facets import StoredRuns
from jobmanager.stores.sql.database import Connection, SqlFacet, literally
from jobmanager.stores.sql.rows import (
    line_values,
)
from jobmanager.stores.values import Note

LOST_AFTER = timedelta(seconds=30)
CANCELLED_AT_ONCE = 1000


def refused_retry(ending: Ending, *, cancel_requested: bool) -> tuple[RunStatus, str | None]:
    """Return the status and reason of a run that wanted to go back to pending and may not: it ends instead."""
    if cancel_requested:
        return CANCELLED, "requested"
    return (CANCELLED, "disabled") if ending.reason in KEEPS_ATTEMPT else (ending.status, ending.reason)


def fenced(runs: sa.Table, run: Run) -> sa.Update:
    """Return an UPDATE of the run that does nothing unless this start of it still is running."""
    c = runs.c
    return sa.update(runs).where(
        c.id == run.id, c.owner == run.owner, c.starts == run.starts, c.status == RUNNING
    )


class SqlRuns(SqlFacet, StoredRuns):
    """Reads and changes runs between their opening and their end; the dialects add `write` and `claim`."""

    def give_back(self, runs: Sequence[Run], reason: str) -> Mapping[str, RunStatus]:
        if reason not in KEEPS_ATTEMPT:
            raise ValueError(
                f"{reason!r} uses an attempt; a run is given back as one of {sorted(KEEPS_ATTEMPT)}."
            )
        now = self.database.now()
        return self.write((), [_given_back(run, reason, now) for run in runs]).ended

    def already_recorded(self, runs: Sequence[Run]) -> set[str]:
        c = self.tables.runs.c
        query = sa.select(c.job_id, c.scheduled_for).where(
            (c.status != PENDING) | c.accepted_at.is_not(None),
            c.job_id.in_({run.job_id for run in runs}),
            c.scheduled_for.in_({run.scheduled_for for run in runs if run.scheduled_for is not None}),
        )
        with self.database.reading() as connection:
            found = {tuple(row) for row in connection.execute(query)}
        return {run.id for run in runs if (run.job_id, run.scheduled_for) in found}

    def by_id(self, run_ids: Collection[str]) -> list[Run]:
        runs = self.tables.runs
        query = sa.select(runs).where(runs.c.id.in_(run_ids))
        with self.database.reading() as connection:
            return self.database.runs_from(
                connection.execute(query.order_by(runs.c.due_at, runs.c.id)).mappings()
            )

    def note_progress(self, run: Run, progress: Progress) -> None:
        with self.database.writing() as connection:
            connection.execute(fenced(self.tables.runs, run).values(progress=asdict(progress)))

    def add_lines(self, run_id: str, attempt: int, lines: Sequence[LogLine]) -> None:
        with self.database.writing() as connection:
            self._add_lines(connection, run_id, attempt, lines)

    def _add_lines(self, connection: Connection, run_id: str, attempt: int, lines: Sequence[LogLine]) -> None:
        connection.execute(
            sa.insert(self.tables.run_logs),
            {"run_id": run_id, "attempt": attempt, "lines": line_values(lines)},
        )

    def cancel(self, run_id: str, *, children: bool = True, note: Note | None = None) -> Run:
        runs = self.tables.runs
        if not self.database.may_be_run_id(run_id):
            raise self.database.no_run(run_id)
        with self.database.writing() as connection:
            now = self.database.clock(connection)
            before = None if note is None else self.database.find_run(connection, run_id)
            ids = self._tree(connection, run_id) if children else [run_id]
            for first in range(0, len(ids), CANCELLED_AT_ONCE):
                some = runs.c.id.in_(ids[first : first + CANCELLED_AT_ONCE])
                connection.execute(
                    sa.update(runs)
                    .where(some, runs.c.status == PENDING)
                    .values(status=CANCELLED, reason="requested", turn=None, finished_at=now)
                )
                connection.execute(
                    sa.update(runs)
                    .where(some, runs.c.status == RUNNING, runs.c.cancel_requested_at.is_(None))
                    .values(cancel_requested_at=now)
                )
            after = self.database.the_run(connection, run_id)
            if note is not None:
                self.database.note(connection, note(before, after))
            return after

    def _tree(self, connection: Connection, run_id: str) -> list[str]:
        """Return the ids of the run and of the open ones below it, locked in their order; empty unless the run is open."""
        runs, child = self.tables.runs, self.tables.runs.alias("child")
        is_open = runs.c.status.in_([PENDING.value, RUNNING.value])
        tree = sa.select(runs.c.id).where(runs.c.id == run_id, is_open).cte("tree", recursive=True)
        tree = tree.union(sa.select(child.c.id).where(child.c.parent_id == tree.c.id))
        query = sa.select(runs.c.id).where(runs.c.id.in_(sa.select(tree.c.id)), is_open).order_by(runs.c.id)
        return [str(found) for found in connection.scalars(self.database.locked(query))]

    def cancel_requests(self, owner: str) -> list[str]:
        c = self.tables.runs.c
        query = sa.select(c.id).where(
            literally(c.status, RUNNING), c.owner == owner, c.cancel_requested_at.is_not(None)
        )
        with self.database.reading() as connection:
            return list(connection.scalars(query))

    def running_of(self, owner: str) -> list[Run]:
        c = self.tables.runs.c
        query = sa.select(self.tables.runs).where(literally(c.status, RUNNING), c.owner == owner)
        with self.database.reading() as connection:
            return self.database.runs_from(connection.execute(query).mappings())

    def to_dispatch(self, namespace: str, limit: int, *, unknown: Collection[str] = ()) -> list[Run]:
        runs, jobs = self.tables.runs, self.tables.jobs
        c = runs.c
        with self.database.writing() as connection:
            now = self.database.clock(connection)
            # The longer it waits, the likelier that its message waits too, and is not lost.
            silent = self.database.distance(sa.literal(now, c.due_at.type), c.dispatched_at)
            lost = (c.dispatched_at <= now - LOST_AFTER) & (
                silent >= self.database.distance(c.dispatched_at, c.due_at)
            )
            due = (
                sa.select(runs)
                .join(jobs, jobs.c.id == c.job_id)
                .where(literally(c.status, PENDING), c.due_at <= now, c.accepted_at.is_not(None))
                .where(c.dispatched_at.is_(None) | lost)
                .where(c.turn.is_distinct_from("waits") | ~(self._held() | self._has_one_before(now)))
                .where((c.expires_at >= now) | c.expires_at.is_(None) | (c.attempt > 0))
                .where(jobs.c.namespace == namespace, jobs.c.state.in_(("active", "paused")))
                .where(c.job_id.not_in(unknown))
                .order_by(c.priority.desc(), c.due_at, c.id)
                .limit(limit)
                .with_for_update(of=runs, skip_locked=True)
            )
            found, wrong = self.database.sorted_out(connection.execute(due).mappings())
            if found:
                sent = sa.update(runs).where(c.id.in_([run.id for run in found]))
                connection.execute(sent.values(dispatched_at=now))
        self.database.end_unreadable(wrong)
        return [replace(run, dispatched_at=now) for run in found]

    def count_due(self, namespace: str, most: int, *, unknown: Collection[str] = ()) -> int:
        c, jobs = self.tables.runs.c, self.tables.jobs
        with self.database.reading() as connection:
            due = (
                sa.select(c.id)
                .join(jobs, jobs.c.id == c.job_id)
                .where(literally(c.status, PENDING), c.due_at <= self.database.clock(connection))
                .where(c.accepted_at.is_not(None), c.job_id.not_in(unknown))
                .where(jobs.c.namespace == namespace, jobs.c.state.in_(("active", "paused")))
                .limit(most)
            )
            return connection.scalar(sa.select(sa.func.count()).select_from(due.subquery())) or 0

    def _held(self) -> sa.ColumnElement[bool]:
        """Return the condition that another run holds the run's key."""
        c, holder = self.tables.runs.c, self.tables.runs.alias()
        same_key = holder.c.concurrency_key == c.concurrency_key
        return sa.select(holder.c.id).where(same_key, literally(holder.c.turn, "holds")).exists()

    def _has_one_before(self, now: datetime) -> sa.ColumnElement[bool]:
        """Return the condition that another run comes before the run in the line for its key, sent or not."""
        c, earlier = self.tables.runs.c, self.tables.runs.alias()
        e = earlier.c
        before = (e.priority > c.priority) | (
            (e.priority == c.priority) & ((e.due_at < c.due_at) | ((e.due_at == c.due_at) & (e.id < c.id)))
        )
        claimable = (e.expires_at >= now) | e.expires_at.is_(None) | (e.attempt > 0)
        waits = e.concurrency_key == c.concurrency_key, literally(e.turn, "waits"), e.due_at <= now
        return sa.select(e.id).where(*waits, before, claimable).exists()

    def note_unclaimed(self, run_ids: Collection[str]) -> list[str]:
        runs, jobs = self.tables.runs, self.tables.jobs
        c = runs.c
        known = sorted(run_id for run_id in run_ids if self.database.may_be_run_id(run_id))
        if not known:
            return []
        with self.database.writing() as connection:
            now = self.database.clock(connection)
            pending = c.id.in_(known), c.status == PENDING
            blocked = sa.update(runs).where(*pending, c.turn == "waits", self._held())
            connection.execute(blocked.values(dispatched_at=None))
            free = (
                sa.select(c.id)
                .join(jobs, jobs.c.id == c.job_id)
                .where(*pending, c.due_at <= now, c.accepted_at.is_not(None))
                .where((c.expires_at >= now) | c.expires_at.is_(None) | (c.attempt > 0))
                .where(jobs.c.state.in_(("active", "paused")))
                .where(c.turn.is_distinct_from("waits") | ~self._held())
            )
            return list(connection.scalars(free))


def _given_back(run: Run, reason: str, now: datetime) -> Ending:
    return Ending(
        run=run,
        status=CANCELLED,
        reason=reason,
        started_at=run.started_at or now,
        finished_at=now,
        retry_at=min(run.due_at, now),
    )
