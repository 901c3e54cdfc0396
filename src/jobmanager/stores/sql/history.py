"""Reading the ledger: runs, attempts, log lines, counts. Nothing here writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property, lru_cache, partial
from operator import attrgetter
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
    STATUS,
    Row,
    attempt_from,
    lines_from,
    raw_rows,
    rows_of,
    run_from,
)
from jobmanager.stores.sql.seen_runs import Condition, SeenRuns
from jobmanager.stores.sql.tables import Tables, instant_from_sqlite
from jobmanager.stores.sql.visible import KEPT, jobs_seen, run_id_seen, runs_seen
from jobmanager.stores.sql.walking import few_with, with_status
from jobmanager.stores.values import DueInstant, JobStanding, Tally

AT_ONCE = 500
"""So many jobs are asked for in one statement."""


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
        undiscarded = [c.discarded_at.is_(None)] if dead else []
        asked = frozenset(statuses or RunStatus) & frozenset([FAILED] if dead else RunStatus)
        with self.database.reading() as connection:
            pages = SeenRuns(self.tables, connection, seen)
            if job_id is None:
                page = [*undiscarded, c.id < before] if before is not None else undiscarded
                rows = [
                    row
                    for way in self._ways(connection, asked)
                    for row in pages.newest(*way, *page, limit=limit)
                ]
                return self.database.runs_from(sorted(rows, key=_id_of, reverse=True)[:limit])
            wanted = [c.status.in_([status.value for status in asked])] if dead or statuses else []
            last = (
                None
                if before is None
                else self.database.find_run(connection, before, *runs_seen(self.tables, seen))
            )
            if before is not None and last is None:
                return []
            return self.database.runs_from(
                pages.newest_of(job_id, *undiscarded, *wanted, limit=limit, before=last)
            )

    def _ways(self, connection: Connection, statuses: frozenset[RunStatus]) -> list[list[Condition]]:
        """Return the conditions of runs with these statuses, one list for each index that has them."""
        if statuses >= frozenset(RunStatus):
            return [[]]
        still_open = statuses & {PENDING, RUNNING}
        few = few_with(self.tables, connection, still_open) if still_open else None
        if few is None:
            return [with_status(self.tables, status) for status in sorted(statuses)]
        others = [with_status(self.tables, status) for status in sorted(statuses - still_open)]
        return [[self.tables.runs.c.id.in_(sa.select(few.c.id))], *others]

    def runs_by_id(self, run_ids: Collection[str], *, seen: View | None = None) -> dict[str, Run]:
        wanted = list(filter(self.database.may_be_run_id, run_ids))
        if not wanted:
            return {}
        with self.database.reading() as connection:
            rows = rows_of(connection.execute(_with_id(self.tables, seen), {"ids": wanted}))
        return {run.id: run for run in self.database.runs_from(rows)}

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
        found: dict[str, dict[str, Run]] = {}
        with self.database.reading() as connection:
            pages = SeenRuns(self.tables, connection, seen)
            whole = [job_id for job_id in job_ids if pages.shows_every_run_of(job_id)]
            newest = self._newest_running(connection, job_ids, seen)
            for place in range(0, len(whole), AT_ONCE):
                newest += self._last_of(connection, whole[place : place + AT_ONCE])
            for job_id in set(job_ids).difference(whole):
                for conditions in ((), (self._executed,)):
                    newest += self.database.runs_from(pages.newest_of(job_id, *conditions, limit=1))
        for run in newest:
            found.setdefault(run.job_id, {})[run.id] = run
        return {
            job_id: sorted(last.values(), key=_by_instant, reverse=True) for job_id, last in found.items()
        }

    def _last_of(self, connection: Connection, job_ids: Sequence[str]) -> list[Run]:
        """Return of each job the newest run, and where that was not executed, or has not ended, the newest that was and has."""
        newest, executed = self._last_of_each
        rows = rows_of(connection.execute(newest, {"ids": job_ids}))
        runs = self.database.runs_from(rows)
        last = _newer_ones(runs)
        others = [run.job_id for run in last if run.started_at is None or run.finished_at is None]
        if len(runs) < len(rows):  # what cannot be read may be what is newest
            others = list(job_ids)
        if others:
            last += _newer_ones(
                self.database.runs_from(rows_of(connection.execute(executed, {"ids": others})))
            )
        return last

    def _newest_running(
        self, connection: Connection, job_ids: Collection[str], seen: View | None
    ) -> list[Run]:
        """Return of each job the newest running run, if it has one: of all runs only the running ones are read."""
        found = connection.execute(_running_of(self.tables, seen), {"ids": list(job_ids)})
        runs = self.database.runs_from(rows_of(found))
        newest = {run.job_id: run for run in sorted(runs, key=lambda run: (run.instant, run.id))}
        return list(newest.values())

    @property
    def _executed(self) -> sa.ColumnElement[bool]:
        c = self.tables.runs.c
        return c.finished_at.is_not(None) & c.started_at.is_not(None)

    @cached_property
    def _last_of_each(self) -> Sequence[sa.Select[Any] | sa.CompoundSelect[Any]]:
        """The statements that find the last runs of the jobs `ids`, made once: making them takes longer than what they do."""
        return self._newest_of_each(), self._newest_of_each(self._executed)

    def _newest_of_each(self, *conditions: sa.ColumnElement[bool]) -> sa.Select[Any] | sa.CompoundSelect[Any]:
        """Return of each of the jobs `ids` the newest of its ticks for which the conditions hold, and the newest of its starts by hand."""
        jobs, newest = self.tables.jobs, self.tables.runs.alias("newest")
        return sa.union_all(
            *(
                sa.select(newest)
                .join_from(jobs, newest, newest.c.id == self._newest(*conditions, tick=tick))
                .where(jobs.c.id.in_(sa.bindparam("ids", expanding=True)))
                for tick in (True, False)
            )
        )

    def _newest(self, *conditions: sa.ColumnElement[bool], tick: bool) -> sa.ScalarSelect[Any]:
        """Return the id of the newest tick, or start by hand, of the job that the query around it is about."""
        c = self.tables.runs.c
        if tick:
            half, order = c.scheduled_for.is_not(None), [c.scheduled_for]
        else:
            half, order = c.scheduled_for.is_(None), [c.opened_at, c.id]
        # Bounded, as with `newest_of`.
        wanted = c.job_id == self.tables.jobs.c.id, half, order[0] <= NEVER, *conditions
        newest = sa.select(c.id).where(*wanted).order_by(*(column.desc() for column in order)).limit(1)
        return newest.correlate(self.tables.jobs).scalar_subquery()

    def standings(
        self, namespace: str, *, ids: Collection[str] | None = None, seen: View | None = None
    ) -> dict[str, JobStanding]:
        jobs, runs = self.tables.jobs, self.tables.runs
        kept = [jobs.c.namespace == namespace, jobs.c.state != "deleted"]
        if ids is not None:
            kept.append(jobs.c.id.in_(ids))
        whole = [*kept, *jobs_seen(self.tables, seen, whole=True)]
        newest, settled = runs.alias("newest"), runs.c.finished_at.is_not(None)
        n = newest.c
        instants = (
            sa.select(jobs.c.id, *(n[name] for name in ("id", *DueInstant._fields[1:])))
            .join_from(jobs, newest, n.id == self._newest(settled, tick=True))
            .where(*whole)
        )
        by_hand = (
            sa.select(jobs.c.id, n.status)
            .join_from(jobs, newest, n.id == self._newest(settled, tick=False))
            .where(*whole)
        )
        # Counted here: to group them, SQLite would walk an index in the order of the groups, over all of history.
        running = sa.select(runs.c.job_id).where(
            literally(runs.c.status, RUNNING), *runs_seen(self.tables, seen)
        )
        every = sa.select(jobs.c.id).where(*kept, *jobs_seen(self.tables, seen))
        with self.database.reading() as connection:
            found = {job_id: _instant_from(row) for job_id, *row in connection.execute(instants).all()}
            last = {job_id: str(status) for job_id, status in connection.execute(by_hand).all()}
            counts = Counter(connection.scalars(running))
            known = list(connection.scalars(every))
            pages = SeenRuns(self.tables, connection, seen)
            for job_id in known:
                if not pages.shows_every_run_of(job_id):  # its ticks have no scope
                    for row in pages.newest_of(job_id, settled, limit=1):
                        last[job_id] = str(row["status"])
        return {
            job_id: JobStanding(
                job_id=job_id,
                instant=found.get(job_id),
                by_hand=STATUS.get(last.get(job_id, "")),
                running=counts[job_id],
            )
            for job_id in known
        }

    def due_instants(
        self,
        job_ids: Collection[str],
        *,
        limit: int = 30,
        since: datetime | None = None,
        seen: View | None = None,
    ) -> dict[str, list[DueInstant]]:
        with self.database.reading() as connection:
            pages = SeenRuns(self.tables, connection, seen)
            whole = list(filter(pages.shows_every_run_of, job_ids))  # ticks have no scope
            if not whole:
                return {}
            dialect = connection.dialect.name
            query = _due(self.tables, dialect, is_one=len(whole) == 1, is_bounded=since is not None)
            asked = {"ids": whole, "id": whole[0], "most": limit, "last": limit - 1, "since": since}
            rows = raw_rows(connection.execute(query, asked))
        if dialect == "sqlite":
            at = instant_from_sqlite
            rows = [
                (job_id, run_id, at(due), status, reason, ticks, at(first), at(started), at(finished))
                for job_id, run_id, due, status, reason, ticks, first, started, finished in rows
            ]
        found: dict[str, list[DueInstant]] = {}
        for job_id, run_id, due, status, reason, ticks, first, started, finished in rows:
            instant = run_id, due, STATUS[status], reason, ticks, first, started, finished
            if job_id in found:
                found[job_id].append(_due_instant(instant))
            else:
                found[job_id] = [_due_instant(instant)]
        for instants in found.values():
            instants.sort(key=attrgetter("scheduled_for"), reverse=True)
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
        still_open = (
            sa.select(runs).where(literally(c.status, status)).limit(limit) for status in (PENDING, RUNNING)
        )
        found: dict[str, str] = {}
        with self.database.reading() as connection:
            for query in (newest, *still_open):
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
                if row[1] in STATUS
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


# Statements made once: making one takes longer than what it does.


@lru_cache(maxsize=KEPT)
def _with_id(tables: Tables, seen: View | None) -> sa.Select[Any]:
    """Return the statement for the runs with the ids `ids` that a view sees."""
    runs = tables.runs
    ids: sa.BindParameter[Any] = sa.bindparam("ids", expanding=True)
    return sa.select(runs).where(runs.c.id.in_(ids), *runs_seen(tables, seen))


@lru_cache(maxsize=KEPT)
def _running_of(tables: Tables, seen: View | None) -> sa.Select[Any]:
    """Return the statement for the running runs of the jobs `ids` that a view sees."""
    runs = tables.runs
    ids: sa.BindParameter[Any] = sa.bindparam("ids", expanding=True)
    mine = without_index(runs.c.job_id).in_(ids), *runs_seen(tables, seen)
    return sa.select(runs).where(literally(runs.c.status, RUNNING), *mine)


@lru_cache(maxsize=16)
def _due(tables: Tables, dialect: str, *, is_one: bool, is_bounded: bool) -> sa.Select[Any]:
    """Return the statement for the `most` newest ticks of the jobs `ids`, or of the job `id`."""
    jobs, c = tables.jobs, tables.runs.c
    columns = (
        c.id, c.scheduled_for, c.status, c.reason, c.ticks, c.first_for, c.started_at, c.finished_at
    )  # fmt: skip
    ids: sa.BindParameter[Any] = sa.bindparam("ids", expanding=True)
    most = sa.bindparam("most", type_=sa.Integer)
    wanted = [c.scheduled_for.is_not(None), c.scheduled_for <= NEVER]
    if is_bounded:
        wanted.append(c.scheduled_for >= sa.bindparam("since", type_=c.scheduled_for.type))
    newest_first = sa.select(*columns).where(*wanted).order_by(c.scheduled_for.desc()).limit(most)
    if is_one:
        one = c.job_id == sa.bindparam("id")
        return newest_first.with_only_columns(c.job_id, *columns).where(one)
    newest = newest_first.where(c.job_id == jobs.c.id)
    if dialect == "postgresql":
        lateral = newest.lateral("due")
        return sa.select(jobs.c.id, lateral).join_from(jobs, lateral, sa.true()).where(jobs.c.id.in_(ids))
    # SQLite knows no lateral: from the last instant that is wanted, or the first that there is.
    of_job = newest.with_only_columns(c.scheduled_for).correlate(jobs)
    last = of_job.offset(sa.bindparam("last", type_=sa.Integer)).limit(1).scalar_subquery()
    first = of_job.order_by(None).order_by(c.scheduled_for).limit(1).scalar_subquery()
    since_last = c.scheduled_for >= sa.func.coalesce(last, first)
    ticks = sa.and_(c.job_id == jobs.c.id, since_last, *wanted)
    return sa.select(jobs.c.id, *columns).join_from(jobs, tables.runs, ticks).where(jobs.c.id.in_(ids))


_due_instant: Callable[[tuple[Any, ...]], DueInstant] = partial(tuple.__new__, DueInstant)
"""Makes an instant of its fields; `DueInstant._make` takes twice as long for the thousands of a page."""


def _by_instant(run: Run) -> tuple[datetime, str]:
    return run.instant, run.id


def _newer_ones(runs: Iterable[Run]) -> list[Run]:
    """Return of each job the newest of these."""
    return list({run.job_id: run for run in sorted(runs, key=_by_instant)}.values())


def _instant_from(row: Sequence[Any]) -> DueInstant | None:
    run_id, instant, status, *rest = row
    return DueInstant(run_id, instant, STATUS[status], *rest) if status in STATUS else None


def _flush_from(row: Row) -> tuple[int, int, list[LogLine]]:
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


def _id_of(row: Row) -> str:
    return str(row["id"])
