"""The facet `once`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from jobmanager.run import RUNNING, Run
from jobmanager.stores.once import OnceBook, Turn
from jobmanager.stores.sql.database import Connection, SqlFacet

CHUNK = 2000  # rows in one transaction, as for runs


class SqlOnceBook(SqlFacet, OnceBook):
    """Gives turns, and keeps results. A turn is fenced as a run is: by its id and the number of its start."""

    def begin(self, run: Run, key: str) -> Turn:
        table = self.tables.once
        with self.database.writing() as connection:
            mine = {"run_id": run.id, "starts": run.starts, "begun_at": self.database.clock(connection)}
            row = {"job_id": run.job_id, "key": key, **mine}
            if connection.execute(self.database.insert_ignoring(table), row).rowcount:
                return Turn(state="ours", run_id=run.id)
            here = (table.c.job_id == run.job_id) & (table.c.key == key)
            there = connection.execute(self.database.locked(sa.select(table).where(here))).mappings().one()
            if there["done_at"] is not None:
                return Turn(state="done", run_id=there["run_id"], output=there["output"])
            if self._is_at_it(connection, there["run_id"], there["starts"]):
                return Turn(state="busy", run_id=there["run_id"])
            connection.execute(sa.update(table).where(here).values(**mine))
            return Turn(state="ours", run_id=run.id)

    def _is_at_it(self, connection: Connection, run_id: str, starts: int) -> bool:
        c = self.tables.runs.c
        running = sa.select(c.id).where(c.id == run_id, c.status == RUNNING, c.starts == starts)
        return connection.execute(running).first() is not None

    def finish(self, run: Run, key: str, output: Any) -> bool:
        with self.database.writing() as connection:
            done = sa.update(self.tables.once).where(self._turn_of(run, key))
            values = {"done_at": self.database.clock(connection), "output": output}
            return bool(connection.execute(done.values(**values)).rowcount)

    def give_up(self, run: Run, key: str) -> None:
        with self.database.writing() as connection:
            connection.execute(sa.delete(self.tables.once).where(self._turn_of(run, key)))

    def _turn_of(self, run: Run, key: str) -> sa.ColumnElement[bool]:
        c = self.tables.once.c
        turn = (c.job_id == run.job_id) & (c.key == key) & (c.run_id == run.id)
        return turn & (c.starts == run.starts) & c.done_at.is_(None)

    def purge(self, before: datetime) -> int:
        table = self.tables.once
        c = table.c
        old = sa.select(c.job_id, c.key).where(c.begun_at < before).order_by(c.begun_at).limit(CHUNK)
        deleted = 0
        while True:
            with self.database.writing() as connection:
                found = connection.execute(old).all()
                for job_id, key in found:
                    connection.execute(sa.delete(table).where(c.job_id == job_id, c.key == key))
            deleted += len(found)
            if len(found) < CHUNK:
                return deleted
