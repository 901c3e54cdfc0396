"""The facet `events`."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from jobmanager.access.view import View
from jobmanager.run import BY_EVENT, PENDING, Run
from jobmanager.step import EventWait, SentEvent
from jobmanager.stores.events import StoredEvents
from jobmanager.stores.sql.database import Connection, SqlFacet, literally
from jobmanager.stores.sql.rows import rows_of
from jobmanager.stores.sql.visible import runs_seen


class SqlEvents(SqlFacet, StoredEvents):
    """Reads events by when they were sent, and waits by the index of those that are not over."""

    def sent(
        self,
        namespace: str,
        *,
        name: str | None = None,
        before: str | None = None,
        limit: int,
        seen: View | None = None,
    ) -> list[SentEvent]:
        c = self.tables.events.c
        query = sa.select(c.id, c.name, c.key, c.sent_at).where(c.namespace == namespace)
        if name is not None:
            query = query.where(c.name == name)
        if before is not None:
            there = sa.select(c.sent_at, c.id).where(c.namespace == namespace, c.id == before)
            query = query.where(sa.tuple_(c.sent_at, c.id) < there.scalar_subquery())
        query = query.order_by(c.sent_at.desc(), c.id.desc()).limit(limit)
        with self.database.reading() as connection:
            rows = connection.execute(query).all()
            started = self._started(
                connection, namespace, {row.name for row in rows}, [row.id for row in rows], seen
            )
        return [
            SentEvent(
                id=row.id,
                name=row.name,
                key=row.key,
                sent_at=row.sent_at,
                runs=tuple(started.get(BY_EVENT + row.id, ())),
            )
            for row in rows
        ]

    def _started(
        self,
        connection: Connection,
        namespace: str,
        names: Collection[str],
        ids: Collection[str],
        seen: View | None,
    ) -> dict[str, list[Run]]:
        """Return the runs that the events have started, by their idempotency keys."""
        if not ids:
            return {}
        runs, jobs = self.tables.runs, self.tables.jobs
        starts = sa.select(jobs.c.id).where(jobs.c.namespace == namespace, jobs.c.on.in_(sorted(names)))
        job_ids = connection.scalars(starts).all()
        if not job_ids:
            return {}
        keys = [BY_EVENT + event_id for event_id in ids]
        query = (
            sa.select(runs)
            .where(
                runs.c.job_id.in_(job_ids), runs.c.idempotency_key.in_(keys), *runs_seen(self.tables, seen)
            )
            .order_by(runs.c.id)
        )
        found: dict[str, list[Run]] = {}
        for run in self.database.runs_from(rows_of(connection.execute(query))):
            found.setdefault(run.idempotency_key or "", []).append(run)
        return found

    def waits(
        self, namespace: str, *, name: str | None = None, limit: int, seen: View | None = None
    ) -> list[EventWait]:
        steps, runs, jobs = self.tables.run_steps, self.tables.runs, self.tables.jobs
        s, r = steps.c, runs.c
        query = (
            sa.select(
                s.run_id, r.job_id, s.name.label("step"), s.event_name, s.event_key, s.started_at, s.wakes_at
            )
            .select_from(steps)
            .join(runs, r.id == s.run_id)
            .where(s.event_name.is_not(None), literally(s.status, "waiting"), literally(r.status, PENDING))
            .where(sa.exists().where(jobs.c.id == r.job_id, jobs.c.namespace == namespace))
            .where(*runs_seen(self.tables, seen))
            .order_by(s.started_at, s.run_id, s.position)
            .limit(limit)
        )
        if name is not None:
            query = query.where(s.event_name == name)
        with self.database.reading() as connection:
            rows = connection.execute(query).all()
        return [
            EventWait(
                run_id=row.run_id,
                job_id=row.job_id,
                step=row.step,
                name=row.event_name,
                key=row.event_key,
                since=row.started_at,
                until=row.wakes_at,
            )
            for row in rows
        ]
