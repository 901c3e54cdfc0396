"""Executed by Alembic: on the connection that `upgrade` gives it, or as text that `as_sql` collects."""

from __future__ import annotations

from alembic import context

from jobmanager.stores.sql.migrations import SCHEMA, VERSION_TABLE

connection = context.config.attributes.get("connection")
dialect = context.config.attributes["dialect"] if connection is None else connection.dialect.name
schema = SCHEMA if dialect == "postgresql" else None

if connection is None:
    context.configure(
        dialect_name=dialect, literal_binds=True, version_table=VERSION_TABLE, version_table_schema=schema
    )
else:
    context.configure(connection=connection, version_table=VERSION_TABLE, version_table_schema=schema)

with context.begin_transaction():
    if schema and connection is None:
        context.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    context.run_migrations()
