"""Maintenance of the ledger: take-over, deadlines, retention, dead letters that were seen to, processes long dead."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import sqlalchemy as sa

from jobmanager.run import (
    CANCELLED,
    FAILED,
    MISSED,
    PENDING,
    RUNNING,
    Failure,
    Notice,
    Run,
    RunStatus,
    new_id,
)
from jobmanager.stores.facets import StoreMaintenance
from jobmanager.stores.sql.columns import to_pending
from jobmanager.stores.sql.database import Connection, SqlFacet, literally, newest_of
from jobmanager.stores.sql.outbox import write_notices
from jobmanager.stores.sql.rows import run_from, run_values
from jobmanager.stores.sql.runs import fenced
from jobmanager.stores.sql.schema import Schema
from jobmanager.stores.sql.statistics import keep_purged
from jobmanager.stores.values import Note, StoreFacts

CLOCKS_DIFFER = timedelta(hours=1)
CRASHED = "crashed"
MOST_CRASHES = 10
"""So often a run of steps goes on after the death of its process without an attempt used."""
CHUNK = 2000  # rows in one transaction, so that a large purge never holds the writers up


class SqlMaintenance(SqlFacet, StoreMaintenance):
    """Ends runs whose process died, deletes old rows, and marks failed runs as seen to."""

    def facts(self) -> StoreFacts:
        version = Schema(self.database).version()
        with self.database.reading() as connection:
            system, size = self.database.about(connection)
        return StoreFacts(system=system, size=size, version=version)

    def take_over(self, notices_of: Callable[[Run], Sequence[Notice]] | None = None) -> list[Run]:
        runs, instances = self.tables.runs, self.tables.instances
        alive = sa.select(instances.c.id).where(instances.c.id == runs.c.owner, instances.c.dead_at.is_(None))
        orphaned = literally(runs.c.status, RUNNING) & ~alive.exists()
        # There is nearly never an orphan: no need to stop the writers for that.
        with self.database.reading() as connection:
            if connection.execute(sa.select(runs.c.id).where(orphaned).limit(1)).first() is None:
                return []
        orphans = sa.select(runs).where(orphaned).with_for_update(of=runs, skip_locked=True)
        with self.database.writing() as connection:
            found, wrong = self.database.sorted_out(connection.execute(orphans).mappings().all())
            ended = [self._ended_by_crash(connection, run) for run in found]
            if notices_of is not None:
                notices = [notice for run in ended for notice in notices_of(run)]
                write_notices(self.database, connection, notices)
        self.database.end_unreadable(wrong)
        return ended

    def _ended_by_crash(self, connection: Connection, run: Run) -> Run:
        now = self.database.clock(connection)
        jobs = self.tables.jobs  # the state alone: no other column of it, however spoiled, may hold this up
        state = connection.scalar(sa.select(jobs.c.state).where(jobs.c.id == run.job_id))
        crashed = Failure(kind="crashed", message="its process died while the handler ran, or before it did")
        if run.cancel_requested_at is not None:
            after = replace(run, status=CANCELLED, reason="requested", turn=None, finished_at=now)
        elif run.retry_on_crash and state in ("active", "paused") and self._goes_on(connection, run, now):
            self.database.keep_attempt(connection, run, crashed, now, CRASHED)
            after = replace(run, **to_pending(due_at=now, reason="shutdown"))
        elif run.retry_on_crash and run.attempt < run.max_attempts and state in ("active", "paused"):
            self.database.keep_attempt(connection, run, crashed, now)
            after = replace(run, **to_pending(due_at=now))
        else:
            after = replace(run, status=FAILED, error=crashed, turn=None, finished_at=now)
        values = {name: value for name, value in run_values(after).items() if value != run_values(run)[name]}
        connection.execute(fenced(self.tables.runs, run).values(**values))
        return after

    def _goes_on(self, connection: Connection, run: Run, now: datetime) -> bool:
        """Return True if a finished step of the run is on record, and no more than ten processes died with it in this attempt."""
        steps, attempts = self.tables.run_steps, self.tables.attempts
        slept = (steps.c.kind == "sleep") & (steps.c.wakes_at <= now)
        done = sa.select(steps.c.run_id).where(
            steps.c.run_id == run.id, (steps.c.status == "succeeded") | slept
        )
        if connection.scalar(done.limit(1)) is None:
            return False
        died = attempts.c.run_id == run.id, attempts.c.attempt == run.attempt, attempts.c.outcome == CRASHED
        return int(connection.scalar(sa.select(sa.func.count()).where(*died)) or 0) < MOST_CRASHES

    def expire_pending(self) -> int:
        c = self.tables.runs.c
        with self.database.writing() as connection:
            now = self.database.clock(connection)
            expired = literally(c.status, PENDING) & (c.attempt == 0) & (c.expires_at < now)
            values = {"status": MISSED, "reason": "deadline", "turn": None, "finished_at": now}
            return int(
                connection.execute(sa.update(self.tables.runs).where(expired).values(**values)).rowcount
            )

    def jobs_with_unaccepted_runs(self, before: datetime, limit: int) -> list[str]:
        c = self.tables.runs.c
        query = sa.select(c.job_id).where(self._only_announced(), c.due_at < before).distinct().limit(limit)
        with self.database.reading() as connection:
            return list(connection.scalars(query))

    def jobs_with_several_unaccepted_runs(self, job_ids: Collection[str], before: datetime) -> list[str]:
        c = self.tables.runs.c
        due = sa.select(c.job_id).where(self._only_announced(), c.due_at < before)
        query = due.where(c.job_id.in_(job_ids)).group_by(c.job_id).having(sa.func.count() > 1)
        with self.database.reading() as connection:
            return list(connection.scalars(query))

    def unaccepted_runs(self, after: datetime, until: datetime, limit: int) -> list[str]:
        c = self.tables.runs.c
        on_time = self._only_announced(), c.due_at > after, c.due_at <= until
        query = sa.select(c.id).where(*on_time).order_by(c.due_at, c.id).limit(limit)
        with self.database.reading() as connection:
            return list(connection.scalars(query))

    def _only_announced(self) -> sa.ColumnElement[bool]:
        c = self.tables.runs.c
        return literally(c.status, PENDING) & c.accepted_at.is_(None)

    def discard(self, run_id: str, *, note: Note | None = None) -> Run:
        runs = self.tables.runs
        failed = sa.update(runs).where(
            runs.c.id == run_id, runs.c.status == FAILED, runs.c.discarded_at.is_(None)
        )
        if not self.database.may_be_run_id(run_id):
            raise self.database.no_run(run_id)
        with self.database.writing() as connection:
            before = None if note is None else self.database.find_run(connection, run_id)
            connection.execute(failed.values(discarded_at=self.database.clock(connection)))
            after = self.database.the_run(connection, run_id)
            if note is not None:
                self.database.note(connection, note(before, after))
            return after

    def purge(
        self,
        before: datetime,
        *,
        job_id: str | None = None,
        but: Collection[str] = (),
        keep: int | None = None,
        statuses: Collection[RunStatus] = (),
        dry_run: bool = False,
    ) -> int:
        runs = self.tables.runs
        # Ids are in order of time, so the primary key leads from the oldest run to those that cannot have ended before.
        old = (runs.c.id < new_id(before + CLOCKS_DIFFER)) & (runs.c.finished_at < before) & self._accounted()
        if job_id is not None:
            old = old & (runs.c.job_id == job_id)
        if but:
            old = old & runs.c.job_id.not_in(but)
        if statuses:
            old = old & runs.c.status.in_(sorted(status.value for status in statuses))
        surplus = None if job_id is None or keep is None else self._beyond(job_id, keep)
        if dry_run:
            return self._count(old if surplus is None else old | surplus)
        deleted = self._delete(old)
        if surplus is not None:
            deleted += self._delete(surplus)
        with self.database.writing() as connection:
            connection.execute(
                sa.update(self.tables.meta).values(last_purge_at=self.database.clock(connection))
            )
        return deleted

    def purge_beyond(self, most: int, *, dry_run: bool = False) -> int:
        c = self.tables.runs.c
        with self.database.reading() as connection:
            newest = connection.scalar(sa.select(c.id).order_by(c.id.desc()).offset(most).limit(1))
        if newest is None:
            return 0
        surplus = (c.id <= newest) & c.finished_at.is_not(None) & self._accounted()
        return self._count(surplus) if dry_run else self._delete(surplus)

    def purge_beyond_bytes(self, most: int, *, dry_run: bool = False) -> int:
        with self.database.reading() as connection:
            each = self.database.bytes_of_a_run(connection)
        return self.purge_beyond(int(most / each), dry_run=dry_run) if each else 0

    def _count(self, condition: sa.ColumnElement[bool]) -> int:
        query = sa.select(sa.func.count()).select_from(self.tables.runs).where(condition)
        with self.database.reading() as connection:
            return int(connection.scalar(query) or 0)

    def _beyond(self, job_id: str, keep: int) -> sa.ColumnElement[bool] | None:
        """Return the condition that a run of the job is older than its newest so many; None if it has no more."""
        runs = self.tables.runs
        with self.database.reading() as connection:
            one_too_many = newest_of(runs, job_id, limit=keep + 1).offset(keep)
            row = connection.execute(one_too_many).mappings().one_or_none()
        if row is None:
            return None
        instant, newest = sa.func.coalesce(runs.c.scheduled_for, runs.c.opened_at), run_from(row)
        older = (instant < newest.instant) | ((instant == newest.instant) & (runs.c.id <= newest.id))
        surplus = (runs.c.job_id == job_id) & older & runs.c.finished_at.is_not(None)
        return surplus & self._accounted()

    def _accounted(self) -> sa.ColumnElement[bool]:
        """Return the condition that a run's tick lies at or before its job's watermark: it cannot be opened again."""
        runs, jobs = self.tables.runs, self.tables.jobs
        watermark = sa.select(jobs.c.accounted_until).where(jobs.c.id == runs.c.job_id).scalar_subquery()
        return runs.c.scheduled_for.is_(None) | (
            runs.c.scheduled_for <= sa.func.coalesce(watermark, runs.c.scheduled_for)
        )

    def _delete(self, condition: sa.ColumnElement[bool]) -> int:
        """Delete the runs with all that hangs on them, some thousand in a transaction; looking for them stops nobody."""
        runs = self.tables.runs
        some = sa.select(runs.c.id, runs.c.job_id, runs.c.scheduled_for).where(condition).order_by(runs.c.id)
        deleted = 0
        while True:
            with self.database.reading() as connection:
                doomed = [
                    (row.id, row.job_id, row.scheduled_for) for row in connection.execute(some.limit(CHUNK))
                ]
            ids = [run_id for run_id, _, _ in doomed]
            with self.database.writing() as connection:
                keep_purged(self.database, connection, ids)
                self._raise_history(connection, doomed)
                for hanging in (self.tables.attempts, self.tables.run_logs, self.tables.run_steps):
                    connection.execute(sa.delete(hanging).where(hanging.c.run_id.in_(ids)))
                # A run that was redriven meanwhile stays.
                connection.execute(sa.delete(runs).where(runs.c.id.in_(ids), runs.c.finished_at.is_not(None)))
            deleted += len(doomed)
            if len(doomed) < CHUNK:
                return deleted

    def _raise_history(
        self, connection: Connection, doomed: Sequence[tuple[str, str, datetime | None]]
    ) -> None:
        """Instants up to the newest purged one may be gone: the account check must not look for them."""
        jobs = self.tables.jobs
        newest: dict[str, datetime] = {}
        for _, job_id, instant in doomed:
            if instant is not None:
                newest[job_id] = max(instant, newest.get(job_id, instant))
        for job_id, instant in sorted(newest.items()):
            lower = sa.update(jobs).where(jobs.c.id == job_id, jobs.c.history_from < instant)
            connection.execute(lower.values(history_from=instant))

    def forget_dead(self, before: datetime) -> int:
        instances, declarations, runs = self.tables.instances, self.tables.declarations, self.tables.runs
        owns = sa.select(runs.c.id).where(runs.c.owner == instances.c.id, literally(runs.c.status, RUNNING))
        named = sa.select(instances.c.declares).where(instances.c.declares.is_not(None))
        with self.database.writing() as connection:
            dead = sa.delete(instances).where(instances.c.dead_at < before, ~owns.exists())
            forgotten = int(connection.execute(dead).rowcount)
            connection.execute(sa.delete(declarations).where(declarations.c.digest.not_in(named)))
        return forgotten
