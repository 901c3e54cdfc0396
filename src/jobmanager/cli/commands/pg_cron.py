"""`jobmanager pg-cron`: operate the entries of pg_cron and the objects of jobmanager in the database that keeps the time."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.exceptions import Exit

from jobmanager.cli.asking import confirm
from jobmanager.cli.output.failures import FAILED, ConflictError, UsageError
from jobmanager.cli.session import Session
from jobmanager.cli.verbs import Verbs
from jobmanager.present.phrases import both, count, distance, iso

if TYPE_CHECKING:
    from jobmanager.backends.base import RawEntry
    from jobmanager.backends.pg_cron.admin import PgCronAdmin
    from jobmanager.backends.pg_cron.backend import PgCronBackend
    from jobmanager.manager.manager import JobManager
    from jobmanager.settings import Settings

T = TypeVar("T")

pg_cron = Verbs(
    "pg-cron", help="pg_cron's entries, and what is installed in the database that keeps the time."
)
NAME = click.argument("name", metavar="ENTRY|JOB", help="Its name, or the id of a job.")
YES = click.option("--yes", "-y", is_flag=True, help="Do not ask.")

MEANINGS = {
    "jm_dispatch": "At full minutes nothing is announced any more. The sweep and living processes still find what is due, later; "
    "to stop a job, pause the job.",
    "jm_http": "The database no longer calls the application; living processes still find what is due, later.",
    "jm_sweep": "Lost calls are not repeated, and the outcomes of calls are not recorded.",
}


MEANT = ("active", "paused")


# ---------------------------------------------------------------- which database is meant


def settings_of(here: Session) -> Settings:
    """Return the settings of the environment, or of the application if only it knows the database; UsageError if none is PostgreSQL."""
    from jobmanager.settings import Settings

    settings = Settings.from_env()
    if not settings.database_url.startswith("postgresql") and here.target:
        settings = here.jobs.settings
    if not settings.database_url.startswith("postgresql"):
        raise UsageError(
            "No PostgreSQL database is named.",
            hint="Set JOBMANAGER_DATABASE_URL=postgresql://user@host/name: the database that keeps the time keeps the runs.",
        )
    return settings


def backend_of(settings: Settings) -> PgCronBackend:
    """Make the pg_cron backend of these settings, whichever backend is chosen; MissingExtraError without its driver."""
    from jobmanager.backends.resolver import load_backend_class

    chosen: Any = load_backend_class("pg_cron")
    backend: PgCronBackend = chosen.from_settings(settings)
    return backend


def care_of(here: Session, settings: Settings | None = None, *, installed: bool = True) -> PgCronAdmin:
    """Connect to the database to administer it; ConflictError if `installed` is asked for and nothing is installed."""
    settings = settings or settings_of(here)
    backend = backend_of(settings)
    from jobmanager.backends.pg_cron import schema as objects
    from jobmanager.backends.pg_cron.admin import PgCronAdmin
    from jobmanager.ledger.audit import Auditor
    from jobmanager.ledger.redaction import Redactor
    from jobmanager.manager.entries import audit_row

    auditor = Auditor(Redactor(settings.secret_values()), namespace=settings.namespace)
    care = PgCronAdmin(backend, actor=here.user, audit=partial(audit_row, auditor, here.user))
    release = care.release() if installed else objects.release()
    if release is None:
        raise ConflictError(
            f"{care.shown}: nothing of pg_cron's backend is installed here.",
            hint="Run `jobmanager init`, or correct JOBMANAGER_DATABASE_URL.",
        )
    if release != objects.release():
        here.aside.print(
            "note: the functions in the database are of another release; `jobmanager pg-cron install` brings them up to date.",
            soft_wrap=True,
        )
    return care


def manager_of(here: Session) -> JobManager:
    """Return a manager of the settings whose backend is pg_cron, whichever backend is chosen; closed when the command ends."""
    from jobmanager.manager.manager import JobManager

    settings = settings_of(here)
    manager = JobManager(settings, backend=backend_of(settings))
    click.get_current_context().call_on_close(manager.store.close)
    return manager


# ---------------------------------------------------------------- objects


@pg_cron.command("install", example="jobmanager pg-cron install --role shop")
@click.option("--sql", "as_sql", is_flag=True, help="Only print the SQL, for a role that may run it.")
@click.option("--role", metavar="NAME", help="A role that shall run the application and own nothing.")
@click.pass_obj
def install(here: Session, as_sql: bool, role: str | None) -> None:
    """Create the tables and functions in the database, or upgrade them. Safe to run twice."""
    if as_sql:
        _print_sql(here, role)
        return
    from jobmanager.backends.pg_cron import schema as objects
    from jobmanager.clock import SystemClock
    from jobmanager.stores import store_for

    settings = settings_of(here)
    care = care_of(here, settings, installed=False)
    store = store_for(settings, SystemClock())
    try:
        store.install()
    finally:
        store.close()
    changed = care.install(role)
    if here.as_json:
        here.emit({"database": care.shown, "release": objects.release(), "changed": changed, "role": role})
        return
    here.print(
        f"{care.shown}: functions of release {objects.release()} {'are installed' if changed else 'were there already'}."
    )
    if role is not None:
        here.print(f"Role {role} may run the application.")


def _print_sql(here: Session, role: str | None) -> None:
    from jobmanager.backends.resolver import load_backend_class

    load_backend_class("pg_cron")  # says what to install, if its driver is missing
    from jobmanager.backends.pg_cron import schema as objects

    script = (
        "-- Run this as the role that is to own schema jobmanager and pg_cron's entries. It may log in, and before it come, once:\n"
        "--   CREATE EXTENSION IF NOT EXISTS pg_cron;   GRANT USAGE ON SCHEMA cron TO that_role;   (a superuser)\n"
        "--   the tables that `jobmanager db sql` prints\n"
        f"BEGIN;\n{objects.stamped()}{objects.grants(role) if role is not None else ''}COMMIT;"
    )
    if here.as_json:
        here.emit({"release": objects.release(), "sql": script})
    else:
        here.copyable(script)


@pg_cron.command("uninstall", example="jobmanager pg-cron uninstall --objects")
@click.option(
    "--objects", is_flag=True, help="Remove our functions, plans, calls and keys as well. Jobs and runs stay."
)
@YES
@click.pass_obj
def uninstall(here: Session, objects: bool, yes: bool) -> None:
    """Remove the application's entries from pg_cron: the database no longer keeps its time. Jobs and runs stay."""
    care = care_of(here)
    others = care.others()
    if objects and others:
        raise ConflictError(
            f"The database keeps the time of other applications, too: {', '.join(others)}.",
            hint="Uninstall those first, each under its JOBMANAGER_NAMESPACE, or leave --objects out.",
        )
    what = "all entries, functions and signing keys" if objects else "the entries"
    confirm(
        here,
        f"Remove {what} of this application from {care.shown}? Nothing fires by pg_cron any more.",
        yes=yes,
    )
    vault = objects and care.keeps_secrets_in_vault()
    gone = care.uninstall(objects_too=objects)
    if here.as_json:
        here.emit({"unscheduled": gone, "objects": objects})
        return
    here.print(
        f"{count(gone, 'entry', 'entries')} removed{'; our functions and keys are gone' if objects else ''}. Jobs and runs stay."
    )
    if vault:
        here.print("In Vault the secrets jobmanager_signing_key* are left; delete them by hand.")
    here.print(
        "An application that starts with JOBMANAGER_BACKEND=pg_cron brings them back: choose another backend first."
    )


