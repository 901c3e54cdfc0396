"""A database of pg_cron that was restored on another server, or renamed: its entries fire where it is now, and nowhere else."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from tests.faults.conftest import until
from tests.servers import PgCron

from jobmanager import JobManager, Settings

pytestmark = [pytest.mark.servers, pytest.mark.slow]

ENTRIES = "SELECT jobname::text, nodeport, database FROM cron.job ORDER BY 1"


@pytest.fixture
def another_server() -> Iterator[PgCron]:
    server = PgCron()
    try:
        server.start().clear()
        yield server
    finally:
        server.remove()


def synced(url: str) -> list[str]:
    """What `doctor` said of entries before; then they are in step."""
    jobs = JobManager(Settings(database_url=url, backend="pg_cron", pg_cron_transport="notify"))
    jobs.job("work", cron="0 0 29 2 *")(print)
    try:
        told = [
            found.text
            for found in jobs.backend.findings(tuple(jobs.registry.jobs.values()))
            if " of another " in found.text
        ]
        jobs.sync()
        return told
    finally:
        jobs.store.close()


def ask(url: str, query: str) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


def test_a_dump_restored_on_another_server_fires_there(pg_cron_url: str, another_server: PgCron) -> None:
    """Fails if the entries keep the port of the first server: both would fire at the one, and none at the other."""
    assert synced(pg_cron_url) == []
    first = ask(pg_cron_url, ENTRIES)
    url = another_server.url
    dump = subprocess.run(
        [another_server.program("pg_dump"), "--clean", "--if-exists", pg_cron_url],
        capture_output=True,
        check=True,
    ).stdout
    subprocess.run([another_server.program("psql"), "-q", url], input=dump, capture_output=True, check=True)
    assert ask(url, ENTRIES) == first

    [told] = synced(url)

    assert "2 entries of pg_cron, jm_dispatch, jm_sweep: of another server." in told
    assert ask(url, ENTRIES) == [(name, another_server.port, "postgres") for name, _, _ in first]
    assert ask(pg_cron_url, ENTRIES) == first


def test_a_database_that_was_renamed_has_its_entries_under_the_new_name(another_server: PgCron) -> None:
    """Fails if the two dead ones stay: of one name there is one entry, whichever database it commands."""
    server, url = another_server, another_server.url.removesuffix("postgres")
    ask(server.url, "CREATE DATABASE before")
    ask(server.url, "ALTER SYSTEM SET cron.database_name = 'before'")
    server.stop()
    server.start()
    ask(url + "before", "CREATE EXTENSION pg_cron")
    synced(url + "before")
    ask(server.url, "ALTER SYSTEM SET cron.database_name = 'after'")
    server.stop()
    server.start()
    ask(server.url, "ALTER DATABASE before RENAME TO after")

    [told] = synced(url + "after")

    assert "2 entries of pg_cron, jm_dispatch, jm_sweep: of another database." in told
    assert [row[::2] for row in ask(url + "after", ENTRIES)] == [
        ("jm_dispatch", "after"),
        ("jm_sweep", "after"),
    ]
    until(
        lambda: ask(
            url + "after", "SELECT 1 FROM pg_stat_activity WHERE application_name = 'pg_cron scheduler'"
        ),
        30,
    )
