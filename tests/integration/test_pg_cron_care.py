"""`jobmanager init`, `secret`, `pg-cron` and `verify` on a real database: what is there afterwards, and what shows nowhere."""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from tests.faults.conftest import until
from tests.pg_net.loop import SECRET, VAULT, Loop
from tests.pg_net.stand_in import StandIn
from tests.pg_net.target import Received, Reply, redirect
from tests.servers import FreshDatabases, PgCron

from jobmanager import JobManager, RunStatus, Settings
from jobmanager.backends.pg_cron import setup
from jobmanager.backends.pg_cron.admin import PgCronAdmin
from jobmanager.backends.pg_cron.backend import PgCronBackend
from jobmanager.cli import main
from jobmanager.errors import StoreUnavailableError
from jobmanager.web import wsgi

pytestmark = [pytest.mark.servers, pytest.mark.slow]

APPLICATION = """
from jobmanager import JobManager
jobs = JobManager()

@jobs.job("work", cron="*/10 * * * *")
def work(): return "done"

@jobs.job("nightly", cron="0 3 * * *", timezone="Europe/Berlin")
def nightly(): pass

@jobs.job("hello")
def hello(): return "done"
"""
URL = "https://shop.example.com"


class Operator:
    """Somebody with a shell: calls the command line, and looks into the database."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str], environment: pytest.MonkeyPatch) -> None:
        self.environment = environment
        self._capsys = capsys
        self.be_at(url)

    def be_at(self, url: str) -> None:
        """From now on this database is meant."""
        self.url = url
        self.environment.setenv("JOBMANAGER_DATABASE_URL", url)

    def says(self, *words: str, code: int = 0) -> str:
        """What is printed, on both streams."""
        sys.modules.pop("shop_in_care", None)
        got = main(list(words))
        said = self._capsys.readouterr()
        assert got == code, said.out + said.err
        return said.out + said.err

    def gets(self, *words: str, code: int = 0) -> Any:
        """What the JSON says."""
        return json.loads(self.says(*words, "--json", code=code))

    def ask(self, query: str, *values: object) -> Any:
        """The first column of the first row."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(query, values or None)
            row = cursor.fetchone() if cursor.description else None
            return None if row is None else row[0]

    def jobs_of_cron(self) -> list[tuple[str, str]]:
        """Name and database of every entry."""
        with psycopg.connect(self.url) as connection:
            return connection.execute("SELECT jobname::text, database FROM cron.job ORDER BY 2, 1").fetchall()


@pytest.fixture
def operator(
    pg_cron_url: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Operator]:
    (tmp_path / "shop_in_care.py").write_text(APPLICATION)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("JOBMANAGER_APP", "shop_in_care:jobs")
    yield Operator(pg_cron_url, capsys, monkeypatch)
    sys.modules.pop("shop_in_care", None)


@pytest.fixture
def ready(operator: Operator, pg_net: StandIn) -> Operator:
    """After `init`, with the secret it made in the environment."""
    made = operator.gets("init", "--yes", "--url", URL)
    for name, value in made["environment"].items():
        operator.environment.setenv(name, value)
    return operator


# ---------------------------------------------------------------- init


def test_init_makes_all_that_is_missing_and_is_safe_twice(operator: Operator, pg_net: StandIn) -> None:
    operator.ask("DROP EXTENSION pg_cron")

    made = operator.gets("init", "--yes", "--url", URL)
    again = operator.gets("init", "--yes", "--url", URL)

    assert made["extensions_created"] == ["pg_cron"]
    assert (made["jobs_seeded"], made["jobs"]) == (3, 3)
    assert made["entries"] == ["jm_dispatch", "jm_sweep"]
    assert made["url"] == f"{URL}/jobs/run"
    assert made["environment"].keys() == {"JOBMANAGER_BACKEND", "JOBMANAGER_PUBLIC_URL", "JOBMANAGER_SECRET"}
    assert again["extensions_created"] == []
    assert (again["tables_made"], again["functions_installed"], again["jobs_seeded"]) == (False, False, 0)
    assert again["secret_state"] == "kept"
    assert "JOBMANAGER_SECRET" not in again["environment"]
    assert "secret rotate" in again["warnings"][0]
    operator.environment.setenv("JOBMANAGER_SECRET", made["environment"]["JOBMANAGER_SECRET"])
    agreed = operator.gets("init", "--yes", "--url", URL)
    assert (agreed["secret_state"], agreed["warnings"]) == ("kept", [])
    assert operator.ask("SELECT count(*) FROM jobmanager.signing_keys") == 1


def test_what_init_prints_is_enough_for_an_application_to_start(ready: Operator) -> None:
    ready.environment.delenv("JOBMANAGER_APP")
    manager = JobManager()

    assert manager.resolution.backend == "pg_cron"
    manager.backend.sync([])
    assert ready.ask("SELECT transport || ' ' || url FROM jobmanager.tickers") == f"pg_net {URL}/jobs/run"


def test_init_leaves_the_environment_as_it_was(operator: Operator) -> None:
    operator.gets("init", "--yes")

    assert {name for name in os.environ if name.startswith("JOBMANAGER_")} - {
        "JOBMANAGER_APP",
        "JOBMANAGER_DATABASE_URL",
    } == {name for name in os.environ if name.startswith(("JOBMANAGER_TEST_", "JOBMANAGER_REQUIRE_"))}


def test_init_does_not_take_a_job_back_that_an_operator_changed(ready: Operator) -> None:
    ready.says("override", "work", "cron=0 5 * * *")
    ready.says("jobs", "pause", "nightly")

    assert ready.gets("init", "--yes")["jobs_seeded"] == 0

    assert ready.ask("SELECT schedule FROM jobmanager.jobs WHERE id = 'work'") == "cron 0 5 * * * in UTC"
    assert ready.ask("SELECT state FROM jobmanager.jobs WHERE id = 'nightly'") == "paused"


