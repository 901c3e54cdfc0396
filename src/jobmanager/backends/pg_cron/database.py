"""How this backend reaches its database: a connection for each thing it does, and errors that say what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from jobmanager.errors import ConfigurationError, StoreUnavailableError
from jobmanager.settings import percent_encoded, shown_url
from jobmanager.stores.sql.postgres_deadline import BoundedConnection

Connection = psycopg.Connection[Any]

POOLER_WORDS = re.compile(r"[?&](jobmanager_pooler|jobmanager_deadline|pgbouncer)=[^&]*")
LIMIT, LONG = 30, 300
"""Seconds for one statement in a transaction, by the server's clock: usually, and where plans and entries of all jobs are made."""
MARGIN = 5.0
"""Seconds that a server which lives has to say so; then the connection counts as silent."""
PINNED = "SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL datestyle = 'ISO'"
TEMPORARY = (psycopg.OperationalError, psycopg.InterfaceError)


def is_here(host: str) -> bool:
    """Return whether the host is this machine, by name, loopback or socket, or known to its network alone."""
    return re.fullmatch(r"localhost|::1|0\.0\.0\.0|127[.\d]+|.+\.local|/.*|", host) is not None


class PgCronDatabase:
    """One database by its URL. Nothing is kept open; any thread may use it."""

    def __init__(self, url: str) -> None:
        plain = POOLER_WORDS.sub("", url.replace("postgresql+psycopg://", "postgresql://", 1))
        self._url = percent_encoded(plain if "?" in plain else plain.replace("&", "?", 1))
        self.shown = shown_url(self._url)

    def connect(
        self, *, patience: int = 5, deadline: float = LIMIT + MARGIN, name: str = "jobmanager"
    ) -> Connection:
        """Return a connection in autocommit mode that works behind a pooler, too; it is closed after a silence of `deadline` seconds.

        Whatever is executed on it outside of `pinned` must name the schema of all it uses.
        """
        with self.translated_errors():
            connection = BoundedConnection.connect(
                self._url,
                autocommit=True,
                connect_timeout=patience,
                prepare_threshold=None,
                application_name=name,
            )
        connection.deadline = deadline
        return connection

    @contextmanager
    def pinned(self, connection: Connection, *, limit: int | None = None) -> Iterator[Connection]:
        """Open a transaction in which nothing that a role planted in `public` is found and times are as the driver reads them.

        With `limit` no statement in it takes longer than so many seconds.
        """
        settings = PINNED if limit is None else f"{PINNED}; SET LOCAL statement_timeout = '{limit:d}s'"
        with connection.transaction():
            connection.execute(settings.encode())
            yield connection

    @contextmanager
    def transaction(self, *, limit: int = LIMIT) -> Iterator[Connection]:
        """Open a transaction on a connection of its own, in which no statement takes longer than `limit`."""
        with (
            self.translated_errors(),
            self.connect(deadline=limit + MARGIN) as connection,
            self.pinned(connection, limit=limit),
        ):
            yield connection

    @contextmanager
    def translated_errors(self) -> Iterator[None]:
        """Errors of the driver as ours: StoreUnavailableError where the same may succeed later, else ConfigurationError."""
        try:
            yield
        except psycopg.Error as error:
            said = (error.diag.message_primary or str(error)).strip().partition("\n")[0]
            hint = error.diag.message_hint or ""
            text = f"{self.shown}: {said}" + (f" {hint}" if hint else "")
            if isinstance(error, TEMPORARY) and not isinstance(error, psycopg.errors.InvalidPassword):
                raise StoreUnavailableError(text) from None
            if isinstance(error, psycopg.errors.InsufficientPrivilege) and not hint:
                text += ": `jobmanager pg-cron install --sql` prints what a role with the right may run."
            raise ConfigurationError(text) from error
