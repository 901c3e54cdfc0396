"""Runs while they last: progress, log lines, cancel requests, and the end of those whose process died."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta

import sqlalchemy as sa

from jobmanager.errors import RunNotFoundError
from jobmanager.run import (
    CANCELLED,
    FAILED,
    KEEPS_ATTEMPT,
    MISSED,
    PENDING,
    RUNNING,
    Ending,
    Failure,
    LogLine,
    Progress,
    Run,
    RunStatus,
)
from jobmanager.stores.sql.columns import to_pending
from jobmanager.stores.sql.database import Connection, Database, literally
from jobmanager.stores.sql.rows import (
    line_values,
    run_values,
)

LOST_AFTER = timedelta(seconds=30)


def refused_retry(ending: Ending, *, cancel_requested: bool) -> tuple[RunStatus, str | None]:
    """Return the status and reason of a run that wanted to go back to pending and may not: it ends instead."""
    if cancel_requested:
        return CANCELLED, "requested"
    return (CANCELLED, "disabled") if ending.reason in KEEPS_ATTEMPT else (ending.status, ending.reason)


def first_in_line(runs: Sequence[Run]) -> list[Run]:
    """Return the runs without those that another of them comes before in the line for the same key."""
    taken: set[str] = set()
    first = []
    for run in runs:
        if run.turn != "waits" or run.concurrency_key not in taken:
            first.append(run)
            taken.add(run.concurrency_key)
    return first


class RunStatements(Database):
    """What happens to a run between its opening and its end."""

    def already_recorded(self, runs: Sequence[Run]) -> set[str]:
        c = self.tables.runs.c
        query = sa.select(c.job_id, c.scheduled_for).where(
            (c.status != PENDING) | c.accepted_at.is_not(None),
            c.job_id.in_({run.job_id for run in runs}),
            c.scheduled_for.in_({run.scheduled_for for run in runs if run.scheduled_for is not None}),
        )
        with self.reading() as connection:
            found = {tuple(row) for row in connection.execute(query)}
        return {run.id for run in runs if (run.job_id, run.scheduled_for) in found}

    def runs_by_id(self, run_ids: Collection[str]) -> list[Run]:
        runs = self.tables.runs
        query = sa.select(runs).where(runs.c.id.in_(run_ids))
        with self.reading() as connection:
            return self.runs_from(connection.execute(query.order_by(runs.c.due_at, runs.c.id)).mappings())

    def jobs_with_unaccepted_runs(self, before: datetime, limit: int) -> list[str]:
        c = self.tables.runs.c
        query = sa.select(c.job_id).where(self._only_announced(), c.due_at < before).distinct().limit(limit)
        with self.reading() as connection:
            return list(connection.scalars(query))

    def _only_announced(self) -> sa.ColumnElement[bool]:
        c = self.tables.runs.c
        return literally(c.status, PENDING) & c.accepted_at.is_(None)

    def note_progress(self, run: Run, progress: Progress) -> None:
        with self.writing() as connection:
            connection.execute(self._fenced(run).values(progress=asdict(progress)))

    def _fenced(self, run: Run) -> sa.Update:
        c = self.tables.runs.c
        return sa.update(self.tables.runs).where(
            c.id == run.id, c.owner == run.owner, c.starts == run.starts, c.status == RUNNING
        )

    def add_lines(self, run_id: str, attempt: int, lines: Sequence[LogLine]) -> None:
        with self.writing() as connection:
            self._add_lines(connection, run_id, attempt, lines)

    def _add_lines(self, connection: Connection, run_id: str, attempt: int, lines: Sequence[LogLine]) -> None:
        connection.execute(
            sa.insert(self.tables.run_logs),
            {"run_id": run_id, "attempt": attempt, "lines": line_values(lines)},
        )

    def cancel(self, run_id: str) -> Run:
        runs = self.tables.runs
        with self.writing() as connection:
            now = self.clock(connection)
            connection.execute(
                sa.update(runs)
                .where(runs.c.id == run_id, runs.c.status == PENDING)
                .values(status=CANCELLED, reason="requested", turn=None, finished_at=now)
            )
            connection.execute(
                sa.update(runs)
                .where(runs.c.id == run_id, runs.c.status == RUNNING, runs.c.cancel_requested_at.is_(None))
                .values(cancel_requested_at=now)
            )
            run = self.find_run(connection, run_id)
        if run is None:
            raise RunNotFoundError(f"No run {run_id!r} in {self.url}.", run_id=run_id)
        return run

    def cancel_requests(self, owner: str) -> list[str]:
        c = self.tables.runs.c
        query = sa.select(c.id).where(
            literally(c.status, RUNNING), c.owner == owner, c.cancel_requested_at.is_not(None)
        )
        with self.reading() as connection:
            return list(connection.scalars(query))

    def running_of(self, owner: str) -> list[Run]:
        c = self.tables.runs.c
        query = sa.select(self.tables.runs).where(literally(c.status, RUNNING), c.owner == owner)
        with self.reading() as connection:
            return self.runs_from(connection.execute(query).mappings())

    def take_over(self) -> list[Run]:
        runs, instances = self.tables.runs, self.tables.instances
        alive = sa.select(instances.c.id).where(instances.c.id == runs.c.owner, instances.c.dead_at.is_(None))
        orphaned = literally(runs.c.status, RUNNING) & ~alive.exists()
        with self.reading() as connection:  # nearly always nobody: no need to stop the writers for that
            if connection.execute(sa.select(runs.c.id).where(orphaned).limit(1)).first() is None:
                return []
        orphans = sa.select(runs).where(orphaned).with_for_update(of=runs, skip_locked=True)
        with self.writing() as connection:
            found, wrong = self.sorted_out(connection.execute(orphans).mappings().all())
            ended = [self._ended_by_crash(connection, run) for run in found]
        self.end_unreadable(wrong)
        return ended

    def _ended_by_crash(self, connection: Connection, run: Run) -> Run:
        now = self.clock(connection)
        jobs = self.tables.jobs  # the state alone: no other column of it, however spoiled, may hold this up
        state = connection.scalar(sa.select(jobs.c.state).where(jobs.c.id == run.job_id))
        crashed = Failure(kind="crashed", message="its process died while the handler ran, or before it did")
        if run.cancel_requested_at is not None:
            after = replace(run, status=CANCELLED, reason="requested", turn=None, finished_at=now)
        elif run.retry_on_crash and run.attempt < run.max_attempts and state in ("active", "paused"):
            self.keep_attempt(connection, run, crashed, now)
            after = replace(run, **to_pending(due_at=now))
        else:
            after = replace(run, status=FAILED, error=crashed, turn=None, finished_at=now)
        values = {name: value for name, value in run_values(after).items() if value != run_values(run)[name]}
        connection.execute(self._fenced(run).values(**values))
        return after

    def to_dispatch(self, namespace: str, limit: int, *, unknown: Collection[str] = ()) -> list[Run]:
        runs, jobs, holder = self.tables.runs, self.tables.jobs, self.tables.runs.alias()
        c = runs.c
        with self.writing() as connection:
            now = self.clock(connection)
            held = sa.select(holder.c.id).where(
                holder.c.concurrency_key == c.concurrency_key, literally(holder.c.turn, "holds")
            )
            # The longer it waits, the likelier that its message waits too, and is not lost.
            silent = self.distance(sa.literal(now, c.due_at.type), c.dispatched_at)
            lost = (c.dispatched_at <= now - LOST_AFTER) & (
                silent >= self.distance(c.dispatched_at, c.due_at)
            )
            due = (
                sa.select(runs)
                .join(jobs, jobs.c.id == c.job_id)
                .where(literally(c.status, PENDING), c.due_at <= now, c.accepted_at.is_not(None))
                .where(c.dispatched_at.is_(None) | lost)
                .where(c.turn.is_distinct_from("waits") | ~held.exists())
                .where((c.expires_at >= now) | c.expires_at.is_(None) | (c.attempt > 0))
                .where(jobs.c.namespace == namespace, jobs.c.state.in_(("active", "paused")))
                .where(c.job_id.not_in(unknown))
                .order_by(c.priority.desc(), c.due_at, c.id)
                .limit(limit)
                .with_for_update(of=runs, skip_locked=True)
            )
            readable, wrong = self.sorted_out(connection.execute(due).mappings())
            found = first_in_line(readable)
            if found:
                sent = sa.update(runs).where(c.id.in_([run.id for run in found]))
                connection.execute(sent.values(dispatched_at=now))
        self.end_unreadable(wrong)
        return [replace(run, dispatched_at=now) for run in found]

    def expire_pending(self) -> int:
        c = self.tables.runs.c
        with self.writing() as connection:
            now = self.clock(connection)
            expired = literally(c.status, PENDING) & (c.attempt == 0) & (c.expires_at < now)
            values = {"status": MISSED, "reason": "deadline", "turn": None, "finished_at": now}
            return int(
                connection.execute(sa.update(self.tables.runs).where(expired).values(**values)).rowcount
            )
