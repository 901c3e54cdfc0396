"""The facet `audit`: entries by filter, and their retention."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from jobmanager.access.view import View
from jobmanager.run import first_id
from jobmanager.stores.audit import AuditQuery, StoredAudit
from jobmanager.stores.sql.database import SqlFacet, literally
from jobmanager.stores.sql.visible import jobs_seen
from jobmanager.stores.values import AuditEntry


class SqlAudit(SqlFacet, StoredAudit):
    """Entries in order of their ids, which are those of their moments."""

    def write(self, entry: AuditEntry) -> None:
        with self.database.writing() as connection:
            self.database.note(connection, entry)

    def entries(self, wanted: AuditQuery, *, seen: View | None = None) -> list[AuditEntry]:
        with self.database.reading() as connection:
            return [AuditEntry(**row) for row in connection.execute(self.page(wanted, seen)).mappings()]

    def page(self, wanted: AuditQuery, seen: View | None) -> sa.Select[tuple[object, ...]]:
        """Return the statement of a page."""
        c = self.tables.audit.c
        query = sa.select(self.tables.audit).where(c.namespace == wanted.namespace)
        if wanted.outcome is not None:
            query = query.where(literally(c.outcome, wanted.outcome))
        for name in ("job_id", "target", "target_id", "by", "action"):
            value = getattr(wanted, name)
            if value is not None:
                query = query.where(c[name] == value)
        if wanted.since is not None:
            query = query.where(c.id >= first_id(wanted.since), c.at >= wanted.since)
        if wanted.until is not None:
            query = query.where(c.at < wanted.until)
        if wanted.before is not None:
            query = query.where(c.id < wanted.before)
        if seen is not None and not seen.is_whole:
            jobs = self.tables.jobs
            its_job = sa.select(jobs.c.id).where(
                jobs.c.id == c.job_id, *jobs_seen(self.tables, seen, whole=True)
            )
            query = query.where(its_job.correlate(self.tables.audit).exists())
        return query.order_by(c.id.desc()).limit(wanted.limit)

    def purge(self, namespace: str, before: datetime, limit: int) -> int:
        c = self.tables.audit.c
        old = sa.select(c.id).where(c.id < first_id(before), c.namespace == namespace)
        with self.database.reading() as connection:
            ids = list(connection.scalars(old.order_by(c.id).limit(limit)))
        if ids:
            with self.database.writing() as connection:
                connection.execute(sa.delete(self.tables.audit).where(c.id.in_(ids)))
        return len(ids)
