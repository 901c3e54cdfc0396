"""Administration of the database that keeps the time: its entries, its signing keys, and our objects in it."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from jobmanager.backends.pg_cron import schema as objects
from jobmanager.backends.pg_cron.backend import PgCronBackend, name_elsewhere, ours_elsewhere
from jobmanager.backends.pg_cron.database import LONG, Connection
from jobmanager.errors import JobNotFoundError
from jobmanager.settings import key_of
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

FIXED = ("jm_dispatch", "jm_sweep", "jm_http")
"""Entries that are of no job."""

_ENTRY = re.compile(r"jm_(?:[0-9a-f]{24}|dispatch|sweep|http)")
_PROBE = "jobmanager agrees"

# All routines in the schema but the store's are ours; triggers and the index on `jobs` go with them.
REMOVE = f"""DO $$
DECLARE one regprocedure;
BEGIN
  FOR one IN SELECT oid FROM pg_proc WHERE pronamespace = 'jobmanager'::regnamespace
    AND proname NOT IN ({", ".join(f"'{name}'" for name in objects.FUNCTIONS_OF_THE_STORE)}) LOOP
    EXECUTE format('DROP ROUTINE IF EXISTS %s CASCADE', one);
  END LOOP;
END $$;
DROP VIEW IF EXISTS jobmanager.active_tickers;
DROP TABLE IF EXISTS jobmanager.plans, jobmanager.schedules, jobmanager.parked, jobmanager.tickers, jobmanager.paused_entries,
  jobmanager.signing_keys, jobmanager.bearers, jobmanager.calls, jobmanager.run_calls, jobmanager.epoch"""  # noqa: S608 - constants

CALLS = """SELECT outcome, detail, sent_at FROM jobmanager.calls
 WHERE namespace = %s AND outcome IS NOT NULL AND sent_at > clock_timestamp() - interval '1 hour' ORDER BY id DESC"""

CALL = "SELECT outcome, detail, sent_at FROM jobmanager.calls WHERE id = %s AND outcome IS NOT NULL"

CALL_OF = """SELECT coalesce(c.outcome, 'sent, not answered yet'), c.detail, c.sent_at FROM jobmanager.run_calls rc
 JOIN jobmanager.calls c ON c.id = rc.call_id WHERE rc.run_id = %s"""

SWEPT = "SELECT swept_at > clock_timestamp() - interval '3 minutes', swept_at FROM jobmanager.epoch"


@dataclass(frozen=True, slots=True)
class CronEntry:
    """One entry of pg_cron that is ours, or should be there. `drift` says what is wrong with it, '' if nothing is."""

    name: str
    job_id: str | None
    schedule: str
    command: str
    active: bool
    orphan: bool
    drift: str
    next_due_at: datetime | None


@dataclass(frozen=True, slots=True)
class Called:
    """The outcome of a call."""

    outcome: str
    detail: str | None
    sent_at: datetime


class PgCronAdmin:
    """The database of a backend, for operators. Each method is one transaction; `actor` is who changes something, for the log."""

    def __init__(self, backend: PgCronBackend, *, actor: str) -> None:
        self._backend = backend
        self._database = backend.database
        self._namespace = backend.namespace
        self._actor = actor

    @property
    def shown(self) -> str:
        """The database URL without its password."""
        return self._database.shown

    # ---------------------------------------------------------------- objects

    def release(self) -> str | None:
        """Return the release of our objects that the database has; None if it has none."""
        with self._database.transaction() as connection:
            return objects.installed(connection)

    def install(self, role: str | None = None) -> bool:
        """Make our objects, or bring them up to date, and let `role` run the application; False if they were today's already."""
        with self._database.transaction(limit=LONG) as connection:
            changed = objects.install(connection)
            if role is not None:
                connection.execute(objects.grants(role).encode())
            if changed or role is not None:
                self._note(connection, "install", role or objects.release())
        return changed

    def others(self) -> list[str]:
        """Return the other applications whose time is kept here."""
        with self._database.transaction() as connection:
            return _column(
                connection,
                "SELECT namespace FROM jobmanager.tickers WHERE namespace <> %s ORDER BY 1",
                self._namespace,
            )

    def uninstall(self, *, objects_too: bool) -> int:
        """Keep this application's time no longer; return how many entries were removed. `objects_too`: tables and functions go as well."""
        with self._changing("uninstall", "objects" if objects_too else "entries") as connection:
            gone = connection.execute(
                "SELECT (jobmanager.forget_ticker(%s)->>'unscheduled')::int", (self._namespace,)
            ).fetchone()
            entries = int(gone[0]) if gone else 0
            if self._backend.cron_database is not None:
                before = len(self._known_elsewhere(connection))
                self._backend.sync_elsewhere(connection)
                entries = before - len(self._known_elsewhere(connection))
            if objects_too:
                connection.execute(REMOVE)
        return entries

    # ---------------------------------------------------------------- entries

    def entries(self) -> list[CronEntry]:
        """Our entries: those that are there, and those that should be."""
        with self._database.transaction() as connection:
            return self._entries(connection)

    def _entries(self, connection: Connection) -> list[CronEntry]:
        rows = connection.execute(
            "SELECT name, job_id, schedule, command, active, orphan, drift, next_due_at FROM jobmanager.list_entries()"
        )
        found = [CronEntry(*row) for row in rows]
        if self._backend.cron_database is None:
            return found
        known = self._known_elsewhere(connection)
        listed = [_compared(entry, known.pop(entry.name, None)) for entry in found]
        orphans = (
            CronEntry(name, None, schedule, command, active, True, "of no job", None)  # noqa: FBT003 - a row
            for name, (schedule, command, active, _) in sorted(known.items())
        )
        return [*listed, *orphans]

    def _known_elsewhere(self, connection: Connection) -> dict[str, tuple[str, str, bool, str]]:
        """Return our entries in the database that has pg_cron: schedule, command, whether each is active, and where it fires."""
        assert self._backend.cron_database is not None  # noqa: S101 - asked before
        database = str(_value(connection, "SELECT current_database()"))
        with self._backend.cron_database.transaction() as elsewhere:
            return {row[0].partition("@")[0]: row[1:] for row in ours_elsewhere(elsewhere, database)}

    def _unschedule_elsewhere(self, connection: Connection, names: Iterable[str]) -> None:
        assert self._backend.cron_database is not None  # noqa: S101 - asked before
        database = str(_value(connection, "SELECT current_database()"))
        with self._backend.cron_database.transaction() as elsewhere:
            for name in names:
                elsewhere.execute("SELECT cron.unschedule(%s)", (name_elsewhere(name, database),))

    def entry_of(self, word: str) -> str:
        """Return the name of the entry that is meant: `word` is its name, or a job. Raise JobNotFoundError if it is neither."""
        if _ENTRY.fullmatch(word):
            return word
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT jobmanager.entry_name(id) FROM jobmanager.jobs WHERE id = %s", (word,)
            ).fetchone()
        if row is None:
            raise JobNotFoundError(
                f"{word!r} is neither an entry of ours nor a job in {self.shown}.", job_id=word
            )
        return str(row[0])

    def job_of(self, entry: str) -> tuple[str, str] | None:
        """Return the job that an entry is of, and its state; None for an entry of no job."""
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT id, state FROM jobmanager.jobs WHERE jobmanager.entry_name(id) = %s", (entry,)
            ).fetchone()
        return None if row is None else (str(row[0]), str(row[1]))

    def set_active(self, entry: str, *, active: bool) -> bool:
        """Pause an entry, or with that of a job the job; or let it go on. False if that changes nothing."""
        with self._changing("resume" if active else "pause", entry) as connection:
            changed = _value(
                connection, "SELECT jobmanager.set_active(%s, %s, %s)", entry, active, self._actor
            )
            if self._backend.cron_database is not None:
                self._backend.sync_elsewhere(connection)
        return bool(changed)

    def unschedule(self, entry: str) -> bool:
        """Take an entry of ours out of pg_cron; False if there is none. The next sync brings it back if it is wanted."""
        with self._changing("unschedule", entry) as connection:
            if self._backend.cron_database is None:
                return bool(_value(connection, "SELECT jobmanager.unschedule(%s)", entry))
            if entry not in self._known_elsewhere(connection):
                return False
            self._unschedule_elsewhere(connection, [entry])
            return True

    def orphans(self) -> list[CronEntry]:
        """Entries of ours that no job wants."""
        return [entry for entry in self.entries() if entry.orphan]

    def purge(self) -> dict[str, int]:
        """Remove every orphan; return how many were `purged`, and how many `failed`."""
        with self._changing("purge", "orphans") as connection:
            if self._backend.cron_database is None:
                return dict(_value(connection, "SELECT jobmanager.purge_orphans()"))
            orphans = [entry.name for entry in self._entries(connection) if entry.orphan]
            self._unschedule_elsewhere(connection, orphans)
            return {"purged": len(orphans), "failed": 0}

    def stats(self) -> dict[str, Any]:
        """Numbers of the last day."""
        with self._database.transaction() as connection:
            found = dict(_value(connection, "SELECT jobmanager.stats()"))
            if self._backend.cron_database is not None:
                entries = self._entries(connection)
                found |= {
                    "entries": len(entries),
                    "active": sum(entry.active for entry in entries),
                    "orphans": sum(entry.orphan for entry in entries),
                }
        return found

    # ---------------------------------------------------------------- signing keys

    def keys(self) -> int:
        """How many secrets sign: two while one is replaced."""
        with self._database.transaction() as connection:
            return int(_value(connection, "SELECT jobmanager.key_count(%s)", self._namespace))

    def new_secret(self, *, bearer: bool) -> str:
        """Make a secret that signs from now on, beside those that do already, and return it; no later call shows it."""
        with self._changing("new secret", self._namespace) as connection:
            return str(
                _value(connection, "SELECT jobmanager.new_signing_key(%s, %s)", self._namespace, bearer)
            )

    def retire(self) -> int:
        """Let only the newest secret sign from now on; return how many ended."""
        with self._changing("retire secrets", self._namespace) as connection:
            return int(_value(connection, "SELECT jobmanager.retire_signing_keys(%s)", self._namespace))

    def knows(self, secret: str) -> bool:
        """Return whether the secret is one of those that sign. It does not travel."""
        message = hmac.digest(key_of(secret), _PROBE.encode(), "sha256")
        signature = f"v1,{base64.b64encode(message).decode()}"
        with self._database.transaction() as connection:
            return bool(
                _value(
                    connection, "SELECT jobmanager.is_signed(%s, %s, %s)", self._namespace, _PROBE, signature
                )
            )

    def put_secret(self, secret: str, *, bearer: bool) -> None:
        """Sign with this secret, too. It travels as the data of a COPY: no log of statements or their parameters shows it."""
        with self._changing("put secret", self._namespace) as connection:
            connection.execute("CREATE TEMPORARY TABLE jobmanager_given (secret text) ON COMMIT DROP")
            with (
                connection.cursor() as cursor,
                cursor.copy("COPY pg_temp.jobmanager_given FROM STDIN") as copy,
            ):
                copy.write_row((secret,))
            connection.execute(
                "SELECT jobmanager.put_key(%s, (SELECT secret FROM pg_temp.jobmanager_given), %s)",
                (self._namespace, bearer),
            )

    def keeps_secrets_in_vault(self) -> bool:
        """Return whether the database has a Vault that we may use."""
        with self._database.transaction() as connection:
            return bool(_value(connection, "SELECT to_regclass('vault.decrypted_secrets') IS NOT NULL"))

    # ---------------------------------------------------------------- how it goes

    def swept(self) -> tuple[bool, datetime | None]:
        """Return whether the database swept within three minutes, and when it did last."""
        with self._database.transaction() as connection:
            row = connection.execute(SWEPT).fetchone()
        return (False, None) if row is None else (bool(row[0]), row[1])

    def calls(self) -> list[Called]:
        """Return the calls of the last hour that ended, newest first."""
        with self._database.transaction() as connection:
            return [Called(*row) for row in connection.execute(CALLS, (self._namespace,))]

    def test_call(self) -> int:
        """Let the database make a call without runs to the application; return the number of the call."""
        with self._database.transaction() as connection:
            return int(_value(connection, "SELECT jobmanager.ring(%s)", self._namespace))

    def call(self, number: int) -> Called | None:
        """Return the outcome of a call; None while it is open."""
        with self._database.transaction() as connection:
            row = connection.execute(CALL, (number,)).fetchone()
        return None if row is None else Called(*row)

    def call_of(self, run_id: str) -> Called | None:
        """Return the latest call for a run."""
        with self._database.transaction() as connection:
            row = connection.execute(CALL_OF, (run_id,)).fetchone()
        return None if row is None else Called(*row)

    def failing_wakeups(self) -> dict[str, str]:
        """Return pg_cron's message for each entry of ours whose latest wake-up failed."""
        with self._database.transaction() as connection:
            examined = _value(connection, "SELECT jobmanager.examined_entries('')") or {}
        return {
            entry["name"]: entry["error"]
            for entry in examined.get("entries", ())
            if entry["error"] is not None
        }

    def ticker(self) -> dict[str, Any] | None:
        """How this application is reached, as it is on file."""
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT to_jsonb(t) FROM jobmanager.tickers t WHERE namespace = %s", (self._namespace,)
            ).fetchone()
        return None if row is None else dict(row[0])

    # ---------------------------------------------------------------- who did it

    @contextmanager
    def _changing(self, action: str, target: str) -> Iterator[Connection]:
        """Open a transaction that changes something, and record the change in our log and in the server's."""
        with self._database.transaction(limit=LONG) as connection:
            self._note(connection, action, target)
            yield connection

    def _note(self, connection: Connection, action: str, target: str) -> None:
        connection.execute("SELECT jobmanager.note(%s, %s, %s)", (self._actor, action, target))
        logger.info("event=audit category=jobs actor=%s action=%s target=%s", self._actor, action, target)


def _compared(entry: CronEntry, known: tuple[str, str, bool, str] | None) -> CronEntry:
    """Return the entry as the database that has pg_cron shows it."""
    if known is None or entry.drift == "paused":
        return entry
    schedule, command, active, place = known
    drift = place or ("" if active else "switched off")
    if schedule != entry.schedule:
        drift = "scheduled differently"
    elif command != entry.command:
        drift = "commands something else"
    return replace(entry, schedule=schedule, command=command, active=active, drift=drift)


def _value(connection: Connection, statement: str, *values: object) -> Any:
    row = connection.execute(statement.encode(), values).fetchone()
    return None if row is None else row[0]


def _column(connection: Connection, statement: str, *values: object) -> list[str]:
    return [str(row[0]) for row in connection.execute(statement.encode(), values)]
