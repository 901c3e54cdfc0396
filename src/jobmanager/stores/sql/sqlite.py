"""The SQLite store: one writer connection per process, single statements or BEGIN IMMEDIATE, nothing deferred.

SQLite has one writer at a time, so a guard looked up inside BEGIN IMMEDIATE is true until COMMIT.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from operator import itemgetter
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from jobmanager.clock import Clock, SystemClock
from jobmanager.errors import StoreError, StoreUnavailableError, UnreadableRowError
from jobmanager.run import (
    FAILED,
    KEEPS_ATTEMPT,
    PENDING,
    RETURNED,
    RUNNING,
    Ending,
    Run,
    RunStatus,
)
from jobmanager.stores.base import Written
from jobmanager.stores.sql.columns import BECOMES, OPENED, TO_PENDING, opened_row
from jobmanager.stores.sql.rows import UNDECODABLE, encode, failure_values
from jobmanager.stores.sql.runs import refused_retry
from jobmanager.stores.sql.schema import VERSION_TABLE, SchemaStatements
from jobmanager.stores.sql.store import Connection, SqlStore
from jobmanager.stores.sql.tables import make_tables, micros
from jobmanager.stores.sql.unreadable import json_from, text_from

OLDEST_SQLITE = (3, 35)  # RETURNING
KEPT = ", ".join(f"'{reason}'" for reason in sorted(KEEPS_ATTEMPT))

GUARDS = """SELECT id, state, schedule_rev, accounted_until FROM jobmanager_jobs
 WHERE id IN (SELECT value FROM json_each(?))"""
ALIVE = "SELECT 1 FROM jobmanager_instances WHERE id = ? AND dead_at IS NULL"
OPEN = f"""INSERT INTO jobmanager_runs ({", ".join(OPENED)}, ticks) VALUES ({", ".join("?" * len(OPENED))}, 1)
 ON CONFLICT DO NOTHING"""  # noqa: S608 - constants only
ACCEPT = f"""UPDATE jobmanager_runs SET {", ".join(f"{name} = ?" for name in BECOMES)}, accepted_at = ?
 WHERE id = ? AND status = 'pending' AND accepted_at IS NULL AND (? IS NULL OR NOT EXISTS
  (SELECT 1 FROM jobmanager_runs h WHERE h.concurrency_key = ? AND h.turn IN ('holds', 'waits')))"""  # noqa: S608
OURS = """SELECT id, status, owner, starts, accepted_at IS NULL, started_at FROM jobmanager_runs
 WHERE id IN (SELECT value FROM json_each(?))"""
FENCE = "id = ? AND owner = ? AND starts = ? AND status = 'running'"
END = f"""UPDATE jobmanager_runs SET status = ?, reason = ?, output = ?, error = ?, progress = ?, started_at = ?, finished_at = ?,
 turn = NULL WHERE {FENCE}"""  # noqa: S608 - constants only
RETRY = f"""UPDATE jobmanager_runs SET {TO_PENDING}, due_at = ?, reason = ?, attempt = CASE WHEN ? AND attempt = 1 AND NOT EXISTS
  (SELECT 1 FROM jobmanager_attempts a WHERE a.run_id = jobmanager_runs.id) THEN 0 ELSE attempt END WHERE {FENCE} AND cancel_requested_at IS NULL
 AND EXISTS (SELECT 1 FROM jobmanager_jobs j WHERE j.id = job_id AND j.state IN ('active', 'paused'))"""  # noqa: S608
CANCEL_REQUESTED = f"SELECT cancel_requested_at IS NOT NULL FROM jobmanager_runs WHERE {FENCE}"  # noqa: S608
DECLARES = "SELECT declares FROM jobmanager_instances WHERE id = ? AND dead_at IS NULL"
CLAIMABLE = """SELECT r.id, r.turn, r.concurrency_key FROM jobmanager_runs r JOIN jobmanager_jobs j ON j.id = r.job_id
 WHERE r.status = 'pending' AND r.due_at <= :now AND r.accepted_at IS NOT NULL
 AND (r.expires_at IS NULL OR r.expires_at >= :now OR r.attempt > 0)
 AND j.namespace = :namespace AND j.state IN ('active', 'paused') AND r.job_id NOT IN (SELECT value FROM json_each(:unknown))
 AND (:declares IS NULL OR r.job_id IN
   (SELECT value FROM jobmanager_declarations d, json_each(d.job_ids) WHERE d.digest = :declares))
 AND (r.turn IS NOT 'waits' OR NOT EXISTS
   (SELECT 1 FROM jobmanager_runs h WHERE h.concurrency_key = r.concurrency_key AND h.turn = 'holds'))
 ORDER BY r.priority DESC, r.due_at, r.id LIMIT :places"""
# A statement of its own: by id it must not walk the line of all that is pending.
CLAIMABLE_OF = CLAIMABLE.replace(
    " ORDER BY", " AND r.id IN (SELECT value FROM json_each(:run_ids)) ORDER BY"
).replace("r.status = 'pending'", "+r.status = 'pending'")
CLAIM = f"""UPDATE jobmanager_runs SET status = 'running', starts = starts + 1, owner = ?, started_at = ?, reason = NULL,
 attempt = max(1, attempt + CASE WHEN reason IN ({KEPT}) THEN 0 ELSE 1 END),
 turn = CASE WHEN turn = 'waits' THEN 'holds' ELSE turn END
 WHERE id IN (SELECT value FROM json_each(?)) AND status = 'pending'"""  # noqa: S608 - constants only
CLAIMED = sa.text(
    "SELECT * FROM jobmanager_runs WHERE id IN (SELECT value FROM json_each(:ids)) ORDER BY priority DESC, due_at, id"
)


class SqliteStore(SchemaStatements, SqlStore):
    """History in a SQLite file on a local disk, shared by any number of processes of one host.

    `strict` durability survives a power cut; `relaxed` (synchronous=NORMAL) may lose the last moments to one, never to a crash.
    """

    upgrades_itself = True

    def __init__(
        self,
        path: str | Path,
        *,
        clock: Clock | None = None,
        grace: timedelta = timedelta(seconds=60),
        durability: str = "strict",
        lock_timeout: timedelta = timedelta(seconds=5),
    ) -> None:
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old; jobmanager needs 3.35 or newer.")
        self.path = Path(path).absolute()
        self.url = f"sqlite:///{self.path}"
        self.tables = make_tables()
        self._clock = clock or SystemClock()
        self._grace = grace
        self._synchronous = "FULL" if durability == "strict" else "NORMAL"
        self._patience = lock_timeout.total_seconds()
        self._lock = threading.RLock()
        self._forking: Counter[int] = Counter()
        self._gate = Gate()
        self._writer: Connection | None = None
        self._engine = self._make_engine()
        self._claimed = CLAIMED.columns(*self.tables.runs.c)

    def _make_engine(self) -> sa.Engine:
        engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(self.path)),
            isolation_level="AUTOCOMMIT",
            json_deserializer=json_from,
            pool_timeout=self._patience,
            connect_args={"check_same_thread": False, "timeout": self._patience},
        )
        sa.event.listen(engine, "connect", self._prepare)
        return engine

    def _prepare(self, connection: sqlite3.Connection, _record: object) -> None:
        connection.text_factory = text_from
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        except sqlite3.Error:
            connection.close()  # left open it would hold every later one to what it was allowed to do
            raise

    # ---------------------------------------------------------------- the store itself

    def exists(self) -> bool:
        if not self.path.exists():
            return False
        with self.reading() as connection:
            return sa.inspect(connection).has_table(VERSION_TABLE)

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

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._translated(), self._gate.inside(self._patience), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        # One writer connection under one lock: threads of this process never meet SQLite's busy handler, which sleeps.
        lock = self._take_lock()
        try:
            with self._translated():
                writer = self._opened_writer()
                driver = _driver(writer)
                try:
                    driver.execute("BEGIN IMMEDIATE")
                    yield writer
                    driver.execute("COMMIT")
                except BaseException as error:
                    if driver.in_transaction:
                        driver.execute("ROLLBACK")
                    if "readonly" in str(error):
                        self._open_anew()
                    raise
        finally:
            lock.release()

    def _take_lock(self) -> threading.RLock:
        """Wait for the other threads of this process that write, as long as for those of others."""
        lock = self._lock
        if not lock.acquire(timeout=self._patience):
            raise StoreUnavailableError(
                f"{self.url}: waited {self._patience:g} s for another thread of this process that writes to it."
            )
        return lock

    def _opened_writer(self) -> Connection:
        if self._writer is None:
            self._writer = self._engine.connect().execution_options(preserve_rowcount=True)
        return self._writer

    def _open_anew(self) -> None:
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
    def _translated(self) -> Iterator[None]:
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

    # ---------------------------------------------------------------- the hot path

    def write(self, opens: Sequence[Run], endings: Sequence[Ending]) -> Written:
        with self.writing() as connection:
            fresh = [run for run in opens if not run.announced]
            announced = [run for run in opens if run.announced]
            opened = self._open(connection, fresh) if fresh else set()
            opened |= self._accept(connection, announced) if announced else set()
            ended = self._end(connection, endings) if endings else {}
        return Written(opened, ended)

    def _accept(self, connection: Connection, runs: Sequence[Run]) -> set[str]:
        """Ids of the announced runs that became these, by this call or an earlier one."""
        driver, now = _driver(connection), self.now()
        for run in self._allowed(driver, runs, now):
            _execute(driver, ACCEPT, [_accept_row(run, now)])
        found = {row[0]: row for row in self._ours(connection, runs) if not row[4]}
        return {
            run.id
            for run in runs
            if run.id in found
            and (
                run.owner is None
                or (*found[run.id][1:3], found[run.id][5]) == (RUNNING, run.owner, micros(run.started_at))
            )
        }

    def _allowed(self, driver: sqlite3.Connection, opens: Sequence[Run], now: datetime) -> list[Run]:
        """Those of these runs that no guard refuses."""
        guards = driver.execute(GUARDS, (json.dumps([run.job_id for run in opens]),))
        jobs = {row[0]: tuple(row) for row in guards}
        living = {
            owner
            for owner in {run.owner for run in opens if run.owner is not None}
            if driver.execute(ALIVE, (owner,)).fetchone()
        }
        return [run for run in opens if self._may_open(run, jobs.get(run.job_id), living, now)]

    def _open(self, connection: Connection, opens: Sequence[Run]) -> set[str]:
        driver = _driver(connection)
        allowed = self._allowed(driver, opens, self.now())
        if allowed:
            rows = [_open_row(run) for run in allowed]
            if _execute(driver, OPEN, rows).rowcount == len(opens):
                return {run.id for run in opens}
        # Some were refused or were there already: those with my id are mine, from this call or an earlier one. A run that
        # was to be executed here must still be: it may have been taken over or ended since the answer to that call was lost.
        found = {row[0]: tuple(row[1:3]) for row in self._ours(connection, opens)}
        return {
            run.id
            for run in opens
            if run.id in found and (run.owner is None or found[run.id] == (RUNNING, run.owner))
        }

    def _may_open(self, run: Run, job: tuple[Any, ...] | None, living: set[str], now: datetime) -> bool:
        if job is None or (run.owner is not None and run.owner not in living):
            return False
        _, state, schedule_rev, accounted_until = job
        if not isinstance(accounted_until, int):  # SQLite keeps anything in any column
            return False
        if run.scheduled_for is None:
            return state in ("active", "paused")
        return (
            state == "active"
            and (run.announced or schedule_rev == run.schedule_rev)
            and (run.announced or accounted_until < (micros(run.scheduled_for) or 0))
            and now - self._grace < run.due_at <= now
            and (run.expires_at is None or run.expires_at >= now)
        )

    def _ours(self, connection: Connection, runs: Sequence[Run]) -> list[tuple[Any, ...]]:
        """(id, status, owner, starts, whether only announced, started_at) of those of these runs that have a row."""
        found = _driver(connection).execute(OURS, (json.dumps([run.id for run in runs]),))
        return [tuple(row) for row in found]

    def _end(self, connection: Connection, endings: Sequence[Ending]) -> dict[str, RunStatus]:
        ended = {}
        final = [ending for ending in endings if ending.retry_at is None]
        if final:
            rows = [_end_row(ending, ending.status, ending.reason) for ending in final]
            if _execute(_driver(connection), END, rows).rowcount == len(final):
                ended = {ending.run.id: ending.status for ending in final}
            else:
                ended = self._accepted(connection, final)
        for ending in endings:
            if ending.retry_at is not None:
                ended |= self._retry(connection, ending)
            if ending.lines and ending.run.id in ended:
                self._add_lines(connection, ending.run.id, ending.run.attempt, ending.lines)
        return ended

    def _accepted(self, connection: Connection, endings: Sequence[Ending]) -> dict[str, RunStatus]:
        """Return True if an earlier identical call closed the row: it still carries this fence, or was closed and purged."""
        found = {row[0]: row for row in self._ours(connection, [ending.run for ending in endings])}
        ended = {}
        for ending in endings:
            row = found.get(ending.run.id)
            if row is None:
                ended[ending.run.id] = ending.status
                continue
            _, status, owner, starts, *_ = row
            if (owner, starts) == (ending.run.owner, ending.run.starts) and RunStatus(status).closed:
                ended[ending.run.id] = RunStatus(status)
        return ended

    def _retry(self, connection: Connection, ending: Ending) -> dict[str, RunStatus]:
        run = ending.run
        fence = (run.id, run.owner, run.starts)
        kept = ending.reason if ending.reason in KEEPS_ATTEMPT else None
        again = (micros(ending.retry_at), kept, kept == RETURNED, *fence)
        if _driver(connection).execute(RETRY, again).rowcount:
            if kept != RETURNED:
                self.keep_attempt(connection, run, ending.error, ending.finished_at, kept)
            return {run.id: PENDING}
        mine = _driver(connection).execute(CANCEL_REQUESTED, fence).fetchone()
        if mine is None:
            return self._accepted_retry(connection, run)
        status, reason = refused_retry(ending, cancel_requested=bool(mine[0]))
        _driver(connection).execute(END, _end_row(ending, status, reason))
        return {run.id: status}

    def _accepted_retry(self, connection: Connection, run: Run) -> dict[str, RunStatus]:
        """Return True if an earlier identical call made the retry: the row waits for the start after this one."""
        for _, status, _, starts, *_ in self._ours(connection, [run]):
            if status == PENDING and starts == run.starts:
                return {run.id: PENDING}
        return self._accepted(
            connection, [Ending(run=run, status=FAILED, started_at=self.now(), finished_at=self.now())]
        )

    def claim(
        self,
        owner: str,
        namespace: str,
        limit: int,
        *,
        unknown: Collection[str] = (),
        run_ids: Collection[str] = (),
    ) -> list[Run]:
        with self.writing() as connection:
            now = micros(self.now())
            alive = _driver(connection).execute(DECLARES, (owner,)).fetchone()
            if alive is None:
                return []
            wanted = {
                "now": now,
                "declares": alive[0],
                "run_ids": json.dumps(list(run_ids)),
                "namespace": namespace,
                "unknown": json.dumps(list(unknown)),
                "places": limit,
            }
            ids, keys = [], set()
            claimable = CLAIMABLE_OF if run_ids else CLAIMABLE
            for found, turn, key in _driver(connection).execute(claimable, wanted):
                if turn != "waits" or key not in keys:
                    ids.append(found)
                    keys.add(key)
            if not ids:
                return []
            chosen = json.dumps(ids)
            _driver(connection).execute(CLAIM, (owner, now, chosen))
            claimed, wrong = self.sorted_out(connection.execute(self._claimed, {"ids": chosen}).mappings())
        self.end_unreadable(wrong)
        return claimed


class ForkUnderWayError(Exception):
    """The gate stayed closed for too long."""


class Gate:
    """Lets any number of threads in, and can be closed for a moment in which nobody is inside."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside: Counter[int] = Counter()
        self._closed: Counter[int] = Counter()

    @contextmanager
    def inside(self, patience: float) -> Iterator[None]:
        """Hold it open; wait so many seconds while it is closed, unless this thread is inside. ForkUnderWayError after them."""
        me = threading.get_ident()
        if not self._changed.acquire(timeout=patience):
            raise ForkUnderWayError
        try:
            if not self._changed.wait_for(
                lambda: not self._closed or me in self._inside or me in self._closed, patience
            ):
                raise ForkUnderWayError
            self._inside[me] += 1
        finally:
            self._changed.release()
        try:
            yield
        finally:
            with self._changed:
                self._inside[me] -= 1
                if not self._inside[me]:
                    del self._inside[me]
                self._changed.notify_all()

    def close(self, patience: float) -> None:
        """Let no other thread in from now on, and wait so many seconds for those inside to leave. As many `open` must follow.

        The condition's lock stays with this thread: held by another one at the fork, the child would wait for it for ever. A
        gate that stays busy for longer than the patience is left as it is.
        """
        me = threading.get_ident()
        if self._changed.acquire(timeout=patience):
            self._closed[me] += 1
            self._changed.wait_for(lambda: not self._inside.keys() - {me}, patience)

    def open(self) -> None:
        """Take back one `close` of this thread; with the last one the others are let in again."""
        me = threading.get_ident()
        if self._closed[me]:
            self._closed[me] -= 1
            if not self._closed[me]:
                del self._closed[me]
            self._changed.notify_all()
            self._changed.release()


