"""The facet `requests`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from jobmanager.stores.requests import KeptRequest, RequestBook
from jobmanager.stores.sql.database import SqlFacet

CHUNK = 2000  # rows in one transaction, as for runs


class SqlRequestBook(SqlFacet, RequestBook):
    """Gives keys to turns, and keeps responses."""

    def begin(
        self, key: str, turn: str, digest: str, *, keep: timedelta, cut: timedelta
    ) -> KeptRequest | None:
        table = self.tables.requests
        with self.database.writing() as connection:
            now = self.database.clock(connection)
            mine = {"turn": turn, "digest": digest, "begun_at": now, "response": None}
            if connection.execute(self.database.insert_ignoring(table), {"key": key, **mine}).rowcount:
                return None
            here = table.c.key == key
            there = connection.execute(self.database.locked(sa.select(table).where(here))).mappings().one()
            age = now - there["begun_at"]
            if age <= (cut if there["response"] is None else keep):
                return KeptRequest(digest=there["digest"], age=age, response=there["response"])
            connection.execute(sa.update(table).where(here).values(**mine))
            return None

    def finish(self, key: str, turn: str, response: Mapping[str, Any]) -> bool:
        kept = sa.update(self.tables.requests).where(self._of(key, turn)).values(response=dict(response))
        with self.database.writing() as connection:
            return bool(connection.execute(kept).rowcount)

    def give_up(self, key: str, turn: str) -> None:
        with self.database.writing() as connection:
            connection.execute(sa.delete(self.tables.requests).where(self._of(key, turn)))

    def _of(self, key: str, turn: str) -> sa.ColumnElement[bool]:
        c = self.tables.requests.c
        return (c.key == key) & (c.turn == turn)

    def purge(self, age: timedelta) -> int:
        c = self.tables.requests.c
        deleted = 0
        while True:
            with self.database.writing() as connection:
                old = c.begun_at < self.database.clock(connection) - age
                found = sa.select(c.key).where(old).order_by(c.begun_at).limit(CHUNK)
                keys = connection.execute(found).scalars().all()
                connection.execute(sa.delete(self.tables.requests).where(c.key.in_(keys)))
            deleted += len(keys)
            if len(keys) < CHUNK:
                return deleted
