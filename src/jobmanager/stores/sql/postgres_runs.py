"""Runs on PostgreSQL: opening, ending and claiming, and what an answer means that was lost on its way."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from jobmanager.errors import StoreUnavailableError
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
from jobmanager.stores.sql import postgres_writes as writes
from jobmanager.stores.sql.database import Connection, Database
from jobmanager.stores.sql.outbox import notices_of, write_notices
from jobmanager.stores.sql.postgres_link import StoreTakenError, driver_of
from jobmanager.stores.sql.runs import SqlRuns, refused_retry
from jobmanager.stores.values import Written


@dataclass(frozen=True)
class Claims:
    """The statements that answer whole runs, with the types of what they answer."""

    claim: sa.TextualSelect
    claim_these: sa.TextualSelect
    claim_waiting: sa.TextualSelect
    these: sa.TextualSelect

    @classmethod
    def of(cls, runs: sa.Table) -> Claims:
        due = (
            sa.column("due_id", runs.c.id.type),
            sa.column("due_turn", sa.Text),
            sa.column("due_key", sa.Text),
        )
        any_of, these = (sa.text(writes.claim(these=these)).columns(*due, *runs.c) for these in (False, True))
        rows = (sa.text(text).columns(*runs.c) for text in (writes.CLAIM_WAITING, writes.THESE))
        return cls(any_of, these, *rows)


class PostgresRuns(SqlRuns):
    """The hot path. One statement is one durable transaction, unless a retry has to do more than one thing."""

    def __init__(self, database: Database, grace: timedelta) -> None:
        super().__init__(database)
        self._grace = grace
        self._claims = Claims.of(self.tables.runs)

    def write(self, opens: Sequence[Run], endings: Sequence[Ending]) -> Written:
        final = [ending for ending in endings if ending.retry_at is None]
        again = [ending for ending in endings if ending.retry_at is not None]
        retried: dict[str, RunStatus] = {}
        fresh = [run for run in opens if not run.announced]
        announced = [run for run in opens if run.announced]
        done: set[str] = set()
        if fresh or endings:
            several = again or any(ending.notices for ending in final)
            with self.database.writing() if several else self.database.reading() as connection:
                done = self._write(connection, fresh, final)
                for ending in again:
                    retried |= self._retry(connection, ending)
                if several:
                    ended = retried | {each.run.id: each.status for each in final if each.run.id in done}
                    write_notices(self.database, connection, notices_of(endings, ended))
        # Apart from what was ended: this very batch may end the run that is now brought a second time.
        opened = self._accept(announced) if announced else set()
        opened |= {run.id for run in fresh if run.id in done}
        ended = {ending.run.id: ending.status for ending in final if ending.run.id in done}
        doubtful = [run for run in opens if run.id not in opened]
        doubtful += [ending.run for ending in final if ending.run.id not in done]
        if doubtful:
            with self.database.reading() as connection:
                found = self._found_rows(connection, doubtful)
            opened |= {run.id for run in opens if run.id not in opened and _is_mine(run, found)}
            for ending in final:
                if ending.run.id not in done:
                    ended |= _accepted(ending, found)
        return Written(opened, ended | retried)

    def _write(self, connection: Connection, opens: Sequence[Run], final: Sequence[Ending]) -> set[str]:
        """Ids of the runs that this statement opened or ended."""
        values: dict[str, Any] = {}
        match len(opens), len(final):
            case 0, 0:
                return set()
            case 1, 0:
                statement, values = writes.OPEN_ONE, writes.open_one(opens[0])
            case 0, 1:
                statement, values = writes.END_ONE, writes.end_one(final[0])
            case _, 0:
                statement, values = writes.OPEN_MANY, {"opens": writes.open_many(opens)}
            case 0, _:
                statement, values = writes.END_MANY, {"endings": writes.end_many(final)}
            case _:
                statement = writes.OPEN_AND_END
                values = {"opens": writes.open_many(opens), "endings": writes.end_many(final)}
        values["grace"] = self._grace
        return {row[0] for row in driver_of(connection).execute(statement, values)}

    def _accept(self, runs: Sequence[Run]) -> set[str]:
        """Ids of the announced runs that became these: of one key the first, and none that another transaction overtook."""
        first: dict[str, Run] = {}
        for run in runs:
            first.setdefault(run.concurrency_key if run.turn else run.id, run)
        document = writes.open_many(list(first.values()))
        try:
            with self.database.reading() as connection:
                values = {"opens": document, "grace": self._grace}
                return {row[0] for row in driver_of(connection).execute(writes.ACCEPT, values)}
        except StoreTakenError:
            return set()

    def by_id(self, run_ids: Collection[str]) -> list[Run]:
        known = [run_id for run_id in run_ids if self.database.may_be_run_id(run_id)]
        with self.database.reading() as connection:
            rows = connection.execute(self._claims.these, {"ids": known}).mappings()
            return self.database.runs_from(rows)

    def _found_rows(self, connection: Connection, runs: Sequence[Run]) -> dict[str, Any]:
        """(id, status, owner, starts, accepted_at, started_at) by id of those of these runs that have a row."""
        ids = {"ids": [run.id for run in runs]}
        return {row[0]: row for row in driver_of(connection).execute(writes.OURS, ids)}

    def _retry(self, connection: Connection, ending: Ending) -> dict[str, RunStatus]:
        run = ending.run
        driver = driver_of(connection)
        fence = {"id": run.id, "owner": run.owner, "starts": run.starts}
        kept = ending.reason if ending.reason in KEEPS_ATTEMPT else None
        again = {
            "job_id": run.job_id,
            "retry_at": ending.retry_at,
            "kept": kept,
            "returned": kept == RETURNED,
            "rests": kept in SUSPENDED,
        }
        moved = driver.execute(writes.RETRY, {**fence, **again})
        if moved.rowcount:
            if kept != RETURNED:
                self.database.keep_attempt(connection, run, ending.error, ending.finished_at, kept)
            if ending.lines:
                self._add_lines(connection, run.id, run.attempt, ending.lines)
            return {run.id: PENDING}
        requested = driver.execute(writes.CANCEL_REQUESTED, fence).fetchone()
        if requested is not None:
            status, reason = refused_retry(ending, cancel_requested=requested[0])
            driver.execute(
                writes.END_ONE, {**writes.end_one(ending), "status": status.value, "reason": reason}
            )
            return {run.id: status}
        found = self._found_rows(connection, [run])
        # The answer to an earlier identical call was lost if the row waits for the start after mine.
        if run.id in found and (found[run.id][1], found[run.id][3]) == (PENDING, run.starts):
            return {run.id: PENDING}
        return _accepted(ending, found)

    def claim(
        self,
        owner: str,
        namespace: str,
        limit: int,
        *,
        unknown: Collection[str] = (),
        run_ids: Collection[str] = (),
    ) -> list[Run]:
        known = [run_id for run_id in run_ids if self.database.may_be_run_id(run_id)]
        if run_ids and not known:
            return []
        wanted = {"owner": owner, "namespace": namespace, "limit": limit, "unknown": list(unknown)}
        query, parameters = self._claims.claim, wanted
        if known:
            query, parameters = self._claims.claim_these, {**wanted, "run_ids": known}
        with self.database.reading() as connection:
            rows = connection.execute(query, parameters).all()
        taken: list[Any] = []
        waiting: dict[str, str] = {}
        for found, turn, key, *values in rows:
            if turn == "waits":
                waiting.setdefault(key, found)
            elif values[0] is not None:
                taken.append(dict(zip(self.tables.runs.c.keys(), values, strict=True)))
        claimed, wrong = self.database.sorted_out(taken)
        self.database.end_unreadable(wrong)
        return claimed + self._claim_waiting(list(waiting.values()), owner)

    def _claim_waiting(self, run_ids: Sequence[str], owner: str) -> list[Run]:
        """Start runs that waited for their key, one by one: somebody else may have the key by now."""
        claimed: list[Run] = []
        for run_id in run_ids:
            try:
                with self.database.reading() as connection:
                    wanted = {"run_id": run_id, "owner": owner}
                    rows = connection.execute(self._claims.claim_waiting, wanted).mappings().all()
                readable, wrong = self.database.sorted_out(rows)
                claimed += readable
                self.database.end_unreadable(wrong)
            except StoreTakenError:
                continue
            except StoreUnavailableError:
                break  # what was started so far is ours, and somebody must execute it
        return claimed


def _is_mine(run: Run, found: dict[str, Any]) -> bool:
    """Return True if an earlier identical call opened it; what is to be executed here must still be ours and running."""
    row = found.get(run.id)
    if row is None or (run.announced and (row[4] is None or (run.owner and row[5] != run.started_at))):
        return False
    return run.owner is None or (row[1], row[2]) == (RUNNING, run.owner)


def _accepted(ending: Ending, found: dict[str, Any]) -> dict[str, RunStatus]:
    """Return True if an earlier identical call closed the row: it still carries this fence, or was closed and purged."""
    run, row = ending.run, found.get(ending.run.id)
    if row is None:
        return {run.id: FAILED if ending.retry_at is not None else ending.status}
    _, status, owner, starts, *_ = row
    mine = (owner, starts) == (run.owner, run.starts) and RunStatus(status).closed
    return {run.id: RunStatus(status)} if mine else {}
