"""One job under its lock: the reads and writes that decide what becomes of its ticks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from jobmanager.run import CANCELLED, PENDING, RUNNING, SKIPPED, SUSPENDED, Notice, Run
from jobmanager.stores.job_transaction import JobTransaction
from jobmanager.stores.sql.columns import to_pending
from jobmanager.stores.sql.database import NEVER, Connection, Database, literally, newest_of
from jobmanager.stores.sql.outbox import write_notices
from jobmanager.stores.sql.rows import (
    job_values,
    run_from,
    run_values,
)
from jobmanager.stores.sql.statistics import ask_for_recount
from jobmanager.stores.statistics import hours_of_ids
from jobmanager.stores.values import AuditEntry, JobRow

ACCOUNT_ONLY = ("accounted_until", "next_due_at", "history_from")


class SqlJobTransaction(JobTransaction):
    """One job's row, locked."""

    def __init__(
        self, database: Database, connection: Connection, job: JobRow, now: datetime | None = None
    ) -> None:
        self._database = database
        self._connection = connection
        self._runs = database.tables.runs
        self.job = job
        self.now = now or database.clock(connection)

    def get(self, run_id: str) -> Run | None:
        return self._database.find_run(self._connection, run_id)

    def _first(self, *conditions: sa.ColumnElement[bool]) -> Run | None:
        query = sa.select(self._runs).where(*conditions).order_by(self._runs.c.id.desc()).limit(1)
        row = self._connection.execute(query).mappings().one_or_none()
        return None if row is None else run_from(row)

    def run_for(self, instant: datetime) -> Run | None:
        return self._first(self._runs.c.job_id == self.job.id, self._runs.c.scheduled_for == instant)

    def run_with_key(self, idempotency_key: str) -> Run | None:
        return self._first(
            self._runs.c.job_id == self.job.id, self._runs.c.idempotency_key == idempotency_key
        )

    def holder(self, concurrency_key: str) -> Run | None:
        return self._first(
            self._runs.c.concurrency_key == concurrency_key, literally(self._runs.c.turn, "holds")
        )

    def waiting(self, concurrency_key: str) -> list[Run]:
        c = self._runs.c
        query = (
            sa.select(self._runs)
            .where(c.concurrency_key == concurrency_key, literally(c.turn, "waits"), c.due_at <= self.now)
            .order_by(c.priority.desc(), c.due_at, c.id)
        )
        return self._database.runs_from(self._connection.execute(query).mappings())

    def supersede(self, run: Run) -> None:
        c = self._runs.c
        pending = sa.update(self._runs).where(c.id == run.id, c.status == PENDING)
        self._connection.execute(
            pending.values(status=CANCELLED, reason="superseded", turn=None, finished_at=self.now)
        )

    def request_cancel(self, run: Run) -> None:
        c = self._runs.c
        running = sa.update(self._runs).where(
            c.id == run.id, c.status == RUNNING, c.cancel_requested_at.is_(None)
        )
        self._connection.execute(running.values(cancel_requested_at=self.now))

    def last_ended(self, count: int) -> list[Run]:
        c = self._runs.c
        executed = c.finished_at.is_not(None), c.started_at.is_not(None)
        query = newest_of(self._runs, self.job.id, *executed, limit=count)
        return self._database.runs_from(self._connection.execute(query).mappings())

    def instants(self, after: datetime, until: datetime) -> set[datetime]:
        c = self._runs.c
        query = sa.select(c.scheduled_for).where(
            c.job_id == self.job.id, c.scheduled_for > after, c.scheduled_for <= until
        )
        return {instant for instant in self._connection.scalars(query) if isinstance(instant, datetime)}

    def range_over(self, instant: datetime) -> Run | None:
        c = self._runs.c
        return self._first(
            c.job_id == self.job.id, c.ticks > 1, c.first_for <= instant, c.scheduled_for >= instant
        )

    def newest_instant(self) -> datetime | None:
        c = self._runs.c
        query = sa.select(sa.func.max(c.scheduled_for)).where(
            c.job_id == self.job.id, c.scheduled_for <= NEVER
        )
        newest: datetime | None = self._connection.scalar(query)
        return newest

    def opened_after(self, instant: datetime) -> bool:
        c = self._runs.c
        return (
            self._first(
                c.job_id == self.job.id,
                c.scheduled_for > instant,
                c.status.not_in(("skipped", "missed")),
                c.accepted_at.is_not(None),
            )
            is not None
        )

    def pause_row(self) -> Run | None:
        newest = self.newest_instant()
        run = None if newest is None or newest > self.job.accounted_until else self.run_for(newest)
        return run if run is not None and (run.status, run.reason) == (SKIPPED, "paused") else None

    def was_alive(self, instant: datetime) -> bool:
        table = self._database.tables.instances
        query = sa.select(table.c.id).where(
            table.c.namespace == self.job.namespace, table.c.started_at <= instant, table.c.seen_at >= instant
        )
        return self._connection.execute(query.limit(1)).first() is not None

    def executed_since(self, seen: datetime) -> datetime | None:
        table = self._database.tables.instances
        query = sa.select(sa.func.min(table.c.started_at, type_=table.c.started_at.type)).where(
            table.c.namespace == self.job.namespace,
            table.c.executes,
            table.c.dead_at.is_(None),
            table.c.seen_at >= seen,
        )
        found: datetime | None = self._connection.scalar(query)
        return found

    def is_alive(self, instance_id: str) -> bool:
        table = self._database.tables.instances
        query = sa.select(table.c.id).where(table.c.id == instance_id, table.c.dead_at.is_(None))
        return self._connection.execute(query).first() is not None

    def announced(self, before: datetime) -> dict[datetime, str]:
        c = self._runs.c
        query = sa.select(c.scheduled_for, c.id).where(
            c.job_id == self.job.id, literally(c.status, PENDING), c.accepted_at.is_(None), c.due_at < before
        )
        return {instant: run_id for instant, run_id in self._connection.execute(query) if instant}

    def delete_unaccepted(self, run_ids: Collection[str]) -> None:
        c = self._runs.c
        gone = sa.delete(self._runs).where(c.id.in_(run_ids), c.status == PENDING, c.accepted_at.is_(None))
        self._connection.execute(gone)

    def insert(self, run: Run) -> bool:
        done = self._connection.execute(self._database.insert_ignoring(self._runs), run_values(run))
        return bool(done.rowcount)

    def grow(self, run: Run) -> None:
        self._connection.execute(
            sa.update(self._runs)
            .where(self._runs.c.id == run.id)
            .values(scheduled_for=run.scheduled_for, first_for=run.first_for, ticks=run.ticks)
        )
        ask_for_recount(self._database, self._connection, hours_of_ids([run.id]), at_once=False)

    def close_pending(self) -> None:
        c = self._runs.c
        pending = sa.update(self._runs).where(c.job_id == self.job.id, literally(c.status, PENDING))
        if self.job.state != "deleted":
            pending = pending.where(c.reason.is_(None) | c.reason.not_in(sorted(SUSPENDED)))
        never_started = (c.attempt == 0) & c.scheduled_for.is_not(None)
        for condition, status in ((never_started, SKIPPED), (~never_started, CANCELLED)):
            self._connection.execute(
                pending.where(condition).values(
                    status=status, reason="disabled", turn=None, finished_at=self.now
                )
            )

    def reopen(self, run: Run, *, max_attempts: int, turn: str | None, from_start: bool = False) -> Run:
        self._database.keep_attempt(self._connection, run, run.error, run.finished_at or self.now)
        forgotten = (
            "reason",
            "expires_at",
            "blocked_by",
            "cancel_requested_at",
            "output",
            "error",
            "finished_at",
        )
        fresh = to_pending(
            turn=turn,
            due_at=self.now,
            accepted_at=self.now,
            max_attempts=max_attempts,
            **dict.fromkeys(forgotten),
        )
        self._connection.execute(sa.update(self._runs).where(self._runs.c.id == run.id).values(**fresh))
        steps = self._database.tables.run_steps
        gone = sa.delete(steps).where(steps.c.run_id == run.id)
        if from_start:
            children = sa.update(self._runs).where(self._runs.c.parent_id == run.id)
            self._connection.execute(children.values(idempotency_key=None))
        else:
            gone = gone.where(steps.c.status == "failed")
        self._connection.execute(gone)
        ask_for_recount(self._database, self._connection, hours_of_ids([run.id]))
        return replace(run, **fresh)

    def audit(self, entry: AuditEntry | None) -> None:
        self._database.note(self._connection, entry)

    def notify(self, notices: Sequence[Notice]) -> None:
        write_notices(self._database, self._connection, notices)

    def save(self, job: JobRow) -> None:
        jobs = self._database.tables.jobs
        values = {k: v for k, v in job_values(job).items() if v != job_values(self.job)[k]}
        if any(name not in ACCOUNT_ONLY for name in values):
            values["change_seq"] = self._database.next_change(self._connection)
        if values:
            self._connection.execute(sa.update(jobs).where(jobs.c.id == job.id).values(**values))
        self.job = replace(job, change_seq=values.get("change_seq", job.change_seq))


