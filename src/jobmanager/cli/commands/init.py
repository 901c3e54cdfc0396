"""`jobmanager init`: set up pg_cron in a database, so that it keeps the time and calls the application. Safe to run twice."""

from __future__ import annotations

import base64
import os
import secrets as chance
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
from click.exceptions import Exit

from jobmanager.cli.asking import asked, confirm
from jobmanager.cli.commands.pg_cron import backend_of, care_of, settings_of
from jobmanager.cli.output.failures import FAILED, UsageError
from jobmanager.cli.session import Session
from jobmanager.cli.verbs import verb
from jobmanager.present.phrases import count

if TYPE_CHECKING:
    from jobmanager.backends.pg_cron.backend import PgCronBackend
    from jobmanager.backends.pg_cron.setup import LackingRightError, Prerequisites
    from jobmanager.manager.manager import JobManager
    from jobmanager.settings import Settings

PREFIX = "JOBMANAGER_"


@dataclass(slots=True)
class Done:
    """What was done, for the summary."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    complete: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    """What the application's environment has to say, as far as it does not say it here."""

    def add(self, name: str, text: str, **facts: Any) -> None:
        self.lines.append((name, text))
        self.facts.update(facts)


@verb("init", example="jobmanager --app shop.jobs:jobs init --url https://shop.example.com")
@click.option("--yes", "-y", is_flag=True, help="Ask nothing.")
@click.option(
    "--url", metavar="URL", help="Where the database reaches the application: JOBMANAGER_PUBLIC_URL."
)
@click.pass_obj
def init(here: Session, yes: bool, url: str | None) -> None:
    """Let the database of JOBMANAGER_DATABASE_URL keep the time (pg_cron). Safe to run twice; the secret stays.

    Extensions, tables, functions, the signing secret, the application's jobs and pg_cron's entries are created where they
    are missing. On a terminal the URL is asked for; the variables to set are printed at the end.
    """
    settings = settings_of(here)
    if not yes and (here.as_json or not here.console.is_terminal or not sys.stdin.isatty()):
        raise UsageError(
            "`init` changes the database, and nobody can be asked here.",
            hint="jobmanager init --yes --url https://shop.example.com",
        )
    from jobmanager.backends.pg_cron.setup import LackingRightError

    done = Done()
    with _environment(_given(settings, url)):
        settings = _chosen(here, settings_of(here), done, ask=not yes)
    needed = {
        "backend": "pg_cron",
        "public_url": settings.public_url,
        "pg_cron_transport": "notify" if settings.pg_cron_transport == "notify" else None,
        # Whatever it is, the application only has to find one to be imported; nothing is signed here.
        "secret": None if settings.pg_cron_transport == "notify" or settings.secret else _random(),
    }
    with _environment(needed):
        jobs = here.ledger
        _refuse(here, jobs, settings)
        if not yes:
            _show_plan(here, jobs, settings)
            confirm(here, "Go on?", yes=False)
        try:
            _do(here, jobs, settings, done)
        except LackingRightError as error:
            _print_statements(here, error)
            raise Exit(FAILED) from None
        finally:
            if not done.complete and "secret" in done.environment:
                _show_secret(here, done)
    _show(here, settings, done)


# ---------------------------------------------------------------- what is wanted


def _given(settings: Settings, url: str | None) -> dict[str, str | None]:
    """Return the settings of the command line, with those of the application if only it knows the database."""
    stated = {name: value for name in ("database_url", "pg_cron_url") if (value := getattr(settings, name))}
    return {**stated, "public_url": url}


