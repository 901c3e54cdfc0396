"""Administration of the database that keeps the time: its signing keys, our objects in it, and how its calls go."""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jobmanager.backends.pg_cron import schema as objects
from jobmanager.backends.pg_cron.changing import Change, value
from jobmanager.backends.pg_cron.database import LONG, Connection
from jobmanager.backends.pg_cron.entries import CronEntries
from jobmanager.settings import key_of

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
class Called:
    """The outcome of a call."""

    outcome: str
    detail: str | None
    sent_at: datetime


class PgCronAdmin(CronEntries):
    """The database of a backend, for operators. Each method is one transaction; `actor` is who changes something."""

    # ---------------------------------------------------------------- objects

    def release(self) -> str | None:
        """Return the release of our objects that the database has; None if it has none."""
        with self._database.transaction() as connection:
            return objects.installed(connection)

    def install(self, role: str | None = None) -> bool:
        """Make our objects, or bring them up to date, and let `role` run the application; False if they were today's already."""
        with self._database.transaction(limit=LONG) as connection:
            before = objects.installed(connection)
            changed = objects.install(connection)
            if role is not None:
                connection.execute(objects.grants(role).encode())
            if changed or role is not None:
                after = {"release": objects.release(), "role": role}
                change = Change(
                    connection, "install", "objects", self._namespace, before={"release": before}, after=after
                )
                self._log(change)
                self._write(change)
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
        with self._changing("uninstall", "objects" if objects_too else "entries", self._namespace) as change:
            connection = change.connection
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
            change.before, change.after = {"entries": entries}, {"entries": 0}
        return entries

    def stats(self) -> dict[str, Any]:
        """Numbers of the last day."""
        with self._database.transaction() as connection:
            found = dict(value(connection, "SELECT jobmanager.stats()"))
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
            return self._signing(connection)

    def _signing(self, connection: Connection) -> int:
        return int(value(connection, "SELECT jobmanager.key_count(%s)", self._namespace))

    def new_secret(self, *, bearer: bool) -> str:
        """Make a secret that signs from now on, beside those that do already, and return it; no later call shows it."""
        with self._changing("rotate", "secret", self._namespace) as change:
            change.before = {"signing": self._signing(change.connection)}
            secret = value(
                change.connection, "SELECT jobmanager.new_signing_key(%s, %s)", self._namespace, bearer
            )
            change.after = {"signing": self._signing(change.connection)}
        return str(secret)

    def retire(self) -> int:
        """Let only the newest secret sign from now on; return how many ended."""
        with self._changing("retire", "secret", self._namespace) as change:
            change.before = {"signing": self._signing(change.connection)}
            ended = int(
                value(change.connection, "SELECT jobmanager.retire_signing_keys(%s)", self._namespace)
            )
            change.after = {"signing": self._signing(change.connection)}
            change.done = ended > 0
        return ended

    def knows(self, secret: str) -> bool:
        """Return whether the secret is one of those that sign. It does not travel."""
        message = hmac.digest(key_of(secret), _PROBE.encode(), "sha256")
        signature = f"v1,{base64.b64encode(message).decode()}"
        with self._database.transaction() as connection:
            return bool(
                value(
                    connection, "SELECT jobmanager.is_signed(%s, %s, %s)", self._namespace, _PROBE, signature
                )
            )

    def put_secret(self, secret: str, *, bearer: bool) -> None:
        """Sign with this secret, too. It travels as the data of a COPY: no log of statements or their parameters shows it."""
        with self._changing("store", "secret", self._namespace) as change:
            connection = change.connection
            change.before = {"signing": self._signing(connection)}
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
            change.after = {"signing": self._signing(connection)}

    def keeps_secrets_in_vault(self) -> bool:
        """Return whether the database has a Vault that we may use."""
        with self._database.transaction() as connection:
            return bool(value(connection, "SELECT to_regclass('vault.decrypted_secrets') IS NOT NULL"))

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
            return int(value(connection, "SELECT jobmanager.ring(%s)", self._namespace))

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
            examined = value(connection, "SELECT jobmanager.examined_entries('')") or {}
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


def _column(connection: Connection, statement: str, *values: object) -> list[str]:
    return [str(row[0]) for row in connection.execute(statement.encode(), values)]
