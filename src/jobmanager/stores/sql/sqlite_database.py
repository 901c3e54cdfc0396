"""SqliteDatabase: one writer connection per process, single statements or BEGIN IMMEDIATE, nothing deferred.

SQLite has one writer at a time, so a guard looked up inside BEGIN IMMEDIATE is true until COMMIT.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from jobmanager.clock import Clock, SystemClock
from jobmanager.errors import StoreError, StoreUnavailableError, UnreadableRowError
from jobmanager.stores.sql.database import Connection, Database
from jobmanager.stores.sql.fork_gate import ForkUnderWayError, Gate
from jobmanager.stores.sql.postgres_json import to_json
from jobmanager.stores.sql.rows import UNDECODABLE, longest_plain_part
from jobmanager.stores.sql.tables import make_tables
from jobmanager.stores.sql.unreadable import json_from, text_from

OLDEST_SQLITE = (3, 35)  # RETURNING


class SqliteDatabase(Database):
    """A SQLite file: its writer, its readers, and what its errors mean."""

    upgrades_itself = True

    def __init__(
        self, path: str | Path, *, clock: Clock | None, durability: str, lock_timeout: timedelta
    ) -> None:
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old; jobmanager needs 3.35 or newer.")
        self.path = Path(path).absolute()
        self.url = f"sqlite:///{self.path}"
        self.tables = make_tables()
        self._clock = clock or SystemClock()
        self._synchronous = "FULL" if durability == "strict" else "NORMAL"
        self._patience = lock_timeout.total_seconds()
        self._lock = threading.RLock()
        self._forking: Counter[int] = Counter()
        self._gate = Gate()
        self._writer: Connection | None = None
        self._engine = self._make_engine()

    def _make_engine(self) -> sa.Engine:
        engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(self.path)),
            isolation_level="AUTOCOMMIT",
            json_serializer=to_json,
            json_deserializer=json_from,
            hide_parameters=True,  # they hold payloads
            pool_timeout=self._patience,
            connect_args={"check_same_thread": False, "timeout": self._patience},
        )
        # No methods of this object: the pool of a connection that is in use is never garbage, nor is what it calls.
        sa.event.listen(engine, "do_connect", partial(_make_private, self.path))
        sa.event.listen(engine, "connect", partial(_prepare, self._synchronous))
        return engine

    @contextmanager
    def changing_tables(self) -> Iterator[Connection]:
        with self.writing() as connection:
            yield connection

    def close(self) -> None:
        lock = self._lock
        if lock.acquire(
            timeout=self._patience
        ):  # else the writer is left to the thread that still writes with it
            try:
                if self._writer is not None:
                    self._writer.close()
                    self._writer = None
            finally:
                lock.release()
        self._engine.dispose()

    def before_fork(self) -> None:
        # A child inherits what SQLite knows in memory: a lock held at that moment, be it by a reader, is held there for ever.
        me = threading.get_ident()
        if self._lock.acquire(timeout=self._patience):
            self._forking[me] += 1
        self._gate.close(self._patience)

    def after_fork_in_parent(self) -> None:
        self._gate.open()
        me = threading.get_ident()
        if self._forking[me]:
            self._forking[me] -= 1
            self._lock.release()

    def after_fork(self) -> None:
        # The parent's connections must not even be closed here: SQLite would drop the parent's file locks.
        self._engine.dispose(close=False)
        self._lock = threading.RLock()
        self._forking = Counter()
        self._gate = Gate()
        self._writer = None
        self._engine = self._make_engine()

    def now(self) -> datetime:
        return self._clock.now()

    def about(self, connection: Connection) -> tuple[str, int]:
        version = connection.exec_driver_sql("SELECT sqlite_version()").scalar_one()
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        size = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
        return f"SQLite {version}", int(pages) * int(size)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self.translated(), self._gate.inside(self._patience), self._engine.connect() as connection:
            yield connection

    def connect_apart(self) -> Connection:
        """Return a connection that is not given back to the pool: use it inside `held_open`, and close it."""
        connection = self._engine.connect()
        connection.detach()
        return connection

    def held_open(self) -> AbstractContextManager[None]:
        """Keep the process from forking while a connection of `connect_apart` is in use."""
        return self._gate.inside(self._patience)

    def writing(self) -> AbstractContextManager[Connection]:
        return _Writing(self, begins=True)

    def committing(self) -> AbstractContextManager[Connection]:
        """Return the writer for one statement, which is a transaction of its own: the same locks and the same wait for the disk."""
        return _Writing(self, begins=False)

    def take_lock(self) -> threading.RLock:
        """Wait for the other threads of this process that write, as long as for those of others."""
        lock = self._lock
        if not lock.acquire(timeout=self._patience):
            raise StoreUnavailableError(
                f"{self.url}: waited {self._patience:g} s for another thread of this process that writes to it."
            )
        return lock

    def opened_writer(self) -> Connection:
        """Return the connection of the thread that has the lock."""
        if self._writer is None:
            self._writer = self._engine.connect().execution_options(preserve_rowcount=True)
        return self._writer

    def open_anew(self) -> None:
        """Give up all connections of this process after an error that says `readonly`."""
        # What SQLite opened while the file could not be written stays read-only, also when it can be; and what it knows of a file
        # is one for all connections of a process: as long as one reader is left, a new connection is read-only, too.
        if self._writer is not None:
            self._writer.invalidate()
        self._gate.close(self._patience)
        try:
            self.close()
        finally:
            self._gate.open()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raise the driver's errors in the block as errors of a store."""
        try:
            yield
        except (sa.exc.OperationalError, sqlite3.OperationalError) as error:
            if UNDECODABLE in str(error):
                raise UnreadableRowError(f"{self.url}: {getattr(error, 'orig', error)}") from error
            raise StoreUnavailableError(
                f"{self.url}: {_advice(str(getattr(error, 'orig', error)))}"
            ) from error
        except sa.exc.TimeoutError as error:
            raise StoreUnavailableError(
                f"{self.url}: waited {self._patience:g} s for a connection; this process reads with all that it may have."
            ) from error
        except ForkUnderWayError as error:
            raise StoreUnavailableError(
                f"{self.url}: waited {self._patience:g} s for a fork of this process to finish."
            ) from error
        except (sa.exc.DBAPIError, sqlite3.Error) as error:
            raise StoreError(f"{self.url}: {getattr(error, 'orig', error)}") from error

    def insert_ignoring(self, table: sa.Table) -> Any:
        return sqlite.insert(table).on_conflict_do_nothing()

    def locked(self, jobs: sa.Select[Any]) -> sa.Select[Any]:
        return jobs  # BEGIN IMMEDIATE already holds everything

    def distance(self, later: sa.ColumnElement[Any], earlier: sa.ColumnElement[Any]) -> Any:
        return later.op("-", return_type=sa.BigInteger())(earlier)

    def average_seconds(self, finished: sa.ColumnElement[Any], started: sa.ColumnElement[Any]) -> Any:
        return sa.func.avg(self.distance(finished, started)) / 1_000_000.0

    def seconds(self, later: sa.ColumnElement[Any], earlier: sa.ColumnElement[Any]) -> Any:
        return self.distance(later, earlier) / 1_000_000.0

    def hour_number(self, instant: sa.ColumnElement[Any]) -> Any:
        return instant.op("/", return_type=sa.BigInteger())(sa.literal_column("3600000000"))

    def text_in(self, column: sa.ColumnElement[Any], key: str) -> sa.ColumnElement[Any]:
        text = sa.func.json_extract(column, f"$.{key}", type_=sa.Text)
        return sa.case((sa.func.json_valid(column) == 1, text))

    def may_hold(self, column: sa.ColumnElement[Any], text: str) -> list[sa.ColumnElement[bool]]:
        part = longest_plain_part(text)
        return [sa.type_coerce(column, sa.Text).contains(part, autoescape=True)] if part else []

    def bytes_of_a_run(self, connection: Connection) -> float:
        pages, free, size = (
            int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
            for name in ("page_count", "freelist_count", "page_size")
        )
        runs = connection.scalar(sa.select(sa.func.count()).select_from(self.tables.runs)) or 0
        return (pages - free) * size / runs if runs else 0.0


