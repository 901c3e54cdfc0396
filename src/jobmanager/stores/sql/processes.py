"""The processes: who lives, who died, and what their code declares."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from jobmanager.stores.facets import StoredProcesses
from jobmanager.stores.sql.database import SqlFacet
from jobmanager.stores.sql.rows import (
    instance_from,
)
from jobmanager.stores.values import Instance


class SqlProcesses(SqlFacet, StoredProcesses):
    """Heartbeats and burials."""

    def register(
        self, instance: Instance, declares: Collection[str] = (), handlers: Collection[str] = ()
    ) -> None:
        job_ids, keys = sorted(declares), sorted(handlers)
        names = "\n".join([*job_ids, "", *keys])
        digest = hashlib.sha256(names.encode()).hexdigest() if job_ids or keys else None
        with self.database.writing() as connection:
            if digest is not None:
                connection.execute(
                    self.database.insert_ignoring(self.tables.declarations),
                    {"digest": digest, "job_ids": job_ids, "handlers": keys},
                )
            table = self.tables.instances
            connection.execute(
                self.database.insert_ignoring(table), asdict(replace(instance, declares=digest))
            )
            now = {"declares": digest, "executes": instance.executes, "backend": instance.backend}
            connection.execute(sa.update(table).where(table.c.id == instance.id).values(**now))

    def declared_by_living(self, namespace: str) -> set[str]:
        return self._of_living(namespace, self.tables.declarations.c.job_ids)

    def handlers_of_living(self, namespace: str) -> set[str]:
        return self._of_living(namespace, self.tables.declarations.c.handlers)

    def _of_living(self, namespace: str, column: sa.Column[Any]) -> set[str]:
        instances, declarations = self.tables.instances, self.tables.declarations
        living = sa.select(column).where(
            declarations.c.digest.in_(
                sa.select(instances.c.declares).where(
                    instances.c.namespace == namespace, instances.c.dead_at.is_(None)
                )
            )
        )
        with self.database.reading() as connection:
            return {name for names in connection.scalars(living) for name in names}

    def beat(
        self,
        instance_id: str,
        *,
        last_tick_at: datetime | None = None,
        lag_seconds: float | None = None,
        lives_since: datetime | None = None,
    ) -> bool:
        table = self.tables.instances
        signs: dict[str, Any] = {"last_tick_at": last_tick_at, "lag_seconds": lag_seconds}
        if lives_since is not None:
            signs["started_at"] = lives_since
        with self.database.writing() as connection:
            moved = connection.execute(
                sa.update(table)
                .where(table.c.id == instance_id, table.c.dead_at.is_(None))
                .values(beats=table.c.beats + 1, seen_at=self.database.clock(connection), **signs)
            )
            return bool(moved.rowcount)

    def mark_dead(self, instance: Instance) -> bool:
        table = self.tables.instances
        silent = (table.c.id == instance.id) & (table.c.beats == instance.beats) & table.c.dead_at.is_(None)
        with self.database.writing() as connection:
            return bool(
                connection.execute(
                    sa.update(table).where(silent).values(dead_at=self.database.clock(connection))
                ).rowcount
            )

    def deregister(self, instance_id: str) -> None:
        table = self.tables.instances
        with self.database.writing() as connection:
            connection.execute(
                sa.update(table)
                .where(table.c.id == instance_id, table.c.dead_at.is_(None))
                .values(dead_at=self.database.clock(connection))
            )

    def acquire_role(self, role: str, instance_id: str) -> bool:
        roles, instances = self.tables.roles, self.tables.instances
        living = sa.select(instances.c.id).where(
            instances.c.id == roles.c.owner, instances.c.dead_at.is_(None)
        )
        mine = (roles.c.owner == instance_id) | ~living.exists()
        with self.database.writing() as connection:
            connection.execute(self.database.insert_ignoring(roles), {"name": role, "owner": instance_id})
            taken = sa.update(roles).where(roles.c.name == role, mine).values(owner=instance_id)
            return bool(connection.execute(taken).rowcount)

    def living(self) -> list[Instance]:
        table = self.tables.instances
        with self.database.reading() as connection:
            rows = connection.execute(
                sa.select(table).where(table.c.dead_at.is_(None)).order_by(table.c.started_at)
            )
            return self.database.readable(rows.mappings(), instance_from, "process", "id")

    def keeper(self, namespace: str) -> str | None:
        keepers = self.tables.keepers
        with self.database.reading() as connection:
            query = sa.select(keepers.c.backend).where(keepers.c.namespace == namespace)
            found: str | None = connection.scalar(query)
            return found

    def keep_time(self, namespace: str, backend: str, *, even_if_alive: bool) -> str | None:
        keepers, instances = self.tables.keepers, self.tables.instances
        before = self.keeper(namespace)
        if before == backend:
            return before
        with self.database.writing() as connection:
            now = self.database.clock(connection)
            row = {"namespace": namespace, "backend": backend, "since": now}
            connection.execute(self.database.insert_ignoring(keepers), row)
            change = sa.update(keepers).where(keepers.c.namespace == namespace, keepers.c.backend != backend)
            if not even_if_alive:
                living = sa.select(instances.c.id).where(
                    instances.c.namespace == namespace,
                    instances.c.backend == keepers.c.backend,
                    instances.c.dead_at.is_(None),
                )
                change = change.where(~living.exists())
            connection.execute(change.values(backend=backend, since=now))
        return before
