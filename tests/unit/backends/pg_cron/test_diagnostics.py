"""What `doctor` says on servers that are not at hand: old ones, newer pg_cron, hosts that show little, and URLs of every kind."""

from __future__ import annotations

import socket
import threading
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

pytest.importorskip("psycopg", reason="needs psycopg: pip install psycopg[binary]")

from jobmanager.backends.base import Found
from jobmanager.backends.pg_cron import PgCronBackend
from jobmanager.backends.pg_cron import schema as objects
from jobmanager.backends.pg_cron.diagnostics import entries as entry_findings
from jobmanager.backends.pg_cron.diagnostics import server as server_findings
from jobmanager.backends.pg_cron.diagnostics.calls import OUTCOMES, _is_near
from jobmanager.backends.pg_cron.diagnostics.context import Examination, some
from jobmanager.backends.pg_cron.diagnostics.entries import _at_full_hour
from jobmanager.backends.pg_cron.diagnostics.http_probe import probe_url
from jobmanager.backends.pg_cron.diagnostics.queries import Owner, Server, TickerRow
from jobmanager.clock import SystemClock

URL = "postgresql://app@127.0.0.1:1/app"
SERVER = Server(
    database="app",
    role="app",
    version=150020,
    now=datetime(2026, 11, 25, tzinfo=UTC),
    extension="1.6",
    could_have_pg_cron=True,
    waits_for_workers=False,
    schedulers=["app"],
    senders=[],
    has_pg_net=False,
    pg_net=None,
    has_http=False,
    may_use=True,
    may_create=False,
    may_see_cron=False,
    settings={},
)
OWNER = Owner(
    name="owner",
    release=objects.release(),
    can_login=True,
    is_us=False,
    uses=True,
    schedules=True,
    reads_responses=True,
)
TICKER = TickerRow(
    transport="notify",
    layout="dispatcher",
    auth="signature",
    url=None,
    timeout_ms=5000,
    passes=4,
    swept_at=SERVER.now,
)
ENTRIES = [
    {"name": name, "schedule": "* * * * *", "drift": "", "orphan": False, "error": None}
    for name in ("jm_dispatch", "jm_sweep")
]


class Answers:
    """A database that answers as it is told."""

    def __init__(self, server: Server, ticker: TickerRow, settings: dict[str, str]) -> None:
        self._rows: dict[type, Any] = {Server: server, Owner: OWNER, TickerRow: ticker}
        self._settings = settings

    def one(self, kind: type, *_: object, **__: object) -> Any:
        return self._rows[kind]

    def column(self, query: str, *_: object, **__: object) -> list[Any]:
        if "examined_entries" not in query:
            return []
        return [{"settings": self._settings, "entries": ENTRIES, "callers": [], "bytes": 0}]

    def lacking(self) -> list[str]:
        return []


def found(
    server: Server = SERVER, ticker: TickerRow = TICKER, settings: dict[str, str] | None = None
) -> list[Found]:
    answers: Any = Answers(server, ticker, {"cron.max_running_jobs": "32"} if settings is None else settings)
    case = Examination(PgCronBackend(URL), (), answers)
    checks = {**server_findings.CHECKS, **entry_findings.CHECKS}
    whole = replace(
        server, settings={"max_connections": "100", "max_worker_processes": "64", **server.settings}
    )
    answers._rows[Server] = whole
    return [finding for look in checks.values() for finding in look(case)]


def bad(*args: Any, **kwargs: Any) -> list[Found]:
    return [finding for finding in found(*args, **kwargs) if finding.level in ("warning", "failing")]


def notes(*args: Any, **kwargs: Any) -> str:
    return " ".join(finding.text for finding in found(*args, **kwargs) if finding.level == "note")


def test_nothing_is_wrong_with_what_these_tests_start_from() -> None:
    assert bad() == []


def test_a_server_that_is_too_old() -> None:
    [finding] = bad(replace(SERVER, version=130014))
    assert "PostgreSQL 13; plans need 14" in finding.text
    assert "Upgrade" in finding.fix


def test_a_server_without_pg_cron() -> None:
    finding = bad(replace(SERVER, extension=None, could_have_pg_cron=False, schedulers=[]))[0]
    assert "The server has no extension pg_cron" in finding.text
    assert "postgresql-15-cron" in finding.fix


