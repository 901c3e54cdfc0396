"""`jobmanager ticker`: what a clock of others, such as QStash, has planned for this application, and changes of it by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click
from click.exceptions import Exit

from jobmanager.cli.asking import confirm
from jobmanager.cli.output.failures import FAILED, UsageError
from jobmanager.cli.session import Session
from jobmanager.cli.verbs import Verbs
from jobmanager.present.phrases import both, count, iso
from jobmanager.validation.printable import printable

if TYPE_CHECKING:
    from jobmanager.backends.base import RawEntry
    from jobmanager.backends.tickers.base import TickerBackend

ticker = Verbs("ticker", help="The entries of an outside clock that is synced, such as QStash.")
NAME = click.argument("name", metavar="ENTRY|JOB", help="Its name, or the id of a job.")
YES = click.option("--yes", "-y", is_flag=True, help="Do not ask.")


@ticker.command("entries", example="jobmanager --app shop.jobs:jobs ticker entries")
@click.pass_obj
def entries(here: Session) -> None:
    """List the application's entries at the clock beside those it should have. Exit 1 if they differ."""
    found = here.jobs.entries()
    if here.as_json:
        here.emit([{**asdict(entry), **_moments(entry)} for entry in found])
    elif not found:
        here.print("The clock has no entry of ours; `jobmanager sync --apply` makes them.")
    else:
        _print(here, found)
    if any(entry.drift not in ("", "paused") for entry in found):
        raise Exit(FAILED)


def _moments(entry: RawEntry) -> dict[str, str | None]:
    return {"next_due_at": iso(entry.next_due_at), "last_ended_at": iso(entry.last_ended_at)}


def _print(here: Session, found: Sequence[RawEntry]) -> None:
    from jobmanager.cli.output.lists import Column, listing

    columns = [
        Column("ENTRY", yields=True),
        Column("JOB", yields=True),
        Column("SCHEDULE", yields=True),
        Column("NEXT THERE"),
        Column("STATE", folds=True, yields=True),
    ]
    rows = [
        [
            printable(entry.name),
            printable(entry.job_id or ""),
            printable(entry.schedule),
            both(entry.next_due_at) if entry.next_due_at else "",
            printable(entry.drift or "as planned"),
        ]
        for entry in found
    ]
    here.print(listing(here.console, columns, rows))


@ticker.command("pause", example="jobmanager --app shop.jobs:jobs ticker pause send-invoices")
@NAME
@click.pass_obj
def pause(here: Session, name: str) -> None:
    """Stop an entry at the clock; no sync lets it go on. To stop a job, pause the job."""
    _switch(here, name, active=False)


@ticker.command("resume", example="jobmanager --app shop.jobs:jobs ticker resume send-invoices")
@NAME
@click.pass_obj
def resume(here: Session, name: str) -> None:
    """Let an entry go on that was stopped, here or in the clock's console."""
    _switch(here, name, active=True)


def _switch(here: Session, name: str, *, active: bool) -> None:
    changed = here.jobs.set_entry_active(name, active, by=here.user)
    if here.as_json:
        here.emit({"name": name, "active": active, "changed": changed})
        return
    here.print(
        f"{printable(name)} is {'active' if active else 'paused'} there{'' if changed else ', as it was'}."
    )


@ticker.command("purge", example="jobmanager ticker purge qstash")
@click.argument(
    "backend", required=False, metavar="BACKEND", help="A clock that is left: all of its entries go."
)
@YES
@click.pass_obj
def purge(here: Session, backend: str | None, yes: bool) -> None:
    """Remove the entries that no job needs; with BACKEND, of a clock that keeps the time no longer, all of ours."""
    if backend is None:
        doomed = here.jobs.purge_orphans(dry_run=True).removed
        if doomed:
            confirm(here, f"Remove {count(len(doomed), 'entry', 'entries')} that no job needs?", yes=yes)
        _tell(here, *_purged(here))
        return
    left = _left(here, backend)
    found = list(left.found().values())
    if found:
        confirm(here, f"Remove {count(len(found), 'entry', 'entries')} of ours from {left.title}?", yes=yes)
    for entry in found:
        left.remove(entry)
    _tell(here, [entry.key for entry in found], [])


def _purged(here: Session) -> tuple[Sequence[str], Sequence[str]]:
    purged = here.jobs.purge_orphans(by=here.user)
    return purged.removed, purged.failed


def _left(here: Session, name: str) -> TickerBackend:
    """Return the backend of a clock that is left; UsageError for the one that keeps the time, and for what is no such clock."""
    from jobmanager.backends.resolver import load_backend_class
    from jobmanager.backends.tickers.base import TickerBackend
    from jobmanager.settings import Settings

    settings = here.jobs.settings if here.target else Settings.from_env()
    if here.target and here.jobs.resolution.backend == name:
        raise UsageError(
            f"{name} keeps the time of this application.",
            hint="`jobmanager ticker purge` removes its orphans.",
        )
    kind = load_backend_class(name)
    if not issubclass(kind, TickerBackend):
        raise UsageError(
            f"{name} has no entries at an outside clock.", hint="`jobmanager ticker purge qstash`"
        )
    return kind.from_settings(settings)


def _tell(here: Session, removed: Sequence[str], failed: Sequence[str]) -> None:
    if here.as_json:
        here.emit({"removed": list(removed), "failed": list(failed)})
    else:
        here.print(f"{count(len(removed), 'entry', 'entries')} removed.")
    if failed:
        raise Exit(FAILED)
