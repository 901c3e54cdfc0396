"""`jobmanager db upgrade`, `current`, `sql` and `check`: the version of the tables, and the upgrade to the current one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.exceptions import Exit

from jobmanager.cli.output.failures import FAILED, FailedError
from jobmanager.cli.session import Session
from jobmanager.cli.verbs import Verbs
from jobmanager.present.phrases import Block

if TYPE_CHECKING:
    from jobmanager.stores.sql.store import SqlStore

db = Verbs("db", help="The tables: their version and their upgrade.")


@db.command("upgrade", example="jobmanager db upgrade")
@click.pass_obj
def upgrade(here: Session) -> None:
    """Create the tables, or upgrade them to the current version. Safe to run twice, and from several hosts at once."""
    store = _store(here)
    before = store.schema.upgrade()
    after = store.schema.version()
    if here.as_json:
        here.emit({"store": store.url, "before": before, "version": after})
    elif before == after:
        here.print(f"{store.url} is at version {after}; nothing to do.")
    else:
        here.print(
            f"{store.url}: {'made' if before is None else f'from version {before}'}, now at version {after}."
        )


@db.command("current", example="jobmanager db current")
@click.pass_obj
def current(here: Session) -> None:
    """Show the version of the tables, and the version that this jobmanager needs."""
    from jobmanager.stores.sql.schema import SCHEMA_VERSION

    store = _store(here)
    found = _version(store)
    if here.as_json:
        here.emit({"store": store.url, "version": found, "needed": SCHEMA_VERSION})
    else:
        here.print(
            f"{store.url}: {f'version {found}' if found else 'no tables yet'}; needed is {SCHEMA_VERSION}."
        )


@db.command("sql", example="jobmanager db sql > upgrade.sql")
@click.pass_obj
def sql(here: Session) -> None:
    """Print the SQL of `upgrade`, to be run by a role that may create tables."""
    store = _store(here)
    script = (
        ""
        if _version(store) is not None and store.schema.is_current()
        else store.schema.upgrade_sql(_version(store))
    )
    if here.as_json:
        here.emit({"store": store.url, "sql": script})
    else:
        here.print(Block(script.rstrip() or "-- nothing to do"))


@db.command("check", example="jobmanager db check")
@click.pass_obj
def check(here: Session) -> None:
    """Compare the tables with the current version: columns, indexes, checks. Exit 1 if anything is missing."""
    store = _store(here)
    found = _version(store)
    missing = ["there are no tables yet"] if found is None else store.schema.differences()
    if found is not None and not store.schema.is_current():
        missing.insert(0, f"the tables are of version {found}")
    if here.as_json:
        here.emit({"store": store.url, "ok": not missing, "version": found, "missing": missing})
    else:
        for line in missing:
            here.print(line)
        here.print(f"{store.url}: {'run `jobmanager db upgrade`' if missing else 'all there'}.")
    if missing:
        raise Exit(FAILED)


def _store(here: Session) -> SqlStore:
    from jobmanager.stores.sql.store import SqlStore

    store = here.ledger.store
    if not isinstance(store, SqlStore):
        raise FailedError(
            f"{store.url} is no store of ours; its tables are its own affair.",
            hint="JOBMANAGER_DATABASE_URL names the database whose tables are meant.",
        )
    return store


def _version(store: SqlStore) -> str | None:
    """Return the version of the tables, without creating an SQLite file."""
    return store.schema.version() if store.exists() else None
