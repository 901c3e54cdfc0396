"""What every group of statements stands on: connections, transactions, and the few lookups they share."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from jobmanager.errors import UnreadableRowError
from jobmanager.run import (
    Failure,
    Run,
)
from jobmanager.stores.base import JobRow, RunStore
from jobmanager.stores.sql.rows import (
    UNREADABLE,
    failure_values,
    is_about_a_value,
    job_from,
    run_from,
)
from jobmanager.stores.sql.tables import Tables

Connection = sa.Connection
NEVER = datetime(9999, 1, 1, tzinfo=UTC)


def literally(column: sa.ColumnElement[Any], value: str) -> sa.ColumnElement[bool]:
    """Return the condition that the column has this value, which stands in the statement's text: planners use a partial index only if they see it."""
    return column == sa.literal_column(f"'{value}'")


def newest_of(
    runs: sa.Table,
    job_id: str,
    *conditions: sa.ColumnElement[bool],
    limit: int,
    before: Run | None = None,
) -> sa.Select[Any]:
    """Return the job's newest runs, older than `before`, by the instant each stands for: its tick, or when it was opened by hand.

    Each half walks an index of its own, at most `limit` steps.
    """
    c = runs.c

    def half(condition: sa.ColumnElement[bool], *order: sa.ColumnElement[Any]) -> sa.Select[Any]:
        # Bounded even on the first page: only a range on the second column makes SQLite take the right index.
        instant, end = order[0], before.instant if before else NEVER
        newest = sa.select(runs).where(c.job_id == job_id, condition, instant <= end, *conditions)
        if before is not None:
            newest = newest.where(sa.or_(instant < end, c.id < before.id))
        return sa.select(newest.order_by(*(column.desc() for column in order)).limit(limit).subquery())

    ticks = half(c.scheduled_for.is_not(None), c.scheduled_for)
    by_hand = half(c.scheduled_for.is_(None), c.opened_at, c.id)
    both = sa.union_all(ticks, by_hand).subquery()
    instant = sa.func.coalesce(both.c.scheduled_for, both.c.opened_at)
    return sa.select(both).order_by(instant.desc(), both.c.id.desc()).limit(limit)


class Database(RunStore):
    """A RunStore in a SQL database; the dialects say how to connect and lock."""

    tables: Tables

    @abstractmethod
    def reading(self) -> AbstractContextManager[Connection]:
        """Return a connection for statements that change nothing."""

    @abstractmethod
    def writing(self) -> AbstractContextManager[Connection]:
        """Return a connection inside a transaction that commits when the block ends well."""

    def clock(self, connection: Connection) -> datetime:
        """Return the store's time, asked inside this connection's transaction."""
        return self.now()

    @abstractmethod
    def insert_ignoring(self, table: sa.Table) -> Any:
        """INSERT ... ON CONFLICT DO NOTHING in the dialect."""

    @abstractmethod
    def locked(self, jobs: sa.Select[Any]) -> sa.Select[Any]:
        """Return the same SELECT, locking the rows until the transaction ends."""

    @abstractmethod
    def distance(self, later: sa.ColumnElement[Any], earlier: sa.ColumnElement[Any]) -> Any:
        """Return the time from one instant to another, to be compared with other distances."""

    @abstractmethod
    def average_seconds(self, finished: sa.ColumnElement[Any], started: sa.ColumnElement[Any]) -> Any:
        """AVG of the distance of two instants, in seconds."""

    def next_change(self, connection: Connection) -> int:
        # Taken inside the writing transaction, under the row's lock: a reader never sees 12 before 11 is committed.
        meta = self.tables.meta
        bump = sa.update(meta).values(change_seq=meta.c.change_seq + 1).returning(meta.c.change_seq)
        return int(connection.execute(bump).scalar_one())

    def find_run(self, connection: Connection, run_id: str) -> Run | None:
        query = sa.select(self.tables.runs).where(self.tables.runs.c.id == run_id)
        row = connection.execute(query).mappings().one_or_none()
        return None if row is None else run_from(row)

    def find_job(self, connection: Connection, query: sa.Select[Any], job_id: str) -> JobRow | None:
        try:
            row = connection.execute(query.where(self.tables.jobs.c.id == job_id)).mappings().one_or_none()
            return None if row is None else job_from(row)
        except (*UNREADABLE, sa.exc.DBAPIError) as error:
            if isinstance(error, sa.exc.DBAPIError) and not is_about_a_value(error):
                raise
            reason = getattr(error, "orig", error)
            raise UnreadableRowError(f"{self.url}: job {job_id!r} cannot be read: {reason}") from error

    def keep_attempt(
        self,
        connection: Connection,
        run: Run,
        error: Failure | None,
        ended_at: datetime,
        outcome: str | None = None,
    ) -> None:
        """Keep how this start of the run ended, since another may follow; `outcome` is `failed` unless it is given."""
        connection.execute(
            self.insert_ignoring(self.tables.attempts),
            {
                "run_id": run.id,
                "starts": run.starts,
                "attempt": run.attempt,
                "owner": run.owner,
                "started_at": run.started_at,
                "ended_at": ended_at,
                "outcome": run.status.value if run.status.closed else outcome or "failed",
                "error": failure_values(error),
            },
        )
