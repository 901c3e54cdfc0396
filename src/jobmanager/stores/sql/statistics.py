"""Counts of the runs by the hour: one grouped statement reads an hour's runs, and their counts replace the earlier ones."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice, pairwise
from typing import Any

import sqlalchemy as sa

from jobmanager.access.view import View
from jobmanager.errors import CronError
from jobmanager.run import RunStatus, first_id
from jobmanager.schedule import parse
from jobmanager.stores.sql.database import Connection, Database, SqlFacet, literally
from jobmanager.stores.sql.statistics_tables import LENGTHS, histogram_columns
from jobmanager.stores.sql.tables import STATUSES
from jobmanager.stores.sql.visible import jobs_seen
from jobmanager.stores.statistics import (
    BOUNDS,
    EMPTY,
    LAST_HOUR,
    Backlog,
    Cell,
    CountedHour,
    EndedRun,
    HourCount,
    Spread,
    StoredStatistics,
    hour_of,
    hour_of_id,
    hours_of_ids,
    start_of,
)

MOST_INSTANTS = 10_000
"""Of a row that stands for more instants, they are taken as evenly spread."""


class SqlStatistics(SqlFacet, StoredStatistics):
    """Two tables beside the runs: the hours, and what each came to."""

    def hours_with_runs(self, since: int, until: int) -> list[int]:
        c = self.tables.runs.c
        hours: list[int] = []
        with self.database.reading() as connection:
            while since < until:  # from hour to hour by the primary key: each look reads one entry of it
                ids = c.id >= first_id(start_of(since)), c.id < first_id(start_of(until))
                first = connection.scalar(sa.select(c.id).where(*ids).order_by(c.id).limit(1))
                if first is None:
                    break
                hours.append(hour_of_id(first))
                since = hours[-1] + 1
        return hours

    def hours(self) -> set[int]:
        with self.database.reading() as connection:
            return set(connection.scalars(sa.select(self.tables.stats_hours.c.hour)))

    def unsettled(self) -> list[CountedHour]:
        c = self.tables.stats_hours.c
        known = ~c.settled & (c.hour <= LAST_HOUR)
        query = sa.select(c.hour, c.turn, c.counted_at, c.took).where(known).order_by(c.hour.desc())
        with self.database.reading() as connection:
            return [CountedHour(*row) for row in connection.execute(query)]

    def recount(self, hours: Collection[int]) -> None:
        if hours:
            with self.database.writing() as connection:
                ask_for_recount(self.database, connection, hours)

    def count(self, hour: int) -> HourCount:
        c = self.tables.runs.c
        ids = c.id >= first_id(start_of(hour)), c.id < first_id(start_of(hour + 1))
        with self.database.reading() as connection:
            cells = counted(self.database, connection, sa.and_(*ids))
            unended = sa.select(sa.func.count()).where(*ids, c.finished_at.is_(None))
            return HourCount(cells, int(connection.scalar(unended) or 0))

    def keep(
        self, counted: CountedHour, cells: Sequence[Cell], *, at: datetime, took: float, settled: bool
    ) -> bool:
        stats, hours = self.tables.stats, self.tables.stats_hours
        mine = sa.update(hours).where(hours.c.hour == counted.hour, hours.c.turn == counted.turn)
        values = {"turn": hours.c.turn + 1, "counted_at": at, "took": took, "settled": settled}
        with self.database.writing() as connection:
            if not connection.execute(mine.values(values)).rowcount:
                return False
            connection.execute(sa.delete(stats).where(stats.c.made_in == counted.hour, ~stats.c.purged))
            _add(self.database, connection, counted.hour, cells)
        return True

    def cells(
        self, namespace: str, since: int, until: int, *, job_id: str | None = None, seen: View | None = None
    ) -> list[Cell]:
        stats, jobs = self.tables.stats, self.tables.jobs
        c = stats.c
        added = [sa.func.sum(c[name]) for name in _added()]
        longest = [sa.func.max(c[f"{name}_longest"]) for name in LENGTHS]
        query = (
            sa.select(c.hour, c.status, *added, *longest)
            .join(jobs, jobs.c.id == c.job_id)
            .where(jobs.c.namespace == namespace, c.hour >= since, c.hour < until)
            .where(*jobs_seen(self.tables, seen, whole=True))
            .group_by(c.hour, c.status)
        )
        if job_id is not None:
            query = query.where(c.job_id == job_id)
        with self.database.reading() as connection:
            rows = connection.execute(query).all()
        return [_cell_from(job_id or "", tuple(row)) for row in rows if row[1] in STATUSES]

    def totals(
        self,
        namespace: str,
        since: int,
        until: int,
        *,
        job_ids: Collection[str],
        seen: View | None = None,
    ) -> list[Cell]:
        stats, jobs = self.tables.stats, self.tables.jobs
        c = stats.c
        added = [sa.func.sum(c[name]) for name in ("count", "duration_sum", *histogram_columns("duration"))]
        query = (
            sa.select(c.job_id, c.status, sa.func.max(c.duration_longest), *added)
            .join(jobs, jobs.c.id == c.job_id)
            .where(c.job_id.in_(job_ids), c.hour >= since, c.hour < until, jobs.c.namespace == namespace)
            .where(*jobs_seen(self.tables, seen, whole=True))
            .group_by(c.job_id, c.status)
        )
        with self.database.reading() as connection:
            rows = [tuple(row) for row in connection.execute(query)]
        return [
            Cell(
                job_id,
                since,
                RunStatus(status),
                int(count),
                Spread(tuple(map(int, buckets)), float(total), float(longest)),
            )
            for job_id, status, longest, count, total, *buckets in rows
            if status in STATUSES
        ]

    def ended_since(
        self,
        namespace: str,
        since: datetime,
        *,
        job_id: str | None = None,
        limit: int,
        seen: View | None = None,
    ) -> list[EndedRun]:
        runs, jobs = self.tables.runs, self.tables.jobs
        c = runs.c
        query = (
            sa.select(
                c.status,
                c.scheduled_for,
                c.opened_at,
                c.first_for,
                c.ticks,
                jobs.c.schedule,
                *_lengths_of(self.database),
            )
            .join(jobs, jobs.c.id == c.job_id)
            .where(c.id >= first_id(since), c.finished_at.is_not(None), jobs.c.namespace == namespace)
            .where(*jobs_seen(self.tables, seen, whole=True))
            .order_by(c.id.desc())
            .limit(limit)
        )
        if job_id is not None:
            query = query.where(c.job_id == job_id)
        found = []
        with self.database.reading() as connection:
            for status, scheduled, opened, first, ticks, schedule, *lengths in connection.execute(query):
                last = scheduled or opened
                if status in STATUSES and isinstance(last, datetime):
                    begin = first if isinstance(first, datetime) else last
                    instants = instants_of(begin, last, ticks, schedule, since=since)
                    found.append(EndedRun(RunStatus(status), list(instants), *lengths))
        return found

    def counted_until(self) -> datetime | None:
        with self.database.reading() as connection:
            newest: datetime | None = connection.scalar(
                sa.select(sa.func.max(self.tables.stats_hours.c.counted_at))
            )
        return newest

    def backlog(
        self, namespace: str, *, job_id: str | None = None, most: int = 10_001, seen: View | None = None
    ) -> Backlog:
        runs, jobs = self.tables.runs, self.tables.jobs
        with self.database.reading() as connection:
            due = (
                sa.select(runs.c.due_at)
                .join(jobs, jobs.c.id == runs.c.job_id)
                .where(literally(runs.c.status, "pending"), runs.c.due_at <= self.database.clock(connection))
                .where(jobs.c.namespace == namespace, runs.c.accepted_at.is_not(None))
                .where(*jobs_seen(self.tables, seen, whole=True))
                .order_by(runs.c.priority.desc(), runs.c.due_at, runs.c.id)
                .limit(most)
            )
            if job_id is not None:
                due = due.where(runs.c.job_id == job_id)
            found = due.subquery().c
            count, oldest = connection.execute(sa.select(sa.func.count(), sa.func.min(found.due_at))).one()
        return Backlog(int(count), oldest)

    def forget(self, before: int) -> None:
        stats, hours = self.tables.stats, self.tables.stats_hours
        with self.database.writing() as connection:
            connection.execute(sa.delete(hours).where(hours.c.hour < before))
            connection.execute(sa.delete(stats).where(stats.c.made_in < before))


# ---------------------------------------------------------------- for other facets, inside their transactions


def ask_for_recount(
    database: Database, connection: Connection, hours: Iterable[int], *, at_once: bool = True
) -> None:
    """See to it that these hours are counted again; a count that is under way will not be kept."""
    table = database.tables.stats_hours
    wanted = sorted(set(hours))
    if not wanted:
        return
    new = [{"hour": hour} for hour in wanted]
    connection.execute(database.insert_ignoring(table), new)
    values: dict[str, Any] = {"turn": table.c.turn + 1, "settled": False}
    if at_once:
        values["counted_at"] = None
    for hour in (
        wanted
    ):  # in order, one by one: two processes that ask for the same hours must not wait for each other
        connection.execute(sa.update(table).where(table.c.hour == hour).values(values))


def keep_purged(database: Database, connection: Connection, run_ids: Collection[str]) -> None:
    """Keep what these closed runs came to beyond their rows, which the same transaction deletes."""
    by_hour: dict[int, list[str]] = defaultdict(list)
    for run_id in run_ids:
        for hour in hours_of_ids([run_id]):
            by_hour[hour].append(run_id)
    if by_hour:
        ask_for_recount(database, connection, by_hour)
    c = database.tables.runs.c
    for hour in sorted(by_hour):
        doomed = c.id.in_(by_hour[hour]) & c.finished_at.is_not(None)
        cells = counted(database, connection, doomed)
        _merge(database, connection, hour, cells, purged=True)
        _merge(database, connection, hour, cells, purged=False)


def counted(database: Database, connection: Connection, which: sa.ColumnElement[bool]) -> list[Cell]:
    """Return what the closed runs among these come to."""
    found: dict[tuple[str, int, str], Cell] = {}
    for cell in [*_single(database, connection, which), *_stretches(database, connection, which)]:
        key = cell.job_id, cell.hour, cell.status.value
        there = found.get(key)
        found[key] = cell if there is None else _together(there, cell)
    return [found[key] for key in sorted(found)]


# ---------------------------------------------------------------- reading runs


def _single(database: Database, connection: Connection, which: sa.ColumnElement[bool]) -> Iterator[Cell]:
    """Yield what rows of one instant each come to: one cell for each pair of buckets."""
    c = database.tables.runs.c
    wanted = sa.select(
        c.job_id,
        c.status,
        database.hour_number(sa.func.coalesce(c.scheduled_for, c.opened_at)).label("hour"),
        *_lengths_of(database),
    ).where(which, c.finished_at.is_not(None), c.ticks == 1)
    w = wanted.cte("wanted").prefix_with("MATERIALIZED").c
    bucketed = sa.select(
        *w, _bucket(w.duration).label("in_duration"), _bucket(w.lateness).label("in_lateness")
    ).cte("bucketed")
    b = bucketed.c
    by = b.job_id, b.status, b.hour, b.in_duration, b.in_lateness
    sums = [
        function(length) for length in (b.duration, b.lateness) for function in (sa.func.sum, sa.func.max)
    ]
    query = sa.select(*by, sa.func.count(), *sums).group_by(*by)
    for job_id, status, hour, in_duration, in_lateness, count, *lengths_of in connection.execute(query):
        if status in STATUSES and hour is not None:
            duration = _spread(in_duration, count, *lengths_of[:2])
            lateness = _spread(in_lateness, count, *lengths_of[2:])
            yield Cell(job_id, int(hour), RunStatus(status), int(count), duration, lateness)


def _lengths_of(database: Database) -> list[sa.ColumnElement[Any]]:
    """Return the columns `duration` and `lateness` of runs, in seconds."""
    c = database.tables.runs.c
    duration = database.seconds(c.finished_at, c.started_at)
    # Of a later start, or of one by hand, no tick tells when it should have been.
    lateness = sa.case((c.starts == 1, database.seconds(c.started_at, c.scheduled_for)))
    return [duration.label("duration"), lateness.label("lateness")]


def _bucket(length: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    ends: list[tuple[sa.ColumnElement[bool], Any]] = [
        (length < sa.literal_column(repr(bound)), sa.literal_column(str(place)))
        for place, bound in enumerate(BOUNDS)
    ]
    return sa.case((length.is_(None), sa.null()), *ends, else_=sa.literal_column(str(len(BOUNDS))))


def _spread(bucket: int | None, count: int, total: Any, longest: Any) -> Spread:
    if bucket is None:
        return Spread()
    buckets = tuple(count if place == bucket else 0 for place in range(len(EMPTY)))
    return Spread(buckets, max(0.0, float(total)), max(0.0, float(longest)))


def _stretches(database: Database, connection: Connection, which: sa.ColumnElement[bool]) -> Iterator[Cell]:
    """Yield what rows come to that stand for many instants each: a cell for each hour in which such an instant lies."""
    c, jobs = database.tables.runs.c, database.tables.jobs
    query = (
        sa.select(c.job_id, c.status, c.first_for, c.scheduled_for, c.ticks, jobs.c.schedule)
        .join_from(database.tables.runs, jobs, jobs.c.id == c.job_id, isouter=True)
        .where(which, c.finished_at.is_not(None), c.ticks > 1)
    )
    for job_id, status, first, last, ticks, schedule in connection.execute(query):
        if status in STATUSES and isinstance(first, datetime) and isinstance(last, datetime):
            for hour, count in hours_of(first, last, ticks, schedule).items():
                yield Cell(job_id, hour, RunStatus(status), count)


def instants_of(
    first: datetime, last: datetime, ticks: int, schedule: str | None, *, since: datetime
) -> Iterable[datetime]:
    """Return the instants of a stretch that are not before the moment.

    They are those of the schedule, if it still has so many there; else, and of very long stretches, they are taken as evenly spread.
    """
    if ticks == 1:
        return [last] if last >= since else []
    scheduled = _scheduled(first, last, ticks, schedule)
    if scheduled is not None:
        return [instant for instant in scheduled if instant >= since]
    places = range(_place(first, last, ticks, since), ticks)
    return (first + (last - first) * place / (ticks - 1) for place in places)


def hours_of(first: datetime, last: datetime, ticks: int, schedule: str | None) -> dict[int, int]:
    """Return how many of the instants of a stretch lie in each hour; see `instants_of`."""
    scheduled = _scheduled(first, last, ticks, schedule)
    if scheduled is not None:
        return Counter(map(hour_of, scheduled))
    hours = range(hour_of(first), hour_of(last) + 1)
    places = [_place(first, last, ticks, start_of(hour)) for hour in (*hours, hours.stop)]
    found = {hour: after - before for hour, (before, after) in zip(hours, pairwise(places), strict=True)}
    return {hour: count for hour, count in found.items() if count}


def _scheduled(first: datetime, last: datetime, ticks: int, schedule: str | None) -> list[datetime] | None:
    """Return the schedule's instants in the stretch, if they are as many as it had; None otherwise."""
    if ticks > MOST_INSTANTS or schedule in (None, "none"):
        return None
    try:
        scheduled = parse(str(schedule)).between(first - timedelta(microseconds=1), last)
        instants = list(islice(scheduled, ticks + 1))
    except CronError:
        return None
    return instants if len(instants) == ticks else None