def test_a_secret_of_ones_own_reaches_the_database_and_no_log(
    operator: Operator, pg_net: StandIn, pg_cron_server: PgCron
) -> None:
    """Fails if it travels as a text or a parameter of a statement."""
    secret = "Zq7-own-and-random-0123456789-abcdefghij"
    operator.ask("ALTER SYSTEM SET log_statement = 'all'")
    operator.ask("ALTER SYSTEM SET log_min_duration_statement = 0")
    operator.ask("SELECT pg_reload_conf()")
    until(lambda: operator.ask("SHOW log_statement") == "all")
    operator.environment.setenv("JOBMANAGER_SECRET", secret)

    said = operator.says("init", "--yes", "--url", URL)
    made = operator.says("secret", "rotate")

    assert secret not in said
    new = made.partition("  whsec_")[2].split()[0]
    log = pg_cron_server.log()
    assert "jobmanager.put_key" in log
    assert secret not in log
    assert new not in log
    assert operator.ask("SELECT count(*) FROM jobmanager.live_keys('default')") == 2
    checked = operator.gets("verify", "--timeout", "0.1s", code=1)["checks"]
    assert next(check["level"] for check in checked if check["check"] == "secret") == "ok"


def test_without_the_right_init_prints_what_a_superuser_may_run_and_changes_nothing(
    operator: Operator, pg_net: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    operator.ask("CREATE ROLE shop LOGIN")
    operator.ask("DROP EXTENSION pg_cron")
    superuser = operator.url
    operator.be_at(superuser.replace("postgres@", "shop@"))

    refused = operator.gets("init", "--yes", "--url", URL, code=1)["error"]

    assert refused["database"] == "postgres"
    assert refused["sql"] == [
        "CREATE EXTENSION IF NOT EXISTS pg_cron;",
        'GRANT USAGE ON SCHEMA cron TO "shop";',
        'GRANT CREATE ON DATABASE "postgres" TO "shop";',
    ]
    assert operator.ask("SELECT to_regnamespace('jobmanager')") is None
    assert operator.ask("SELECT count(*) FROM pg_extension WHERE extname = 'pg_cron'") == 0
    with psycopg.connect(superuser, autocommit=True) as connection:
        for statement in refused["sql"]:
            connection.execute(statement)
    assert operator.gets("init", "--yes", "--url", URL)["entries"] == ["jm_dispatch", "jm_sweep"]
    assert operator.ask("SELECT DISTINCT username FROM cron.job") == "shop"


def test_with_an_old_pg_net_init_prints_the_right_to_read_its_responses(operator: Operator) -> None:
    """Until 0.12 only its owner has it, and without it no call gets its outcome."""
    stand_in = StandIn(operator.url, "0.11.0")
    stand_in.install()
    try:
        operator.ask(
            "CREATE ROLE shop LOGIN; GRANT CREATE ON DATABASE postgres TO shop; GRANT USAGE ON SCHEMA cron, net TO shop"
        )
        superuser = operator.url
        operator.be_at(superuser.replace("postgres@", "shop@"))
        lacking = operator.gets("init", "--yes", "--url", URL, code=1)["error"]["sql"]
        assert lacking == ['GRANT SELECT ON net._http_response, net.http_request_queue TO "shop";']
        with psycopg.connect(superuser, autocommit=True) as connection:
            connection.execute(lacking[0])
        assert operator.gets("init", "--yes", "--url", URL)["url"] == f"{URL}/jobs/run"
    finally:
        stand_in.close()


def test_what_is_printed_for_people_can_be_piped_to_a_superuser(
    operator: Operator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fails if anything but SQL is on standard output."""
    operator.ask("CREATE ROLE shop LOGIN")
    operator.be_at(operator.url.replace("postgres@", "shop@"))

    assert main(["init", "--yes"]) == 1

    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        'GRANT USAGE ON SCHEMA cron TO "shop";',
        'GRANT CREATE ON DATABASE "postgres" TO "shop";',
    ]
    assert "let a superuser run this in database postgres" in printed.err


def test_a_role_that_owns_nothing_is_told_who_does(ready: Operator) -> None:
    ready.ask("CREATE ROLE shop LOGIN")
    ready.says("pg-cron", "install", "--role", "shop")
    ready.be_at(ready.url.replace("postgres@", "shop@"))

    assert "belongs to role 'postgres'" in ready.says("init", "--yes", code=2)
    assert len(ready.gets("pg-cron", "entries")) == 2
    assert ready.gets("pg-cron", "pause", "jm_dispatch")["state"] == "paused"
    ready.says("secret", "rotate", code=2)
    assert ready.ask("SELECT jobmanager.key_count('default')") == 1


def test_the_database_that_has_pg_cron_is_named(
    operator: Operator, pg_cron_databases: FreshDatabases
) -> None:
    operator.be_at(pg_cron_databases.make())

    said = operator.says("init", "--yes", code=2)

    assert (
        "on this server pg_cron lives in database 'postgres'. Name that one in JOBMANAGER_PG_CRON_URL" in said
    )
    assert operator.ask("SELECT to_regnamespace('jobmanager')") is None


def test_what_is_lacking_in_one_database_keeps_the_other_as_it_was(
    operator: Operator, pg_cron_url: str, pg_cron_databases: FreshDatabases
) -> None:
    operator.ask("CREATE ROLE shop LOGIN")
    operator.ask("DROP EXTENSION pg_cron")
    operator.environment.setenv("JOBMANAGER_PG_CRON_URL", pg_cron_url)
    operator.be_at(pg_cron_databases.make().replace("postgres@", "shop@"))

    refused = operator.gets("init", "--yes", code=1)["error"]

    assert refused["sql"] == [f'GRANT CREATE ON DATABASE "{refused["database"]}" TO "shop";']
    operator.be_at(pg_cron_url)
    assert operator.ask("SELECT count(*) FROM pg_extension WHERE extname = 'pg_cron'") == 0


def test_several_databases_share_one_pg_cron(
    operator: Operator, pg_cron_url: str, pg_cron_databases: FreshDatabases
) -> None:
    """Fails if the entries of one are those of another: a name exists once."""
    here = operator.gets("init", "--yes")["entries"]
    urls = [pg_cron_databases.make() for _ in range(2)]
    operator.environment.setenv("JOBMANAGER_PG_CRON_URL", pg_cron_url)

    for url in urls:
        operator.be_at(url)
        assert operator.gets("init", "--yes")["entries"] == here
        assert {entry["drift"] for entry in operator.gets("pg-cron", "entries")} == {""}

    operator.be_at(pg_cron_url)
    names = [urlsplit(url).path.strip("/") for url in urls]
    assert sorted(operator.jobs_of_cron()) == sorted(
        [("jm_dispatch", "postgres"), ("jm_sweep", "postgres")]
        + [(f"{entry}@{name}", name) for name in names for entry in here]
    )
    operator.be_at(urls[0])
    assert operator.gets("pg-cron", "pause", "jm_sweep")["state"] == "paused"
    assert operator.gets("pg-cron", "unschedule", "jm_dispatch", "--yes")["unscheduled"]
    assert [entry["drift"] for entry in operator.gets("pg-cron", "entries", code=1)] == [
        "not in pg_cron",
        "paused",
    ]
    operator.gets("init", "--yes")
    assert operator.gets("pg-cron", "uninstall", "--yes")["unscheduled"] == 1
    operator.be_at(pg_cron_url)
    assert {database for _, database in operator.jobs_of_cron()} == {"postgres", names[1]}


def test_a_url_of_this_machine_is_warned_of_where_the_database_is_another(
    operator: Operator, pg_net: StandIn, pg_cron_url: str
) -> None:
    host = psycopg.conninfo.conninfo_to_dict(pg_cron_url)["host"]
    operator.be_at(pg_cron_url.replace(str(host), "database.test") + f"?hostaddr={host}")

    warnings = operator.gets("init", "--yes", "--url", "http://localhost:8000")["warnings"]

    assert "http://localhost:8000 means this machine, and the database is at database.test" in warnings[0]


def test_a_url_of_this_machine_does_not_replace_that_of_a_server(ready: Operator) -> None:
    warned = ready.gets("init", "--yes", "--url", "http://localhost:8000")

    assert warned["url"] == f"{URL}/jobs/run"
    assert f"The database goes on calling {URL}/jobs/run" in warned["warnings"][0]


def test_without_a_way_to_call_processes_listen(operator: Operator) -> None:
    made = operator.gets("init", "--yes", "--url", URL)

    assert made["environment"] == {"JOBMANAGER_BACKEND": "pg_cron", "JOBMANAGER_PG_CRON_TRANSPORT": "notify"}
    assert "neither pg_net nor http" in made["warnings"][0]
    assert operator.ask("SELECT transport FROM jobmanager.tickers") == "notify"


@pytest.mark.parametrize(
    "secret",
    [
        "whsec_" + base64.b64encode(bytes(range(32))).decode(),
        "whsec_" + base64.b64encode(bytes(range(33))).decode(),
        "whsec_" + base64.b64encode(bytes(range(32))).decode().rstrip("="),
        "whsec_" + base64.b64encode(bytes(range(100))).decode(),
        "a plain one: ünïcødé, 'quotes' and \\backslashes\\".replace(" ", "_"),
        "x0" * 40 + "abcdefgh",
    ],
)
def test_database_and_application_make_the_same_key_of_a_secret(
    operator: Operator, pg_net: StandIn, secret: str
) -> None:
    operator.environment.setenv("JOBMANAGER_SECRET", secret)

    assert operator.gets("init", "--yes", "--url", URL)["secret_state"] == "that of JOBMANAGER_SECRET"
    assert operator.gets("init", "--yes", "--url", URL)["secret_state"] == "kept"

    care = PgCronAdmin(PgCronBackend(operator.url), actor="test")
    assert care.knows(secret)
    assert not care.knows(secret[:-5] + "xxxx" + secret[-1])


@pytest.mark.parametrize(
    ("answers", "code"), [(["nonsense", URL, "y"], 0), ([URL, "n"], 1), ([URL, "\x04"], 1)]
)
def test_on_a_terminal_init_asks(operator: Operator, pg_net: StandIn, answers: list[str], code: int) -> None:
    screen, terminal = pty.openpty()
    asking = subprocess.Popen(
        [sys.executable, "-m", "jobmanager", "init"],
        env={**os.environ, "TERM": "xterm", "COLUMNS": "70"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    said = b""
    for answer in answers:
        while not said.rstrip().endswith((b"called):", b"[y/N]:")):
            said += os.read(screen, 4096)
        os.write(screen, answer.encode() if answer == "\x04" else answer.encode() + b"\n")
        said = b""
    with suppress(OSError):  # the terminal is gone with the process
        while chunk := os.read(screen, 4096):
            said += chunk
    os.close(screen)
    assert asking.wait(30) == code, said.decode()
    if code:
        assert "Nothing was changed." in said.decode()
        assert operator.ask("SELECT to_regnamespace('jobmanager')") is None
    else:
        assert re.search(r"JOBMANAGER_SECRET=whsec_[A-Za-z0-9+/]{43}=\s", said.decode()), said.decode()


# ---------------------------------------------------------------- Vault


@pytest.fixture
def vault(operator: Operator, pg_net: StandIn) -> Operator:
    operator.ask(VAULT)
    return operator


def secrets_in(operator: Operator) -> dict[str, str]:
    with psycopg.connect(operator.url) as connection:
        return dict(
            connection.execute("SELECT name, decrypted_secret FROM vault.decrypted_secrets").fetchall()
        )


def test_where_there_is_a_vault_the_secret_is_kept_there_alone(vault: Operator) -> None:
    made = vault.gets("init", "--yes", "--url", URL)["environment"]["JOBMANAGER_SECRET"]
    assert secrets_in(vault) == {"jobmanager_signing_key": made}

    rotated = vault.gets("secret", "rotate")
    assert secrets_in(vault) == {
        "jobmanager_signing_key": made,
        "jobmanager_signing_key_next": rotated["secret"],
    }
    assert rotated["signing"] == 2
    assert vault.gets("secret", "retire", "--yes") == {"retired": 1, "signing": 1}

    assert secrets_in(vault) == {"jobmanager_signing_key": rotated["secret"]}
    assert vault.ask("SELECT count(*) FROM jobmanager.signing_keys") == 0


def test_retiring_ends_what_the_table_holds_once_there_is_a_vault(ready: Operator) -> None:
    """Fails if a key from before the Vault signs for ever."""
    ready.ask(VAULT)
    new = ready.gets("secret", "rotate")["secret"]

    assert ready.gets("secret", "retire", "--yes") == {"retired": 1, "signing": 1}

    assert ready.ask("SELECT count(*) FROM jobmanager.signing_keys WHERE retired_at IS NULL") == 0
    assert secrets_in(ready) == {"jobmanager_signing_key": new}


# ---------------------------------------------------------------- rotation


def test_a_rotation_is_ended_before_the_next_begins(ready: Operator) -> None:
    ready.gets("secret", "rotate")

    assert "The last rotation was not ended" in ready.says("secret", "rotate", code=3)
    assert ready.gets("secret", "rotate", "--again")["signing"] == 3
    assert ready.gets("secret", "retire", "--yes") == {"retired": 2, "signing": 1}
    assert ready.gets("secret", "retire") == {"retired": 0, "signing": 1}


@pytest.mark.parametrize(
    "words", [("secret", "rotate"), ("secret", "retire", "--yes"), ("pg-cron", "entries"), ("verify",)]
)
def test_nothing_is_looked_after_where_nothing_is_installed(
    operator: Operator, words: tuple[str, ...]
) -> None:
    said = operator.says(*words, code=3)

    assert "nothing of pg_cron's backend is installed here" in said
    assert "`jobmanager init`" in said


def test_there_is_no_secret_to_replace_where_none_was_needed(operator: Operator) -> None:
    operator.gets("init", "--yes")

    assert "There is no secret to replace" in operator.says("secret", "rotate", code=3)
    assert "There is no secret" in operator.says("secret", "retire", code=3)


class Deployments:
    """The application with one secret after the other, behind the gate of a loop; counts what is answered."""

    def __init__(self, loop: Loop, **settings: Any) -> None:
        self.answers: Counter[int] = Counter()
        self._loop = loop
        self._settings = settings
        self._managers: list[JobManager] = []
        self._counting = threading.Lock()
        self._under_way = 0
        loop.gate.reply = self._answer

    def _answer(self, request: Received) -> Reply:
        with self._counting:
            self._under_way += 1
        reply = self._loop.application(request)
        with self._counting:
            self._under_way -= 1
            self.answers[reply.status] += 1
        return reply

    def deploy(self, secret: str) -> None:
        """From now on it has this secret."""
        manager = JobManager(
            Settings(
                database_url=self._loop.manager.settings.database_url,
                backend="pg_cron",
                public_url=self._loop.gate.url,
                secret=secret,
                pg_cron_transport="pg_net",
                **self._settings,
            )
        )
        manager.add_job("work", lambda: None, cron="* * * * *")
        self._managers.append(manager)
        self._loop._application = wsgi(manager)

    def answered(self, more: int) -> None:
        """Wait until so many more calls are answered."""
        wanted = sum(self.answers.values()) + more
        until(lambda: sum(self.answers.values()) >= wanted, 30)

    def close(self) -> None:
        self._loop.gate.reply = Reply(status=503)
        until(lambda: not self._under_way, 30)
        for manager in self._managers:
            manager.stop(1)
            manager.store.close()


@contextmanager
def calling(url: str) -> Iterator[None]:
    """Meanwhile the database calls, some hundred times a second."""
    ended = threading.Event()

    def call() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not ended.wait(0.01):
                connection.execute("SELECT jobmanager.post('default', 'ticks', '{}', clock_timestamp())")

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join(30)


@pytest.mark.slow
@pytest.mark.parametrize("auth", ["signature", "bearer"])
def test_a_rotation_under_load_refuses_no_call(operator: Operator, pg_net: StandIn, auth: str) -> None:
    """Fails if a call is signed with less than both keys, or if a token is sent that the application does not know yet."""
    operator.environment.setenv("JOBMANAGER_AUTH", auth)
    with Loop(operator.url, pg_net, auth=auth) as loop:
        if auth == "bearer":
            loop.connection.execute("SELECT jobmanager.put_key('default', %s, true)", (SECRET,))
            loop.connection.execute("DELETE FROM jobmanager.signing_keys WHERE bearer IS NULL")
        deployments = Deployments(loop, auth=auth)
        try:
            with calling(operator.url):
                deployments.answered(100)  # the old secret
                new = operator.gets("secret", "rotate")["secret"]
                deployments.answered(100)
                deployments.deploy(f"{new} {SECRET}")
                deployments.answered(200)
                assert operator.gets("secret", "retire", "--yes")["retired"] == 1
                deployments.answered(100)
                last = loop.ask("SELECT max(request_id) FROM jobmanager.calls")
                until(
                    lambda: not loop.ask("SELECT count(*) FROM net.http_request_queue WHERE id <= %s", last)
                )
                deployments.deploy(new)
                deployments.answered(200)
            assert set(deployments.answers) == {202}, deployments.answers
        finally:
            deployments.close()


@pytest.mark.slow
def test_a_rotation_ended_too_early_is_refused(operator: Operator, pg_net: StandIn) -> None:
    """The test above would see it."""
    with Loop(operator.url, pg_net) as loop, calling(operator.url):
        deployments = Deployments(loop)
        deployments.answered(50)
        operator.gets("secret", "rotate")
        operator.gets("secret", "retire", "--yes")
        until(lambda: deployments.answers[401] > 0, 30)
        deployments.close()


# ---------------------------------------------------------------- entries


FOREIGN = "SELECT cron.schedule('other ' || n, '0 4 * * *', format('SELECT %s /* jobmanager.fire(NULL) */', n)) FROM generate_series(1, 50) n"
DIGEST = "SELECT md5(string_agg(j::text, '|' ORDER BY jobid)) FROM cron.job j WHERE jobname LIKE 'other %' OR jobname = 'jm_vacuum'"
ORPHANS = "SELECT cron.schedule(jobmanager.entry_name('gone ' || n), '* * * * *', format('SELECT jobmanager.fire(%L)', jobmanager.entry_name('gone ' || n))) FROM generate_series(1, 3) n"


def test_foreign_entries_stay_as_they_are_whatever_is_done(ready: Operator) -> None:
    ready.ask(FOREIGN)
    ready.ask("SELECT cron.schedule('jm_vacuum', '0 4 * * *', 'VACUUM')")
    before = ready.ask(DIGEST)

    ready.ask(ORPHANS)
    assert len(ready.gets("pg-cron", "orphans", code=1)) == 3
    assert ready.gets("pg-cron", "purge", "--yes") == {"purged": 3, "failed": 0}
    assert ready.gets("pg-cron", "purge") == {"purged": 0, "failed": 0}
    ready.gets("pg-cron", "pause", "jm_sweep")
    ready.gets("pg-cron", "resume", "jm_sweep")
    ready.gets("pg-cron", "unschedule", "jm_dispatch", "--yes")
    ready.says("pg-cron", "unschedule", "jm_vacuum", "--yes", code=2)
    ready.says("pg-cron", "unschedule", "other 1", "--yes", code=2)
    ready.gets("init", "--yes")
    ready.gets("pg-cron", "uninstall", "--objects", "--yes")

    assert ready.ask(DIGEST) == before
    assert ready.ask("SELECT count(*) FROM cron.job") == 51


def test_init_purges_orphans(ready: Operator) -> None:
    ready.ask(ORPHANS)

    done = ready.gets("init", "--yes")

    assert (done["purged"], done["failed"]) == (3, 0)
    assert ready.gets("pg-cron", "orphans") == []
    assert ready.ask("SELECT count(*) FROM cron.job") == 2


def test_a_paused_entry_is_brought_back_by_nothing_but_resume(ready: Operator) -> None:
    assert ready.gets("pg-cron", "pause", "jm_sweep") == {
        "entry": "jm_sweep",
        "job": None,
        "state": "paused",
        "changed": True,
    }
    assert not ready.gets("pg-cron", "pause", "jm_sweep")["changed"]

    ready.gets("init", "--yes")

    assert {e["name"]: e["drift"] for e in ready.gets("pg-cron", "entries")} == {
        "jm_dispatch": "",
        "jm_sweep": "paused",
    }
    assert ready.ask("SELECT count(*) FROM cron.job") == 1
    assert ready.gets("pg-cron", "resume", "jm_sweep")["state"] == "active"
    assert ready.ask("SELECT count(*) FROM cron.job") == 2


@pytest.mark.parametrize("layout", ["dispatcher", "entries"])
def test_pausing_a_job_pauses_the_job_in_every_layout(ready: Operator, layout: str) -> None:
    """Fails if only its entry goes: the sweep and living processes would open its ticks all the same."""
    ready.environment.setenv("JOBMANAGER_PG_CRON_LAYOUT", layout)
    ready.gets("init", "--yes")
    entry = ready.ask("SELECT jobmanager.entry_name('work')")

    paused = ready.gets("pg-cron", "pause", "work")

    assert paused == {"entry": entry, "job": "work", "state": "paused", "changed": True}
    assert ready.ask("SELECT count(*) FROM cron.job WHERE jobname = %s", entry) == 0
    assert ready.ask("SELECT state_by FROM jobmanager.jobs WHERE id = 'work'")
    ready.ask(
        "UPDATE jobmanager.jobs SET next_due_at = clock_timestamp() - interval '1 minute' WHERE id = 'work'"
    )
    ready.ask("SELECT jobmanager.fire(NULL)")
    ready.ask("SELECT jobmanager.sweep()")
    assert ready.ask("SELECT count(*) FROM jobmanager.runs WHERE status = 'pending'") == 0
    assert ready.gets("pg-cron", "resume", entry)["state"] == "active"
    assert ready.ask("SELECT count(*) FROM cron.job WHERE jobname = %s", entry) == (layout == "entries")


def test_a_name_that_means_nothing_is_told(ready: Operator) -> None:
    assert "'nope' is neither an entry of ours nor a job" in ready.says("pg-cron", "pause", "nope", code=2)
    assert "is of no job" in ready.says("pg-cron", "pause", "jm_" + "0" * 24, code=2)
    assert "not in use here" in ready.says("pg-cron", "pause", "jm_http", code=1)
    assert "pg_cron has no entry" in ready.says("pg-cron", "unschedule", "work", "--yes", code=2)


def test_nobody_is_asked_where_nobody_can_answer(ready: Operator) -> None:
    ready.ask(ORPHANS)

    for words in (("purge",), ("unschedule", "jm_sweep"), ("uninstall",)):
        assert "Give --yes if it is meant" in ready.says("pg-cron", *words, code=2)
    assert "nobody can be asked here" in ready.says("init", code=2)

    assert ready.ask("SELECT count(*) FROM cron.job") == 5


def test_stats_tell_of_the_last_day(ready: Operator) -> None:
    ready.ask("SELECT jobmanager.sweep()")

    found = ready.gets("pg-cron", "stats")

    assert (found["entries"], found["active"], found["orphans"]) == (2, 2, 0)
    assert (found["runs_24h"], found["calls_24h"], found["oldest_open_call"]) == (0, 0, None)
    assert found["swept_at"] is not None
    assert "2 active" in ready.says("pg-cron", "stats")


def test_uninstalling_keeps_what_others_need(ready: Operator) -> None:
    ready.environment.setenv("JOBMANAGER_NAMESPACE", "staging")
    ready.environment.delenv("JOBMANAGER_APP")
    ready.gets("init", "--yes")

    assert "other applications, too: default" in ready.says(
        "pg-cron", "uninstall", "--objects", "--yes", code=3
    )
    assert ready.gets("pg-cron", "uninstall", "--yes") == {"unscheduled": 0, "objects": False}
    assert ready.ask("SELECT count(*) FROM cron.job") == 2


OF_THE_STORE = {
    "create_job", "enqueue", "fault_of_cron", "handlers_of", "presentable", "row_id", "send_event", "supersede", "turn_of",
}  # fmt: skip
"""Functions that are there with every store, whoever keeps the time."""


def test_uninstalling_leaves_jobs_and_runs(ready: Operator) -> None:
    manager = JobManager(Settings(database_url=ready.url, backend="noop"))
    manager.add_job("by-hand", lambda: None)
    manager.trigger_job("by-hand")

    gone = ready.gets("pg-cron", "uninstall", "--objects", "--yes")

    assert gone == {"unscheduled": 2, "objects": True}
    assert ready.ask("SELECT count(*) FROM cron.job") == 0
    left = ready.ask(
        "SELECT array_agg(proname::text) FROM pg_proc WHERE pronamespace = 'jobmanager'::regnamespace"
    )
    assert set(left) == OF_THE_STORE
    assert ready.ask("SELECT to_regclass('jobmanager.signing_keys')") is None
    assert ready.ask("SELECT count(*) FROM jobmanager.runs") == 1
    assert ready.gets("db", "check")["missing"] == []
    assert ready.gets("init", "--yes")["secret_state"] == "that of JOBMANAGER_SECRET"
    manager.store.close()


def test_what_changes_something_is_noted_with_who_did_it(
    ready: Operator, pg_cron_server: PgCron, caplog: pytest.LogCaptureFixture
) -> None:
    import getpass

    caplog.set_level("INFO", logger="jobmanager")

    ready.gets("pg-cron", "unschedule", "jm_sweep", "--yes")
    ready.gets("secret", "rotate")

    actor = getpass.getuser()
    assert f"event=audit category=jobs actor={actor} action=unschedule target=jm_sweep" in caplog.messages
    assert f"jobmanager: actor={actor} action=unschedule target=jm_sweep" in pg_cron_server.log()
    assert f'actor={actor} action="rotate secret"' in pg_cron_server.log()


# ---------------------------------------------------------------- verify


@pytest.fixture
def sweeping(operator: Operator) -> Iterator[Callable[[], None]]:
    """Starts a thread that lets the database sweep every half second instead of every quarter minute."""
    ended = threading.Event()
    threads: list[threading.Thread] = []

    def sweep() -> None:
        with psycopg.connect(operator.url, autocommit=True) as connection:
            while not ended.wait(0.3):
                connection.execute("SELECT jobmanager.sweep()")

    def start() -> None:
        threads.append(threading.Thread(target=sweep))
        threads[0].start()

    yield start
    ended.set()
    for thread in threads:
        thread.join(10)


@pytest.fixture
def deployed(
    operator: Operator, pg_net: StandIn, sweeping: Callable[[], None]
) -> Iterator[tuple[Operator, Loop]]:
    """An application behind a gate whose database sweeps, and an operator with its secret."""
    loop = Loop(operator.url, pg_net, jobs=())
    # Its entries are at work; a minute that comes meanwhile is none of this one's.
    loop.manager.add_job("work", loop._note, cron="0 3 1 1 *")
    loop.manager.add_job("hello", lambda: "done")
    with loop:
        loop.connection.execute("SELECT jobmanager.sync_entries()")
        operator.environment.setenv("JOBMANAGER_BACKEND", "pg_cron")
        operator.environment.setenv("JOBMANAGER_PUBLIC_URL", loop.gate.url)
        operator.environment.setenv("JOBMANAGER_SECRET", SECRET)
        sweeping()
        yield operator, loop


LINKS = ("database", "entries", "secret", "URL", "pg_cron", "call now")


def levels(verified: Any) -> dict[str, str]:
    return {check["check"]: check["level"] for check in verified["checks"]}


@pytest.mark.slow
def test_verify_goes_along_every_link(deployed: tuple[Operator, Loop]) -> None:
    operator, loop = deployed

    verified = operator.gets("verify", "hello", "--timeout", "30s")

    assert levels(verified) == dict.fromkeys((*LINKS, "run now", "worker", "recorder", "runs", "calls"), "ok")
    assert len(loop.manager.runs("hello", "succeeded")) == 1
    assert SECRET not in operator.says("verify", "--timeout", "30s")


@pytest.mark.slow
def test_verify_starts_no_run_unless_it_is_told_which(deployed: tuple[Operator, Loop]) -> None:
    operator, loop = deployed

    verified = operator.gets("verify", "--timeout", "30s")

    assert levels(verified)["run now"] == "note"
    assert loop.manager.runs() == []


ELSEWHERE = {
    "a redirect": (redirect("/login"), "redirects (302) to /login"),
    "a login page": (Reply(status=200, body=b"<html>Please log in</html>"), "it is not our endpoint"),
    "another application": (Reply(status=200, body=b'{"call": 17}'), "it is not our endpoint"),
    "another secret": (Reply(status=401, body=b'{"error":"unauthorized"}'), "refuses our call (401)"),
    "another path": (Reply(status=404), "there is no endpoint"),
    "no secret": (Reply(status=503, body=b'{"error":"unavailable, try again"}'), "has no JOBMANAGER_SECRET"),
    "a crash": (Reply(status=500), "replies 500"),
    "nobody": (Reply(hang_up=True), "cannot be reached from here"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", ELSEWHERE)
def test_verify_names_what_answers_instead_of_the_application(
    deployed: tuple[Operator, Loop], case: str
) -> None:
    operator, loop = deployed
    loop.gate.reply, words = ELSEWHERE[case]

    verified = operator.gets("verify", "--timeout", "30s", code=1)

    [url] = [check for check in verified["checks"] if check["check"] == "URL"]
    assert url["level"] == "failing"
    assert words in url["text"]
    assert url["fix"]
    assert levels(verified)["call now"] == "failing"
    assert "GET" not in {
        request.method for request in loop.gate.received if "verify" in (request.header("user-agent") or "")
    }


@pytest.mark.slow
def test_verify_without_the_secret_is_content_with_being_refused(deployed: tuple[Operator, Loop]) -> None:
    operator, _ = deployed
    operator.environment.delenv("JOBMANAGER_SECRET")
    operator.environment.delenv("JOBMANAGER_BACKEND")

    verified = operator.gets("verify", "--timeout", "30s")

    assert levels(verified)["secret"] == "note"
    assert levels(verified)["URL"] == "ok"


@pytest.mark.slow
def test_verify_fails_where_the_run_fails(deployed: tuple[Operator, Loop]) -> None:
    operator, _ = deployed

    # Its handler takes no start by hand.
    verified = operator.gets("verify", "work", "--timeout", "30s", code=1)

    [run] = [check for check in verified["checks"] if check["check"] == "run now"]
    assert run["level"] == "failing"
    assert "of work failed" in run["text"]


JOBS_IN_TROUBLE = """
jobs.add_job("busy", "nowhere:handler")
jobs.add_job("slow", "nowhere:handler", overlap="allow")
jobs.add_job("lost", "nowhere:handler")
jobs.add_job("paused", lambda: 1)
jobs.add_job("off", lambda: 1, enabled_when=False)
jobs.add_job("needy", lambda name: name)
"""
TROUBLE = {
    "busy": ("note", "was active, so none was started; it is running", 0),
    "slow": ("warning", "of slow is running after", 0),
    "paused": ("ok", "of paused succeeded", 0),
    "off": ("warning", "none was started: Job 'off' is disabled", 0),
    "needy": ("warning", "none was started: Job 'needy': Handler 'needy' needs name", 0),
    "lost": ("failing", "of lost failed: Handler 'lost': 'nowhere:handler' cannot be imported", 1),
    "unknown": ("failing", "none was started: No job 'unknown' is declared", 1),
}


@pytest.mark.slow
def test_verify_reports_every_link_whatever_the_job_does(
    deployed: tuple[Operator, Loop], tmp_path: Path
) -> None:
    """Fails if a conflict, a refusal or a handler that does not end hides the links, or counts as a broken one."""
    operator, loop = deployed
    (tmp_path / "shop_in_care.py").write_text(APPLICATION + JOBS_IN_TROUBLE)
    end = threading.Event()
    loop.manager.add_job("busy", lambda: end.wait(100))
    loop.manager.add_job("slow", lambda: end.wait(100), overlap="allow")
    loop.manager.add_job("lost", "nowhere:handler")
    loop.manager.add_job("paused", lambda: 1)
    loop.manager.add_job("off", lambda: 1, enabled_when=False)
    loop.manager.add_job("needy", lambda name: name)
    loop.manager.sync()
    loop.manager.stop_job("paused")
    active = loop.manager.trigger_job("busy")
    until(lambda: loop.manager.run(active.id).status is RunStatus.RUNNING)
    try:
        for job, (level, said, code) in TROUBLE.items():
            verified = operator.gets("verify", job, "--timeout", "3s" if job == "slow" else "30s", code=code)
            checks = {check["check"]: check for check in verified["checks"]}
            assert {name: checks[name]["level"] for name in LINKS} == dict.fromkeys(LINKS, "ok"), job
            assert (checks["run now"]["level"], said in checks["run now"]["text"]) == (level, True), verified
            assert checks["worker"]["level"] == ("note" if job == "unknown" else "ok"), verified
            assert checks["recorder"]["level"] == ("ok" if job in {"paused", "lost"} else "note"), verified
            assert ("began run" in checks["worker"]["text"]) is (job in {"busy", "slow", "paused", "lost"})
    finally:
        end.set()
    assert [run.id for run in loop.manager.runs("busy")] == [active.id]


def test_verify_names_entries_and_a_silent_pg_cron(ready: Operator) -> None:
    ready.gets("pg-cron", "unschedule", "jm_sweep", "--yes")
    ready.gets("pg-cron", "pause", "jm_dispatch")

    verified = ready.gets("verify", "--timeout", "0.2s", code=1)

    entries = {check["text"]: check["fix"] for check in verified["checks"] if check["check"] == "entries"}
    assert entries == {
        "jm_dispatch is paused": "`jobmanager pg-cron resume jm_dispatch` ends the pause.",
        "jm_sweep is not in pg_cron": "`jobmanager init` puts it right.",
    }
    assert levels(verified)["pg_cron"] == "failing"


def test_verify_of_another_namespace_says_so(ready: Operator) -> None:
    ready.environment.setenv("JOBMANAGER_NAMESPACE", "staging")

    verified = ready.gets("verify", code=1)

    assert "the time of no application 'staging'" in verified["checks"][-1]["text"]


# ---------------------------------------------------------------- init over an installation, and on unwilling servers


def test_init_without_a_url_keeps_the_one_that_the_database_calls(ready: Operator) -> None:
    ready.environment.delenv("JOBMANAGER_PUBLIC_URL")

    again = ready.gets("init", "--yes")

    assert again["url"] == f"{URL}/jobs/run"
    assert again["warnings"] == []
    assert ready.ask("SELECT transport || ' ' || url FROM jobmanager.tickers") == f"pg_net {URL}/jobs/run"


def test_init_without_a_url_says_so_where_the_path_is_another(ready: Operator) -> None:
    ready.environment.delenv("JOBMANAGER_PUBLIC_URL")
    ready.environment.setenv("JOBMANAGER_RUN_PATH", "/other")

    assert "--url" in ready.says("init", "--yes", code=2)
    assert ready.ask("SELECT transport || ' ' || url FROM jobmanager.tickers") == f"pg_net {URL}/jobs/run"


@pytest.mark.parametrize("style", ["SQL, DMY", "German", "Postgres, MDY"])
def test_init_and_a_run_work_whatever_way_the_database_writes_dates(
    operator: Operator, pg_net: StandIn, style: str
) -> None:
    operator.ask(f"ALTER DATABASE postgres SET datestyle = '{style}'")
    operator.ask("ALTER DATABASE postgres SET intervalstyle = 'iso_8601'")
    try:
        made = operator.gets("init", "--yes", "--url", URL)
        entries = operator.gets("pg-cron", "entries")
        status = operator.gets("jobs", "list")
    finally:
        operator.ask("ALTER DATABASE postgres RESET datestyle")
        operator.ask("ALTER DATABASE postgres RESET intervalstyle")

    assert made["secret_state"] == "made"
    assert len(entries) == 2
    assert status


def test_a_secret_is_shown_although_a_later_step_fails(
    operator: Operator, pg_net: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def purge(_: PgCronAdmin) -> object:
        raise StoreUnavailableError("the database went away")

    monkeypatch.setattr(PgCronAdmin, "purge", purge)
    said = operator.says("init", "--yes", "--url", URL, code=1)

    assert "the database went away" in said
    assert re.search(r"^  JOBMANAGER_SECRET=whsec_\S{40,}$", said, re.MULTILINE)
    assert operator.ask("SELECT count(*) FROM jobmanager.signing_keys") == 1


NOT_LOADED = "DO $$ BEGIN RAISE EXCEPTION 'pg_net is not in shared_preload_libraries'; END $$"


@pytest.fixture
def unloaded_pg_net(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> Operator:
    """A server that has pg_net's files, and not its library."""
    create = setup._create
    monkeypatch.setattr(setup, "_create", lambda name: NOT_LOADED if name == "pg_net" else create(name))
    available = "ARRAY(SELECT name::text FROM pg_available_extensions)"
    monkeypatch.setattr(setup, "LOOK", setup.LOOK.replace(available, f"{available} || '{{pg_net}}'::text[]"))
    return operator


def test_pg_net_that_is_not_loaded_keeps_no_installation_from_listening(unloaded_pg_net: Operator) -> None:
    made = unloaded_pg_net.gets("init", "--yes", "--url", URL)

    assert made["extensions_created"] == []
    assert any("notify" in warning for warning in made["warnings"])
    assert unloaded_pg_net.ask("SELECT transport FROM jobmanager.tickers") == "notify"


def test_pg_net_that_is_asked_for_and_not_loaded_is_refused_in_a_sentence(unloaded_pg_net: Operator) -> None:
    unloaded_pg_net.environment.setenv("JOBMANAGER_PG_CRON_TRANSPORT", "pg_net")

    said = unloaded_pg_net.says("init", "--yes", "--url", URL, code=2)

    assert "Add it to shared_preload_libraries and restart" in " ".join(said.split())


def test_a_transport_that_does_not_use_pg_net_does_not_ask_for_it(unloaded_pg_net: Operator) -> None:
    """Fails if pg_net is created for http: where it is asked for, this server raises."""
    with psycopg.connect(unloaded_pg_net.url) as connection:
        ground = setup.look(connection)

    assert "pg_net" in ground.available
    assert setup._missing_extensions(ground, cron=False, transport="http") == []
    assert setup._missing_extensions(ground, cron=False, transport="notify") == []
    assert setup._missing_extensions(ground, cron=False, transport="auto") == ["pg_net"]
