"""Secrets are where they belong and nowhere else: canaries are planted, everything is exercised, and every sink is searched."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

import pytest

pytest.importorskip("psycopg", reason="needs psycopg: pip install psycopg[binary]")

import psycopg
from tests.faults.conftest import until
from tests.pg_net.loop import Loop, start_in_silence
from tests.pg_net.stand_in import StandIn
from tests.pg_net.target import Target
from tests.security.roles import MAKE_ROLES, OWNER, session, url_of
from tests.servers import PgCron

from jobmanager import JobManager, RunContext, Settings
from jobmanager.backends.pg_cron.admin import PgCronAdmin
from jobmanager.cli import main
from jobmanager.errors import JobManagerError
from jobmanager.web import wsgi

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(180)]

TALKATIVE = {
    "log_statement": "all",
    "log_min_duration_statement": "0",
    "log_min_messages": "debug1",
    "log_connections": "on",
    "log_disconnections": "on",
    "log_error_verbosity": "verbose",
    "log_parameter_max_length_on_error": "-1",
    "log_line_prefix": "%m %u@%d %a ",
}


def _random(seed: str) -> bytes:
    return hashlib.sha512(seed.encode()).digest()


# Whatever characters a secret may have: + / = of base64, - _ of its other alphabet, ~ and : of tokens.
PASSWORD = "dsn+" + base64.b64encode(_random("dsn")[:18]).decode() + "/=~:z"
GIVEN = base64.urlsafe_b64encode(_random("given")[:33]).decode() + "-_~:+/="
SIGNED_WITH = "whsec_" + base64.b64encode(_random("signed")[:32]).decode()
BEARER = "Bearer~" + base64.b64encode(_random("bearer")[:30]).decode() + "=:+/"
CONFIG = {
    "password": "cfg+" + base64.b64encode(_random("config")[:18]).decode() + "/~:",
    "webhook_token": "tok_" + base64.urlsafe_b64encode(_random("token")[:24]).decode() + "=~",
    "headers": {"Authorization": "Basic " + base64.b64encode(_random("basic")[:21]).decode() + "=="},
}
CONFIGURED = {
    "config.password": CONFIG["password"],
    "config.webhook_token": CONFIG["webhook_token"],
    "config.authorization": CONFIG["headers"]["Authorization"].removeprefix("Basic "),  # type: ignore[index]
}

MODULE = f"""
from jobmanager import JobManager, RunContext

jobs = JobManager()

@jobs.job("careful", cron="* * * * *", overlap="allow", config={CONFIG!r})
def careful(context: RunContext): ...