def _chosen(here: Session, settings: Settings, done: Done, *, ask: bool) -> Settings:
    """Return the settings with the URL, asked for if necessary; without a URL, or if the database cannot call it, with `notify`."""
    from jobmanager.settings import key_of

    if settings.pg_cron_transport == "notify":
        return settings
    for secret in settings.secrets:
        key_of(secret)  # says now what the database would say too late
    ground = _ground(backend_of(settings))
    if settings.pg_cron_transport == "auto" and not ground.may_be_called_from:
        done.warnings.append(
            "This database has neither pg_net nor http, so it cannot call: processes of the application listen instead (notify). "
            "At least one has to run."
        )
        return _with(settings, pg_cron_transport="notify")
    if settings.public_url is None:
        settings = _with_url_on_file(here, settings, done)
    if settings.public_url is None and ask:
        settings = _asked_for_url(here, settings)
    if settings.public_url is None:
        if settings.pg_cron_transport != "auto":
            raise UsageError(
                f"JOBMANAGER_PG_CRON_TRANSPORT={settings.pg_cron_transport} needs to know where the application is reached.",
                hint="jobmanager init --url https://shop.example.com",
            )
        done.warnings.append(
            "No URL is given, so the database does not call: processes of the application listen instead (notify). "
            "At least one has to run. With --url https://... it calls."
        )
        return _with(settings, pg_cron_transport="notify")
    _warn_of_localhost(settings, done)
    return settings


def _with_url_on_file(here: Session, settings: Settings, done: Done) -> Settings:
    """Return the settings with the URL that the database calls already; as they are where it calls none."""
    admin = care_of(here, settings, installed=False)
    ticker = admin.ticker() if admin.release() is not None else None
    url = ticker["url"] if ticker is not None and ticker["transport"] != "notify" else None
    if url is None:
        return settings
    if not url.endswith(settings.run_path):
        raise UsageError(
            f"The database calls {url}, whose path is not JOBMANAGER_RUN_PATH={settings.run_path}.",
            hint="Say what it should call: jobmanager init --url https://shop.example.com",
        )
    done.add("url", f"{url}, as before; --url changes it")
    return _with(settings, public_url=url.removesuffix(settings.run_path))


def _asked_for_url(here: Session, settings: Settings) -> Settings:
    here.print(
        f"Where does the database reach the application? Without {settings.run_path}: https://shop.example.com"
    )
    while True:
        url = asked(
            lambda: click.prompt(
                "URL (empty: processes listen, nothing is called)", default="", show_default=False
            )
        )
        if not url:
            return settings
        try:
            return _with(settings, public_url=url)
        except ValueError as error:
            here.print(str(error))


def _warn_of_localhost(settings: Settings, done: Done) -> None:
    from jobmanager.backends.pg_cron.backend import is_local
    from jobmanager.settings import percent_encoded

    host = urlsplit(percent_encoded(settings.database_url)).hostname
    database_is_here = host is None or is_local(f"//{host}")
    if is_local(settings.public_url or "") and not database_is_here:
        done.warnings.append(
            f"{settings.public_url} means this machine, and the database is at {host}: it will call itself. "
            "Give the URL of a tunnel to this machine, or set JOBMANAGER_PG_CRON_TRANSPORT=notify."
        )


def _refuse(here: Session, jobs: JobManager, settings: Settings) -> None:
    """Raise UsageError if the settings of the imported application differ from those prepared."""
    if jobs.resolution.backend != "pg_cron":
        raise UsageError(
            f"The application takes backend {jobs.resolution.backend}, because {jobs.resolution.reason}.",
            hint="Unset that, or let its Settings say backend='pg_cron'.",
        )
    for name in ("database_url", "namespace", "pg_cron_url"):
        if getattr(jobs.settings, name) != getattr(settings, name):
            raise UsageError(
                f"{here.target} has settings of its own: its {name} is not that of the environment.",
                hint=f"Set {PREFIX}{name.upper()} to the same value for this command.",
            )


def _show_plan(here: Session, jobs: JobManager, settings: Settings) -> None:
    from jobmanager.cli.output.lists import facts
    from jobmanager.settings import shown_url

    here.print(
        facts(
            [
                ("database", shown_url(settings.database_url)),
                ("pg_cron in", shown_url(settings.pg_cron_url) if settings.pg_cron_url else ""),
                (
                    "calls",
                    "nobody: processes listen"
                    if settings.pg_cron_transport == "notify"
                    else settings.run_url or "",
                ),
                ("application", here.target or "none named: no job is seeded"),
                ("jobs", count(len(jobs.registry.jobs), "job") if here.target else ""),
            ]
        ),
        "",
        "Extensions, tables, functions, the secret, jobs and entries are made where they are missing.",
    )


