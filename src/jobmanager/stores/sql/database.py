"""Database: connections, transactions, and the few look-ups that the facets of a SQL store share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Any, TypeVar

import sqlalchemy as sa

from jobmanager.errors import RunNotFoundError, StoreError, UnreadableRowError
from jobmanager.run import FAILED, PENDING, RUNNING, Failure, Run
from jobmanager.stores.sql.rows import (
    UNREADABLE,
    Row,
    failure_values,
    is_about_a_value,
    job_from,
    rows_of,
    run_from,
)
from jobmanager.stores.sql.tables import Tables
from jobmanager.stores.values import AuditEntry, JobRow
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

Made = TypeVar("Made")
Connection = sa.Connection
MOST_SAID = 10_000
NEVER = datetime(9999, 1, 1, tzinfo=UTC)


def literally(column: sa.ColumnElement[Any], value: str) -> sa.ColumnElement[bool]:
    """Return the condition that the column has this value, which stands in the statement's text: planners use a partial index only if they see it."""
    return column == sa.literal_column(f"'{value}'")


def without_index(column: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
    """Return the text of the column as an expression that no index has, so that planners take another one."""
    return column.concat("")


def newest_of(
    runs: sa.Table,
    job_id: str,
    *conditions: sa.ColumnElement[bool],
    limit: int | sa.BindParameter[int],
    before: Run | None = None,
) -> sa.Select[Any]:
    """Return the job's newest runs, older than `before`, by the instant each stands for: its tick, or when it was opened by hand.

    Each half walks an index of its own, at most `limit` steps.
    """
    c = runs.c
    ticks = _half(
        runs, job_id, c.scheduled_for.is_not(None), [c.scheduled_for], *conditions, limit=limit, before=before
    )
    by_hand = newest_by_hand_of(runs, job_id, *conditions, limit=limit, before=before)
    both = sa.union_all(ticks, by_hand).subquery()
    instant = sa.func.coalesce(both.c.scheduled_for, both.c.opened_at)
    return sa.select(both).order_by(instant.desc(), both.c.id.desc()).limit(limit)


def newest_by_hand_of(
    runs: sa.Table,
    job_id: str,
    *conditions: sa.ColumnElement[bool],
    limit: int | sa.BindParameter[int],
    before: Run | None = None,
) -> sa.Select[Any]:
    """Return the job's newest starts by hand, older than `before`."""
    c = runs.c
    order = [c.opened_at, c.id]
    return _half(runs, job_id, c.scheduled_for.is_(None), order, *conditions, limit=limit, before=before)


def _half(
    runs: sa.Table,
    job_id: str,
    kind: sa.ColumnElement[bool],
    order: Sequence[sa.ColumnElement[Any]],
    *conditions: sa.ColumnElement[bool],
    limit: int | sa.BindParameter[int],
    before: Run | None,
) -> sa.Select[Any]:
    # Bounded even on the first page: only a range on the second column makes SQLite take the right index.
    instant, end = order[0], before.instant if before else NEVER
    newest = sa.select(runs).where(runs.c.job_id == job_id, kind, instant <= end, *conditions)
    if before is not None:
        newest = newest.where(sa.or_(instant < end, runs.c.id < before.id))
    return sa.select(newest.order_by(*(column.desc() for column in order)).limit(limit).subquery())


@lru_cache(maxsize=64)
def _the_run(runs: sa.Table, conditions: Sequence[sa.ColumnElement[bool]]) -> sa.Select[Any]:
    """Return the statement for the run `run_id`, made once for the conditions of a view: a page asks for a run several times."""
    return sa.select(runs).where(runs.c.id == sa.bindparam("run_id"), *conditions)


class Database(ABC):
    """A SQL database with the tables of a store, which the facets share; the dialects say how to connect and lock."""

    url: str
    """Where it is, without secrets."""

    tables: Tables
    upgrades_itself = False
    """True where nobody else can: the file belongs to the application."""

    @abstractmethod
    def now(self) -> datetime:
        """Return the clock that decides what is due: aware UTC."""

    @abstractmethod
    def about(self, connection: Connection) -> tuple[str, int]:
        """Return the name and version of the database, and the bytes that our tables take in it."""

    @abstractmethod
    def close(self) -> None:
        """Give up connections; the next call connects again."""

    def before_fork(self) -> None:  # noqa: B027 - a server has nothing to hold still
        """In the parent: let no write be under way while the process forks."""

    def after_fork_in_parent(self) -> None:  # noqa: B027
        """In the parent: writes may go on."""

    @abstractmethod
    def after_fork(self) -> None:
        """In a forked child: forget connections and locks of the parent without closing them."""

    @abstractmethod
    def reading(self) -> AbstractContextManager[Connection]:
        """Return a connection for statements that change nothing."""

    @abstractmethod
    def writing(self) -> AbstractContextManager[Connection]:
        """Return a connection inside a transaction that commits when the block ends well."""

    @abstractmethod
    def changing_tables(self) -> AbstractContextManager[Connection]:
        """Return a transaction that is alone in making or changing the tables, and may take its time."""

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

    @abstractmethod
    def seconds(self, later: sa.ColumnElement[Any], earlier: sa.ColumnElement[Any]) -> Any:
        """Return the distance of two instants in seconds, as a number; NULL if one of them is NULL or not finite."""

    @abstractmethod
    def hour_number(self, instant: sa.ColumnElement[Any]) -> Any:
        """Return how many whole hours an instant is after 1970; NULL if it is not finite."""

    @abstractmethod
    def text_in(self, column: sa.ColumnElement[Any], key: str) -> sa.ColumnElement[Any]:
        """Return the text under a key of an object in a JSON column; NULL if there is none, or what the column holds is no JSON."""

    def may_hold(self, column: sa.ColumnElement[Any], text: str) -> list[sa.ColumnElement[bool]]:
        """Return a cheap condition without which no text of an object in a JSON column holds this one; none where there is none."""
        return []

    @abstractmethod
    def bytes_of_a_run(self, connection: Connection) -> float:
        """Return how many bytes a run takes on average with what hangs on it, live rows alone; 0 if there is none. Reads a bounded part."""

    def next_change(self, connection: Connection) -> int:
        # Taken inside the writing transaction, under the row's lock: a reader never sees 12 before 11 is committed.
        meta = self.tables.meta
        bump = sa.update(meta).values(change_seq=meta.c.change_seq + 1).returning(meta.c.change_seq)
        return int(connection.execute(bump).scalar_one())

    def find_run(
        self, connection: Connection, run_id: str, *conditions: sa.ColumnElement[bool]
    ) -> Run | None:
        if not self.may_be_run_id(run_id):
            return None
        rows = rows_of(connection.execute(_the_run(self.tables.runs, conditions), {"run_id": run_id}))
        return run_from(rows[0]) if rows else None

    def runs_from(self, rows: Iterable[Row]) -> list[Run]:
        """Return the runs that rows stand for, without those that cannot be read: each is logged when it is found to be so."""
        return self.readable(rows, run_from, "run_id", "id")

    def readable(
        self, rows: Iterable[Row], make: Callable[[Row], Made], noun: str, column: str
    ) -> list[Made]:
        """Return what rows stand for, without those that cannot be read; the log names them by this column."""
        made: list[Made] = []
        for row in rows:
            try:
                made.append(make(row))
            except UNREADABLE as error:
                self.leave_out(noun, str(row[column]), error)
        return made

    def sorted_out(self, rows: Iterable[Row]) -> tuple[list[Run], dict[str, str]]:
        """Return the runs that rows stand for, and what is wrong with the other rows by the id of the run."""
        runs: list[Run] = []
        wrong: dict[str, str] = {}
        for row in rows:
            try:
                runs.append(run_from(row))
            except UNREADABLE as error:
                wrong[row["id"]] = str(error)
        return runs, wrong

    def end_unreadable(self, wrong: Mapping[str, str]) -> None:
        """End runs that were to be executed and whose rows cannot be read: they must not hold their key for ever."""
        c = self.tables.runs.c
        for run_id, why in wrong.items():
            failure = Failure(kind="internal", message=f"the stored row cannot be read: {why}")
            ended = {"status": FAILED, "reason": None, "turn": None, "error": failure_values(failure)}
            query = sa.update(self.tables.runs).where(c.id == run_id, c.status.in_((PENDING, RUNNING)))
            try:
                with self.writing() as connection:
                    connection.execute(query.values(finished_at=self.clock(connection), **ended))
            except StoreError as error:
                self.leave_out("run_id", run_id, f"{why}; nor ended: {error}")
            else:
                logger.error("run_id=%s is ended as failed, its stored row cannot be read: %s", run_id, why)

    def leave_out(self, noun: str, name: str, why: object) -> None:
        """Log once that a row is left out, and again if it is wrong in another way."""
        if self._said.get((noun, name)) != str(why):
            if len(self._said) >= MOST_SAID:
                self._said.clear()
            self._said[noun, name] = str(why)
            logger.error("%s=%s is left out, its stored row cannot be read: %s", noun, name, why)

    @cached_property
    def _said(self) -> dict[tuple[str, str], str]:
        return {}

    def may_be_run_id(self, run_id: str) -> bool:
        """Return True if the column of ids can be compared with this text."""
        return True

    def the_run(self, connection: Connection, run_id: str) -> Run:
        """Return the run with this id; RunNotFoundError."""
        run = self.find_run(connection, run_id)
        if run is None:
            raise self.no_run(run_id)
        return run

    def no_run(self, run_id: str) -> RunNotFoundError:
        """Return the error that says that there is no run with this id."""
        return RunNotFoundError(f"No run {run_id!r} in {self.url}.", run_id=run_id)

    def find_job(self, connection: Connection, query: sa.Select[Any], job_id: str) -> JobRow | None:
        try:
            rows = rows_of(connection.execute(query.where(self.tables.jobs.c.id == job_id)))
            return job_from(rows[0]) if rows else None
        except (*UNREADABLE, sa.exc.DBAPIError) as error:
            if isinstance(error, sa.exc.DBAPIError) and not is_about_a_value(error):
                raise
            reason = getattr(error, "orig", error)
            raise UnreadableRowError(f"{self.url}: job {job_id!r} cannot be read: {reason}") from error

    def note(self, connection: Connection, entry: AuditEntry | None) -> None:
        """Write the entry of the audit, if there is one, in the transaction of the change that it tells of. Twice is once."""
        if entry is not None:
            connection.execute(self.insert_ignoring(self.tables.audit), asdict(entry))

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


class SqlFacet:
    """A facet of a store in this database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.tables = database.tables
