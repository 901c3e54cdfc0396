"""Changes of the tables from version to version: one Alembic revision each, in `versions`, with a version table of their own.

An application's own Alembic tree is left alone; `include_object` makes it leave ours alone too. On SQLite it warns that it cannot
reflect the index `jobmanager_runs_scope`, which is harmless.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlalchemy as sa
    from alembic.config import Config

VERSION_TABLE = "jobmanager_alembic"
SCHEMA = "jobmanager"
PREFIX = "jobmanager_"
FOLDER = Path(__file__).parent
FUNCTIONS = ("functions_1.sql", "functions_2.sql")
"""The functions of today, that a new database on PostgreSQL gets."""


def upgrade(connection: sa.Connection) -> None:
    """Bring the tables to the newest version, inside the transaction the connection is in."""
    from alembic import command  # noqa: PLC0415 - seldom needed, and slow to load

    if not connection.in_transaction():
        connection.begin()  # or Alembic would begin and commit one of its own
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def as_sql(dialect: str, since: str | None) -> str:
    """Return the statements from version `since` (None: from nothing) to the newest one, for `sqlite` or `postgresql`."""
    from alembic import command  # noqa: PLC0415

    text = io.StringIO()
    config = _config(output_buffer=text)
    config.attributes["dialect"] = dialect
    command.upgrade(config, f"{since}:head" if since else "head", sql=True)
    return text.getvalue()


def functions(*scripts: str) -> list[str]:
    """Return the statements of the scripts that make functions; without any, of all of today's."""
    texts = [(Path(__file__).parent / script).read_text(encoding="utf-8") for script in scripts or FUNCTIONS]
    return [statement for text in texts for statement in text.split("\n-- next\n")]


def include_object(item: Any, _name: str | None, kind: str, *_rest: object) -> bool:
    """Return False for what is ours: `context.configure(include_object=include_object)` in the env.py of an application."""
    table = item if kind == "table" else getattr(item, "table", None)
    return table is None or not (table.schema == SCHEMA or str(table.name).startswith(PREFIX))


def _config(output_buffer: io.StringIO | None = None) -> Config:
    from alembic.config import Config  # noqa: PLC0415

    config = Config() if output_buffer is None else Config(output_buffer=output_buffer)
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
