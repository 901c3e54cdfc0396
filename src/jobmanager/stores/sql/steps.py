"""The facet `steps`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from jobmanager.run import RUNNING
from jobmanager.step import Step
from jobmanager.stores.sql.database import Connection, SqlFacet
from jobmanager.stores.sql.rows import failure_from, failure_values
from jobmanager.stores.steps import StepBook, StepWrite

KEY = ("run_id", "name", "occurrence")
CHANGED = ("status", "attempt", "output", "error", "ended_at", "wakes_at")


class SqlStepBook(SqlFacet, StepBook):
    """Steps beside the runs; a write is refused unless the start that makes it still is the run's."""

    def record(self, writes: Sequence[StepWrite]) -> list[bool]:
        with self.database.writing() as connection:
            ours = self._running(connection, {write.run.id for write in writes})
            taken = [ours.get(write.run.id) == (write.run.owner, write.run.starts) for write in writes]
            valid = [write for write, is_ours in zip(writes, taken, strict=True) if is_ours]
            self._insert(connection, [write.step for write in valid if not write.known])
            self._update(connection, [write.step for write in valid if write.known])
        return taken

    def _running(self, connection: Connection, run_ids: Collection[str]) -> dict[str, tuple[str | None, int]]:
        """Return owner and start of the runs that are running, which nobody takes over before the transaction ends."""
        c = self.tables.runs.c
        query = sa.select(c.id, c.owner, c.starts).where(c.id.in_(sorted(run_ids)), c.status == RUNNING)
        rows = connection.execute(self.database.locked(query.order_by(c.id)))
        return {run_id: (owner, starts) for run_id, owner, starts in rows}

    def _insert(self, connection: Connection, steps: Sequence[Step]) -> None:
        if steps:
            connection.execute(
                self.database.insert_ignoring(self.tables.run_steps), list(map(_values, steps))
            )

    def _update(self, connection: Connection, steps: Sequence[Step]) -> None:
        table = self.tables.run_steps
        for step in steps:
            values = _values(step)
            here = sa.and_(*(table.c[name] == values[name] for name in KEY))
            connection.execute(sa.update(table).where(here).values({name: values[name] for name in CHANGED}))

    def of(self, run_id: str) -> list[Step]:
        if not self.database.may_be_run_id(run_id):
            return []
        table = self.tables.run_steps
        query = sa.select(table).where(table.c.run_id == run_id)
        order = table.c.started_at, table.c.name, table.c.occurrence
        with self.database.reading() as connection:
            return [_step_from(row) for row in connection.execute(query.order_by(*order)).mappings()]

    def forget(self, run_id: str) -> int:
        table, runs = self.tables.run_steps, self.tables.runs
        running = sa.exists().where(runs.c.id == run_id, runs.c.status == RUNNING)
        gone = sa.delete(table).where(table.c.run_id == run_id, ~running)
        with self.database.writing() as connection:
            return int(connection.execute(gone).rowcount)


def _values(step: Step) -> dict[str, Any]:
    return {
        "run_id": step.run_id,
        "name": step.name,
        "occurrence": step.occurrence,
        "kind": step.kind,
        "status": step.status,
        "attempt": step.attempt,
        "output": step.output,
        "error": failure_values(step.error),
        "started_at": step.started_at,
        "ended_at": step.ended_at,
        "wakes_at": step.wakes_at,
    }


def _step_from(row: Mapping[Any, Any]) -> Step:
    return Step(**{**dict(row), "error": failure_from(row["error"])})
