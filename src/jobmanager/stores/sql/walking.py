"""Walks through the runs that a filter wants: along an index, newest first, in statements of a bounded number of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from jobmanager.access.view import View
from jobmanager.clock import earlier, later
from jobmanager.run import EPOCH, RunStatus, first_id
from jobmanager.search import Mark, RunFilter
from jobmanager.stores.search import CLOSED_WITHIN, OPENED_WITHIN, SEARCHED
from jobmanager.stores.sql.database import Connection, Database, literally
from jobmanager.stores.sql.filters import (
    NOT_SUCCEEDED,
    Condition,
    conditions_of,
    instant_of,
    range_of,
    status_of,
    statuses_of,
    within,
)
from jobmanager.stores.sql.rows import Row, rows_of
from jobmanager.stores.sql.tables import TROUBLE, TROUBLE_IS, Tables, has_scope, scope_of

FIRST_CHUNK, CHUNK = 500, 5_000  # what most rows fit is found in the first one
FEW = 1_000
EARLY = timedelta(hours=1)  # by which clocks may differ, and a tick may come before its instant

Rows = list[Row]


@dataclass(frozen=True)
class Way:
    """A way through the runs that an index has in order: its rows, and the columns it orders them by."""

    rows: Sequence[Condition]
    order: Sequence[sa.ColumnElement[Any]]
    end: str | None = None
    """The id that is too new, on a way by id."""
    status: str | None = None
    """The status that all of its runs have."""

    @property
    def newest_first(self) -> list[sa.ColumnElement[Any]]:
        """Return the order as a statement takes it."""
        return [column.desc() for column in self.order]


class Walker:
    """Finds the runs that one filter wants: those of one job by instant, those of all jobs by their ids."""

    def __init__(
        self,
        database: Database,
        connection: Connection,
        wanted: RunFilter,
        seen: View | None,
        columns: Sequence[Any],
    ) -> None:
        self._runs = database.tables.runs
        self._tables = database.tables
        self._connection = connection
        self._wanted = wanted
        self._columns = columns
        self._but_status = conditions_of(database, wanted, seen)
        self._conditions = [*status_of(database.tables, wanted), *self._but_status]

    def find(self, before: Mark | None, most: int) -> tuple[Rows, Mark | None]:
        """Return the newest rows, at most so many, and the place where the search stopped before it had all of them."""
        rows, ways = self._ways(before, most)
        edges = []
        for way in ways:
            found, edge = self._walk(way, before, most, SEARCHED // len(ways))
            rows += found
            edges += [edge] if edge else []
        rows.sort(key=lambda row: self._place(self.mark(row)), reverse=True)
        if not edges:
            return rows[:most], None
        # Below the nearest edge one of the walks has not looked yet.
        edge = max(edges, key=self._place)
        return [row for row in rows if self._place(self.mark(row)) >= self._place(edge)][:most], edge

    def mark(self, row: Row) -> Mark:
        """Return the place of a row."""
        instant = row["opened_at"] if self._wanted.job is None else row["scheduled_for"] or row["opened_at"]
        return Mark(instant if isinstance(instant, datetime) else EPOCH, row["id"])

    def _place(self, mark: Mark) -> tuple[Any, ...]:
        return (mark.id,) if self._wanted.job is None else mark

    def _ways(self, before: Mark | None, most: int) -> tuple[Rows, list[Way]]:
        """Return the rows of statuses of which there are few, and the ways to walk for the rest."""
        statuses = statuses_of(self._wanted)
        if not statuses:
            return [], []
        if statuses <= NOT_SUCCEEDED:
            few = few_among(self._tables, self._connection, statuses)
            many = statuses - few
            if not many or (self._wanted.job is None and many.issubset(TROUBLE)):
                ways = [way_of_trouble(self._tables, self._wanted, status) for status in sorted(many)]
                return self._of_few(few, before, most) if few else [], ways
        if self._wanted.job is not None:
            return [], ways_of_job(self._tables, self._wanted, self._wanted.job)
        if self._wanted.scope is not None:
            return [], [way_of_scope(self._tables, self._wanted, self._wanted.scope)]
        return [], [way_of_all(self._tables, self._wanted)]

    # ---------------------------------------------------------------- many

    def _walk(self, way: Way, before: Mark | None, most: int, budget: int) -> tuple[Rows, Mark | None]:
        c = self._runs.c
        found: Rows = []
        conditions = self._conditions if way.status is None else self._but_status
        places = sa.select(c.id, c.scheduled_for, c.opened_at).order_by(*way.newest_first)
        wanted = sa.select(*self._columns).order_by(*way.newest_first)
        size, read = min(FIRST_CHUNK, CHUNK), 0
        while read < budget:
            rows = [*way.rows, *older(self._runs, way, before)]
            edge = None
            if conditions:
                last = places.where(*rows).limit(1).offset(size - 1)
                end = self._connection.execute(last).mappings().first()
                edge = self.mark(end) if end else None
            if edge is not None:
                rows += self._not_older(way, edge)
            query = wanted.where(*rows, *conditions).limit(most - len(found))
            found += rows_of(self._connection.execute(query))
            if edge is None or len(found) >= most:
                return found, None
            before, read, size = edge, read + size, CHUNK
        return found, before

    def _not_older(self, way: Way, mark: Mark) -> list[Condition]:
        c, first = self._runs.c, way.order[0]
        if first is c.id:
            return [c.id >= mark.id]
        return [first >= mark.instant, sa.or_(first > mark.instant, c.id >= mark.id)]

    # ---------------------------------------------------------------- few

    def _of_few(self, statuses: frozenset[RunStatus], before: Mark | None, most: int) -> Rows:
        c, job_id, few = self._runs.c, self._wanted.job, ids_with(self._tables, statuses)
        way = Way([], [c.id])
        if job_id is not None:
            way = Way(
                [c.job_id == job_id, *range_of(self._tables, self._wanted)], [instant_of(self._tables), c.id]
            )
        query = sa.select(*self._columns).where(
            c.id.in_(sa.select(few.c.id)), *way.rows, *self._conditions, *older(self._runs, way, before)
        )
        return rows_of(self._connection.execute(query.order_by(*way.newest_first).limit(most)))


def older(runs: sa.Table, way: Way, mark: Mark | None) -> list[Condition]:
    """Return that a run of the way is older than the mark, and than the end of the way."""
    c, first = runs.c, way.order[0]
    if first is c.id:
        # One bound alone: of two SQLite would take any, and read all between them.
        ends = [end for end in (way.end, mark.id if mark else None) if end is not None]
        return [c.id < min(ends)] if ends else []
    return [first <= mark.instant, sa.or_(first < mark.instant, c.id < mark.id)] if mark else []


def way_of_all(tables: Tables, wanted: RunFilter) -> Way:
    """Return the way through all runs by id."""
    return Way(_opened_in(tables, wanted), [tables.runs.c.id], _end(wanted, OPENED_WITHIN))


def way_of_scope(tables: Tables, wanted: RunFilter, scope: str) -> Way:
    """Return the way through the runs of one scope, by id."""
    c = tables.runs.c
    rows = [has_scope(c), scope_of(c) == scope, *_opened_in(tables, wanted)]
    return Way(rows, [c.id], _end(wanted, OPENED_WITHIN))


def way_of_trouble(tables: Tables, wanted: RunFilter, status: str) -> Way:
    """Return the way through the runs of one status that is not success, by id."""
    rows = [*with_status(tables, status), *_opened_in(tables, wanted)]
    return Way(rows, [tables.runs.c.id], _end(wanted, CLOSED_WITHIN), status)


def ways_of_job(tables: Tables, wanted: RunFilter, job_id: str) -> list[Way]:
    """Return the ways through the ticks of a job and through its starts by hand."""
    c = tables.runs.c
    return [
        Way([c.job_id == job_id, condition, *within(order[0], wanted)], order)
        for condition, order in (
            (c.scheduled_for.is_not(None), [c.scheduled_for]),
            (c.scheduled_for.is_(None), [c.opened_at, c.id]),
        )
    ]


def few_with(tables: Tables, connection: Connection, statuses: frozenset[RunStatus]) -> sa.CTE | None:
    """Return the ids of all runs with these statuses if an index says that they are few."""
    few = few_among(tables, connection, statuses)
    return ids_with(tables, statuses) if few == statuses else None


def few_among(tables: Tables, connection: Connection, statuses: frozenset[RunStatus]) -> frozenset[RunStatus]:
    """Return those of these statuses whose runs are few, even together, as an index says."""
    if not statuses:
        return frozenset()
    asked = sorted(statuses)
    found = connection.execute(_counts(tables, tuple(asked)), {"most": FEW + 1}).one()
    counts = zip(found, asked, strict=True)
    few, together = set(), 0
    for count, status in sorted(counts):
        together += count
        if together <= FEW:
            few.add(status)
    return frozenset(few)


@lru_cache(maxsize=64)
def _counts(tables: Tables, statuses: Sequence[RunStatus]) -> sa.Select[Any]:
    """Return the statement that counts the runs of each of these statuses, up to `most`; made once."""
    some = [
        sa.select(tables.runs.c.id)
        .where(*with_status(tables, status))
        .limit(sa.bindparam("most", type_=sa.Integer))
        .subquery()
        for status in statuses
    ]
    return sa.select(
        *(sa.select(sa.func.count()).select_from(each).scalar_subquery().label(None) for each in some)
    )


def ids_with(tables: Tables, statuses: frozenset[RunStatus]) -> sa.CTE:
    """Return the ids of all runs with these statuses, which are few."""
    c = tables.runs.c
    if not statuses:
        return sa.select(c.id).where(sa.false()).cte("few")
    some = [
        sa.select(c.id).where(*with_status(tables, status)).limit(FEW + 1).subquery()
        for status in sorted(statuses)
    ]
    return sa.union_all(*(sa.select(each) for each in some)).cte("few").prefix_with("MATERIALIZED")


def with_status(tables: Tables, status: str) -> list[Condition]:
    """Return the condition of a status so that planners take the partial index that has its runs.

    SQLite takes it for a statement that holds the words of the index. PostgreSQL draws the conclusion itself, and those words
    would lead it astray: it would read all runs of the status to sort them.
    """
    runs = tables.runs
    in_words = status in TROUBLE and runs.schema is None
    is_trouble = [sa.literal_column(f"({TROUBLE_IS})", sa.Boolean)] if in_words else []
    return [literally(runs.c.status, status), *is_trouble]


def _opened_in(tables: Tables, wanted: RunFilter) -> list[Condition]:
    """Bound the ids, which tell when a run was opened: none is left out that has an instant in the range."""
    c = tables.runs.c
    return [] if wanted.since is None else [c.id >= first_id(earlier(wanted.since, EARLY))]


def _end(wanted: RunFilter, late: timedelta) -> str | None:
    return None if wanted.until is None else first_id(later(wanted.until, late))
