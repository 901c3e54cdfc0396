"""The facet `lookout`: each question is led by an index."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import sqlalchemy as sa

from jobmanager.run import FAILED, MISSED, PENDING, RUNNING, Run
from jobmanager.stores.lookout import NEWEST, Lookout
from jobmanager.stores.sql.database import Connection, SqlFacet, literally


class SqlLookout(SqlFacet, Lookout):
    """Reads the runs that alarms are about."""

    def missed(self, job_ids: Collection[str], since: datetime, limit: int) -> list[Run]:
        c = self.tables.runs.c
        return self._runs(
            c.job_id.in_(job_ids),
            c.scheduled_for > since,
            c.status == MISSED,
            c.finished_at > since,
            limit=limit,
        )

    def running(self, job_ids: Collection[str], limit: int) -> list[Run]:
        c = self.tables.runs.c
        return self._runs(literally(c.status, RUNNING), c.job_id.in_(job_ids), limit=limit)

    def not_started(self, job_ids: Collection[str], before: datetime, limit: int) -> list[Run]:
        c = self.tables.runs.c
        never = c.due_at < before, c.attempt == 0, c.accepted_at.is_not(None)
        return self._runs(literally(c.status, PENDING), *never, c.job_id.in_(job_ids), limit=limit)

    def _runs(self, *conditions: sa.ColumnElement[bool], limit: int) -> list[Run]:
        runs = self.tables.runs
        query = sa.select(runs).where(*conditions).order_by(runs.c.due_at).limit(limit)
        with self.database.reading() as connection:
            return self.database.runs_from(connection.execute(query).mappings())

    def backlog(self, namespace: str, limit: int) -> int:
        c = self.tables.runs.c
        with self.database.reading() as connection:
            due = literally(c.status, PENDING), c.due_at <= self.database.clock(connection)
            return self._count(connection, self.tables.runs, namespace, *due, limit=limit)

    def dead_letters(self, namespace: str, limit: int) -> int:
        runs = self.tables.runs
        newest = sa.select(runs).order_by(runs.c.id.desc()).limit(NEWEST).subquery()
        dead = newest.c.status == FAILED, newest.c.discarded_at.is_(None)
        with self.database.reading() as connection:
            return self._count(connection, newest, namespace, *dead, limit=limit)

    def _count(
        self,
        connection: Connection,
        runs: sa.FromClause,
        namespace: str,
        *conditions: sa.ColumnElement[bool],
        limit: int,
    ) -> int:
        jobs = self.tables.jobs
        ours = sa.select(runs.c.id).join(jobs, jobs.c.id == runs.c.job_id)
        some = ours.where(jobs.c.namespace == namespace, *conditions).limit(limit).subquery()
        return int(connection.scalar(sa.select(sa.func.count()).select_from(some)) or 0)