@jobs.job("careless", cron="* * * * *", overlap="allow", config={CONFIG!r})
def careless(context: RunContext): ...
"""


def forms(secret: str) -> dict[str, str]:
    """The ways in which a secret may be written."""
    plain = secret.removeprefix("whsec_")
    found = {
        "as it is": plain,
        "quoted": quote(plain, safe=""),
        "for a URL": quote(plain),
        "in base64": base64.b64encode(secret.encode()).decode().rstrip("="),
        "in hex": secret.encode().hex(),
        "in JSON": json.dumps(plain)[1:-1],
    }
    if secret != plain:
        found["decoded"] = base64.b64decode(plain).hex()
    return found


def pads(secret: str) -> dict[str, str]:
    """What the database keeps of a secret: whoever has that can sign."""
    key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
    block = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    return {
        name: bytes(byte ^ mask for byte in block).hex() for name, mask in (("ipad", 0x36), ("opad", 0x5C))
    }


class Application(Loop):
    """An application in front of a database that calls it, with canaries wherever a secret may be."""

    def __init__(self, url: str, stand_in: StandIn, gate: Target, secret: str, **settings: Any) -> None:
        self.stand_in, self.gate, self.started = stand_in, gate, []
        self.manager = JobManager(
            Settings(
                database_url=url,
                backend="pg_cron",
                public_url=gate.url,
                secret=secret,
                pg_cron_transport="pg_net",
                grace_seconds=600,
                **settings,
            )
        )
        self.manager.add_job("careful", self._careful, cron="* * * * *", overlap="allow", config=CONFIG)
        self.manager.add_job("careless", self._careless, cron="* * * * *", overlap="allow", config=CONFIG)
        self._application = wsgi(self.manager)
        self.connection = psycopg.connect(url, autocommit=True)

    def __enter__(self) -> Self:
        start_in_silence(self.manager)
        self.connection.execute("SELECT jobmanager.remove_entries()")
        self.gate.reply = self.application
        return self

    def __exit__(self, *_: object) -> None:
        self.manager.stop(1)
        self.manager.store.close()
        self.connection.close()

    def _careful(self, context: RunContext) -> None:
        context.log.info("all is well")

    def _careless(self, context: RunContext) -> Mapping[str, Any]:
        """Says every secret that it was given, with the word that tells that it is one."""
        for name, value in CONFIGURED.items():
            context.log.warning("calling with %s=%s", name.partition(".")[2], value)
        context.log.info("database %s", self.manager.settings.database_url)
        secret = self.manager.settings.secrets[0]
        raise RuntimeError(
            f"refused: secret {secret}, {json.dumps(CONFIG)}, {self.manager.settings.database_url}"
        )

    def exercise(self) -> None:
        """A minute with all that may happen in it: a run that succeeds, one that fails, a call that is refused."""
        self.make_due()
        assert self.fire() >= 2  # another minute may have begun
        until(lambda: {run.status for run in self.manager.runs()} == {"succeeded", "failed"}, 30)
        self.answered()
        self.sweep(after=0)
        self.manager.trigger_job("careful", payload=CONFIG)
        until(lambda: len(self.manager.runs("careful", "succeeded")) >= 2, 30)


class Sinks:
    """Every place that was searched, and what stands in it."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def add(self, name: str, text: str) -> None:
        self.texts[name] = self.texts.get(name, "") + text

    def tables(self, url: str) -> None:
        """Every row of every table that a superuser can read, and what sessions asked last."""
        with session(url) as connection:
            names = connection.execute(
                "SELECT c.oid::regclass::text, n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE c.relkind IN ('r', 'm', 'p') AND n.nspname <> 'pg_toast'"
            ).fetchall()
            assert {"cron.job", "cron.job_run_details", "net._http_response", "net.http_request_queue"} <= {
                name for _, name in names
            }
            for relation, name in names:
                rows = connection.execute(f"SELECT t::text FROM {relation} t".encode()).fetchall()
                self.add(name, "\n".join(row[0] for row in rows))
            asked = connection.execute("SELECT query FROM pg_stat_activity").fetchall()
            self.add("pg_stat_activity", "\n".join(str(row[0]) for row in asked))

    def where(self, wanted: Mapping[str, str]) -> set[str]:
        """The sinks that have one of these texts, and how it is written there."""
        return {name for name, text in self.texts.items() if any(form in text for form in wanted.values())}


@pytest.fixture(scope="module")
def server() -> Iterator[PgCron]:
    pg_cron = PgCron(TALKATIVE)
    try:
        yield pg_cron.start()
    finally:
        pg_cron.remove()


@pytest.fixture
def gate() -> Iterator[Target]:
    target = Target().start()
    try:
        yield target
    finally:
        target.stop()


@pytest.fixture
def stand_in(server: PgCron) -> Iterator[StandIn]:
    """pg_net's stand-in in a new database, whose roles are there."""
    server.clear()
    with session(server.url) as connection:
        connection.execute(MAKE_ROLES)
    made = StandIn(server.url)
    made.install()
    try:
        yield made.start()
    finally:
        made.close()


