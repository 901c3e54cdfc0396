"""Steps on PostgreSQL: one statement is one durable transaction, which keeps any number of them and says which."""

from __future__ import annotations

from collections.abc import Sequence

from jobmanager.stores.sql.postgres_json import to_json
from jobmanager.stores.sql.postgres_link import driver_of
from jobmanager.stores.sql.postgres_writes import many
from jobmanager.stores.sql.steps import CHANGED, COLUMNS, UNFINISHED, SqlStepBook, step_row
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


class PostgresSteps(SqlStepBook):
    """A batch is one statement, committed when it is answered."""

    def record(self, writes: Sequence[StepWrite]) -> list[bool]:
        rows = [
            (place, write.run.owner, write.run.starts, *step_row(write.step, micros))
            for place, write in enumerate(writes)
        ]
        document = to_json([dict(zip(GIVEN, row, strict=True)) for row in rows])
        with self.database.reading() as connection:  # one statement needs no transaction around it
            taken = {row[0] for row in driver_of(connection).execute(KEEP, {"steps": document})}
        return [place in taken for place in range(len(writes))]
