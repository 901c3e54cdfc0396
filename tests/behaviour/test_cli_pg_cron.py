"""`init`, `secret`, `pg-cron` and `verify` where there is no database to look after, and what `verify` makes of an answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from standardwebhooks import Webhook
from tests.calls import OTHER_SECRET, SECRET
from tests.pg_net.target import Reply, Target, redirect
from tests.servers import free_port

from jobmanager import Settings
from jobmanager.backends.pg_cron import schema as objects
from jobmanager.cli import main
from jobmanager.cli.commands.verify_links import PROBE, endpoint

WITHOUT_PSYCOPG = (
    "import sys; sys.modules['psycopg'] = None; from jobmanager.cli import main; sys.exit(main())"
)
VERBS = [
    ("init", "--yes"),
    ("verify",),
    ("secret", "rotate"),
    ("secret", "retire", "--yes"),
    *(("pg-cron", verb) for verb in ("install", "entries", "orphans", "stats")),
    ("pg-cron", "purge", "--yes"),
    ("pg-cron", "uninstall", "--yes"),
    *(("pg-cron", verb, "jm_sweep") for verb in ("pause", "resume", "unschedule")),
]

Say = Callable[..., str]


@pytest.fixture
def say(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    monkeypatch.chdir(tmp_path)

    def call(*words: str, code: int, **environment: str) -> str:
        for name, value in environment.items():
            monkeypatch.setenv(f"JOBMANAGER_{name}", value)
        got = main(list(words))
        said = capsys.readouterr()
        assert got == code, said
        return said.out + said.err

    return call


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_without_postgresql_each_verb_says_what_to_set(say: Say, words: tuple[str, ...]) -> None:
    said = say(*words, code=2)

    assert "error: No PostgreSQL database is named." in said
    assert "Set JOBMANAGER_DATABASE_URL=postgresql://user@host/name" in said


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_a_database_that_is_away_is_told_without_its_password(say: Say, words: tuple[str, ...]) -> None:
    url = f"postgresql://ana:hunter2@127.0.0.1:{free_port()}/shop"

    said = say(*words, code=1, DATABASE_URL=url)

    assert "postgresql://ana:***@127.0.0.1" in said
    assert "hunter2" not in said


def test_without_the_driver_it_is_named() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_PSYCOPG, "pg-cron", "entries"],
        env={**os.environ, "JOBMANAGER_DATABASE_URL": "postgresql://localhost/shop"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 2
    assert "Install jobmanager-backends[postgres]." in ended.stderr
    assert "Traceback" not in ended.stderr


def test_init_asks_or_is_told_not_to(say: Say) -> None:
    said = say("init", code=2, DATABASE_URL="postgresql://localhost/shop")

    assert "nobody can be asked here" in said
    assert "jobmanager init --yes --url https://" in said


@pytest.mark.parametrize("url", ["shop.example.com", "https://ana:pw@shop.example.com", "ftp://shop"])
def test_a_url_that_cannot_be_is_refused_before_anything_is_asked(say: Say, url: str) -> None:
    said = say("init", "--yes", "--url", url, code=2, DATABASE_URL="postgresql://localhost/shop")

    assert "JOBMANAGER_PUBLIC_URL" in said
    assert "https://host/path" in said


def test_the_script_for_a_dba_needs_no_database(say: Say) -> None:
    said = say("pg-cron", "install", "--sql", "--role", 'an "odd" role', code=0)

    assert objects.script() in said
    assert f"IS '{objects.release()}';" in said
    assert 'GRANT USAGE ON SCHEMA jobmanager TO "an ""odd"" role";' in said
    assert said.index("BEGIN;") < said.index("CREATE TABLE") < said.index("COMMIT;")
    told = json.loads(say("pg-cron", "install", "--sql", "--json", code=0))
    assert told["release"] == objects.release()
    assert "GRANT USAGE" not in told["sql"].partition("BEGIN;")[2]


# ---------------------------------------------------------------- what verify makes of an answer


def accepting(request: Any) -> Reply:
    return Reply(status=202, body=b'{"call":0,"accepted":0,"known":0}')


def test_the_probe_is_signed_as_the_database_signs(http_target: Target) -> None:
    http_target.reply = accepting

    found = endpoint(Settings(secret=f"{SECRET} {OTHER_SECRET}"), f"{http_target.url}/jobs/run")

    assert (found.level, found.fix) == ("ok", "")
    [request] = http_target.received
    assert (request.method, request.path, request.body) == ("POST", "/jobs/run", PROBE)
    Webhook(SECRET).verify(request.body, {name.lower(): value for name, value in request.headers})


def test_the_probe_carries_a_bearer_token_where_that_is_wanted(http_target: Target) -> None:
    http_target.reply = accepting

    endpoint(Settings(secret=OTHER_SECRET, auth="bearer"), f"{http_target.url}/jobs/run")

    assert http_target.received[0].header("Authorization") == f"Bearer {OTHER_SECRET}"


def test_without_a_secret_being_refused_is_right(http_target: Target) -> None:
    http_target.reply = Reply(status=401, body=b'{"error":"unauthorized"}')

    assert endpoint(Settings(), http_target.url).level == "ok"
    assert http_target.received[0].header("webhook-signature") is None


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (redirect("/elsewhere", 301), "redirects (301) to /elsewhere"),
        (redirect("https://www.shop.example.com/jobs/run", 308), "redirects (308) to https://www.shop"),
        (Reply(status=200, body=b"[]"), "it is not our endpoint"),
        (Reply(status=204, body=b""), "it is not our endpoint"),
        (Reply(status=202, body=b'{"call":1}'), "it is not our endpoint"),
        (Reply(status=401, body=b"no"), "refuses our call (401)"),
        (Reply(status=404), "there is no endpoint"),
        (Reply(status=405), "there is no endpoint"),
        (Reply(status=503, body=b'{"error":"unavailable, try again"}'), "has no JOBMANAGER_SECRET"),
        (Reply(status=503, body=b"<html>"), "replies 503"),
        (Reply(status=418), "replies 418"),
        (Reply(hang_up=True), "cannot be reached from here"),
    ],
)
def test_what_is_not_our_endpoint_is_named_with_what_to_do(
    http_target: Target, reply: Reply, says: str
) -> None:
    http_target.reply = reply

    found = endpoint(Settings(secret=SECRET), f"{http_target.url}/jobs/run")

    assert found.level == "failing"
    assert says in found.text
    assert found.fix
    assert SECRET not in found.text
    assert {request.path for request in http_target.received} == {"/jobs/run"}, "a redirect was followed"


def test_nobody_there_is_told() -> None:
    found = endpoint(Settings(), f"http://127.0.0.1:{free_port()}/jobs/run")

    assert found.level == "failing"
    assert "cannot be reached from here" in found.text
