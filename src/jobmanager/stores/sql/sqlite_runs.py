"""Runs on SQLite: opening, ending and claiming, each under the one write lock."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

import sqlalchemy as sa

from jobmanager.run import (
    FAILED,
    KEEPS_ATTEMPT,
    PENDING,
    RETURNED,
    RUNNING,
    SUSPENDED,
    Ending,
    Run,
    RunStatus,
)
from jobmanager.stores.sql.columns import BECOMES, OPENED, TO_PENDING, opened_row
from jobmanager.stores.sql.database import Connection, Database
from jobmanager.stores.sql.outbox import notices_of, write_notices
from jobmanager.stores.sql.rows import encode, failure_values
from jobmanager.stores.sql.runs import SqlRuns, refused_retry
from jobmanager.stores.sql.sqlite_database import driver_of
from jobmanager.stores.sql.tables import micros
from jobmanager.stores.values import Written

KEPT = ", ".join(f"'{reason}'" for reason in sorted(KEEPS_ATTEMPT))

GUARD = "SELECT id, state, schedule_rev, accounted_until FROM jobmanager_jobs WHERE id = ?"
GUARDS = GUARD.replace("= ?", "IN (SELECT value FROM json_each(?))")
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
 AND EXISTS (SELECT 1 FROM jobmanager_jobs j WHERE j.id = job_id AND (j.state IN ('active', 'paused') OR (? AND j.state = 'disabled')))"""  # noqa: S608
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


class SqliteRuns(SqlRuns):
    """The hot path. A batch is one transaction under the write lock."""

    def __init__(self, database: Database, grace: timedelta) -> None:
        super().__init__(database)
        self._grace = grace
        self._claimed = CLAIMED.columns(*self.tables.runs.c)

    def write(self, opens: Sequence[Run], endings: Sequence[Ending]) -> Written:
        announced = [run for run in opens if run.accepted_at is None]
        fresh = [run for run in opens if run.accepted_at is not None] if announced else opens
        with self.database.writing() as connection:
            opened = self._open(connection, fresh) if fresh else set()
            opened |= self._accept(connection, announced) if announced else set()
            ended = self._end(connection, endings) if endings else {}
            write_notices(self.database, connection, notices_of(endings, ended))
        return Written(opened, ended)

    def _accept(self, connection: Connection, runs: Sequence[Run]) -> set[str]:
        """Ids of the announced runs that became these, by this call or an earlier one."""
        driver, now = driver_of(connection), self.database.now()
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
        """Return the runs that no guard refuses."""
        if len(opens) == 1:
            guards = driver.execute(GUARD, (opens[0].job_id,))
        else:
            guards = driver.execute(GUARDS, (json.dumps([run.job_id for run in opens]),))
        jobs = {row[0]: row for row in guards}
        living = {
            owner
            for owner in {run.owner for run in opens if run.owner is not None}
            if driver.execute(ALIVE, (owner,)).fetchone()
        }
        return [run for run in opens if self._may_open(run, jobs.get(run.job_id), living, now)]

    def _open(self, connection: Connection, opens: Sequence[Run]) -> set[str]:
        driver = driver_of(connection)
        allowed = self._allowed(driver, opens, self.database.now())
        if allowed:
            rows = [_open_row(run) for run in allowed]
            if _execute(driver, OPEN, rows).rowcount == len(opens):
                return {run.id for run in opens}
        # Some were refused or were there already: those with my id are mine, from this call or an earlier one. A run that
        # was to be executed here must still be: it may have been taken over or ended since the reply to that call was lost.
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
        found = driver_of(connection).execute(OURS, (json.dumps([run.id for run in runs]),))
        return [tuple(row) for row in found]

    def _end(self, connection: Connection, endings: Sequence[Ending]) -> dict[str, RunStatus]:
        ended = {}
        final = [ending for ending in endings if ending.retry_at is None]
        if final:
            rows = [_end_row(ending, ending.status, ending.reason) for ending in final]
            if _execute(driver_of(connection), END, rows).rowcount == len(final):
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
        again = (micros(ending.retry_at), kept, kept == RETURNED, *fence, kept in SUSPENDED)
        if driver_of(connection).execute(RETRY, again).rowcount:
            if kept != RETURNED:
                self.database.keep_attempt(connection, run, ending.error, ending.finished_at, kept)
            return {run.id: PENDING}
        mine = driver_of(connection).execute(CANCEL_REQUESTED, fence).fetchone()
        if mine is None:
            return self._accepted_retry(connection, run)
        status, reason = refused_retry(ending, cancel_requested=bool(mine[0]))
        driver_of(connection).execute(END, _end_row(ending, status, reason))
        return {run.id: status}

    def _accepted_retry(self, connection: Connection, run: Run) -> dict[str, RunStatus]:
        """Return True if an earlier identical call made the retry: the row waits for the start after this one."""
        for _, status, _, starts, *_ in self._ours(connection, [run]):
            if status == PENDING and starts == run.starts:
                return {run.id: PENDING}
        return self._accepted(
            connection,
            [Ending(run=run, status=FAILED, started_at=self.database.now(), finished_at=self.database.now())],
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
        with self.database.writing() as connection:
            now = micros(self.database.now())
            alive = driver_of(connection).execute(DECLARES, (owner,)).fetchone()
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
            for found, turn, key in driver_of(connection).execute(claimable, wanted):
                if turn != "waits" or key not in keys:
                    ids.append(found)
                    keys.add(key)
            if not ids:
                return []
            chosen = json.dumps(ids)
            driver_of(connection).execute(CLAIM, (owner, now, chosen))
            claimed, wrong = self.database.sorted_out(
                connection.execute(self._claimed, {"ids": chosen}).mappings()
            )
        self.database.end_unreadable(wrong)
        return claimed


def _execute(driver: sqlite3.Connection, statement: str, rows: Sequence[Sequence[Any]]) -> sqlite3.Cursor:
    return driver.execute(statement, rows[0]) if len(rows) == 1 else driver.executemany(statement, rows)


_PAYLOAD = list(OPENED).index("payload")
_BECOMES = itemgetter(*(list(OPENED).index(name) for name in BECOMES))


def _open_row(run: Run) -> list[Any]:
    row = opened_row(run, micros)
    if run.payload is not None:
        row[_PAYLOAD] = encode(run.payload)
    return row


def _accept_row(run: Run, now: datetime) -> list[Any]:
    return [*_BECOMES(opened_row(run, micros)), micros(now), run.id, run.turn, run.concurrency_key]


def _end_row(ending: Ending, status: RunStatus, reason: str | None) -> tuple[Any, ...]:
    return (
        status._value_,
        reason,
        None if ending.output is None else encode(ending.output),
        None if ending.error is None else encode(failure_values(ending.error)),
        None if ending.progress is None else encode(_progress(ending)),
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
