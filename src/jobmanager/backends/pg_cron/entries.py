"""The entries of pg_cron for operators: what is there beside what should be, and each change of it by hand."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from jobmanager.backends.base import PurgedEntries, RawEntry
from jobmanager.backends.pg_cron.backend import name_elsewhere, ours_elsewhere
from jobmanager.backends.pg_cron.changing import Changing, value
from jobmanager.backends.pg_cron.database import Connection
from jobmanager.errors import EntryNotFoundError, JobNotFoundError

FIXED = ("jm_dispatch", "jm_sweep", "jm_http")
"""Entries that are of no job."""

_ENTRY = re.compile(r"jm_(?:[0-9a-f]{24}|dispatch|sweep|http)")

LISTED = "SELECT name, job_id, schedule, command, active, orphan, drift, next_due_at FROM jobmanager.list_entries()"
OUTCOMES = "SELECT name, runs, succeeded, status, error, ended_at FROM jobmanager.entry_outcomes()"
# As jobmanager.entry_outcomes, in the database that has pg_cron.
OUTCOMES_ELSEWHERE = """SELECT c.jobname::text, count(*), count(*) FILTER (WHERE d.status = 'succeeded'),
   (array_agg(d.status ORDER BY d.runid DESC))[1],
   (array_agg(CASE WHEN d.status = 'failed' THEN left(d.return_message, 300) END ORDER BY d.runid DESC))[1], max(d.end_time)
  FROM cron.job c JOIN cron.job_run_details d USING (jobid)
 WHERE d.runid > (SELECT max(runid) - 100000 FROM cron.job_run_details) AND d.start_time > clock_timestamp() - interval '24 hours'
   AND d.status IN ('succeeded', 'failed') AND c.username = current_user AND c.jobname = ANY (%s) GROUP BY 1"""


class Known(NamedTuple):
    """An entry in the database that has pg_cron; `place` is where it fires if not on this server."""

    schedule: str
    command: str
    active: bool
    place: str


class Outcomes(NamedTuple):
    """How the wake-ups of an entry ended in the last day, and the newest of them."""

    runs: int
    succeeded: int
    status: str | None
    error: str | None
    ended_at: datetime | None


class CronEntries(Changing):
    """The entries of a backend in pg_cron. Each method is one transaction."""

    def entries(self) -> list[RawEntry]:
        """Return our entries, sorted by name: those that are there, and those that should be."""
        with self._database.transaction() as connection:
            found = self._entries(connection)
            outcomes = self._outcomes(connection, [entry.name for entry in found])
        return [_told(entry, outcomes.get(entry.name)) for entry in found]

    def orphans(self) -> list[RawEntry]:
        """Return entries of ours that no job needs."""
        return [entry for entry in self.entries() if entry.orphan]

    def entry_of(self, word: str) -> str:
        """Return the name of the entry that is meant: `word` is its name, or a job. Raise JobNotFoundError if it is neither."""
        if _ENTRY.fullmatch(word):
            return word
        with self._database.transaction() as connection:
            entry = value(
                connection, "SELECT jobmanager.entry_name(id) FROM jobmanager.jobs WHERE id = %s", word
            )
        if entry is None:
            raise JobNotFoundError(
                f"{word!r} is neither an entry of ours nor a job in {self.shown}.", job_id=word
            )
        return str(entry)

    def job_of(self, entry: str) -> tuple[str, str] | None:
        """Return the job that an entry is of, and its state; None for an entry of no job."""
        with self._database.transaction() as connection:
            return _job_of(connection, entry)

    def set_active(self, entry: str, *, active: bool) -> bool:
        """Pause an entry, or with that of a job the job; or let it go on. False if that changes nothing.

        Raises EntryNotFoundError for one that is of no job.
        """
        with self._changing("resume" if active else "pause", "entry", entry) as change:
            connection = change.connection
            job = _job_of(connection, entry)
            if job is None and entry not in FIXED:
                raise EntryNotFoundError(
                    f"Entry {entry} is of no job. `jobmanager pg-cron purge` removes such entries.",
                    name=entry,
                )
            if job is not None:
                change.target, change.target_id, change.job_id = "job", job[0], job[0]
            before = _state(connection, entry, job)
            change.done = bool(
                value(connection, "SELECT jobmanager.set_active(%s, %s, %s)", entry, active, self._actor)
            )
            change.before = {"state": before}
            change.after = {"state": _state(connection, entry, _job_of(connection, entry))}
            if self._backend.cron_database is not None:
                self._backend.sync_elsewhere(connection)
        return change.done

    def unschedule(self, entry: str) -> None:
        """Take an entry of ours out of pg_cron; the next sync brings it back if it is wanted. Raises EntryNotFoundError."""
        with self._changing("unschedule", "entry", entry) as change:
            known = {each.name: each for each in self._entries(change.connection)}.get(entry)
            if self._backend.cron_database is None:
                gone = bool(value(change.connection, "SELECT jobmanager.unschedule(%s)", entry))
            else:
                gone = entry in self._known_elsewhere(change.connection)
                self._unschedule_elsewhere(change.connection, [entry] if gone else [])
            if not gone:
                raise EntryNotFoundError(f"pg_cron has no entry {entry} of ours.", name=entry)
            if known is not None:
                change.job_id, change.before = known.job_id, _facts(known)

    def purge(self) -> PurgedEntries:
        """Remove every orphan."""
        with self._changing("purge", "entries", self._namespace) as change:
            before = [entry for entry in self._entries(change.connection) if entry.orphan]
            if self._backend.cron_database is None:
                value(change.connection, "SELECT jobmanager.purge_orphans()")
            else:
                self._unschedule_elsewhere(change.connection, [entry.name for entry in before])
            left = {entry.name for entry in self._entries(change.connection) if entry.orphan}
            purged = PurgedEntries(
                removed=tuple(entry.name for entry in before if entry.name not in left),
                failed=tuple(sorted(left)),
            )
            change.done = bool(before)
            change.before = {entry.name: _facts(entry) for entry in before}
            change.after = {"removed": list(purged.removed), "failed": list(purged.failed)}
        return purged

    # ---------------------------------------------------------------- what is there

    def _entries(self, connection: Connection) -> list[RawEntry]:
        found = [_entry(*row) for row in connection.execute(LISTED)]
        if self._backend.cron_database is None:
            return found
        known = self._known_elsewhere(connection)
        listed = [_compared(entry, known.pop(entry.name, None)) for entry in found]
        orphans = (
            _entry(name, None, each.schedule, each.command, each.active, True, "of no job", None)  # noqa: FBT003 - a row
            for name, each in sorted(known.items())
        )
        return [*listed, *orphans]

    def _known_elsewhere(self, connection: Connection) -> dict[str, Known]:
        """Return our entries in the database that has pg_cron, by the names that they have where pg_cron is here."""
        assert self._backend.cron_database is not None  # noqa: S101 - asked before
        with self._backend.cron_database.transaction() as elsewhere:
            rows = ours_elsewhere(elsewhere, _database_of(connection))
        return {row[0].partition("@")[0]: Known(*row[1:]) for row in rows}

    def _unschedule_elsewhere(self, connection: Connection, names: Iterable[str]) -> None:
        assert self._backend.cron_database is not None  # noqa: S101 - asked before
        database = _database_of(connection)
        with self._backend.cron_database.transaction() as elsewhere:
            for name in names:
                elsewhere.execute("SELECT cron.unschedule(%s)", (name_elsewhere(name, database),))

    def _outcomes(self, connection: Connection, names: Iterable[str]) -> dict[str, Outcomes]:
        if self._backend.cron_database is None:
            return {row[0]: Outcomes(*row[1:]) for row in connection.execute(OUTCOMES)}
        database = _database_of(connection)
        wanted = [name_elsewhere(name, database) for name in names]
        with self._backend.cron_database.transaction() as elsewhere:
            rows = elsewhere.execute(OUTCOMES_ELSEWHERE, (wanted,)).fetchall()
        return {
            name.partition("@")[0]: Outcomes(
                runs, succeeded, status, value(connection, "SELECT jobmanager.redacted(%s)", error), ended_at
            )
            for name, runs, succeeded, status, error, ended_at in rows
        }


def _entry(
    name: str,
    job_id: str | None,
    schedule: str,
    command: str,
    active: bool,  # noqa: FBT001
    orphan: bool,  # noqa: FBT001
    drift: str,
    next_due_at: datetime | None,
) -> RawEntry:
    return RawEntry(
        name=name,
        job_id=job_id,
        schedule=schedule,
        command=command,
        active=active,
        orphan=orphan,
        drift=drift,
        next_due_at=next_due_at,
    )


def _told(entry: RawEntry, outcomes: Outcomes | None) -> RawEntry:
    """Return the entry with how its wake-ups ended."""
    if outcomes is None:
        return entry
    return replace(
        entry,
        runs_24h=outcomes.runs,
        succeeded_24h=outcomes.succeeded,
        last_status=outcomes.status,
        last_error=outcomes.error,
        last_ended_at=outcomes.ended_at,
    )


def _compared(entry: RawEntry, known: Known | None) -> RawEntry:
    """Return the entry as the database that has pg_cron shows it."""
    if known is None or entry.drift == "paused":
        return entry
    drift = known.place or ("" if known.active else "switched off")
    if known.schedule != entry.schedule:
        drift = "scheduled differently"
    elif known.command != entry.command:
        drift = "commands something else"
    return replace(entry, schedule=known.schedule, command=known.command, active=known.active, drift=drift)


def _facts(entry: RawEntry) -> dict[str, object]:
    return {"schedule": entry.schedule, "command": entry.command, "active": entry.active}


def _job_of(connection: Connection, entry: str) -> tuple[str, str] | None:
    row = connection.execute(
        "SELECT id, state FROM jobmanager.jobs WHERE jobmanager.entry_name(id) = %s", (entry,)
    ).fetchone()
    return None if row is None else (str(row[0]), str(row[1]))


def _state(connection: Connection, entry: str, job: tuple[str, str] | None) -> str:
    """Return the state of the job of an entry; of an entry of no job whether it is paused."""
    if job is not None:
        return job[1]
    drift = value(connection, "SELECT drift FROM jobmanager.list_entries() WHERE name = %s", entry)
    return "paused" if drift == "paused" else "active"


def _database_of(connection: Connection) -> str:
    return str(value(connection, "SELECT current_database()"))
