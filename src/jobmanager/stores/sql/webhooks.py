"""The facet `webhooks`: webhooks that operators make."""

from __future__ import annotations

from dataclasses import asdict, replace

import sqlalchemy as sa

from jobmanager.stores.sql.database import Connection, SqlFacet
from jobmanager.stores.values import AuditEntry
from jobmanager.stores.webhooks import StoredWebhooks, WebhookRow


class SqlWebhooks(SqlFacet, StoredWebhooks):
    """One row for each webhook that was ever made, under its namespace and key."""

    def rows(self, namespace: str, *, changed_since: int = -1) -> list[WebhookRow]:
        c = self.tables.webhooks.c
        query = sa.select(self.tables.webhooks).where(c.namespace == namespace, c.change_seq > changed_since)
        with self.database.reading() as connection:
            found = connection.execute(query.order_by(c.key)).mappings()
            return [WebhookRow(**row) for row in found]

    def get(self, namespace: str, key: str) -> WebhookRow | None:
        with self.database.reading() as connection:
            row = self._find(connection, self._one(namespace, key))
        return None if row is None or row.deleted else row

    def put(self, row: WebhookRow, entry: AuditEntry) -> bool:
        table = self.tables.webhooks
        with self.database.writing() as connection:
            query = self.database.locked(self._one(row.namespace, row.key))
            there = self._find(connection, query)
            if there is None and row.rev == 1:
                made = connection.execute(self.database.insert_ignoring(table), asdict(row))
                if made.rowcount != 1:  # another process made it just now
                    return False
            elif there is not None and there.deleted and row.rev == 1:
                row = replace(row, rev=there.rev + 1)
            elif there is None or there.deleted or there.rev + 1 != row.rev:
                return False
            row = replace(row, change_seq=self.database.next_change(connection))
            here = (table.c.namespace == row.namespace, table.c.key == row.key)
            connection.execute(sa.update(table).where(*here).values(**asdict(row)))
            self.database.note(connection, replace(entry, rev=row.rev))
        return True

    def _one(self, namespace: str, key: str) -> sa.Select[tuple[object, ...]]:
        c = self.tables.webhooks.c
        return sa.select(self.tables.webhooks).where(c.namespace == namespace, c.key == key)

    def _find(self, connection: Connection, query: sa.Select[tuple[object, ...]]) -> WebhookRow | None:
        row = connection.execute(query).mappings().one_or_none()
        return None if row is None else WebhookRow(**row)
