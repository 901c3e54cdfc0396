"""Findings about the server and the rights in it, on which everything else depends."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from jobmanager.backends.base import Found
from jobmanager.backends.pg_cron import schema as objects
from jobmanager.backends.pg_cron.diagnostics.context import Examination, some
from jobmanager.backends.pg_cron.diagnostics.queries import (
    EMPTY_READS,
    ROLES_GONE,
    SCHEDULERS,
    STRANGERS,
    Questions,
)
from jobmanager.errors import JobManagerError

OLDEST_SERVER = 14


def _version(exam: Examination) -> Iterator[Found]:
    major = exam.server.version // 10_000
    if major < OLDEST_SERVER:
        yield Found(
            level="failing",
            text=f"The server is PostgreSQL {major}; plans need {OLDEST_SERVER} or newer.",
            fix="Upgrade the server, or choose another backend: JOBMANAGER_BACKEND=local or celery.",
        )


def _pg_cron(exam: Examination) -> Iterator[Found]:
    """Check that the extension is installed, loaded, and at work in this database."""
    server = exam.server
    if exam.is_elsewhere:
        return
    homes = [server.settings.get("cron.database_name"), *server.schedulers]
    home = next((name for name in homes if name), None)
    preloaded = server.settings.get("shared_preload_libraries")
    if server.extension is None and not server.could_have_pg_cron:
        yield Found(
            level="failing",
            text="The server has no extension pg_cron: nothing keeps the time.",
            fix=f"Install it (Debian: postgresql-{server.version // 10_000}-cron), add pg_cron to shared_preload_libraries and "
            "restart the server; hosted ones have a switch for it (docs/howto/pg-cron.md).",
        )
    elif preloaded is not None and "pg_cron" not in re.split(r"[\s,]+", preloaded):
        yield Found(
            level="failing",
            text=f"pg_cron is installed, but not loaded: shared_preload_libraries is {preloaded!r}.",
            fix="Add pg_cron to shared_preload_libraries, restart the server, then CREATE EXTENSION pg_cron.",
        )
    elif home not in (None, server.database):
        yield Found(
            level="failing",
            text=f"pg_cron lives in database {home!r}, and the jobs are in {server.database!r}.",
            fix=f"Set JOBMANAGER_PG_CRON_URL to the URL of {home!r}; or set cron.database_name = '{server.database}', restart the "
            "server and CREATE EXTENSION pg_cron there.",
        )
    elif server.extension is None:
        yield Found(
            level="failing",
            text=f"Database {server.database!r} has no extension pg_cron, though the server could have it.",
            fix="Run `jobmanager init`, or let a superuser run CREATE EXTENSION pg_cron.",
        )
    elif not server.schedulers and not _comes_back(exam):
        yield Found(
            level="failing",
            text="pg_cron's scheduler does not run: nothing fires.",
            fix="Restart the server and read its log. On a host that lets the database sleep, switch that off. If the log says that a "
            "role does not exist, entries of it end pg_cron each second: as a superuser, "
            "DELETE FROM cron.job WHERE username NOT IN (SELECT rolname FROM pg_roles).",
        )


def _roles_gone(exam: Examination) -> Iterator[Found]:
    """Check that each entry belongs to a role that exists, as far as our role sees entries of others: else pg_cron starts nothing."""
    if exam.backend.cron_database is None:
        rows = exam.ask.rows(ROLES_GONE) if exam.server.may_see_cron else []
    else:
        there = Questions(exam.backend.cron_database)
        try:
            rows = there.rows(ROLES_GONE)
        except JobManagerError:
            return  # "The other database" says it
        finally:
            there.close()
    if rows:
        yield Found(
            level="failing",
            text=f"Entries of pg_cron belong to {some([name for name, _ in rows])}, no role of this server: pg_cron ends whenever it "
            "reads them, and nobody's entries fire.",
            fix=f"As a superuser: DELETE FROM cron.job WHERE username IN ({', '.join(quoted for _, quoted in rows)}); then, if the role was "  # noqa: S608 - to be read
            "renamed, `jobmanager init` under its new name.",
        )


def _comes_back(exam: Examination) -> bool:
    """Return whether the scheduler was only being started again: after an error of its own the server takes a second for that."""
    for _ in range(10):
        exam.backend.clock.sleep(0.25)
        if exam.ask.column(SCHEDULERS):
            return True
    return False


def _objects(exam: Examination) -> Iterator[Found]:
    """Check that the functions are installed and of this release."""
    server, owner = exam.server, exam.owner
    if server.may_use is None and server.may_create:
        yield Found(
            level="note",
            text=f"nothing is installed in database {server.database!r} yet; the first start does it, or `jobmanager init`",
        )
    elif server.may_use is None:
        yield Found(
            level="failing",
            text=f"Nothing is installed in database {server.database!r}, and role {server.role!r} may not do it.",
            fix=f'GRANT CREATE ON DATABASE "{server.database}" TO "{server.role}"; or let a role with the right run what '
            "`jobmanager pg-cron install --sql` prints.",
        )
    elif not server.may_use:
        yield Found(
            level="failing",
            text=f"Role {server.role!r} may not use the schema jobmanager.",
            fix=f"Let the owner run `jobmanager pg-cron install --role {server.role}`, which grants what the application needs.",
        )
    elif owner is None:
        yield Found(
            level="warning",
            text=f"The functions of this backend are not in database {server.database!r}: nothing fires.",
            fix="Run `jobmanager pg-cron install`, or start the application; --sql prints it for a role with the right.",
        )
    elif objects.is_older(owner.release):
        whose = "The next start brings them up to date" if owner.is_us else f"Let {owner.name!r} do it"
        yield Found(
            level="warning" if owner.is_us else "failing",
            text=f"The functions in database {server.database!r} are of another release ({owner.release}, not {objects.release()}).",
            fix=f"{whose}: `jobmanager pg-cron install`.",
        )


def _rights(exam: Examination) -> Iterator[Found]:
    """Check that this role has the rights of the application, and that what it reads is not silently empty."""
    role = exam.server.role
    if exam.is_installed and (lacking := exam.ask.lacking()):
        yield Found(
            level="failing",
            text=f"Role {role!r} lacks rights: {some(lacking)}.",
            fix=f"Let {exam.owner_name!r} run `jobmanager pg-cron install --role {role}`, which grants what the application needs.",
        )
    if exam.server.may_use and (empty := exam.ask.column(EMPTY_READS)):
        yield Found(
            level="failing",
            text=f"Row-level security makes {some(empty)} look empty to role {role!r}: no error, and no rows.",
            fix=f"ALTER TABLE jobmanager.{empty[0]} DISABLE ROW LEVEL SECURITY, and so on; or let a role connect that it does not hold for.",
        )


def _owner(exam: Examination) -> Iterator[Found]:
    """pg_cron logs in as the owner of the entries, and the owner may schedule."""
    owner = exam.owner
    if owner is None:
        return
    if not owner.can_login:
        yield Found(
            level="failing",
            text=f"The entries belong to role {owner.name!r}, which may not log in; pg_cron runs them by logging in as it.",
            fix=f'ALTER ROLE "{owner.name}" LOGIN; it needs no password.',
        )
    if not exam.is_elsewhere and owner.uses is False:
        yield Found(
            level="failing",
            text=f"The owner of the functions, {owner.name!r}, may not use the schema cron: no entry can be made.",
            fix=f'Let a superuser run GRANT USAGE ON SCHEMA cron TO "{owner.name}".',
        )
    elif not exam.is_elsewhere and owner.schedules is False:
        yield Found(
            level="failing",
            text=f"The owner of the functions, {owner.name!r}, may not call cron.schedule or cron.unschedule.",
            fix=f'Let a superuser run GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA cron TO "{owner.name}". Some restores lose that.',
        )
    if exam.server.may_see_cron and (strangers := exam.ask.column(STRANGERS, owner.name)):
        yield Found(
            level="warning",
            text=f"Entries with our names belong to {some(strangers)}, not to {owner.name!r}, who owns the functions; they came with a restore.",
            fix=f"As a superuser: SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname ~ '^jm_' AND username = '{strangers[0]}'.",  # noqa: S608 - to be read
        )


CHECKS: dict[str, Callable[[Examination], Iterator[Found]]] = {
    "The version of the server": _version,
    "The roles of entries": _roles_gone,
    "pg_cron": _pg_cron,
    "The functions": _objects,
    "The rights": _rights,
    "The owner": _owner,
}