# ---------------------------------------------------------------- what is done


def _do(here: Session, jobs: JobManager, settings: Settings, done: Done) -> None:
    backend: PgCronBackend = jobs.backend  # type: ignore[assignment]  # it was asked for
    calls = settings.pg_cron_transport != "notify"
    _prepare(backend, done, settings.pg_cron_transport)
    made_tables = not jobs.store.exists()
    jobs.store.install()
    care = care_of(here, settings, installed=False)
    installed = care.install()
    done.add("tables", "made" if made_tables else "there", tables_made=made_tables)
    done.add("functions", "installed" if installed else "up to date", functions_installed=installed)
    if calls:
        _secret(here, settings, done)
    purged = care.purge()
    changes = jobs.sync()
    ticker = care.ticker() or {}
    url = ticker.get("url") if calls and ticker.get("transport") != "notify" else None
    done.add("calls", url or "nobody: processes listen (notify)", url=url)
    if calls and url is None:
        done.warnings.append(
            "pg_net is on this server, but not loaded, so the database cannot call: processes of the application listen instead "
            "(notify). At least one has to run. Add pg_net to shared_preload_libraries, restart the server, and run init again."
        )
    elif calls and url != settings.run_url:
        done.warnings.append(
            f"The database goes on calling {url}: {settings.run_url} is of one machine only. "
            "If that is meant, run `jobmanager pg-cron uninstall` first."
        )
    seeded = sum(change.action == "create" for change in changes)
    declared = len(jobs.registry.jobs)
    if here.target:
        done.add("jobs", f"{seeded} new, {declared} in all", jobs_seeded=seeded, jobs=declared)
    else:
        done.add("jobs", "none: no application is named (--app)", jobs_seeded=0, jobs=0)
    entries = [entry.name for entry in care.entries()]
    told = ", ".join(entries[:3]) + (", ..." if len(entries) > 3 else "")
    orphans = f"; {count(len(purged.removed), 'orphan')} removed" if purged.removed else ""
    counted = {"purged": len(purged.removed), "failed": len(purged.failed)}
    done.add("entries", f"{len(entries)}: {told}{orphans}", entries=entries, **counted)
    done.complete = True


def _prepare(backend: PgCronBackend, done: Done, transport: str) -> None:
    from jobmanager.backends.pg_cron.setup import prepare

    there: list[str] = []
    created: list[str] = []
    elsewhere = backend.cron_database
    if elsewhere is not None:
        # Tried first, so that nothing is made there if something is lacking here.
        prepare(backend.database, cron=False, transport=transport, keep=False)
        ground, made = prepare(elsewhere, cron=True, transport="notify", tables=False)
        there += [f"{extension} in {elsewhere.shown}" for extension in _extensions(ground, made)]
        created += made
    ground, made = prepare(backend.database, cron=elsewhere is None, transport=transport)
    there += _extensions(ground, made)
    created += made
    shown = backend.database.shown
    done.add("database", f"{shown}, PostgreSQL {ground.version.split()[0]}", database=shown)
    done.add("extensions", ", ".join(there), extensions_created=created)


def _extensions(ground: Prerequisites, created: list[str]) -> list[str]:
    known = ground.extensions
    there = [f"{name} {known[name]}" for name in ("pg_cron", "pg_net", "http") if name in known]
    return [*there, *(f"{name} (created now)" for name in created)]


def _secret(here: Session, settings: Settings, done: Done) -> None:
    """Store the application's secret in the database for signing, or create one for both."""
    care = care_of(here, settings)
    bearer = settings.auth == "bearer"
    where = " in Vault" if care.keeps_secrets_in_vault() else ""
    state = "kept"
    if settings.secrets and not any(care.knows(secret) for secret in settings.secrets):
        care.put_secret(settings.secrets[0], bearer=bearer)
        state = "that of JOBMANAGER_SECRET, from now on"
        if care.keys() > 1:
            done.warnings.append(
                "The database signs with another secret as well; once every process has this one, `jobmanager secret retire`."
            )
    elif settings.secrets and bearer:
        care.put_secret(settings.secrets[0], bearer=True)  # it may be known as a signing key alone
    elif not settings.secrets and care.keys() == 0:
        done.environment["secret"] = care.new_secret(bearer=bearer)
        state = "made"
    elif not settings.secrets:
        done.warnings.append(
            "The database has its secret, and JOBMANAGER_SECRET is not set here: set it where the application runs. "
            "If it is lost, `jobmanager secret rotate` makes another."
        )
    done.add("secret", f"{state}{where}", secret_state=state.partition(",")[0])