def _driver(connection: Connection) -> sqlite3.Connection:
    """Return the driver's connection: where statements are counted in microseconds, SQLAlchemy's 20 per statement are too many."""
    driver: Any = connection.connection.driver_connection
    return driver  # type: ignore[no-any-return]


def _execute(driver: sqlite3.Connection, statement: str, rows: Sequence[Sequence[Any]]) -> sqlite3.Cursor:
    return driver.execute(statement, rows[0]) if len(rows) == 1 else driver.executemany(statement, rows)


_PAYLOAD = list(OPENED).index("payload")
_BECOMES = itemgetter(*(list(OPENED).index(name) for name in BECOMES))


def _open_row(run: Run) -> list[Any]:
    row = opened_row(run, micros)
    row[_PAYLOAD] = encode(row[_PAYLOAD])
    return row


def _accept_row(run: Run, now: datetime) -> list[Any]:
    return [*_BECOMES(opened_row(run, micros)), micros(now), run.id, run.turn, run.concurrency_key]


def _end_row(ending: Ending, status: RunStatus, reason: str | None) -> tuple[Any, ...]:
    return (
        status.value,
        reason,
        encode(ending.output),
        encode(failure_values(ending.error)),
        encode(None if ending.progress is None else _progress(ending)),
        micros(ending.started_at),
        micros(ending.finished_at),
        ending.run.id,
        ending.run.owner,
        ending.run.starts,
    )


def _progress(ending: Ending) -> Mapping[str, Any]:
    assert ending.progress is not None  # noqa: S101 - asked only when there is one
    return {
        "processed": ending.progress.processed,
        "total": ending.progress.total,
        "message": ending.progress.message,
    }


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
