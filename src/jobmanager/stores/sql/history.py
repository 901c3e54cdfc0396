"""Reading the ledger: runs, attempts, log lines, counts. Nothing here writes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from jobmanager.access.view import View
from jobmanager.run import (
    FAILED,
    PENDING,
    RUNNING,
    Attempt,
    JobMetrics,
    LogLine,
    Run,
    RunStatus,
    first_id,
)
from jobmanager.stores.facets import RunHistory
from jobmanager.stores.sql.database import NEVER, Connection, SqlFacet, literally, without_index
from jobmanager.stores.sql.rows import (
    attempt_from,
    lines_from,
    run_from,
)
from jobmanager.stores.sql.seen_runs import SeenRuns
from jobmanager.stores.sql.tables import STATUSES
from jobmanager.stores.sql.visible import run_id_seen, runs_seen
from jobmanager.stores.values import DueInstant, Tally


class SqlHistory(SqlFacet, RunHistory):
    """What the record says."""

    def run(self, run_id: str, *, seen: View | None = None) -> Run | None:
        is_seen = runs_seen(self.tables, seen)
        with self.database.reading() as connection:
            found = self.database.find_run(connection, run_id, *is_seen)
            if found is None and 4 <= len(run_id) < 36:
                runs = self.tables.runs
                tail = (
                    sa.select(runs)
                    .where(sa.cast(runs.c.id, sa.Text).endswith(run_id, autoescape=True), *is_seen)
                    .limit(2)
                )
                rows = connection.execute(tail).mappings().all()
                found = run_from(rows[0]) if len(rows) == 1 else None
            return found

    def runs(
        self,
        *,
        job_id: str | None = None,
        statuses: Collection[RunStatus] = (),
        dead: bool = False,
        before: str | None = None,
        limit: int = 50,
        seen: View | None = None,
    ) -> list[Run]:
        c = self.tables.runs.c
        wanted = [c.status == FAILED, c.discarded_at.is_(None)] if dead else []
        if statuses:
            wanted.append(c.status.in_([status.value for status in statuses]))
        with self.database.reading() as connection:
            pages = SeenRuns(self.tables, connection, seen)
            if job_id is None:
                page = [*wanted, c.id < before] if before is not None else wanted
                return self.database.runs_from(pages.newest(*page, limit=limit))
            last = (
                None
                if before is None
                else self.database.find_run(connection, before, *runs_seen(self.tables, seen))
            )
            if before is not None and last is None:
                return []
            return self.database.runs_from(pages.newest_of(job_id, *wanted, limit=limit, before=last))

    def run_for(self, job_id: str, instant: datetime, *, seen: View | None = None) -> Run | None:
        c = self.tables.runs.c
        following = (
            sa.select(self.tables.runs)
            .where(c.job_id == job_id, c.scheduled_for >= instant)
            .order_by(c.scheduled_for)
            .limit(1)
        )
        with self.database.reading() as connection:
            if not SeenRuns(self.tables, connection, seen).shows_every_run_of(job_id):
                return None  # ticks have no scope
            found = self.database.runs_from(connection.execute(following).mappings())
        # A stretch covers every instant between its ends, so the next row is the only one that can.
        covering = [run for run in found if (run.first_for or run.instant) <= instant]
        return covering[0] if covering else None

    def last_runs(self, job_ids: Collection[str], *, seen: View | None = None) -> dict[str, list[Run]]:
        c = self.tables.runs.c
        executed = c.finished_at.is_not(None) & c.started_at.is_not(None)
        found: dict[str, list[Run]] = {}
        with self.database.reading() as connection:
            pages = SeenRuns(self.tables, connection, seen)
            running = self._newest_running(connection, job_ids, seen)
            for job_id in job_ids:
                last = {run.id: run for run in running if run.job_id == job_id}
                for condition in (sa.true(), executed):
                    found_now = self.database.runs_from(pages.newest_of(job_id, condition, limit=1))
                    last.update({run.id: run for run in found_now})
                if last:
                    found[job_id] = sorted(last.values(), key=lambda run: (run.instant, run.id), reverse=True)
        return found

    def _newest_running(
        self, connection: Connection, job_ids: Collection[str], seen: View | None
    ) -> list[Run]:
        """Return of each job the newest running run, if it has one: of all runs only the running ones are read."""
        c = self.tables.runs.c
        mine = without_index(c.job_id).in_(job_ids), *runs_seen(self.tables, seen)
        query = sa.select(self.tables.runs).where(literally(c.status, RUNNING), *mine)
        runs = self.database.runs_from(connection.execute(query).mappings())
        newest = {run.job_id: run for run in sorted(runs, key=lambda run: (run.instant, run.id))}
        return list(newest.values())

    def due_instants(
        self,
        job_ids: Collection[str],
        *,
        limit: int = 30,
        since: datetime | None = None,
        seen: View | None = None,
    ) -> dict[str, list[DueInstant]]:
        c = self.tables.runs.c
        wanted = [c.scheduled_for.is_not(None), c.scheduled_for <= NEVER]
        if since is not None:
            wanted.append(c.scheduled_for >= since)
        query = (
            sa.select(
                c.id, c.scheduled_for, c.status, c.reason, c.ticks, c.first_for, c.started_at, c.finished_at
            )
            .where(c.job_id == sa.bindparam("of_job"), *wanted)
            .order_by(c.scheduled_for.desc())
            .limit(limit)
        )
        found: dict[str, list[DueInstant]] = {}
        with self.database.reading() as connection:
            pages = SeenRuns(self.tables, connection, seen)
            for job_id in filter(pages.shows_every_run_of, job_ids):  # ticks have no scope
                rows = connection.execute(query, {"of_job": job_id}).all()
                if rows:
                    found[job_id] = [
                        DueInstant(run_id, instant, RunStatus(status), *rest)
                        for run_id, instant, status, *rest in rows
                    ]
        return found

    def attempts(self, run_id: str, *, seen: View | None = None) -> list[Attempt]:
        if not self.database.may_be_run_id(run_id):
            return []
        table = self.tables.attempts
        wanted = table.c.run_id == run_id, *run_id_seen(self.tables, seen, run_id)
        query = sa.select(table).where(*wanted).order_by(table.c.starts)
        with self.database.reading() as connection:
            return self.database.readable(
                connection.execute(query).mappings(), attempt_from, "run_id", "run_id"
            )

    def lines(
        self, run_id: str, *, after: int = 0, seen: View | None = None
    ) -> list[tuple[int, int, LogLine]]:
        if not self.database.may_be_run_id(run_id):
            return []
        table = self.tables.run_logs
        wanted = table.c.run_id == run_id, table.c.seq > after, *run_id_seen(self.tables, seen, run_id)
        query = sa.select(table).where(*wanted).order_by(table.c.seq)
        with self.database.reading() as connection:
            flushes = self.database.readable(
                connection.execute(query).mappings(), _flush_from, "run_id", "run_id"
            )
        return [(seq, attempt, line) for seq, attempt, lines in flushes for line in lines]

    def unreadable(self, limit: int = 1000) -> Mapping[str, str]:
        runs, c = self.tables.runs, self.tables.runs.c
        newest = sa.select(runs).order_by(c.id.desc()).limit(limit)
        is_open = c.status.in_((PENDING.value, RUNNING.value))
        found: dict[str, str] = {}
        with self.database.reading() as connection:
            for query in (newest, sa.select(runs).where(is_open).order_by(c.id).limit(limit)):
                found |= self.database.sorted_out(connection.execute(query).mappings())[1]
        return found

    def metrics(self, *, seen: View | None = None) -> JobMetrics:
        c = self.tables.runs.c
        succeeded = sa.func.sum(sa.case((c.status == RunStatus.SUCCEEDED, 1), else_=0))
        failed = sa.func.sum(sa.case((c.status == RunStatus.FAILED, 1), else_=0))
        ended = c.status.in_(
            (RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED)
        ) & c.started_at.is_not(None)
        query = sa.select(
            sa.func.count(), succeeded, failed, self.database.average_seconds(c.finished_at, c.started_at)
        ).where(ended)
        with self.database.reading() as connection:
            mine = SeenRuns(self.tables, connection, seen).of_whole_jobs()
            count, good, bad, seconds = connection.execute(query.where(*mine)).one()
            cleaned = connection.scalar(sa.select(self.tables.meta.c.last_purge_at))
        return JobMetrics(
            total_executions=count,
            successful_jobs=good or 0,
            failed_jobs=bad or 0,
            average_job_duration=timedelta(seconds=float(seconds or 0)),
            last_cleanup=cleaned,
        )

    def tally(self, since: datetime, *, seen: View | None = None) -> list[Tally]:
        with self.database.reading() as connection:
            return [
                _tally_from(row)
                for statement in self.tallied(since, seen)
                for row in connection.execute(statement)
                if row[1] in STATUSES
            ]

    def tallied(self, since: datetime, seen: View | None = None) -> list[sa.Select[Any]]:
        """One statement for each range that has an index; with OR in between, the whole table would be read."""
        c = self.tables.runs.c
        ended = (c.id >= first_id(since)) & c.finished_at.is_not(None)
        # Literals: a bound value cannot prove to SQLite that a partial index holds the rows.
        return [
            self._tally_of(condition, *runs_seen(self.tables, seen, whole=True))
            for condition in (sa.text("status = 'pending'"), sa.text("status = 'running'"), ended)
        ]

    def _tally_of(
        self, condition: sa.ColumnElement[bool] | sa.TextClause, *is_seen: sa.ColumnElement[bool]
    ) -> sa.Select[Any]:
        runs = self.tables.runs.c
        wanted = (
            runs.job_id,
            runs.status,
            runs.ticks,
            runs.due_at,
            runs.scheduled_for,
            runs.started_at,
            runs.finished_at,
        )
        # Rows first, groups then: SQLite would else walk an index in the order of the groups, over all of history.
        c = sa.select(*wanted).where(condition, *is_seen).cte("wanted").prefix_with("MATERIALIZED").c
        return sa.select(
            c.job_id,
            c.status,
            sa.func.sum(c.ticks),
            self.database.average_seconds(c.finished_at, c.started_at),
            self.database.average_seconds(c.started_at, c.due_at),
            self.database.average_seconds(c.started_at, c.scheduled_for),
        ).group_by(c.job_id, c.status)


def _flush_from(row: sa.RowMapping) -> tuple[int, int, list[LogLine]]:
    return row["seq"], row["attempt"], lines_from(row["lines"])


def _tally_from(row: sa.Row[Any]) -> Tally:
    job_id, status, count, duration, queue_delay, lateness = tuple(row)
    return Tally(
        job_id=job_id,
        status=RunStatus(status),
        count=int(count),
        duration=_seconds(duration),
        queue_delay=_seconds(queue_delay),
        lateness=_seconds(lateness),
    )


def _seconds(average: Any) -> float | None:
    return None if average is None else float(average)
