"""The facet `search`: pages, counts and groups of the runs that a filter wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import sqlalchemy as sa

from jobmanager.access.view import View
from jobmanager.run import PENDING, RUNNING, SUCCEEDED, Run, RunStatus
from jobmanager.search import DeadLetters, FoundRuns, Mark, RunCount, RunCounts, RunFilter, grouped
from jobmanager.stores.search import COUNTED, COUNTED_TROUBLE, StoredSearch
from jobmanager.stores.sql.database import NEVER, Connection, SqlFacet
from jobmanager.stores.sql.filters import ALL, Condition, conditions_of, error_in, error_text
from jobmanager.stores.sql.rows import STATUS, Row
from jobmanager.stores.sql.seen_runs import SeenRuns
from jobmanager.stores.sql.tables import TROUBLE
from jobmanager.stores.sql.walking import Walker, Way, older, way_of_all, way_of_trouble, ways_of_job

FIRST_LINE = 500


class SqlSearch(SqlFacet, StoredSearch):
    """Walks along the index that fits the filter, and looks at each row that the index cannot judge."""

    def runs(
        self, wanted: RunFilter, *, before: Mark | None = None, limit: int = 50, seen: View | None = None
    ) -> FoundRuns:
        with self.database.reading() as connection:
            walker = Walker(self.database, connection, wanted, seen, [self.tables.runs])
            rows, edge = walker.find(before, limit + 1)
            runs = self.database.runs_from(rows[:limit])
        if len(rows) > limit > 0:
            return FoundRuns(runs, walker.mark(rows[limit - 1]).cursor)
        return FoundRuns(runs, edge.cursor if edge else None, edge.instant if edge else None)

    def dead_letters(
        self, wanted: RunFilter, *, limit: int = 1000, seen: View | None = None
    ) -> list[DeadLetters]:
        c = self.tables.runs.c
        kind, text = error_in(self.database, "kind"), sa.func.substr(error_text(self.database), 1, FIRST_LINE)
        columns = [c.id, c.job_id, c.scheduled_for, c.opened_at, kind.label("kind"), text.label("text")]
        with self.database.reading() as connection:
            walker = Walker(self.database, connection, replace(wanted, dead=True), seen, columns)
            rows, _ = walker.find(None, limit)
        return grouped(map(_letter, rows))

    def beside(
        self, job_id: str, instant: datetime, *, seen: View | None = None
    ) -> tuple[Run | None, Run | None]:
        runs, due = self.tables.runs, self.tables.runs.c.scheduled_for
        ticks = sa.select(runs).where(runs.c.job_id == job_id).limit(1)
        before = ticks.where(due < instant).order_by(due.desc())
        after = ticks.where(due > instant, due <= NEVER).order_by(due)
        with self.database.reading() as connection:
            if not SeenRuns(self.tables, connection, seen).shows_every_run_of(job_id):
                return None, None  # ticks have no scope
            found = [self.database.runs_from(connection.execute(each).mappings()) for each in (before, after)]
        return next(iter(found[0]), None), next(iter(found[1]), None)

    # ---------------------------------------------------------------- counting

    def counts(self, wanted: RunFilter, *, seen: View | None = None) -> RunCounts:
        some = conditions_of(self.database, wanted, seen, kinds=False)
        found: list[RunCount] = []
        more: set[RunStatus] = set()
        with self.database.reading() as connection:
            for way, statuses in self._counted(wanted):
                counts, full = self._count(connection, way, some)
                found += [count for count in counts if count.status in statuses]
                more |= statuses if full else set()
        return RunCounts(found, frozenset(more))

    def _counted(self, wanted: RunFilter) -> list[tuple[Way, frozenset[RunStatus]]]:
        """Return the ways along which runs are counted, and the statuses that are counted on each."""
        if wanted.job is not None:
            return [(way, ALL) for way in ways_of_job(self.tables, wanted, wanted.job)]
        trouble = [RunStatus(status) for status in TROUBLE]
        return [
            *((way_of_trouble(self.tables, wanted, status), frozenset({status})) for status in trouble),
            (way_of_all(self.tables, wanted), frozenset({PENDING, RUNNING, SUCCEEDED})),
        ]

    def _count(
        self, connection: Connection, way: Way, some: Sequence[Condition]
    ) -> tuple[list[RunCount], bool]:
        """Return the counts of the newest rows of a way, and whether it may have more rows."""
        most = COUNTED if way.status is None else COUNTED_TROUBLE
        c = self.tables.runs.c
        kind = error_in(self.database, "kind").label("kind")
        fits = sa.case((sa.and_(sa.true(), *some), 1), else_=0).label("fits")
        columns = c.status, c.job_id, c.reason, kind, c.trigger, c.ticks, fits
        rows = (
            sa.select(*columns)
            .where(*way.rows, *older(self.tables.runs, way, None))
            .order_by(*way.newest_first)
            .limit(most)
        )
        newest = rows.subquery().c
        kinds = newest.status, newest.job_id, newest.reason, newest.kind, newest.trigger, newest.fits
        query = sa.select(*kinds, sa.func.count(), sa.func.sum(newest.ticks)).group_by(*kinds)
        counted = connection.execute(query).all()
        counts = [
            RunCount(STATUS[status], job_id, reason, error_kind, trigger, int(count), int(ticks))
            for status, job_id, reason, error_kind, trigger, fit, count, ticks in counted
            if fit and status in STATUS
        ]
        return counts, sum(row[6] for row in counted) == most


def _letter(row: Row) -> tuple[tuple[str, str, str], Mark]:
    """Return by what a dead letter is grouped, and its instant and id."""
    line = (row["text"] or "").strip().partition("\n")[0]
    return (row["job_id"], row["kind"] or "", line), Mark(row["scheduled_for"] or row["opened_at"], row["id"])
