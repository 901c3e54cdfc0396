"""At every start a process looks whether the database knows where to call it: one question if all is as it should be."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from tests.servers import FreshDatabases, PgCron, free_port

from jobmanager import JobManager, Settings
from jobmanager.backends.pg_cron.backend import is_local
from jobmanager.errors import StoreUnavailableError

pytestmark = [pytest.mark.servers, pytest.mark.slow]

SECRET = "Zq7-own-and-random-0123456789-abcdefghij"
OURS = "https://shop.example.com"
LOCAL = (
    "http://localhost:8000",
    "http://127.0.0.1",
    "http://127.9.9.9",
    "http://[::1]:80",
    "http://0.0.0.0",
    "http://ana.local",
)


@contextmanager
def process(url: str, public_url: str | None = OURS, **settings: Any) -> Iterator[JobManager]:
    """A manager as another process would have it."""
    manager = JobManager(
        Settings(database_url=url, backend="pg_cron", public_url=public_url, secret=SECRET, **settings)
    )
    manager.add_job("work", lambda: None, cron="0 4 * * *")
    manager.add_job("often", lambda: None, cron="*/5 * * * *", timezone="Europe/Berlin")
    try:
        yield manager
    finally:
        manager.stop(1)
        manager.store.close()


def started(url: str, public_url: str | None = OURS, **settings: Any) -> None:
    with process(url, public_url, **settings) as manager:
        manager.start()


@pytest.fixture
def url(pg_cron_url: str, pg_net: object) -> str:
    started(pg_cron_url)
    return pg_cron_url


def ask(url: str, query: str) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(query).fetchone()
        return None if row is None else row[0]


def stored(url: str) -> str:
    return str(ask(url, "SELECT url FROM jobmanager.tickers"))


def keys(url: str) -> str:
    return str(ask(url, "SELECT coalesce(md5(string_agg(k::text, ',')), '') FROM jobmanager.signing_keys k"))


def test_a_start_that_finds_nothing_to_do_asks_one_question(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails with a second statement, be it a look at the extensions, a lock or a sync of entries."""
    asked: list[str] = []
    execute = psycopg.Connection.execute

    def counting(self: Any, query: Any, *rest: Any, **how: Any) -> Any:
        asked.append(query.decode() if isinstance(query, bytes) else str(query))
        return execute(self, query, *rest, **how)

    with process(url) as manager:
        manager.store.install()
        manager._assembly.job_sync.carry_over()
        scheduled = manager._assembly.job_sync.scheduled(manager.settings.grace)
        monkeypatch.setattr(psycopg.Connection, "execute", counting)
        manager.backend.sync(scheduled)
        monkeypatch.undo()

    limit, *questions = asked
    assert "statement_timeout" in limit
    assert len(questions) == 1, questions
    assert questions[0].lstrip().startswith("SELECT ")
    assert "jobmanager.drift" in questions[0]


def test_a_start_that_finds_nothing_to_do_takes_no_lock_that_another_holds(url: str) -> None:
    with psycopg.connect(url) as busy, process(url) as manager:
        busy.execute("SELECT pg_advisory_xact_lock(hashtextextended('jobmanager.sync', 0))")
        busy.execute(
            "LOCK TABLE jobmanager.tickers, jobmanager.signing_keys, jobmanager.schedules IN EXCLUSIVE MODE"
        )
        before = time.monotonic()
        manager.start()
        assert time.monotonic() - before < 5
        assert manager.started


def test_another_url_is_carried_over_and_no_key_is_touched(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="jobmanager")
    ask(url, f"SELECT jobmanager.put_key('default', '{SECRET}')")
    before = keys(url)

    started(url, "https://new.example.com", run_path="/hooks/run")

    assert stored(url) == "https://new.example.com/hooks/run"
    assert keys(url) == before
    done = f"event=cron_url_sync_done category=jobs from={OURS}/jobs/run to=https://new.example.com/hooks/run"
    assert caplog.messages.count(done) == 1


@pytest.mark.parametrize("local", LOCAL)
def test_a_developers_machine_never_takes_over(
    url: str, local: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="jobmanager")

    started(url, local)

    assert stored(url) == f"{OURS}/jobs/run"
    assert caplog.messages.count(f"event=cron_url_sync_skipped category=jobs url={OURS}/jobs/run stays") == 1


def test_a_local_url_is_taken_where_there_is_no_other(pg_cron_url: str, pg_net: object) -> None:
    started(pg_cron_url, "http://localhost:8000")
    assert stored(pg_cron_url) == "http://localhost:8000/jobs/run"

    started(pg_cron_url, "http://127.0.0.1:9000")
    assert stored(pg_cron_url) == "http://127.0.0.1:9000/jobs/run"

    started(pg_cron_url)
    assert stored(pg_cron_url) == f"{OURS}/jobs/run"


@pytest.mark.parametrize(
    "other",
    [
        "https://local.example.com",
        "http://10.0.0.7",
        "http://127.example.com",
        "http://localhost.example.com",
    ],
)
def test_what_only_looks_local_is_not(other: str) -> None:
    assert not is_local(other)


def test_a_process_without_a_url_leaves_it_alone(url: str) -> None:
    started(url, None, pg_cron_transport="notify")

    assert stored(url) == f"{OURS}/jobs/run"


@pytest.mark.slow
def test_a_database_that_is_away_blocks_no_start(pg_cron_url: str, caplog: pytest.LogCaptureFixture) -> None:
    away = pg_cron_url.replace(
        f":{psycopg.conninfo.conninfo_to_dict(pg_cron_url)['port']}", f":{free_port()}"
    )
    with process(away) as manager:
        before = time.monotonic()
        manager.start()
        assert time.monotonic() - before < 5
        assert manager.started
    assert "not up yet" in caplog.text


@pytest.mark.slow
def test_a_database_that_never_answers_blocks_no_start_for_long(pg_cron_url: str) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        process(
            pg_cron_url.replace(
                f":{psycopg.conninfo.conninfo_to_dict(pg_cron_url)['port']}", f":{silent.getsockname()[1]}"
            )
        ) as manager,
    ):
        before = time.monotonic()
        manager.start()
        assert time.monotonic() - before < 15


def test_that_the_url_could_not_be_synced_is_told(
    pg_cron_server: PgCron, pg_cron_databases: FreshDatabases, caplog: pytest.LogCaptureFixture
) -> None:
    """The jobs' database is there, and the one that has pg_cron is away."""
    here = pg_cron_databases.make()
    away = here.replace(f":{psycopg.conninfo.conninfo_to_dict(here)['port']}", f":{free_port()}")
    with process(here, pg_cron_url=away, pg_cron_transport="auto") as manager:
        manager.start()
        assert manager.started
        with pytest.raises(StoreUnavailableError):
            manager.sync()
    assert f"event=cron_url_sync_failed category=jobs url={OURS}/jobs/run error=" in caplog.text
