"""Who may meet the database of pg_cron: its owner, an application with the rights of `objects.grants`, a neighbour, and anybody."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from tests.servers import PgCron

from jobmanager import Settings
from jobmanager.backends.pg_cron import schema as objects
from jobmanager.clock import SystemClock
from jobmanager.stores import store_for

OWNER, APPLICATION, NEIGHBOUR, ANYBODY = "jm_owner", "jm_application", "jm_neighbour", "jm_anybody"
ROLES = (OWNER, APPLICATION, NEIGHBOUR, ANYBODY)

# Entries are kept and never run: nothing but the test moves the time.
QUIET = {"cron.use_background_workers": "off", "cron.host": "/nowhere"}

# The neighbour keeps entries of its own and can name what is ours: what stops it are the rights of each object.
MAKE_ROLES = f"""
CREATE ROLE {OWNER} LOGIN; CREATE ROLE {APPLICATION} LOGIN; CREATE ROLE {NEIGHBOUR} LOGIN; CREATE ROLE {ANYBODY} LOGIN;
GRANT USAGE ON SCHEMA cron TO {OWNER}, {NEIGHBOUR};
DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO {OWNER}', current_database()); END $$;
"""

Connection = psycopg.Connection[Any]


def url_of(url: str, role: str) -> str:
    """The same database for another role."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{role}@{parts.hostname}:{parts.port}"))


@contextmanager
def session(url: str, role: str | None = None) -> Iterator[Connection]:
    """A connection of this role that commits each statement; without one, of a superuser."""
    with psycopg.connect(url_of(url, role) if role else url, autocommit=True) as connection:
        yield connection


def install(url: str, role: str = OWNER) -> None:
    """The tables of the store and the objects of the backend, made by this role."""
    store = store_for(Settings(database_url=url_of(url, role)), SystemClock())
    store.install()
    store.close()
    with session(url, role) as connection, connection.transaction():
        objects.install(connection)


def owned(server: PgCron) -> str:
    """The database of pg_cron as new, with all four roles and everything installed; its URL for a superuser."""
    server.clear()
    with session(server.url) as connection:
        connection.execute(MAKE_ROLES)
    install(server.url)
    with session(server.url, OWNER) as connection:
        connection.execute(objects.grants(APPLICATION))
        connection.execute(f"GRANT USAGE ON SCHEMA jobmanager TO {NEIGHBOUR}")
    return server.url
