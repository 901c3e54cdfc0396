"""PostgresDatabase: the database's clock decides what is due, and one statement is one durable transaction.

No state is kept in a session, so any statement may find itself on another one: it works behind a transaction pooler.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from jobmanager.clock import Clock, SystemClock
from jobmanager.stores.sql import migrations
from jobmanager.stores.sql.database import Connection, Database
from jobmanager.stores.sql.postgres_link import Link, be_patient, driver_of, roll_back
from jobmanager.stores.sql.tables import make_tables

if TYPE_CHECKING:
    import psycopg

INSTALLING = 0x6A6F626D  # "jobm": the advisory lock of the process that makes or changes the tables
SAMPLED_BLOCKS, SAMPLED_RUNS = 500, 10_000
"""The most that is read to estimate the bytes of a run."""
ROW_OVERHEAD = 150
"""Bytes of a row beside its columns, about: header, padding, and what it has in indexes."""
BLOCKS = "SELECT pg_relation_size('jobmanager.runs') / current_setting('block_size')::int"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class PostgresDatabase(Database):
    """The schema `jobmanager` of a PostgreSQL database, reached directly or through a pooler."""

    def __init__(self, url: str, *, clock: Clock | None, durability: str) -> None:
        self.tables = make_tables(prefix="", schema=migrations.SCHEMA)
        self.link = Link.of(url, relaxed=durability == "relaxed")
        self.url = self.link.shown
        self._clock = clock or SystemClock()  # for how long; what is due is the database's affair
        self._engine = self.link.engine(self._clock.monotonic)

    @contextmanager
    def changing_tables(self) -> Iterator[Connection]:
        with self.writing() as connection:
            be_patient(connection)
            for limit in ("statement_timeout", "idle_in_transaction_session_timeout"):
                connection.exec_driver_sql(f"SET LOCAL {limit} = 0")
            connection.exec_driver_sql("SET LOCAL lock_timeout = '30s'")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({INSTALLING})")
            yield connection

    def close(self) -> None:
        self._engine.dispose()

    def after_fork(self) -> None:
        # The parent goes on with its connections; closing them here would end the sessions of the parent.
        self._engine.dispose(close=False)
        self._engine = self.link.engine(self._clock.monotonic)

    def now(self) -> datetime:
        with self.reading() as connection:
            return self.clock(connection)

    def clock(self, connection: Connection) -> datetime:
        moment: datetime = connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
        return moment.astimezone(UTC)

    def about(self, connection: Connection) -> tuple[str, int]:
        version = connection.exec_driver_sql("SELECT current_setting('server_version')").scalar_one()
        size = connection.exec_driver_sql(
            "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c "
            "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relkind = 'r'",
            (self.tables.metadata.schema,),
        ).scalar_one()
        return f"PostgreSQL {str(version).split()[0]}", int(size)

    def may_be_run_id(self, run_id: str) -> bool:
        # A column of type uuid cannot be compared with anything else.
        return UUID.fullmatch(run_id) is not None

    @property
    def pool(self) -> sa.Pool:
        """The connections that are kept; another one after each `close`."""
        return self._engine.pool

    def connect(self) -> Connection:
        """Return a connection of the pool."""
        return self._engine.connect()

    def reading(self) -> AbstractContextManager[Connection]:
        return _Session(self, begins=self.link.pooled)  # behind a pooler the limits come with the transaction

    def writing(self) -> AbstractContextManager[Connection]:
        return _Session(self, begins=True)

    def insert_ignoring(self, table: sa.Table) -> Any:
        return postgresql.insert(table).on_conflict_do_nothing()

    def locked(self, jobs: sa.Select[Any]) -> sa.Select[Any]:
        return jobs.with_for_update(key_share=True)

    def distance(self, later: sa.ColumnElement[Any], earlier: sa.ColumnElement[Any]) -> Any:
        finite = sa.func.isfinite(later) & sa.func.isfinite(
            earlier
        )  # the difference of two others is an error
        return sa.case((finite, later.op("-", return_type=sa.Interval())(earlier)))

    def average_seconds(self, finished: sa.ColumnElement[Any], started: sa.ColumnElement[Any]) -> Any:
        return sa.extract("epoch", sa.func.avg(self.distance(finished, started)))

    def seconds(self, later: sa.ColumnElement[Any], earlier: sa.ColumnElement[Any]) -> Any:
        return sa.cast(sa.extract("epoch", self.distance(later, earlier)), sa.Double)

    def hour_number(self, instant: sa.ColumnElement[Any]) -> Any:
        finite = sa.case((sa.func.isfinite(instant), instant))
        return sa.cast(sa.func.floor(sa.extract("epoch", finite) / 3600), sa.BigInteger)

    def text_in(self, column: sa.ColumnElement[Any], key: str) -> sa.ColumnElement[Any]:
        return column.op("->>", return_type=sa.Text())(sa.literal_column(f"'{key}'"))

    def bytes_of_a_run(self, connection: Connection) -> float:
        runs = self.tables.runs
        blocks = connection.exec_driver_sql(BLOCKS).scalar_one()
        sampled = sa.tablesample(runs, sa.func.system(min(100.0, 100.0 * SAMPLED_BLOCKS / max(blocks, 1))))
        rows = sa.select(sampled.c.id, _bytes_of(sampled).label("bytes")).limit(SAMPLED_RUNS).subquery()
        size: sa.ColumnElement[Any] = rows.c.bytes
        for table in (self.tables.attempts, self.tables.run_logs, self.tables.run_steps):
            hanging = sa.select(sa.func.sum(_bytes_of(table))).where(table.c.run_id == rows.c.id)
            size = size + sa.func.coalesce(hanging.scalar_subquery(), 0)
        return float(connection.scalar(sa.select(sa.func.avg(size))) or 0)


def _bytes_of(table: sa.FromClause) -> sa.ColumnElement[Any]:
    """Return the bytes of a row as its columns are stored: nothing long is fetched to be measured."""
    columns = [sa.func.coalesce(sa.func.pg_column_size(column), 0) for column in table.c]
    return sum(columns, sa.literal_column(str(ROW_OVERHEAD)))


class _Session:
    """A connection while statements are made with it, with `begins` inside a transaction. No generators: each run takes two."""

    __slots__ = ("_begins", "_connection", "_database", "_driver", "_pool")

    def __init__(self, database: PostgresDatabase, *, begins: bool) -> None:
        self._database = database
        self._begins = begins
        self._connection: Connection | None = None
        self._driver: psycopg.Connection[Any] | None = None

    def __enter__(self) -> Connection:
        self._pool = self._database.pool
        try:
            connection = self._connection = self._database.connect()
            self._driver = driver_of(connection)  # asked now: after a loss it would connect again
            if self._begins:
                self._driver.execute(self._database.link.begin)
        except BaseException as error:  # noqa: BLE001 - raised again
            self._fail(error)
        return connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._fail(error)
        try:
            if self._begins and self._driver is not None:
                self._driver.execute("COMMIT")
        except BaseException as failed:  # noqa: BLE001 - raised again
            self._fail(failed)
        self._give_back()

    def _fail(self, error: BaseException) -> NoReturn:
        """Roll back, give the connection back, and raise the error as one of a store."""
        with self._database.link.told():
            try:
                if self._connection is not None and self._driver is not None:
                    roll_back(self._connection, self._driver)
                raise error
            finally:
                self._give_back()
        raise error  # a type checker cannot know that the block has raised

    def _give_back(self) -> None:
        if self._connection is None:
            return
        # Closed meanwhile: nobody would take the connection from the old pool again.
        if self._database.pool is not self._pool:
            self._connection.invalidate()
        self._connection.close()
