"""Pages of the runs that a view sees. Each is led by an index, however many runs of others lie between."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from jobmanager.access.view import View
from jobmanager.run import Run
from jobmanager.stores.sql.database import Connection, newest_by_hand_of, newest_of, without_index
from jobmanager.stores.sql.rows import Row, rows_of
from jobmanager.stores.sql.tables import Tables, has_scope, scope_of
from jobmanager.stores.sql.visible import jobs_seen

Condition = sa.ColumnElement[bool]

GATHERED = 5000
"""Up to so many runs are gathered by an index and sorted. More are not rare among a million, which is walked then from the newest on."""
EVERY_ROW = 2**62
"""A limit that limits nothing: planners take what is inside as it is, and sort it outside."""


class SeenRuns:
    """The runs that a view sees, or all of them for None. For one read, in which the jobs are looked up once.

    Runs with a scope are starts by hand: ticks have none.
    """

    def __init__(self, tables: Tables, connection: Connection, seen: View | None) -> None:
        self._runs = tables.runs
        self._connection = connection
        self._whole: Sequence[str] = ()
        self._scoped: Sequence[str] = ()
        self._scopes: Sequence[str] = ()
        self._sees_all = seen is None
        if seen is None:
            return
        self._sees_all = connection.scalar(_one_hidden(tables, seen)) is None
        if not self._sees_all:
            whole, some = sa.and_(*jobs_seen(tables, seen, whole=True)), sa.and_(*jobs_seen(tables, seen))
            jobs = connection.execute(sa.select(tables.jobs.c.id, whole, some)).all()
            self._whole = [job_id for job_id, every_run, _ in jobs if every_run]
            self._scoped = [job_id for job_id, every_run, some_runs in jobs if some_runs and not every_run]
            self._scopes = sorted(seen.scopes or ())

    def shows_every_run_of(self, job_id: str) -> bool:
        """Return True if no run of the job is hidden."""
        return self._sees_all or job_id in self._whole

    def of_whole_jobs(self) -> list[Condition]:
        """Return the conditions that a run is one of a job of which every run is seen."""
        if self._sees_all:
            return []
        mine = self._runs.c.job_id.in_(self._whole)
        return [mine] if self._are_few(mine) else [without_index(self._runs.c.job_id).in_(self._whole)]

    def newest(self, *conditions: Condition, limit: int) -> list[Row]:
        """Return the newest runs by their ids."""
        runs, c = self._runs, self._runs.c
        every = sa.select(runs).where(*conditions)
        found: list[Row] = []
        if self._sees_all:
            return self._rows(every.order_by(c.id.desc()).limit(limit))
        for scope in self._scopes if self._scoped else ():
            of_scope = every.where(
                has_scope(c), scope_of(c) == scope, without_index(c.job_id).in_(self._scoped)
            )
            found += self._rows(of_scope.order_by(c.id.desc()).limit(limit))
        if self._whole:
            mine = c.job_id.in_(self._whole)
            if self._are_few(mine):
                gathered = every.where(mine).limit(EVERY_ROW).subquery()
                query = sa.select(gathered).order_by(gathered.c.id.desc())
            else:
                query = every.where(without_index(c.job_id).in_(self._whole)).order_by(c.id.desc())
            found += self._rows(query.limit(limit))
        return sorted(found, key=_id_of, reverse=True)[:limit]

    def newest_of(
        self, job_id: str, *conditions: Condition, limit: int, before: Run | None = None
    ) -> list[Row]:
        """Return the newest runs of a job by the instant each stands for, those older than `before`."""
        if self.shows_every_run_of(job_id) and not conditions and before is None:
            asked = {"job": job_id, "most": limit}
            return rows_of(self._connection.execute(_newest_of_any(self._runs), asked))
        if self.shows_every_run_of(job_id):
            return self._rows(newest_of(self._runs, job_id, *conditions, limit=limit, before=before))
        if job_id not in self._scoped or not self._scopes:
            return []
        c = self._runs.c
        if not self._are_few(has_scope(c), scope_of(c).in_(self._scopes)):
            mine = has_scope(c), without_index(scope_of(c)).in_(self._scopes), *conditions
            return self._rows(newest_by_hand_of(self._runs, job_id, *mine, limit=limit, before=before))
        mine = has_scope(c), scope_of(c).in_(self._scopes), without_index(c.job_id) == job_id
        gathered = sa.select(self._runs).where(*mine, *conditions).limit(EVERY_ROW).subquery()
        opened_at, run_id = gathered.c.opened_at, gathered.c.id
        query = sa.select(gathered).order_by(opened_at.desc(), run_id.desc()).limit(limit)
        if before is not None:
            older = (opened_at < before.instant) | ((opened_at == before.instant) & (run_id < before.id))
            query = query.where(older)
        return self._rows(query)

    def _are_few(self, *conditions: Condition) -> bool:
        some: sa.Select[Any] = sa.select(sa.literal_column("1")).select_from(self._runs).where(*conditions)
        count = sa.select(sa.func.count()).select_from(some.limit(GATHERED + 1).subquery())
        return int(self._connection.scalar(count) or 0) <= GATHERED

    def _rows(self, query: sa.Select[Any]) -> list[Row]:
        return rows_of(self._connection.execute(query))


@lru_cache(maxsize=4)
def _newest_of_any(runs: sa.Table) -> sa.Select[Any]:
    """Return the statement for the `most` newest runs of the job `job`, made once: making it takes longer than what it does."""
    job_id: Any = sa.bindparam("job", type_=sa.Text)
    return newest_of(runs, job_id, limit=sa.bindparam("most", type_=sa.Integer))


@lru_cache(maxsize=64)
def _one_hidden(tables: Tables, seen: View) -> sa.Select[Any]:
    """Return the statement that finds a job of which not every run is seen, made once for each view."""
    whole = sa.and_(*jobs_seen(tables, seen, whole=True))
    return sa.select(tables.jobs.c.id).where(sa.not_(whole)).limit(1)


def _id_of(row: Row) -> str:
    return str(row["id"])
