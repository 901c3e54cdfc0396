"""Findings about our entries in pg_cron, the sweep, and the limits of both."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from jobmanager.backends.base import Found
from jobmanager.backends.pg_cron.backend import OURS_OF_NO_DATABASE
from jobmanager.backends.pg_cron.diagnostics.context import EntrySeen, Examination, counted, some, utc
from jobmanager.backends.pg_cron.diagnostics.queries import ELSEWHERE, Questions
from jobmanager.errors import JobManagerError

SILENT_AFTER = 180  # seconds
LARGEST_DETAILS = 100 * 1024 * 1024
ALSO_UTC = (
    "UTC",
    "GMT",
    "Etc/UTC",
    "Etc/GMT",
    "Etc/UCT",
    "UCT",
    "Zulu",
    "Universal",
    "Etc/Universal",
    "GMT0",
)
PUT_RIGHT = "The next start of the application puts it right, and so does `jobmanager init`."

# What pg_cron notes of a run that failed, and what helps.
FAILURES = {
    "connection failed": "pg_cron logs in to its own server as {owner!r}, and pg_hba.conf asks for a password. Set "
    "cron.use_background_workers = on and restart the server, or put `host {database} {owner} 127.0.0.1/32 trust` and the same "
    "for ::1/128 before the other lines of pg_hba.conf.",
    "invalid transaction termination": "CALL has to be the only statement of its command. " + PUT_RIGHT,
    "not permitted to log in": 'ALTER ROLE "{owner}" LOGIN;',
    "permission denied": "Let a superuser run what `jobmanager pg-cron install --sql` prints, as {owner!r}.",
    "background": "Raise max_worker_processes to the entries that run at once and 8 more, and restart the server.",
}


def _entries(exam: Examination) -> Iterator[Found]:
    """Every entry is there, as it should be, and ended well when it last ran."""
    if exam.ticker is None or exam.is_elsewhere or exam.server.extension is None:
        return
    if exam.pg_cron.error is not None:
        yield Found(
            level="failing",
            text=f"pg_cron's entries cannot be read by {exam.owner_name!r}: {exam.pg_cron.error}.",
            fix=f'Let a superuser run GRANT USAGE ON SCHEMA cron TO "{exam.owner_name}".',
        )
        return
    by_drift: dict[str, list[EntrySeen]] = {}
    for entry in exam.pg_cron.entries:
        by_drift.setdefault(entry.drift, []).append(entry)
    orphans, paused = by_drift.pop("of no job", []), by_drift.pop("paused", [])
    by_error: dict[str, list[str]] = {}
    for entry in by_drift.pop("", []):
        if entry.error is not None:
            by_error.setdefault(entry.error, []).append(entry.name)
    for drift, entries in sorted(by_drift.items()):
        said = next((f" It failed: {entry.error}." for entry in entries if entry.error), "")
        text = f"{_named(entries)}: {drift}.{said}"
        yield Found(level="failing", text=text, fix=_fix(said, exam) if said else PUT_RIGHT)
    for error, names in by_error.items():
        sentence = error.strip().partition("\n")[0].rstrip(".")
        yield Found(level="failing", text=f"{some(names)} failed last: {sentence}.", fix=_fix(error, exam))
    for entry in paused:
        yield Found(
            level="warning",
            text=f"Entry {entry.name} is paused: {_stops(entry.name)}.",
            fix=f"jobmanager pg-cron resume {entry.name}",
        )
    if orphans:
        text = f"{_named(orphans)}: of no job any more."
        yield Found(level="warning", text=text, fix="jobmanager pg-cron purge")


def _named(entries: Sequence[EntrySeen]) -> str:
    return (
        f"{counted(len(entries), 'entry', 'entries')} of pg_cron, {some([entry.name for entry in entries])}"
    )


def _stops(name: str) -> str:
    return {"jm_sweep": "the outcomes of calls are not read", "jm_http": "no application is called"}.get(
        name, "nothing is announced by it"
    )


def _fix(error: str, exam: Examination) -> str:
    known = next((fix for words, fix in FAILURES.items() if words in error), None)
    if known is None:
        return f"Run the command as {exam.owner_name!r} by hand; cron.job_run_details and the server's log say more."
    return known.format(owner=exam.owner_name, database=exam.server.database)


def _elsewhere(exam: Examination) -> Iterator[Found]:
    """pg_cron is in another database, which has both entries, and they command what is here."""
    if exam.backend.cron_database is None or exam.ticker is None:
        return
    there = Questions(exam.backend.cron_database)
    try:
        rows = there.rows(ELSEWHERE, exam.server.database)
        dead = there.column(OURS_OF_NO_DATABASE)
    except JobManagerError as error:
        yield Found(
            level="failing",
            text=f"The entries in JOBMANAGER_PG_CRON_URL cannot be read: {error}",
            fix="Correct that URL; its role needs USAGE on the schema cron, and pg_cron has to be in that database.",
        )
        return
    finally:
        there.close()
    wanted = {"jm_sweep", "jm_http" if exam.ticker.transport == "http" else "jm_dispatch"}
    good = {
        name.partition("@")[0] for name, command, active, _, _ in rows if active and "jobmanager." in command
    }
    if missing := sorted(wanted - good):
        text = f"The database of JOBMANAGER_PG_CRON_URL has no active entry {some(missing)} for {exam.server.database!r}."
        yield Found(level="failing", text=text, fix=PUT_RIGHT)
    if moved := [name for name, _, _, here, _ in rows if not here]:
        text = f"{some(moved)}: of another server, where pg_cron logs in each minute and fires."
        yield Found(level="failing", text=text, fix=PUT_RIGHT)
    if dead:
        yield Found(level="warning", text=f"{some(dead)}: of a database that does not exist.", fix=PUT_RIGHT)
    for name, _, _, _, said in rows:
        if said is not None and any(words in said for words in FAILURES):
            yield Found(
                level="failing", text=f"{name} failed last: {said.strip().rstrip('.')}.", fix=_fix(said, exam)
            )


def _silence(exam: Examination) -> Iterator[Found]:
    """Check that the sweep makes its passes."""
    ticker = exam.ticker
    if ticker is None:
        if exam.is_installed:
            yield Found(
                level="warning",
                text=f"The database keeps no time for namespace {exam.backend.namespace!r} yet.",
                fix="Start the application, or run `jobmanager init`.",
            )
        return
    if ticker.swept_at is None:
        yield Found(
            level="note",
            text="the database has not swept since it came up; its first pass comes with a full minute",
        )
    elif (exam.server.now - ticker.swept_at).total_seconds() > SILENT_AFTER:
        yield Found(
            level="failing",
            text=f"pg_cron is silent since {utc(ticker.swept_at)}: no entry of ours has run to its end.",
            fix="See cron.job_run_details and the server's log: entries of others may hold every place (cron.max_running_jobs), "
            "or the server may have been asleep.",
        )
    else:
        yield Found(
            level="ok",
            text=f"pg_cron {exam.server.extension or 'of another database'}, layout {ticker.layout}, transport {ticker.transport}; "
            f"the database swept {(exam.server.now - ticker.swept_at).total_seconds():.0f} s ago",
        )


# ---------------------------------------------------------------- what bounds pg_cron


def _bounds(exam: Examination) -> Iterator[Found]:
    """Its zone, and how many entries may run at once."""
    if exam.ticker is None or exam.is_elsewhere or exam.server.extension is None:
        return
    settings = exam.settings
    zone = settings.get("cron.timezone")
    if zone is not None and zone not in ALSO_UTC and exam.ticker.layout == "entries":
        yield Found(
            level="failing",
            text=f"cron.timezone is {zone!r}; the entries of jobs are in UTC, and would wake at other times.",
            fix="Set cron.timezone = 'UTC' or 'GMT' and restart the server, or JOBMANAGER_PG_CRON_LAYOUT=dispatcher.",
        )
    elif zone is not None and zone not in ALSO_UTC:
        yield Found(
            level="note",
            text=f"cron.timezone is {zone!r}; that makes no difference to entries of every minute",
        )
    at_once = sum(_at_full_hour(entry.schedule) for entry in exam.pg_cron.entries)
    if "cron.max_running_jobs" not in settings:
        yield Found(
            level="note",
            text=f"{exam.owner_name!r} cannot read pg_cron's settings, so nothing is known of its bounds: GRANT pg_read_all_settings",
        )
        return
    by_workers = settings.get("cron.use_background_workers") == "on"
    if by_workers and exam.server.waits_for_workers:
        yield Found(
            level="note",
            text=f"pg_cron {exam.server.extension} starts nothing while one of its background workers is busy, so the sweep makes one pass "
            "a minute; four need pg_cron 1.5, or cron.use_background_workers = off",
        )
    yield from _too_few(exam, at_once, most=int(settings["cron.max_running_jobs"]))


def _too_few(exam: Examination, at_once: int, *, most: int) -> Iterator[Found]:
    assert exam.ticker is not None  # noqa: S101 - looked at before
    if most == 1 and exam.ticker.passes > 1:
        yield Found(
            level="failing",
            text="cron.max_running_jobs is 1, and the sweep holds that one place for 44 s of every minute: ticks come late.",
            fix="Raise cron.max_running_jobs to 5 or more; or UPDATE jobmanager.tickers SET passes = 1, then SELECT jobmanager.sync_entries().",
        )
    elif most < at_once:
        yield Found(
            level="warning",
            text=f"{at_once} entries may want to run at a full hour, and cron.max_running_jobs lets {most}: the others start late.",
            fix="Set JOBMANAGER_PG_CRON_LAYOUT=dispatcher, or raise cron.max_running_jobs.",
        )
    running = min(at_once, most)
    if exam.settings.get("cron.use_background_workers") == "on":
        bound, name, free = int(exam.settings["max_worker_processes"]), "max_worker_processes", 8
    else:
        bound, name, free = int(exam.settings["max_connections"]), "max_connections", 3
    if bound < running + free:
        yield Found(
            level="warning",
            text=f"{counted(running, 'entry', 'entries')} may run at once, and {name} is {bound}: some may not start at all.",
            fix=f"Raise {name} to {running + free} or more and restart the server"
            + (
                "."
                if exam.ticker.layout == "dispatcher"
                else ", or set JOBMANAGER_PG_CRON_LAYOUT=dispatcher."
            ),
        )


def _at_full_hour(schedule: str) -> bool:
    """Return whether minute 0 is in the schedule, as far as its text shows: hours and days seldom differ."""
    minutes = schedule.partition(" ")[0].split(",")
    return any(re.match(r"(\*|0)(\D|$)", part) for part in minutes)


def _size(exam: Examination) -> Iterator[Found]:
    if exam.ticker is not None and (size := exam.pg_cron.bytes) > LARGEST_DETAILS:
        yield Found(
            level="warning",
            text=f"cron.job_run_details has {size / 1024 / 1024:,.0f} MB; pg_cron never clears it. Ours are pruned after 7 days.",
            fix="DELETE FROM cron.job_run_details WHERE end_time < now() - interval '7 days'; then VACUUM FULL it at a quiet time.",
        )


CHECKS: dict[str, Callable[[Examination], Iterator[Found]]] = {
    "pg_cron's entries": _entries,
    "The other database": _elsewhere,
    "The sweep": _silence,
    "The bounds of pg_cron": _bounds,
    "The size of cron.job_run_details": _size,
}
