"""The stored jobs: declarations, state and account."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any, TypeVar

import sqlalchemy as sa

from jobmanager.access.view import View
from jobmanager.errors import JobNotFoundError
from jobmanager.job import STORED_OPTIONS
from jobmanager.run import Run
from jobmanager.stores.facets import StoredJobs
from jobmanager.stores.job_transaction import JobTransaction
from jobmanager.stores.sql.database import SqlFacet
from jobmanager.stores.sql.rows import (
    UNREADABLE,
    Row,
    check_job,
    job_from,
    job_values,
    rows_of,
)
from jobmanager.stores.sql.tables import Tables
from jobmanager.stores.sql.transaction import KnownRuns, ManyJobsTransaction, SqlJobTransaction
from jobmanager.stores.sql.visible import KEPT, jobs_seen
from jobmanager.stores.values import AuditEntry, JobRow, JobSummary

Made = TypeVar("Made")
Asked = Mapping[str, Any]
NOTHING: Asked = MappingProxyType({})

LOCKED_AT_ONCE = 1000
NEW = -1
"""The change counter of a row that only its own transaction sees."""
DECLARED = {"declared", "namespace", "definition", *(item.column for item in STORED_OPTIONS.values())}


class SqlJobs(SqlFacet, StoredJobs):
    """Reading, seeding and locking jobs."""

    def rows(
        self,
        *,
        changed_since: int | None = None,
        ids: Collection[str] | None = None,
        seen: View | None = None,
    ) -> list[JobRow]:
        query, asked = _rows_seen(self.tables, seen, among=ids is not None), {"ids": list(ids or ())}
        if changed_since is not None:
            query = query.where(self.tables.jobs.c.change_seq > changed_since)
        return self._readable(query, job_from, asked)

    def summaries(
        self,
        *,
        changed_since: int = -1,
        after: str = "",
        limit: int | None = 1000,
        ids: Collection[str] | None = None,
        seen: View | None = None,
    ) -> list[JobSummary]:
        c = self.tables.jobs.c
        page = sa.select(*(c[name] for name in JobSummary._fields)).where(*jobs_seen(self.tables, seen))
        page = page.order_by(c.id).limit(limit)
        if ids is not None:
            page = page.where(c.id.in_(ids))
        if changed_since >= 0:
            page = page.where(c.change_seq > changed_since)
        return self._readable(page.where(c.id > after) if after else page, _summary_from)

    def places(self, *, seen: View | None = None) -> list[tuple[str, str, str]]:
        c = self.tables.jobs.c
        query = sa.select(c.id, c.namespace, c.state).where(*jobs_seen(self.tables, seen))
        with self.database.reading() as connection:
            return [(job_id, namespace, state) for job_id, namespace, state in connection.execute(query)]

    def _readable(
        self, query: sa.Select[Any], make: Callable[[Row], Made], asked: Asked = NOTHING
    ) -> list[Made]:
        """Return what the rows stand for, without those that cannot be read: each is logged when it is found to be so."""
        try:
            return self._read(query, make, asked)
        except UNREADABLE:
            with self.database.reading() as connection:
                ids = list(connection.scalars(query.with_only_columns(self.tables.jobs.c.id), asked))
            return [made for readable, _ in self._by_halves(query, make, ids, asked) for made in readable]

    def _read(self, query: sa.Select[Any], make: Callable[[Row], Made], asked: Asked) -> list[Made]:
        with self.database.reading() as connection:
            return [make(row) for row in rows_of(connection.execute(query, asked))]

    def _by_halves(
        self,
        query: sa.Select[Any],
        make: Callable[[Row], Made],
        ids: Sequence[str],
        asked: Asked = NOTHING,
    ) -> Iterator[tuple[list[Made], Mapping[str, str]]]:
        """Yield what can be read, and what is wrong with the others by id, in as few statements as possible."""
        if not ids:
            return
        try:
            yield self._read(query.where(self.tables.jobs.c.id.in_(ids)), make, asked), {}
        except UNREADABLE as error:
            if len(ids) > 1:
                half = len(ids) // 2
                yield from self._by_halves(query, make, ids[:half], asked)
                yield from self._by_halves(query, make, ids[half:], asked)
            else:
                self.database.leave_out("job", ids[0], error)
                yield [], {ids[0]: str(error)}

    def unreadable(self) -> Mapping[str, str]:
        query = sa.select(self.tables.jobs)
        with self.database.reading() as connection:
            ids = list(connection.scalars(sa.select(self.tables.jobs.c.id).order_by(self.tables.jobs.c.id)))
        return {
            job_id: why for _, wrong in self._by_halves(query, job_from, ids) for job_id, why in wrong.items()
        }

    def get(self, job_id: str, *, seen: View | None = None) -> JobRow | None:
        with self.database.reading() as connection:
            return self.database.find_job(connection, _rows_seen(self.tables, seen), job_id)

    def due(self, before: datetime, limit: int) -> list[str]:
        c = self.tables.jobs.c
        jobs = sa.select(c.id).where(c.state.in_(("active", "paused")))
        due = jobs.where(c.next_due_at <= before).order_by(c.next_due_at).limit(limit)
        with self.database.reading() as connection:
            found = list(connection.scalars(due))
            if len(found) < limit:
                # A released version of pg_cron's SQL left jobs like this.
                lost = jobs.where(c.next_due_at.is_(None), c.schedule != "none", c.accounted_until <= before)
                lost = lost.where(sa.not_(_is_over(c, connection.dialect)))
                lost = lost.order_by(c.accounted_until, c.id).limit(limit - len(found))
                found += connection.scalars(lost)
            return found

    def add(self, rows: Sequence[JobRow]) -> None:
        if not rows:
            return
        with self.database.writing() as connection:
            seq = self.database.next_change(connection)
            connection.execute(
                self.database.insert_ignoring(self.tables.jobs),
                [job_values(replace(row, change_seq=seq)) for row in rows],
            )

    def create(self, row: JobRow, entry: AuditEntry) -> JobRow | None:
        with self.database.writing() as connection:
            jobs = self.tables.jobs
            connection.execute(self.database.insert_ignoring(jobs), job_values(replace(row, change_seq=NEW)))
            there = self.database.find_job(connection, self.database.locked(sa.select(jobs)), row.id)
            if there is None or (there.state != "deleted" and there.change_seq != NEW):
                return there
            if there.change_seq != NEW:
                row = replace(
                    row, schedule_rev=there.schedule_rev + 1, definition_rev=there.definition_rev + 1
                )
            row = replace(row, change_seq=self.database.next_change(connection))
            connection.execute(sa.update(jobs).where(jobs.c.id == row.id).values(**job_values(row)))
            self.database.note(connection, replace(entry, rev=row.definition_rev))
        return None

    def declare(self, rows: Mapping[str, JobRow]) -> None:
        jobs = self.tables.jobs
        ids = sorted(rows)
        with self.database.writing() as connection:
            # Jobs before the counter, and in one order, as everybody locks them.
            for start in range(0, len(ids), LOCKED_AT_ONCE):
                some = sa.select(jobs.c.id).where(jobs.c.id.in_(ids[start : start + LOCKED_AT_ONCE]))
                connection.execute(self.database.locked(some.order_by(jobs.c.id)))
            seq = self.database.next_change(connection)
            for row in rows.values():
                values = job_values(replace(row, change_seq=seq))
                connection.execute(
                    sa.update(jobs)
                    .where(jobs.c.id == row.id)
                    .values(
                        definition_rev=jobs.c.definition_rev + 1,
                        change_seq=seq,
                        **{name: value for name, value in values.items() if name in DECLARED},
                    )
                )

    @contextmanager
    def lock(self, job_id: str) -> Iterator[JobTransaction]:
        with self.database.writing() as connection:
            job = self.database.find_job(
                connection, self.database.locked(sa.select(self.tables.jobs)), job_id
            )
            if job is None:
                raise JobNotFoundError(f"No job {job_id!r} in {self.database.url}.", job_id=job_id)
            yield SqlJobTransaction(self.database, connection, job)

    @contextmanager
    def lock_many(self, runs: Sequence[Run]) -> Iterator[Mapping[str, JobTransaction]]:
        jobs = self.tables.jobs
        some = sa.select(jobs).where(jobs.c.id.in_(sorted({run.job_id for run in runs}))).order_by(jobs.c.id)
        with self.database.writing() as connection:
            now = self.database.clock(connection)
            rows = [job_from(row) for row in connection.execute(self.database.locked(some)).mappings()]
            known = KnownRuns(self.database, connection, runs)
            yield {row.id: ManyJobsTransaction(self.database, connection, row, now, known) for row in rows}
            known.write()

    def change_seq(self) -> int:
        with self.database.reading() as connection:
            return connection.scalar(sa.select(self.tables.meta.c.change_seq)) or 0


@lru_cache(maxsize=KEPT)
def _rows_seen(tables: Tables, seen: View | None, *, among: bool = False) -> sa.Select[Any]:
    """Return the statement for all jobs that a view sees, or for those `among` the `ids`; made once."""
    c = tables.jobs.c
    query = sa.select(tables.jobs).where(*jobs_seen(tables, seen)).order_by(c.id)
    return query.where(c.id.in_(sa.bindparam("ids", expanding=True))) if among else query


def _is_over(c: sa.ColumnCollection[str, sa.Column[Any]], dialect: sa.Dialect) -> sa.ColumnElement[bool]:
    """Return whether the schedule is of a single instant that is accounted for: such a job rightly has none to come."""
    if dialect.name == "postgresql":
        instant = sa.func.to_char(sa.func.timezone("UTC", c.accounted_until), 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
    else:
        seconds = sa.type_coerce(c.accounted_until, sa.BigInteger) / 1_000_000
        instant = sa.func.strftime("%Y-%m-%dT%H:%M:%SZ", seconds, "unixepoch")
    return sa.and_(c.schedule.like("at %"), c.schedule <= sa.literal("at ").concat(instant))


def _summary_from(row: Row) -> JobSummary:
    check_job(dict(row))
    return JobSummary._make(row.values())
