"""The facet `keys`."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from jobmanager.access.keys import ApiKey
from jobmanager.stores.keys import StoredKeys
from jobmanager.stores.sql.database import SqlFacet
from jobmanager.stores.values import AuditEntry


class SqlKeys(SqlFacet, StoredKeys):
    """API keys, by the digests of their secrets."""

    def create(self, key: ApiKey, digest: str, entry: AuditEntry) -> bool:
        with self.database.writing() as connection:
            made = self.database.insert_ignoring(self.tables.keys)
            if not connection.execute(made, {**_values(key), "digest": digest}).rowcount:
                return False
            self.database.note(connection, entry)
            return True

    def all(self, namespace: str) -> list[ApiKey]:
        keys = self.tables.keys
        query = sa.select(keys).where(keys.c.namespace == namespace).order_by(keys.c.id.desc())
        with self.database.reading() as connection:
            return [_key_from(row) for row in connection.execute(query).mappings()]

    def with_digest(self, namespace: str, digest: str) -> ApiKey | None:
        keys = self.tables.keys
        query = sa.select(keys).where(keys.c.digest == digest, keys.c.namespace == namespace)
        with self.database.reading() as connection:
            row = connection.execute(query).mappings().one_or_none()
        if row is None or not hmac.compare_digest(str(row["digest"]), digest):
            return None
        return _key_from(row)

    def revoke(
        self, namespace: str, name: str, *, by: str | None, note: Callable[[ApiKey], AuditEntry]
    ) -> ApiKey | None:
        keys = self.tables.keys
        named = (keys.c.name == name) | (sa.cast(keys.c.id, sa.Text) == name)
        live = keys.c.namespace == namespace, named, keys.c.revoked_at.is_(None)
        with self.database.writing() as connection:
            now = self.database.clock(connection)
            ended = sa.update(keys).where(*live).values(revoked_at=now, revoked_by=by).returning(keys)
            row = connection.execute(ended).mappings().first()
            if row is None:
                return None
            key = _key_from(row)
            self.database.note(connection, note(key))
        return key

    def note_use(self, key_id: str, at: datetime) -> None:
        keys = self.tables.keys
        with self.database.writing() as connection:
            connection.execute(sa.update(keys).where(keys.c.id == key_id).values(last_used_at=at))


def _values(key: ApiKey) -> dict[str, Any]:
    values = {name: getattr(key, name) for name in ApiKey.__slots__}
    values["permissions"] = list(key.permissions)
    values["scopes"] = None if key.scopes is None else list(key.scopes)
    return values


def _key_from(row: sa.RowMapping) -> ApiKey:
    values = {name: row[name] for name in ApiKey.__slots__}
    scopes = values["scopes"]
    return ApiKey(
        **{
            **values,
            "permissions": tuple(row["permissions"]),
            "scopes": None if scopes is None else tuple(scopes),
        }
    )