# ---------------------------------------------------------------- entries


@pg_cron.command("entries", example="jobmanager pg-cron entries")
@click.pass_obj
def entries(here: Session) -> None:
    """List the application's entries in pg_cron beside those it should have. Exit 1 if they differ."""
    _show(here, care_of(here).entries(), "pg_cron has no entry of ours; `jobmanager init` makes them.")


@pg_cron.command("orphans", example="jobmanager pg-cron orphans")
@click.pass_obj
def orphans(here: Session) -> None:
    """List entries of the application that no job needs. Exit 1 if there are any."""
    _show(here, care_of(here).orphans(), "No orphans.")


def _show(here: Session, found: list[RawEntry], nothing: str) -> None:
    wrong = [entry for entry in found if entry.drift not in ("", "paused")]
    if here.as_json:
        here.emit([_record(entry) for entry in found])
    elif not found:
        here.print(nothing)
    else:
        _print_entries(here, found, wrong)
    if wrong:
        raise Exit(FAILED)


def _record(entry: RawEntry) -> dict[str, Any]:
    moments = {name: iso(getattr(entry, name)) for name in ("next_due_at", "last_ended_at")}
    return {**asdict(entry), **moments}


def _print_entries(here: Session, found: list[RawEntry], wrong: list[RawEntry]) -> None:
    from rich.text import Text

    from jobmanager.cli.output.lists import Column, listing
    from jobmanager.clock import SystemClock

    now = SystemClock().now()
    rows = [
        (
            entry.name,
            entry.job_id or "",
            entry.schedule,
            distance(entry.next_due_at, now),
            Text("ok", "green")
            if not entry.drift
            else Text(entry.drift, "yellow" if entry.drift == "paused" else "red"),
        )
        for entry in found
    ]
    columns = (
        Column("ENTRY"),
        Column("JOB", yields=True),
        Column("SCHEDULE (UTC)", wide=70),
        Column("NEXT", wide=90, right=True),
        Column("STATE"),
    )
    here.print(listing(here.console, columns, rows))
    if any(entry.orphan for entry in wrong):
        here.print("", "`jobmanager pg-cron purge` removes what is of no job.")
    if any(not entry.orphan for entry in wrong):
        here.print(
            "", "The next start of the application puts this right, and `jobmanager init` does so now."
        )
    if any(entry.drift == "paused" for entry in found):
        here.print("", "`jobmanager pg-cron resume ENTRY` ends a pause.")


@pg_cron.command("pause", example="jobmanager pg-cron pause jm_dispatch")
@NAME
@click.pass_obj
def pause(here: Session, name: str) -> None:
    """Switch an entry off until it is resumed; no start switches it on. For a job, or its entry, pause the job itself."""
    _switch(here, name, active=False)