def _place(first: datetime, last: datetime, ticks: int, moment: datetime) -> int:
    """Return how many of so many instants, evenly spread from the first to the last, are before the moment."""
    if moment <= first:
        return 0
    return min(ticks, -(-(moment - first) * (ticks - 1) // max(last - first, timedelta(microseconds=1))))


# ---------------------------------------------------------------- writing cells


def _together(one: Cell, other: Cell) -> Cell:
    return Cell(
        one.job_id,
        one.hour,
        one.status,
        one.count + other.count,
        one.duration.plus(other.duration),
        one.lateness.plus(other.lateness),
    )


def _add(
    database: Database, connection: Connection, made_in: int, cells: Sequence[Cell], *, purged: bool = False
) -> None:
    if cells:
        rows = [_row_of(made_in, cell, purged=purged) for cell in cells]
        connection.execute(sa.insert(database.tables.stats), rows)


def _merge(
    database: Database, connection: Connection, made_in: int, cells: Sequence[Cell], *, purged: bool
) -> None:
    """Add these cells to those of purged runs, or take them from those of the runs on record."""
    stats = database.tables.stats
    key = (
        stats.c.made_in == made_in,
        stats.c.purged == sa.true() if purged else ~stats.c.purged,
        stats.c.job_id == sa.bindparam("of_job"),
        stats.c.hour == sa.bindparam("of_hour"),
        stats.c.status == sa.bindparam("of_status"),
    )
    for cell in cells:
        row = _row_of(made_in, cell, purged=purged)
        sign = 1 if purged else -1
        values = {name: stats.c[name] + sign * row[name] for name in _added()}
        if purged:
            for name in (f"{length}_longest" for length in LENGTHS):
                values[name] = sa.case(
                    (stats.c[name] < row[name], sa.literal(row[name])), else_=stats.c[name]
                )
        which = {"of_job": cell.job_id, "of_hour": cell.hour, "of_status": cell.status.value}
        changed = connection.execute(sa.update(stats).where(*key).values(values), which)
        if purged and not changed.rowcount:
            connection.execute(sa.insert(stats), row)


def _added() -> list[str]:
    """Return the columns that are added up: the count, and of each kind of lengths the sum and the buckets."""
    return ["count", *(column for name in LENGTHS for column in (f"{name}_sum", *histogram_columns(name)))]


def _row_of(made_in: int, cell: Cell, *, purged: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "made_in": made_in,
        "job_id": cell.job_id,
        "hour": cell.hour,
        "status": cell.status.value,
        "purged": purged,
        "count": cell.count,
    }
    for name in LENGTHS:
        spread: Spread = getattr(cell, name)
        row[f"{name}_sum"], row[f"{name}_longest"] = spread.total, spread.longest
        row |= zip(histogram_columns(name), spread.buckets, strict=True)
    return row


def _cell_from(job_id: str, row: tuple[Any, ...]) -> Cell:
    hour, status, count, *rest = row
    size = 1 + len(EMPTY)
    spreads = [
        Spread(
            tuple(int(number) for number in rest[place * size + 1 : (place + 1) * size]),
            float(rest[place * size]),
            float(rest[2 * size + place]),
        )
        for place in range(len(LENGTHS))
    ]
    return Cell(job_id, int(hour), RunStatus(status), int(count), *spreads)