@pytest.fixture
def told(server: PgCron) -> Callable[[], str]:
    """What the server has logged since the test began."""
    begun = len(server.log())
    return lambda: server.log()[begun:]


@pytest.fixture
def logs() -> Iterator[io.StringIO]:
    """All that anybody logs in this process, at DEBUG, with tracebacks."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    # What a handler says for itself is its own; only what is kept of it is ours.
    handler.addFilter(lambda record: record.name != "jobmanager.handler")
    handler.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s %(args)s"))
    before = logging.root.level
    logging.root.addHandler(handler)
    logging.root.setLevel(logging.DEBUG)
    yield text
    logging.root.removeHandler(handler)
    logging.root.setLevel(before)


def dsn(server: PgCron) -> str:
    """Of the owner, with the password; the server asks for none, so that it is nobody's secret but ours."""
    parts = urlsplit(url_of(server.url, OWNER))
    return f"postgresql://{OWNER}:{quote(PASSWORD, safe='')}@{parts.hostname}:{parts.port}/postgres"


class Console:
    """The command line, in this process; what it prints is a sink."""

    def __init__(
        self, folder: Path, sinks: Sinks, url: str, gate: Target, secret: str | None, **more: str
    ) -> None:
        (folder / "shop.py").write_text(MODULE)
        self._folder, self._sinks = folder, sinks
        self._environment = {
            "JOBMANAGER_APP": "shop:jobs",
            "JOBMANAGER_BACKEND": "pg_cron",
            "JOBMANAGER_DATABASE_URL": url,
            "JOBMANAGER_PUBLIC_URL": gate.url,
            **({"JOBMANAGER_SECRET": secret} if secret else {}),
            **more,
        }

    def __call__(self, *words: str) -> str:
        told, aside = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(told), redirect_stderr(aside):
            for name, value in self._environment.items():
                patch.setenv(name, value)
            patch.syspath_prepend(self._folder)
            patch.delitem(sys.modules, "shop", raising=False)
            main(["--json", *words])
            if "shop" in sys.modules:
                sys.modules["shop"].jobs.store.close()
            patch.delitem(sys.modules, "shop", raising=False)
        assert "Traceback" not in aside.getvalue(), aside.getvalue()
        self._sinks.add("console " + " ".join(words[:2]), told.getvalue() + aside.getvalue())
        return told.getvalue()


LOOKING = (
    ("doctor",), ("jobs", "list"), ("jobs", "show", "careless"), ("runs", "list"), ("pg-cron", "entries"), ("pg-cron", "stats"),
    ("verify", "--timeout", "2s"), ("dead", "list"),
)  # fmt: skip


def look(application: Application, sinks: Sinks, logs: io.StringIO) -> None:
    """What this process says of itself: reprs, errors and logs."""
    manager, backend = application.manager, application.manager.backend
    things = [
        manager,
        manager.settings,
        backend,
        manager.store,
        manager.host,
        manager.resolution,
        manager.registry,
    ]
    things += [
        backend.database,
        PgCronAdmin(backend, actor="nobody"),
        manager.settings.shown(),
        *manager.registry.jobs.values(),
    ]  # type: ignore[attr-defined]
    for thing in things[:-2]:
        sinks.add("reprs", f"{thing!r} {thing!s}\n")
    for run in manager.runs():
        sinks.add("runs as objects", f"{run!r} {manager.store.history.lines(run.id)!r}")
    for settings in (
        {
            "database_url": manager.settings.database_url.replace("127.0.0.1", "127.0.0.2").replace(
                "/postgres", "/none"
            )
        },
        {"database_url": manager.settings.database_url.replace("/postgres", "/none")},
        {"database_url": manager.settings.database_url + "?sslmode=require"},
        {"database_url": f"mysql://u:{quote(PASSWORD)}@h/d"},
        {"pg_cron_url": manager.settings.database_url.replace("/postgres", "/none")},
        {"secret": manager.settings.secrets[0][:31]},
    ):
        given = {
            "backend": "pg_cron",
            "pg_cron_transport": "notify",
            "database_url": manager.settings.database_url,
            **settings,
        }
        with pytest.raises((JobManagerError, psycopg.Error)) as caught:
            _use(Settings(**given))
        sinks.add("errors", "".join(traceback.format_exception(caught.value)) + repr(caught.value))
    sinks.add("logs of this process", logs.getvalue())


