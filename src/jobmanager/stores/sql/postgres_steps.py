"""Steps on PostgreSQL: one statement is one durable transaction, which keeps any number of them and says which."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from jobmanager.step import Step
from jobmanager.stores.sql.postgres_json import to_json
from jobmanager.stores.sql.postgres_link import driver_of
from jobmanager.stores.sql.postgres_writes import many
from jobmanager.stores.sql.rows import encode
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
from jobmanager.stores.sql.tables import micros
from jobmanager.stores.steps import StepWrite

GIVEN = {"place": "int", "owner": "text", "starts": "int", **COLUMNS}
# The run is locked until the commit: who takes it over waits for what is kept, or we are refused.
KEEP = f"""WITH v AS ({many(GIVEN, "steps")}),
 ours AS (SELECT v.place FROM v JOIN jobmanager.runs r ON r.id = v.run_id AND r.owner = v.owner AND r.starts = v.starts
   WHERE r.status = 'running' ORDER BY r.id FOR NO KEY UPDATE OF r),
 kept AS (INSERT INTO jobmanager.run_steps AS s ({", ".join(COLUMNS)})
   SELECT {", ".join(f"v.{name}" for name in COLUMNS)} FROM v JOIN ours USING (place)
   ON CONFLICT (run_id, name, occurrence) DO UPDATE
     SET {", ".join(f"{name} = excluded.{name}" for name in CHANGED)} WHERE {UNFINISHED})
SELECT place FROM ours"""  # noqa: S608 - constants only

# A step alone, as parameters: there is no document to make, nor one to take apart.
KEEP_ONE = f"""INSERT INTO jobmanager.run_steps AS s ({", ".join(COLUMNS)})
 SELECT {", ".join(f"%s::{kind}" for kind in COLUMNS.values())} FROM jobmanager.runs r
 WHERE r.id = %s AND r.owner = %s AND r.starts = %s AND r.status || '' = 'running' FOR NO KEY UPDATE
 ON CONFLICT (run_id, name, occurrence) DO UPDATE
   SET {", ".join(f"{name} = excluded.{name}" for name in CHANGED)} WHERE {UNFINISHED}"""  # noqa: S608

OF = f"""SELECT run_id::text, {", ".join(tuple(COLUMNS)[1:])} FROM jobmanager.run_steps
 WHERE run_id = ANY(%s::uuid[]) ORDER BY {ORDER}"""  # noqa: S608


class PostgresSteps(SqlStepBook):
    """A batch is one statement, committed when it is answered."""

    def record(self, writes: Sequence[StepWrite]) -> list[bool]:
        if len(writes) == 1 and self._record_one(writes[0]):
            return [True]
        rows = [
            (place, write.run.owner, write.run.starts, *step_row(write.step, micros))
            for place, write in enumerate(writes)
        ]
        document = to_json([dict(zip(GIVEN, row, strict=True)) for row in rows])
        with self.database.reading() as connection:  # one statement needs no transaction around it
            taken = {row[0] for row in driver_of(connection).execute(KEEP, {"steps": document})}
        return [place in taken for place in range(len(writes))]

    def _record_one(self, write: StepWrite) -> bool:
        """Keep the step; False if the run is another start's, or the step is done already."""
        run, row = write.run, step_row(write.step, _as_it_is)
        row[OUTPUT], row[ERROR] = encode(row[OUTPUT]), encode(row[ERROR])
        with self.database.reading() as connection:
            kept = driver_of(connection).execute(KEEP_ONE, (*row, run.id, run.owner, run.starts))
        return kept.rowcount == 1

    def of_runs(self, run_ids: Sequence[str]) -> list[list[Step]]:
        known = list(filter(self.database.may_be_run_id, run_ids))
        if not known:
            return [[] for _ in run_ids]
        with self.database.reading() as connection:
            rows = connection.exec_driver_sql(OF, (known,)).fetchall()
        return by_run(run_ids, [step_from(row, _in_utc, _as_it_is) for row in rows])


OUTPUT, ERROR = (tuple(COLUMNS).index(name) for name in ("output", "error"))


def _in_utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(UTC)


def _as_it_is(document: Any) -> Any:
    return document