def _ground(backend: PgCronBackend) -> Prerequisites:
    from jobmanager.backends.pg_cron.setup import look

    with backend.database.transaction() as connection:
        return look(connection)


# ---------------------------------------------------------------- output


def _print_statements(here: Session, error: LackingRightError) -> None:
    """Print the statements for a role with more rights, ready to be copied."""
    if here.as_json:
        told = {
            "kind": "LackingRightError",
            "message": str(error),
            "database": error.database,
            "exit_code": FAILED,
        }
        here.emit({"error": {**told, "sql": list(error.statements)}})
        return
    here.aside.print(f"error: {error}", soft_wrap=True, markup=False)
    then = f"   do: let a superuser run this in database {error.database}, then `jobmanager init` again:"
    here.aside.print(then, soft_wrap=True, markup=False)
    for statement in error.statements:
        here.copyable(statement)


def _show_secret(here: Session, done: Done) -> None:
    """Print the secret that was made before something failed: the database has it and shows it to nobody."""
    here.aside.print(
        "note: the database has a new secret, which is shown this once; put it into the application's environment:",
        soft_wrap=True,
    )
    here.aside.print(
        f"  {PREFIX}SECRET={done.environment['secret']}", soft_wrap=True, markup=False, highlight=False
    )


def _show(here: Session, settings: Settings, done: Done) -> None:
    variables = _variables(settings, done)
    steps = _next_steps(settings)
    if here.as_json:
        here.emit({**done.facts, "environment": variables, "warnings": done.warnings, "next": steps})
        return
    from rich.text import Text

    from jobmanager.cli.output.lists import facts

    here.print(facts(done.lines))
    for warning in done.warnings:
        here.print("", Text.assemble(("! ", "bold yellow"), warning))
    if variables:
        once = "; the secret is shown this once" if "secret" in done.environment else ""
        here.print("", f"Put this into the application's environment{once}:", "")
        for name, value in variables.items():
            here.copyable(f"  {name}={value}")
    here.print("", "Next:")
    for number, step in enumerate(steps, start=1):
        here.print(f"{number}. {step}")


def _variables(settings: Settings, done: Done) -> dict[str, str]:
    """Return the variables that the application needs and that the environment of this command lacks."""
    wanted: dict[str, str | None] = {"backend": "pg_cron"}
    if settings.pg_cron_transport == "notify":
        wanted["pg_cron_transport"] = "notify"
    else:
        wanted |= {"public_url": settings.public_url, "secret": done.environment.get("secret")}
    named = {f"{PREFIX}{name.upper()}": value for name, value in wanted.items()}
    return {name: value for name, value in named.items() if value and os.environ.get(name) != value}


def _next_steps(settings: Settings) -> list[str]:
    if settings.pg_cron_transport == "notify":
        return [
            "Start the application; `jobs.start()` listens.",
            "`jobmanager verify JOB` runs a job and looks at each link.",
        ]
    return [
        f'Mount the endpoint: `app.mount("{settings.run_path.rpartition("/")[0] or "/"}", jobmanager.web.asgi(jobs))`, and start the application.',
        "`jobmanager verify JOB` runs a job and looks at each link.",
    ]


# ---------------------------------------------------------------- settings


def _with(settings: Settings, **values: Any) -> Settings:
    """Return the settings with these values, validated."""
    return replace(settings, **values)


def _random() -> str:
    return f"whsec_{base64.b64encode(chance.token_bytes(32)).decode()}"


@contextmanager
def _environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Put these settings into the environment while the application is imported; None leaves a variable as it is."""
    named = {f"{PREFIX}{name.upper()}": value for name, value in values.items() if value is not None}
    before = {name: os.environ.get(name) for name in named}
    os.environ.update(named)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