def _use(settings: Settings) -> None:
    other = JobManager(settings)
    other.job("other", cron="* * * * *")(print)
    try:
        other.check()
        other.sync()
    finally:
        other.store.close()


def dump(server: PgCron, *options: str) -> str:
    ended = subprocess.run(
        [server._programs / "pg_dump", *options, server.url], capture_output=True, text=True, check=True
    )
    return ended.stdout


DOCUMENTED = ("--exclude-table-data=jobmanager.signing_keys", "--no-unlogged-table-data")


def test_a_signing_secret_is_shown_once_and_is_in_no_sink(
    server: PgCron,
    stand_in: StandIn,
    gate: Target,
    tmp_path: Path,
    told: Callable[[], str],
    logs: io.StringIO,
) -> None:
    """Made in the database by `init`, and another by `secret rotate`; the password of the DSN and the jobs' own secrets besides."""
    url, sinks, aside = dsn(server), Sinks(), Sinks()
    first = json.loads(Console(tmp_path, aside, url, gate, None)("init", "--yes", "--url", gate.url))[
        "environment"
    ]["JOBMANAGER_SECRET"]
    with Application(url, stand_in, gate, first) as application:
        application.exercise()
        second = json.loads(Console(tmp_path, aside, url, gate, first)("secret", "rotate"))["secret"]
        application.make_due(minutes=1)
        console = Console(tmp_path, sinks, url, gate, f"{second} {first}")
        for words in LOOKING:
            console(*words)
        look(application, sinks, logs)
        sinks.tables(server.url)
        console("secret", "retire", "--yes")
        console("pg-cron", "uninstall", "--yes")
    sinks.tables(server.url)
    sinks.add("the server's log", told())
    sinks.add("the dump", dump(server, *DOCUMENTED))

    assert len(sinks.texts) > 100
    assert all(
        "careless" in sinks.texts[f"console {verb}"]
        for verb in ("jobs list", "jobs show", "runs list", "dead list")
    )
    for secret in (first, second):
        assert sinks.where(forms(secret)) == set()
        assert sinks.where(pads(secret)) == {"jobmanager.signing_keys"}
    assert sinks.where(forms(PASSWORD)) == set()
    # Config and payload are kept as they were given, for whoever may read the tables, and travel there as parameters.
    kept = {"jobmanager.jobs", "jobmanager.runs", "the server's log", "the dump", "runs as objects"}
    for name, secret in CONFIGURED.items():
        assert sinks.where(forms(secret)) <= kept, name
        assert "jobmanager.jobs" in sinks.where(forms(secret)), "the search finds nothing"
    assert any(text in dump(server) for text in pads(second).values()), "without the option the dump has them"


def test_a_secret_that_the_application_brings_travels_unlogged(
    server: PgCron,
    stand_in: StandIn,
    gate: Target,
    tmp_path: Path,
    told: Callable[[], str],
    logs: io.StringIO,
) -> None:
    """`init` with JOBMANAGER_SECRET; any text may be one."""
    url, sinks = dsn(server), Sinks()
    console = Console(tmp_path, sinks, url, gate, GIVEN)
    console("init", "--yes", "--url", gate.url)
    with Application(url, stand_in, gate, GIVEN) as application:
        application.exercise()
        for words in LOOKING[:3]:
            console(*words)
        look(application, sinks, logs)
    sinks.tables(server.url)
    sinks.add("the server's log", told())
    sinks.add("the dump", dump(server, *DOCUMENTED))

    assert sinks.where(forms(GIVEN)) == set()
    assert sinks.where(pads(GIVEN)) == {"jobmanager.signing_keys"}
    assert sinks.where(forms(PASSWORD)) == set()