class _Writing:
    """The one writer, with `begins` inside a transaction. No generator: what that costs is a tenth of a start and its end."""

    # One writer connection under one lock: threads of this process never meet SQLite's busy handler, which sleeps.
    __slots__ = ("_begins", "_database", "_driver", "_lock")

    def __init__(self, database: SqliteDatabase, *, begins: bool) -> None:
        self._database = database
        self._begins = begins

    def __enter__(self) -> Connection:
        self._driver: sqlite3.Connection | None = None
        self._lock = self._database.take_lock()
        try:
            writer = self._database.opened_writer()
            self._driver = driver_of(writer)
            if self._begins:
                self._driver.execute("BEGIN IMMEDIATE")
        except BaseException as error:  # noqa: BLE001 - raised again
            self._fail(error)
        return writer

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._fail(error)
        try:
            if self._begins:
                self._driver.execute("COMMIT")  # type: ignore[union-attr]  # it began
        except BaseException as failed:  # noqa: BLE001 - raised again
            self._fail(failed)
        self._lock.release()

    def _fail(self, error: BaseException) -> NoReturn:
        """Roll back, give the writer to the next thread, and raise the error as one of a store."""
        with self._database.translated():
            try:
                if self._driver is not None and self._driver.in_transaction:
                    self._driver.execute("ROLLBACK")
                if "readonly" in str(error):
                    self._database.open_anew()
                raise error
            finally:
                self._lock.release()
        raise error  # a type checker cannot know that the block has raised


def driver_of(connection: Connection) -> sqlite3.Connection:
    """Return the driver's connection: where statements are counted in microseconds, SQLAlchemy's 20 per statement are too many."""
    driver: Any = connection.connection.dbapi_connection
    return driver  # type: ignore[no-any-return]


def _advice(said: str) -> str:
    """Return what SQLite said, and what to do about it."""
    for words, advice in (
        ("locked", "another process holds the write lock; it is tried again."),
        ("readonly", "the file or its folder is read-only; make both writable for this user."),
        ("disk is full", "the disk is full; free some space, nothing is lost that was committed."),
        (
            "unable to open",
            "the file cannot be opened; does its folder exist, and may this user write there?",
        ),
    ):
        if words in said:
            return f"{said}: {advice}"
    return said


def _make_private(path: Path, *_: object) -> None:
    """Make a new file readable by its owner alone; SQLite gives what it writes beside the file the same mode."""
    with suppress(OSError):  # it is there already; or it cannot be made, which SQLite says in its own words
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _prepare(synchronous: str, connection: sqlite3.Connection, _record: object) -> None:
    connection.text_factory = text_from
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
    except sqlite3.Error:
        connection.close()  # left open it would hold every later one to what it was allowed to do
        raise
