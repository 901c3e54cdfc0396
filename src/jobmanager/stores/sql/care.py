"""Keeping the ledger small: retention, dead letters that were seen to, processes long dead."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa

from jobmanager.errors import RunNotFoundError
from jobmanager.run import (
    FAILED,
    RUNNING,
    Run,
    new_id,
)
from jobmanager.stores.sql.database import Connection, Database, literally, newest_of
from jobmanager.stores.sql.rows import run_from

CLOCKS_DIFFER = timedelta(hours=1)
CHUNK = 2000  # rows in one transaction, so that a large purge never holds the writers up


class CareStatements(Database):
    """What is deleted, and what is marked as seen to."""

    def discard(self, run_id: str) -> Run:
        runs = self.tables.runs
        failed = sa.update(runs).where(
            runs.c.id == run_id, runs.c.status == FAILED, runs.c.discarded_at.is_(None)
        )
        with self.writing() as connection:
            connection.execute(failed.values(discarded_at=self.clock(connection)))
            run = self.find_run(connection, run_id)
        if run is None:
            raise RunNotFoundError(f"No run {run_id!r} in {self.url}.", run_id=run_id)
        return run

    def purge(
        self,
        before: datetime,
        *,
        job_id: str | None = None,
        but: Collection[str] = (),
        keep: int | None = None,
    ) -> int:
        runs = self.tables.runs
        # Ids are in order of time, so the primary key leads from the oldest run to those that cannot have ended before.
        old = (runs.c.id < new_id(before + CLOCKS_DIFFER)) & (runs.c.finished_at < before) & self._accounted()
        if job_id is not None:
            old = old & (runs.c.job_id == job_id)
        if but:
            old = old & runs.c.job_id.not_in(but)
        deleted = self._delete(old)
        if job_id is not None and keep is not None:
            deleted += self._delete_beyond(job_id, keep)
        with self.writing() as connection:
            connection.execute(sa.update(self.tables.meta).values(last_purge_at=self.clock(connection)))
        return deleted

    def _delete_beyond(self, job_id: str, keep: int) -> int:
        runs = self.tables.runs
        with self.reading() as connection:
            one_too_many = newest_of(runs, job_id, limit=keep + 1).offset(keep)
            row = connection.execute(one_too_many).mappings().one_or_none()
        if row is None:
            return 0
        instant, newest = sa.func.coalesce(runs.c.scheduled_for, runs.c.opened_at), run_from(row)
        older = (instant < newest.instant) | ((instant == newest.instant) & (runs.c.id <= newest.id))
        surplus = (runs.c.job_id == job_id) & older & runs.c.finished_at.is_not(None)
        return self._delete(surplus & self._accounted())

    def _accounted(self) -> sa.ColumnElement[bool]:
        """Return the condition that a run's tick lies at or before its job's watermark: it cannot be opened again."""
        runs, jobs = self.tables.runs, self.tables.jobs
        watermark = sa.select(jobs.c.accounted_until).where(jobs.c.id == runs.c.job_id).scalar_subquery()
        return runs.c.scheduled_for.is_(None) | (
            runs.c.scheduled_for <= sa.func.coalesce(watermark, runs.c.scheduled_for)
        )

    def _delete(self, condition: sa.ColumnElement[bool]) -> int:
        """Delete the runs with all that hangs on them, some thousand in a transaction; looking for them stops nobody."""
        runs, attempts, lines = self.tables.runs, self.tables.attempts, self.tables.run_logs
        some = sa.select(runs.c.id, runs.c.job_id, runs.c.scheduled_for).where(condition).order_by(runs.c.id)
        deleted = 0
        while True:
            with self.reading() as connection:
                doomed = [
                    (row.id, row.job_id, row.scheduled_for) for row in connection.execute(some.limit(CHUNK))
                ]
            ids = [run_id for run_id, _, _ in doomed]
            with self.writing() as connection:
                self._raise_history(connection, doomed)
                connection.execute(sa.delete(attempts).where(attempts.c.run_id.in_(ids)))
                connection.execute(sa.delete(lines).where(lines.c.run_id.in_(ids)))
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
        with self.writing() as connection:
            dead = sa.delete(instances).where(instances.c.dead_at < before, ~owns.exists())
            forgotten = int(connection.execute(dead).rowcount)
            connection.execute(sa.delete(declarations).where(declarations.c.digest.not_in(named)))
        return forgotten
