"""The version of the tables: an empty database gets today's, SQLite's follow by themselves, PostgreSQL's when told to.

The statements of a change are in `migrations`; Alembic is loaded only when there is one to make.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.mock import MockConnection

from jobmanager.errors import SchemaError
from jobmanager.stores.sql import migrations
from jobmanager.stores.sql.database import Connection, Database
from jobmanager.stores.sql.tables import SCHEMA_VERSION

__all__ = ["SCHEMA_VERSION", "VERSION_TABLE", "Schema"]

VERSION_TABLE = migrations.VERSION_TABLE


class Schema:
    """The tables of a database: made, compared and brought up to date. Any number of processes may try at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.name = database.tables.metadata.schema
        """The namespace of the tables, where the database has such."""

    def exists(self) -> bool:
        """Return True if the tables are there; never creates anything."""
        with self._database.reading() as connection:
            return sa.inspect(connection).has_table(VERSION_TABLE, schema=self.name)

    def version(self) -> str | None:
        """Return the version of the tables; None if there are none."""
        with self._database.reading() as connection:
            return self._version(connection)

    def _version(self, connection: Connection) -> str | None:
        if not sa.inspect(connection).has_table(VERSION_TABLE, schema=self.name):
            return None
        found: str | None = connection.scalar(sa.select(self._versions.c.version_num))
        return found

    @property
    def _versions(self) -> sa.Table:
        # As Alembic makes it.
        number = sa.Column("version_num", sa.String(32), nullable=False)
        key = sa.PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc")
        return sa.Table(VERSION_TABLE, sa.MetaData(schema=self.name), number, key)

    def is_current(self) -> bool:
        """Return True if the tables are today's."""
        return self.version() == SCHEMA_VERSION

    def install(self) -> None:
        """Create what is missing in an empty database; twice is once. SchemaError if the tables are of another version."""
        with self._database.changing_tables() as connection:
            found = self._version(connection)  # somebody else may have been faster
            if found is None:
                self._create(connection)
            elif found > SCHEMA_VERSION:
                raise SchemaError(self._too_new(found))
            elif found < SCHEMA_VERSION and not self._database.upgrades_itself:
                raise SchemaError(
                    f"{self._database.url} has tables of version {found}, this jobmanager needs {SCHEMA_VERSION}. "
                    "Stop the processes that use it and run `jobmanager db upgrade`."
                )
            elif found < SCHEMA_VERSION:
                migrations.upgrade(connection)

    def upgrade(self) -> str | None:
        """Bring the tables to today's version; return the one before, None if there were none. SchemaError if they are newer."""
        with self._database.changing_tables() as connection:
            found = self._version(connection)
            if found is not None and found > SCHEMA_VERSION:
                raise SchemaError(self._too_new(found))
            if found is None:
                self._create(connection)
            elif found < SCHEMA_VERSION:
                migrations.upgrade(connection)
            return found

    def upgrade_sql(self, since: str | None) -> str:
        """Return what leads from version `since` (None: from nothing) to today's, as SQL for a role with more rights."""
        return migrations.as_sql("postgresql" if self.name else "sqlite", since)

    def _create(self, connection: Connection) -> None:
        if self.name and not sa.inspect(connection).has_schema(self.name):
            connection.execute(sa.schema.CreateSchema(self.name))
        self._create_tables(connection)
        for statement in migrations.functions() if self.name else ():
            connection.execute(sa.text(statement))
        self._versions.create(connection)
        connection.execute(sa.insert(self._database.tables.meta).values(id=1))
        connection.execute(sa.insert(self._versions).values(version_num=SCHEMA_VERSION))

    def _create_tables(self, connection: Connection) -> None:
        """Create all tables by statements that were written once in this process, or the missing ones where there are some."""
        metadata = self._database.tables.metadata
        if set(sa.inspect(connection).get_table_names(schema=self.name)) & set(self._names):
            metadata.create_all(connection)
            return
        for statement in _creations(metadata, connection.dialect):
            connection.exec_driver_sql(statement)

    def _too_new(self, found: str) -> str:
        return (
            f"{self._database.url} has tables of version {found}, this jobmanager knows {SCHEMA_VERSION}. "
            "Install the newer jobmanager-backends (pip install --upgrade jobmanager-backends), or use another database."
        )

    def differences(self) -> list[str]:
        """Return what of today's tables is missing, as sentences; empty if all is there."""
        with self._database.reading() as connection:
            inspector = sa.inspect(connection)
            there = set(inspector.get_table_names(schema=self.name))
            missing = [f"table {name} is missing" for name in self._names if name not in there]
            for table in self._database.tables.metadata.sorted_tables:
                if table.name in there:
                    missing += _missing_parts(
                        inspector, table, self._indexes_of(connection, inspector, table)
                    )
        return missing

    def _indexes_of(self, connection: Connection, inspector: sa.Inspector, table: sa.Table) -> list[Any]:
        """Return the indexes of a table; SQLAlchemy leaves out those of expressions on SQLite, with a warning."""
        if self.name:
            return list(inspector.get_indexes(table.name, self.name))
        listed = sa.text("SELECT name FROM pragma_index_list(:name)")
        return list(connection.execute(listed, {"name": table.name}).mappings())

    @property
    def _names(self) -> list[str]:
        return sorted(
            [*(table.name for table in self._database.tables.metadata.sorted_tables), VERSION_TABLE]
        )


_CREATIONS: dict[tuple[sa.MetaData, str, object], list[str]] = {}
"""The statements that create the tables, by the dialect and the version of its database."""


def _creations(metadata: sa.MetaData, dialect: sa.Dialect) -> list[str]:
    """Return the statements that create all tables: writing them takes longer than SQLite takes to carry them out."""
    meant_for = (metadata, dialect.name, dialect.server_version_info)
    if meant_for not in _CREATIONS:
        statements: list[str] = []

        def note(creation: sa.schema.ExecutableDDLElement, *_: object, **__: object) -> None:
            statements.append(str(creation.compile(dialect=dialect)))

        metadata.create_all(MockConnection(dialect, note), checkfirst=False)
        _CREATIONS[meant_for] = statements
    return _CREATIONS[meant_for]


def _missing_parts(inspector: sa.Inspector, table: sa.Table, indexes: Iterable[Any]) -> list[str]:
    name, schema = table.name, table.schema
    checks = [c for c in table.constraints if isinstance(c, sa.CheckConstraint)]
    parts: tuple[tuple[str, Iterable[Any], Iterable[Any]], ...] = (
        ("column", table.columns, inspector.get_columns(name, schema)),
        ("index", table.indexes, indexes),
        ("check", checks, inspector.get_check_constraints(name, schema)),
    )
    return [
        f"{kind} {part} of table {name} is missing"
        for kind, wanted, found in parts
        for part in sorted({str(item.name) for item in wanted} - {item["name"] for item in found})
    ]
