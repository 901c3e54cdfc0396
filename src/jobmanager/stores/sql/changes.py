"""The facet `changes`: states of runs by index, and signals as the dialects have them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from jobmanager.access.view import View
from jobmanager.run import RunStatus, first_id
from jobmanager.stores.changes import RunState, Signals, StoredChanges
from jobmanager.stores.sql.database import Database, SqlFacet, literally
from jobmanager.stores.sql.tables import STATUSES
from jobmanager.stores.sql.visible import runs_seen

OPEN = ("pending", "running")


class SqlChanges(SqlFacet, StoredChanges):
    """Reads states; `make_signals` is the dialect's way to hear of changes."""

    def __init__(self, database: Database, make_signals: Callable[[], Signals] | None = None) -> None:
        super().__init__(database)
        self._make_signals = make_signals

    def signals(self) -> Signals:
        return super().signals() if self._make_signals is None else self._make_signals()

    def states(self, namespace: str, since: datetime, *, most: int) -> list[RunState]:
        c = self.tables.runs.c
        ranges: list[sa.ColumnElement[bool]] = [c.id >= first_id(since)]
        ranges += [literally(c.status, status) for status in OPEN]
        queries = [
            self._query(namespace).where(condition).order_by(c.id.desc()).limit(most) for condition in ranges
        ]
        with self.database.reading() as connection:
            return _states(row for query in queries for row in connection.execute(query))

    def states_of(self, run_ids: Collection[str], *, seen: View | None = None) -> list[RunState]:
        known = [run_id for run_id in run_ids if self.database.may_be_run_id(run_id)]
        query = self._query(None).where(self.tables.runs.c.id.in_(known), *runs_seen(self.tables, seen))
        with self.database.reading() as connection:
            return _states(connection.execute(query))

    def moved_since(self, namespace: str, moment: datetime, *, newest: int) -> list[RunState]:
        c = self.tables.runs.c
        moved = (c.started_at >= moment) | (c.finished_at >= moment) | (c.opened_at >= moment)
        last = sa.select(c.id).order_by(c.id.desc()).limit(newest).subquery()
        queries = [
            self._query(namespace).join(last, last.c.id == c.id).where(moved),
            self._query(namespace).where(literally(c.status, "running"), moved),
        ]
        with self.database.reading() as connection:
            return _states(row for query in queries for row in connection.execute(query))

    def _query(self, namespace: str | None) -> sa.Select[Any]:
        runs, jobs = self.tables.runs, self.tables.jobs
        query = sa.select(runs.c.id, runs.c.job_id, runs.c.status, runs.c.starts).select_from(runs)
        if namespace is None:
            return query
        return query.join(jobs, jobs.c.id == runs.c.job_id).where(jobs.c.namespace == namespace)


def _states(rows: Iterable[Any]) -> list[RunState]:
    found = {
        run_id: RunState(run_id, job_id, RunStatus(status), starts)
        for run_id, job_id, status, starts in rows
        if status in STATUSES
    }
    return [found[run_id] for run_id in sorted(found)]
