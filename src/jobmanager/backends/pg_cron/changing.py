"""Changes of the database by an operator: one transaction with its row of the audit, and a line in our log and in the server's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from jobmanager.backends.base import AuditRow
from jobmanager.backends.pg_cron.backend import PgCronBackend
from jobmanager.backends.pg_cron.database import LONG, Connection
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)


@dataclass(slots=True)
class Change:
    """A change that is being made. What its author finds and leaves stands in its row of the audit; none is written if it is not `done`."""

    connection: Connection
    action: str
    target: str
    target_id: str
    job_id: str | None = None
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    done: bool = True


class Changing:
    """The database of a backend, in the hands of `actor`. `audit` makes the rows of the audit; without it none is written."""

    writes_audit = True

    def __init__(self, backend: PgCronBackend, *, actor: str, audit: AuditRow | None = None) -> None:
        self._backend = backend
        self._database = backend.database
        self._namespace = backend.namespace
        self._actor = actor
        self._audit = audit

    @property
    def shown(self) -> str:
        """The database URL without its password."""
        return self._database.shown

    @contextmanager
    def _changing(self, action: str, target: str, target_id: str) -> Iterator[Change]:
        """Open a transaction that changes something, and record the change in it."""
        with self._database.transaction(limit=LONG) as connection:
            change = Change(connection, action, target, target_id)
            self._log(change)
            yield change
            self._write(change)

    def _log(self, change: Change) -> None:
        """Log who changes what, here and in the server's log."""
        what = change.action if change.target == "entry" else f"{change.action} {change.target}"
        words = (self._actor, what, change.target_id)
        change.connection.execute("SELECT jobmanager.note(%s, %s, %s)", words)
        logger.info("event=audit category=jobs actor=%s action=%s target=%s", *words)

    def _write(self, change: Change) -> None:
        """Write the row of the audit for a change that is done."""
        if self._audit is None or not change.done:
            return
        row = self._audit(
            change.action,
            change.target,
            change.target_id,
            at=value(change.connection, "SELECT clock_timestamp()"),
            job_id=change.job_id,
            before=change.before,
            after=change.after,
        )
        columns = sql.SQL(", ").join(map(sql.Identifier, row))
        change.connection.execute(
            sql.SQL(
                "INSERT INTO jobmanager.audit ({0}) SELECT {0} FROM jsonb_populate_record(NULL::jobmanager.audit, %s)"
            ).format(columns),
            (Jsonb(dict(row)),),
        )


def value(connection: Connection, statement: str, *values: object) -> Any:
    """Return the first column of the first row."""
    row = connection.execute(statement.encode(), values).fetchone()
    return None if row is None else row[0]
