"""Steps on SQLite: one statement keeps any number of them, under the one write lock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobmanager.run import Run
from jobmanager.step import Step
from jobmanager.stores.sql.rows import encode
from jobmanager.stores.sql.sqlite_database import SqliteDatabase, driver_of
from jobmanager.stores.sql.steps import (
    CHANGED,
    COLUMNS,
    ORDER,
    UNFINISHED,
    SqlStepBook,
    by_run,
    step_from,
    step_row,
)
from jobmanager.stores.sql.tables import micros, moment
from jobmanager.stores.sql.unreadable import json_from
from jobmanager.stores.steps import StepWrite

FENCE = "r.id = ? AND r.owner = ? AND r.starts = ? AND r.status = 'running'"
KEEP = f"""INSERT INTO jobmanager_run_steps AS s ({", ".join(COLUMNS)}) SELECT {", ".join("?" * len(COLUMNS))}
 FROM jobmanager_runs r WHERE {FENCE}
 ON CONFLICT DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in CHANGED)} WHERE {UNFINISHED}"""  # noqa: S608
OURS = f"SELECT 1 FROM jobmanager_runs r WHERE {FENCE}"  # noqa: S608 - constants only

OF = f"""SELECT {", ".join(COLUMNS)} FROM jobmanager_run_steps
 WHERE run_id IN (SELECT value FROM json_each(?)) ORDER BY {ORDER}"""  # noqa: S608


class SqliteSteps(SqlStepBook):
    """A batch is one transaction under the write lock; a step alone is one statement, which commits itself."""

    database: SqliteDatabase

    def record(self, writes: Sequence[StepWrite]) -> list[bool]:
        rows = [(*_row(write), *_fence(write.run)) for write in writes]
        if len(rows) == 1:
            with self.database.committing() as connection:
                if driver_of(connection).execute(KEEP, rows[0]).rowcount == 1:
                    return [True]
        with self.database.writing() as connection:
            driver = driver_of(connection)
            if driver.executemany(KEEP, rows).rowcount == len(writes):
                return [True] * len(writes)
            # Another start has the run, or the step is there already.
            return [driver.execute(OURS, _fence(write.run)).fetchone() is not None for write in writes]

    def of_runs(self, run_ids: Sequence[str]) -> list[list[Step]]:
        with self.database.reading() as connection:
            rows = driver_of(connection).execute(OF, (encode(run_ids),)).fetchall()
        return by_run(run_ids, [step_from(row, moment, json_from) for row in rows])


def _row(write: StepWrite) -> list[Any]:
    row = step_row(write.step, micros)
    row[OUTPUT], row[ERROR] = encode(row[OUTPUT]), encode(row[ERROR])
    return row


OUTPUT, ERROR = (tuple(COLUMNS).index(name) for name in ("output", "error"))


def _fence(run: Run) -> tuple[str, str | None, int]:
    return run.id, run.owner, run.starts