def test_a_secret_put_as_a_parameter_stands_in_the_servers_log_as_documented(
    server: PgCron, stand_in: StandIn, gate: Target, told: Callable[[], str], logs: io.StringIO
) -> None:
    """The operator chose it; nothing else has it."""
    url, sinks = dsn(server), Sinks()
    with Application(url, stand_in, gate, SIGNED_WITH) as application:
        application.connection.execute("SELECT jobmanager.put_key('default', %s)", (SIGNED_WITH,))
        application.exercise()
        sinks.add("logs of this process", logs.getvalue())
    sinks.tables(server.url)
    sinks.add("the server's log", told())
    sinks.add("the dump", dump(server, *DOCUMENTED))

    assert sinks.where(forms(SIGNED_WITH)) == {"the server's log"}


def test_a_bearer_token_lies_where_everybody_can_read_as_documented(
    server: PgCron,
    stand_in: StandIn,
    gate: Target,
    tmp_path: Path,
    told: Callable[[], str],
    logs: io.StringIO,
) -> None:
    """In the queue of pg_net while it waits, and in the table of keys; only if the application asked for it."""
    url, sinks = dsn(server), Sinks()
    console = Console(tmp_path, sinks, url, gate, BEARER, JOBMANAGER_AUTH="bearer")
    console("init", "--yes", "--url", gate.url)
    with Application(url, stand_in, gate, BEARER, auth="bearer") as application:
        application.exercise()
        for words in LOOKING[:3]:
            console(*words)
        look(application, sinks, logs)
        sinks.tables(server.url)
        stand_in.delay = 30
        application.make_due(minutes=1)
        application.fire()
        queued = application.ask("SELECT headers::text FROM net.http_request_queue")
        stand_in.delay = 0
        assert BEARER in queued
    sinks.tables(server.url)
    sinks.add("the server's log", told())
    sinks.add("the dump", dump(server, *DOCUMENTED))

    assert sinks.where(forms(BEARER)) <= {"jobmanager.signing_keys", "net.http_request_queue"}
    assert sinks.where(forms(PASSWORD)) == set()


@pytest.mark.parametrize("secret", [PASSWORD, GIVEN, BEARER, *CONFIGURED.values()])
def test_the_list_of_entries_shows_no_secret_of_a_command(server: PgCron, secret: str) -> None:
    """Foreign commands are not listed at all; what the pattern is for is text that somebody wrote by hand."""
    server.clear()
    with session(server.url) as connection:
        connection.execute(MAKE_ROLES)
    from tests.security.roles import install

    install(server.url)
    with session(server.url, OWNER) as owner:
        for text in (
            f"SELECT net.http_post(url := 'http://h', headers := '{{\"Authorization\": \"Bearer {secret}\"}}')",
            f"SELECT net.http_post('http://h', headers => jsonb_build_object('Authorization', 'Basic {secret}'))",
            f"SELECT f(token => '{secret}')",
            f"SELECT f(password := '{secret}')",
            f'SELECT f(\'{{"api_key": "{secret}"}}\')',
        ):
            shown = owner.execute("SELECT jobmanager.redacted(%s)", (text,)).fetchone()
            assert shown is not None
            assert secret not in shown[0]
            assert secret[-6:] not in shown[0], "a tail is left"
            assert "***" in shown[0]
        name = "jm_" + "a" * 24
        owner.execute("SELECT cron.schedule(%s, '* * * * *', %s)", (name, f"SELECT f(token => '{secret}')"))
        listed = owner.execute("SELECT t::text FROM jobmanager.list_entries() t").fetchall()
        assert not any(name in row[0] or secret in row[0] for row in listed)