@pg_cron.command("resume", example="jobmanager pg-cron resume jm_dispatch")
@NAME
@click.pass_obj
def resume(here: Session, name: str) -> None:
    """End a pause; instants of the pause are not caught up."""
    _switch(here, name, active=True)


def _switch(here: Session, name: str, *, active: bool) -> None:
    from jobmanager.backends.pg_cron.entries import FIXED

    care = care_of(here)
    entry = care.entry_of(name)
    if entry not in FIXED and care.job_of(entry) is None:
        raise UsageError(
            f"Entry {entry} is of no job.",
            hint="`jobmanager pg-cron purge` removes such entries; `entries` lists all.",
        )
    changed = manager_of(here).set_entry_active(entry, active, by=here.user)
    job = care.job_of(entry)
    now = _state_now(care, entry) if job is None else job[1]
    if here.as_json:
        here.emit({"entry": entry, "job": job[0] if job else None, "state": now, "changed": changed})
    elif job is not None:
        here.print(f"Job {job[0]} is {now}{'' if changed else ', as it was'}.")
    else:
        unchanged = "" if changed or now not in MEANT else ", as it was"
        here.print(f"Entry {entry} is {now}{unchanged}.")
        if now == "paused":
            here.print(MEANINGS[entry])
    if now != MEANT[not active]:
        raise Exit(FAILED)


def _state_now(care: PgCronAdmin, entry: str) -> str:
    """Return the state of an entry that belongs to no job: active, paused, or why it is neither."""
    found = next((known for known in care.entries() if known.name == entry), None)
    if found is None:
        return "not in use here"
    return found.drift or "active"


@pg_cron.command("unschedule", example="jobmanager pg-cron unschedule jm_sweep")
@NAME
@YES
@click.pass_obj
def unschedule(here: Session, name: str, yes: bool) -> None:
    """Remove an entry from pg_cron. The application's next start adds it again if a job needs it; `pause` lasts."""
    care = care_of(here)
    entry = care.entry_of(name)
    confirm(here, f"Take entry {entry} out of pg_cron in {care.shown}?", yes=yes)
    manager_of(here).unschedule_entry(entry, by=here.user)
    if here.as_json:
        here.emit({"entry": entry, "unscheduled": True})
    else:
        here.print(
            f"Entry {entry} is out of pg_cron until the application's next start, or `jobmanager init`."
        )


@pg_cron.command("purge", example="jobmanager pg-cron purge --yes")
@YES
@click.pass_obj
def purge(here: Session, yes: bool) -> None:
    """Remove every entry of the application that no job needs, and no foreign one. Exit 1 if one could not be removed."""
    care = care_of(here)
    doomed = care.orphans()
    if doomed:
        names = ", ".join(entry.name for entry in doomed[:5]) + (", ..." if len(doomed) > 5 else "")
        confirm(
            here, f"Remove {count(len(doomed), 'orphan')} from pg_cron in {care.shown} ({names})?", yes=yes
        )
    gone = manager_of(here).purge_orphans(by=here.user) if doomed else None
    done = {"purged": len(gone.removed), "failed": len(gone.failed)} if gone else {"purged": 0, "failed": 0}
    if here.as_json:
        here.emit(done)
    else:
        here.print(f"purged: {done['purged']}, failed: {done['failed']}")
        if done["failed"]:
            here.print("The server's log says why; entries of another role need that role, or a superuser.")
    if done["failed"]:
        raise Exit(FAILED)


@pg_cron.command("stats", example="jobmanager pg-cron stats")
@click.pass_obj
def stats(here: Session) -> None:
    """Show entries, runs and calls of the last 24 hours, and the time of the database's last sweep."""
    found = care_of(here).stats()
    if here.as_json:
        here.emit(found)
        return
    from jobmanager.cli.output.lists import facts

    ended = found["succeeded_24h"] + found["failed_24h"] + found["missed_24h"]
    rate = f", {found['succeeded_24h'] / ended:.1%} of those that ended" if ended else ""
    here.print(
        facts(
            [
                ("entries", f"{found['entries']}, {found['active']} active, {found['orphans']} of no job"),
                ("runs in 24 h", f"{found['runs_24h']:,}"),
                ("succeeded", f"{found['succeeded_24h']:,}{rate}"),
                ("failed", f"{found['failed_24h']:,}"),
                ("missed", f"{found['missed_24h']:,}"),
                ("calls in 24 h", f"{found['calls_24h']:,}, {found['accepted_24h']:,} accepted"),
                ("oldest open call", _moment(found.get("oldest_open_call")) or "none"),
                ("last sweep", _moment(found.get("swept_at")) or "never: pg_cron has not woken us yet"),
                ("notes of pg_cron", _notes(found)),
            ]
        )
    )


def _moment(text: str | None) -> str:
    from datetime import datetime

    return "" if text is None else both(datetime.fromisoformat(text))


def _notes(found: dict[str, Any]) -> str:
    if found.get("run_details") is None:
        return ""
    return f"{found['run_details']:,} rows, {found['run_details_bytes'] / 1_000_000:.1f} MB"
