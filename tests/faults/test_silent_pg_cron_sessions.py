"""The sessions that the pg_cron backend opens itself end when the server falls silent, and what listens, listens again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from tests.faults.proxy import Proxy

from jobmanager.backends.pg_cron import database as pg_cron_database
from jobmanager.backends.pg_cron.database import PgCronDatabase
from jobmanager.errors import StoreUnavailableError

pytestmark = pytest.mark.servers


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[Proxy]:
    with Proxy(urlsplit(postgres_url).port or 5432) as proxy:
        yield proxy


@pytest.fixture
def database(postgres_url: str, proxy: Proxy) -> PgCronDatabase:
    parts = urlsplit(postgres_url)
    return PgCronDatabase(urlunsplit(parts._replace(netloc=f"{parts.username}@127.0.0.1:{proxy.port}")))


def test_a_transaction_ends_soon_after_its_limit(
    database: PgCronDatabase, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pg_cron_database, "MARGIN", 0.5)
    proxy.trouble_at("SELECT 42", "silent")
    began = time.monotonic()

    with (
        pytest.raises(StoreUnavailableError, match=r"no answer within 1\.5 s"),
        database.transaction(limit=1) as it,
    ):
        it.execute("SELECT 42")

    assert time.monotonic() - began < 10
    with database.transaction() as connection:
        assert connection.execute("SELECT 7").fetchone() == (7,)


def test_a_session_that_listens_hears_for_longer_than_its_deadline_and_notices_a_silence(
    database: PgCronDatabase, proxy: Proxy
) -> None:
    with database.connect(deadline=1.0) as connection, database.connect() as other:
        connection.execute("LISTEN jobmanager")
        for _ in range(8):  # as the listener waits: a little at a time
            assert list(connection.notifies(timeout=0.2)) == []
        other.execute("SELECT pg_notify('jobmanager', 'x')")
        assert [note.payload for note in connection.notifies(timeout=0.9, stop_after=1)] == ["x"]

        proxy.trouble_at("SELECT 42", "silent")
        with pytest.raises(psycopg.OperationalError, match="no answer within 1 s"):
            connection.execute("SELECT 42")