class KnownRuns:
    """Rows that were read for many jobs at once, and closed ones that are to be written together."""

    def __init__(self, database: Database, connection: Connection, runs: Sequence[Run]) -> None:
        self._database = database
        self._connection = connection
        self._closed: list[dict[str, Any]] = []
        table = database.tables.runs
        c = table.c
        self.keys = {run.concurrency_key for run in runs}
        self.ticks = {(run.job_id, run.scheduled_for) for run in runs if run.scheduled_for is not None}
        with_tick = sa.select(table).where(
            c.job_id.in_({job_id for job_id, _ in self.ticks}),
            c.scheduled_for.in_({instant for _, instant in self.ticks}),
        )
        holding = sa.select(table).where(c.concurrency_key.in_(self.keys), literally(c.turn, "holds"))
        self.by_tick = {(run.job_id, run.scheduled_for): run for run in self._read(with_tick)}
        self.holders = {run.concurrency_key: run for run in self._read(holding)}

    def _read(self, query: sa.Select[Any]) -> list[Run]:
        return self._database.runs_from(self._connection.execute(query).mappings())

    def forget(self, job_id: str, run: Run) -> None:
        """Ask again for the tick and the key of a run that could not be inserted: they have changed since they were read."""
        self.ticks.discard((job_id, run.scheduled_for))
        self.keys.discard(run.concurrency_key)

    def close(self, run: Run) -> None:
        """Write this closed row at the end."""
        self._closed.append(run_values(run))

    def write(self) -> None:
        """Write the closed rows; one whose tick has a row meanwhile is left out."""
        if self._closed:
            self._connection.execute(self._database.insert_ignoring(self._database.tables.runs), self._closed)


class ManyJobsTransaction(SqlJobTransaction):
    """One of many jobs that are locked at once: what is known of its runs is not asked again."""

    def __init__(
        self, database: Database, connection: Connection, job: JobRow, now: datetime, known: KnownRuns
    ) -> None:
        super().__init__(database, connection, job, now)
        self._known = known

    def run_for(self, instant: datetime) -> Run | None:
        tick = self.job.id, instant
        return self._known.by_tick.get(tick) if tick in self._known.ticks else super().run_for(instant)

    def holder(self, concurrency_key: str) -> Run | None:
        if concurrency_key in self._known.keys:
            return self._known.holders.get(concurrency_key)
        return super().holder(concurrency_key)

    def insert(self, run: Run) -> bool:
        if run.status.closed:
            self._known.close(run)
        elif not super().insert(run):
            self._known.forget(self.job.id, run)
            return False
        if run.scheduled_for is not None:
            self._known.by_tick[self.job.id, run.scheduled_for] = run
        if run.turn == "holds":
            self._known.holders[run.concurrency_key] = run
        return True