def test_pg_cron_that_was_moved_to_another_database() -> None:
    [finding] = bad(replace(SERVER, schedulers=["postgres"]))
    assert "pg_cron lives in database 'postgres'" in finding.text


@pytest.mark.parametrize(("comes_back", "expected"), [(True, []), (False, ["failing"])])
def test_a_scheduler_that_is_being_started_again(
    monkeypatch: pytest.MonkeyPatch, comes_back: bool, expected: list[str]
) -> None:
    monkeypatch.setattr(SystemClock, "sleep", lambda *_: None)
    asked = []

    def column(self: Answers, query: str, *_: object) -> list[Any]:
        asked.append(query)
        return ["app"] if comes_back and len(asked) == 3 else []

    monkeypatch.setattr(Answers, "column", column)
    answers: Any = Answers(replace(SERVER, schedulers=[]), TICKER, {})
    found = server_findings.CHECKS["pg_cron"](Examination(PgCronBackend(URL), (), answers))
    assert [finding.level for finding in found] == expected


def test_a_library_with_a_name_like_pg_crons_is_none() -> None:
    preloaded = {"shared_preload_libraries": "pg_cron_helper, pg_net"}
    assert "not loaded" in bad(replace(SERVER, settings=preloaded))[0].text
    assert bad(replace(SERVER, settings={"shared_preload_libraries": "pg_net,pg_cron"})) == []


@pytest.mark.parametrize("zone", ["UTC", "GMT", "Etc/UTC"])
def test_entries_in_utc_under_another_name(zone: str) -> None:
    ticker = replace(TICKER, layout="entries")
    assert bad(ticker=ticker, settings={"cron.timezone": zone, "cron.max_running_jobs": "32"}) == []


def test_entries_in_a_zone() -> None:
    settings = {"cron.timezone": "Europe/Berlin", "cron.max_running_jobs": "32"}
    [finding] = bad(ticker=replace(TICKER, layout="entries"), settings=settings)
    assert "cron.timezone is 'Europe/Berlin'" in finding.text
    assert "cron.timezone = 'UTC'" in finding.fix
    assert bad(settings=settings) == []
    assert "Europe/Berlin" in notes(settings=settings)


def test_settings_that_nobody_of_us_may_read() -> None:
    assert bad(settings={}) == []
    assert "pg_read_all_settings" in notes(settings={})


def test_functions_of_another_owner_and_release() -> None:
    answers: Any = Answers(SERVER, TICKER, {})
    answers._rows[Owner] = replace(OWNER, release=None)
    [finding] = [*server_findings.CHECKS["The functions"](Examination(PgCronBackend(URL), (), answers))]
    assert (finding.level, "Let 'owner' do it" in finding.fix) == ("failing", True)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("* * * * *", True),
        ("*/5 * * * *", True),
        ("0 9 * * *", True),
        ("5,0 * * * *", True),
        ("0-10 * * * *", True),
        ("5 * * * *", False),
        ("10 0 * * *", False),
        ("05 0 * * *", False),
    ],
)
def test_which_entries_run_at_a_full_hour(schedule: str, expected: bool) -> None:
    assert _at_full_hour(schedule) is expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("10.0.0.7", True),
        ("web", True),
        ("web.default.svc", True),
        ("app.internal", True),
        ("8.8.8.8", False),
        ("app.example.com", False),
    ],
)
def test_which_hosts_may_be_called_in_the_clear(host: str, expected: bool) -> None:
    assert _is_near(host) is expected


def test_every_word_of_an_outcome_has_a_fix() -> None:
    words = {word for word in OUTCOMES if f"'{word}'" in objects.script()}
    assert words == set(OUTCOMES)


def test_long_lists_are_cut() -> None:
    assert some(["a", "b"]) == "a, b"
    assert some(list("abcdefg")) == "a, b, c, d, e and 2 more"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/jobs/run", "https://nobody.invalid/", "mailto:x", "http:///x"]
)
def test_who_does_not_answer_is_told_and_nothing_is_raised(url: str) -> None:
    answer = probe_url(url)
    assert answer.status is None
    assert answer.error


def test_a_server_that_says_nothing_is_given_up() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        assert "timed out" in probe_url(f"http://127.0.0.1:{silent.getsockname()[1]}/").error


def test_an_answer_that_is_no_http() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-nothing\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert "BadStatusLine" in probe_url(f"http://127.0.0.1:{server.getsockname()[1]}/").error
        thread.join()
