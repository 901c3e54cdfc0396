"""The operator's kit for pg_cron: its set-up really sets a database up, and its commands, units and settings are ones that exist."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from tests.docs.test_celery_kit import SETTINGS, exec_start
from tests.docs.test_docs import CHECKS, LINK, blocks_of, commands_of

ROOT = Path(__file__).resolve().parents[2]
KIT = ROOT / "backends" / "pg_cron"
UNITS = sorted(KIT.glob("*.service"))
JOBS = """
from jobmanager import JobManager

jobs = JobManager()


@jobs.job("check-stock", every=60)
def check_stock():
    return 0
"""


def uvicorn_line(words):
    """A call of `uvicorn`: it takes these options."""
    from uvicorn.main import main

    options = {name for parameter in main.params for name in parameter.opts}
    for word in words:
        assert not word.startswith("-") or word in options, f"uvicorn takes no {word}"


def psql_line(words):
    assert (KIT / words[words.index("-f") + 1]).exists()


KNOWN = {**CHECKS, "uvicorn": uvicorn_line, "psql": psql_line, "pg_dump": lambda words: None}


def check(words):
    assert words[0] in KNOWN, words
    KNOWN[words[0]](words[1:])


def sql_of_the_page(beginning):
    [found] = [
        b.text for b in blocks_of(KIT / "README.md") if b.language == "sql" and b.text.startswith(beginning)
    ]
    return found


class TestPage:
    def test_every_command_exists(self):
        commands = [words for words in commands_of(KIT / "README.md") if words[0] != "export"]

        assert len(commands) > 12
        for words in commands:
            check(words)

    def test_every_setting_that_is_named_is_one(self):
        for path in (*KIT.iterdir(), ROOT / "examples" / "pg_cron_fastapi" / "README.md"):
            named = set(re.findall(r"JOBMANAGER_[A-Z_]+[A-Z]", path.read_text()))
            assert named <= SETTINGS, path.name

    def test_every_file_that_is_named_is_there(self):
        page = (KIT / "README.md").read_text()

        assert not LINK.findall(page)  # files are named in code, from the repository's root or from here
        for name in re.findall(r"`([\w@/.-]+\.(?:md|service|yaml|sql))`", page):
            # The last one is of another project, and said to be.
            assert (KIT / name).exists() or (ROOT / name).exists() or name == "docs/installation.md", name

    def test_every_outcome_that_is_named_is_one(self):
        from jobmanager.backends.pg_cron.diagnostics.calls import OUTCOMES

        _, _, trouble = (KIT / "README.md").read_text().partition("## Trouble")
        seen = " ".join(re.findall(r"^\| ([^|]+) \|", trouble, re.MULTILINE))  # the first column
        named = set(re.findall(r"`([a-z_]+)`", seen)) - {"doctor", "pending", "notify", "handler_missing"}

        assert named <= OUTCOMES.keys()
        assert len(named) > 6


class TestUnits:
    @pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
    def test_commands_exist(self, unit):
        check(exec_start(unit))

    @pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
    def test_runs_are_given_time_to_end(self, unit):
        from jobmanager.settings import Settings

        [seconds] = re.findall(r"^TimeoutStopSec=(\d+)$", unit.read_text(), re.MULTILINE)

        assert int(seconds) > Settings().drain_seconds + 10

    @pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
    @pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
    def test_systemd_takes_them(self, unit, tmp_path):
        copy = tmp_path / unit.name.replace("@", "@1")
        copy.write_text(re.sub(r"(?<=^ExecStart=)\S+", sys.executable, unit.read_text(), flags=re.MULTILINE))

        ended = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, check=False
        )

        assert [line for line in ended.stderr.splitlines() if copy.name in line] == [], ended.stderr

    def test_compose_file_is_one(self):
        yaml = pytest.importorskip("yaml", reason="PyYAML is not among our dependencies")
        services = yaml.safe_load((KIT / "compose.yaml").read_text())["services"]

        assert services.keys() == {"web", "postgres"}
        check(services["web"]["command"])
        check(services["web"]["healthcheck"]["test"][1:])
        assert services["web"]["environment"]["JOBMANAGER_BACKEND"] == "pg_cron"


def url_of(url, *, user=None, database=None):
    parts = urlsplit(url)
    host = f"{user or parts.username}@{parts.hostname}:{parts.port}"
    return urlunsplit(parts._replace(netloc=host, path=f"/{database}" if database else parts.path))


def failing(shell, variables):
    """What `doctor` finds wrong with the database; nobody serves here, so calls do not get through."""
    found = json.loads(shell("--json", "doctor", code=1, **variables))["findings"]
    assert [f["text"] for f in found if f["check"] == "processes"] == ["No process lives: nothing fires."]
    return [
        f["text"]
        for f in found
        if (f["level"] == "failing" and f["check"] != "processes" and "The last call" not in f["text"])
        or "pg_read_all_settings" in f["text"]
    ]


@pytest.mark.servers
@pytest.mark.slow
class TestSetUp:
    @pytest.fixture
    def shell(self, tmp_path):
        """Runs a line of the page where the application is, with these variables; answers what it printed."""
        (tmp_path / "application.py").write_text(JOBS)

        def run(*words, code=0, **variables):
            ended = subprocess.run(
                [sys.executable, "-m", "jobmanager", "--app", "application:jobs", *words],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(tmp_path), **variables},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert ended.returncode == code, ended.stdout + ended.stderr
            return ended.stdout

        return run

    @pytest.fixture
    def set_up(self):
        """As `psql -f setup.sql`, twice, as a superuser."""
        import psycopg

        def run(url):
            with psycopg.connect(url, autocommit=True) as database:
                for _ in range(2):
                    database.execute((KIT / "setup.sql").read_text())

        return run

    def test_its_role_needs_nothing_more(self, pg_cron_url, pg_net, shell, set_up):
        """Fails if a right is left out: `init` would print statements, or `doctor` find them missing."""
        import psycopg

        set_up(pg_cron_url)
        owner = {"JOBMANAGER_DATABASE_URL": url_of(pg_cron_url, user="jobmanager")}
        made = json.loads(shell("--json", "init", "--yes", "--url", "http://127.0.0.1:9", **owner))

        with psycopg.connect(pg_cron_url, autocommit=True) as database:
            entries = database.execute("SELECT jobname, username FROM cron.job ORDER BY 1").fetchall()
            [is_plain] = database.execute(
                "SELECT NOT (rolsuper OR rolcreatedb OR rolcreaterole) FROM pg_roles WHERE rolname = 'jobmanager'"
            ).fetchone()
        assert entries == [("jm_dispatch", "jobmanager"), ("jm_sweep", "jobmanager")]
        assert is_plain
        assert made["jobs_seeded"] == 1
        assert failing(shell, {**owner, **made["environment"]}) == []

    def test_an_application_s_role_that_owns_nothing_will_do(self, pg_cron_url, shell, set_up, tmp_path):
        import psycopg

        set_up(pg_cron_url)
        owner = {"JOBMANAGER_DATABASE_URL": url_of(pg_cron_url, user="jobmanager")}
        made = json.loads(shell("--json", "init", "--yes", **owner))
        with psycopg.connect(pg_cron_url, autocommit=True) as database:
            database.execute("CREATE ROLE shop LOGIN")
        shell("pg-cron", "install", "--role", "shop", **owner)

        theirs = {"JOBMANAGER_DATABASE_URL": url_of(pg_cron_url, user="shop"), **made["environment"]}
        (tmp_path / "start.py").write_text(
            "from application import jobs\n"
            "with jobs:\n"
            "    print(jobs.wait(jobs.trigger_job('check-stock').id).status)\n"
        )
        ended = subprocess.run(
            [sys.executable, "start.py"],
            cwd=tmp_path,
            env={**os.environ, **theirs},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert ended.stdout == "succeeded\n", ended.stderr
        assert failing(shell, theirs) == []

    def test_pg_cron_may_live_in_another_database(self, pg_cron_url, pg_cron_databases, shell, set_up):
        import psycopg

        url = pg_cron_databases.make()
        set_up(url)
        with psycopg.connect(pg_cron_url, autocommit=True) as there:
            there.execute(sql_of_the_page("CREATE EXTENSION"))
        shell(
            *("init", "--yes"),
            JOBMANAGER_DATABASE_URL=url_of(url, user="jobmanager"),
            JOBMANAGER_PG_CRON_URL=url_of(pg_cron_url, user="jobmanager"),
        )

        with psycopg.connect(pg_cron_url, autocommit=True) as there:
            entries = there.execute("SELECT username, database, command FROM cron.job ORDER BY 3").fetchall()
        ours = "jobmanager", urlsplit(url).path.strip("/")
        assert entries == [
            (*ours, "CALL jobmanager.sweep_minute(4)"),
            (*ours, "SELECT jobmanager.fire(NULL)"),
        ]

    def test_one_pass_a_minute_is_kept(self, pg_cron_url, shell, set_up):
        import psycopg

        set_up(pg_cron_url)
        owner = {"JOBMANAGER_DATABASE_URL": url_of(pg_cron_url, user="jobmanager")}
        shell("init", "--yes", **owner)
        with psycopg.connect(owner["JOBMANAGER_DATABASE_URL"], autocommit=True) as database:
            database.execute(sql_of_the_page("UPDATE jobmanager.tickers"))
        shell("init", "--yes", **owner)

        with psycopg.connect(pg_cron_url, autocommit=True) as database:
            [command] = database.execute("SELECT command FROM cron.job WHERE jobname = 'jm_sweep'").fetchone()
        assert command == "CALL jobmanager.sweep_minute(1)"

    def test_a_backup_by_the_page_has_no_key(self, pg_cron_url, pg_net, shell, set_up, tmp_path):
        import psycopg

        set_up(pg_cron_url)
        owner = {"JOBMANAGER_DATABASE_URL": url_of(pg_cron_url, user="jobmanager")}
        shell("init", "--yes", "--url", "http://127.0.0.1:9", **owner)
        with psycopg.connect(pg_cron_url, autocommit=True) as database:
            [pad] = database.execute("SELECT encode(ipad, 'hex') FROM jobmanager.signing_keys").fetchone()
        [words] = [words for words in commands_of(KIT / "README.md") if words[0] == "pg_dump"]
        options = [word for word in words[1:-1] if word not in ("--file", "shop.sql")]

        def dump(*options):
            return subprocess.run(
                ["pg_dump", *options, pg_cron_url], capture_output=True, text=True, timeout=60, check=True
            ).stdout

        assert pad not in dump(*options)
        assert pad in dump()  # what is left out is what has it


class TestHowTo:
    def test_every_outcome_is_explained_and_no_other(self):
        from jobmanager.backends.pg_cron.diagnostics.calls import OUTCOMES

        page = (ROOT / "docs" / "howto" / "pg-cron.md").read_text()
        _, _, table = page.partition("| outcome |")
        explained = re.findall(r"^\| `(\w+)…?` \|", table.partition("\n\n")[0], re.MULTILINE)
        sweep = (ROOT / "src/jobmanager/backends/pg_cron/sql/05_sweep.sql").read_text()
        labels, _, _ = sweep.partition("FUNCTION jobmanager.close_unaccepted")
        given = set(re.findall(r"(?:THEN|ELSE) '([a-z_]+)'", labels))

        assert set(explained) == given
        assert set(explained) - {"accepted", "http_"} == OUTCOMES.keys()
