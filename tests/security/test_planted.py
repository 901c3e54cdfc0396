"""Nothing that a role planted in schema public is ever called by a session of ours, directly, through a pooler or in pg_cron's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytest.importorskip("psycopg", reason="needs psycopg: pip install psycopg[binary]")

import psycopg
from tests.pg_net.loop import Loop
from tests.pg_net.stand_in import StandIn
from tests.security import planted
from tests.servers import FreshDatabases, PgCron, Pooler

from jobmanager.errors import StoreError
from jobmanager.stores.sql.postgres import PostgresStore
from jobmanager.testing import FakeClock, RunStoreContract

pytestmark = [pytest.mark.servers, pytest.mark.slow]


@pytest.fixture(scope="module")
def minefields(postgres_server: str) -> Iterator[tuple[str, str]]:
    """The names of a database with thousands of traps, and of one in which our tables were made afterwards."""
    with FreshDatabases(postgres_server) as databases:
        bare = databases.make()
        assert planted.plant(bare) > 5_000
        full = databases.make(template=name_of(bare))
        planted.prefer_public(full)
        with closing(PostgresStore(full)) as store:
            store.install()
        assert not planted.sprung(full), "installing called what was planted"
        yield name_of(bare), name_of(full)


def name_of(url: str) -> str:
    return urlsplit(url).path[1:]


@pytest.mark.faults
class TestTheStoreCallsNothingPlanted(RunStoreContract):
    @pytest.fixture
    def pooler(self) -> Pooler | None:
        """Return the pooler between the store and the server, if there is one."""
        return None

    @pytest.fixture(autouse=True)
    def _fresh_store(
        self, pooler: Pooler | None, minefields: tuple[str, str], postgres_server: str, tmp_path: Path
    ) -> Iterator[None]:
        self.pooler = pooler
        bare, full = minefields
        self.entered: list[str] = []
        with FreshDatabases(postgres_server) as self.databases:
            self.template = full
            self.open(tmp_path)
            self.template = bare
            yield
            self.close()
            assert not any(planted.sprung(url) for url in self.entered)

    def make_store(self, _clock: FakeClock, _tmp_path: Path) -> PostgresStore:
        url = self.databases.make(template=self.template)
        planted.prefer_public(url)
        self.entered.append(url)
        return PostgresStore(self.reached(url))

    def reached(self, url: str) -> str:
        """Return the URL by which the store reaches the database."""
        return url if self.pooler is None else self.pooler.url(url) + "?jobmanager_pooler=true"


class TestTheStoreCallsNothingPlantedThroughAPooler(TestTheStoreCallsNothingPlanted):
    @pytest.fixture
    def pooler(self, postgres_pooler: Pooler) -> Pooler:
        return postgres_pooler


def test_a_path_in_the_url_does_not_undo_ours(postgres_url: str) -> None:
    planted.plant(postgres_url)
    with closing(PostgresStore(f"{postgres_url}?options=-c%20search_path%3Dpublic,pg_catalog")) as store:
        store.install()
        store.now()

    assert not planted.sprung(postgres_url)


def test_a_session_whose_options_were_swallowed_is_refused(postgres_url: str, monkeypatch) -> None:
    """As behind a pooler that ignores startup parameters, and that nothing says is one."""
    monkeypatch.setattr("jobmanager.stores.sql.postgres_link.PINNED", "")

    with (
        closing(PostgresStore(postgres_url)) as store,
        pytest.raises(StoreError, match="jobmanager_pooler=true"),
    ):
        store.now()


def test_a_trap_would_be_seen(postgres_url: str) -> None:
    planted.plant(postgres_url)

    with (
        psycopg.connect(postgres_url) as connection,
        pytest.raises(psycopg.errors.RaiseException, match="bigint and interval"),
    ):
        connection.execute("SELECT bigint '3' * interval '1 second'")

    assert planted.sprung(postgres_url)


@pytest.fixture
def stand_in(still_pg_cron_url: str) -> Iterator[StandIn]:
    """The stand-in for pg_net, whose own sessions are not ours to pin, beside all the traps."""
    sender = StandIn(still_pg_cron_url)
    sender.install()
    planted.plant(still_pg_cron_url)
    sender.url += "?options=-c%20search_path%3Dpg_catalog"
    try:
        yield sender.start()
    finally:
        sender.close()


def test_the_loop_of_pg_cron_calls_nothing_planted(
    still_pg_cron_server: PgCron, still_pg_cron_url: str, stand_in: StandIn
) -> None:
    with Loop(f"{still_pg_cron_url}?options=-c%20search_path%3Dpublic,pg_catalog", stand_in) as loop:
        loop.connection.execute("SET search_path = pg_catalog")
        loop.make_due()
        loop.connection.execute("SET search_path = public, pg_catalog")  # as a session that pg_cron makes
        fired = loop.connection.execute("SELECT jobmanager.fire(NULL)").fetchone()
        loop.connection.execute("CALL jobmanager.sweep_minute(2)")
        loop.connection.execute("CALL jobmanager.fire_http(NULL)")
        loop.connection.execute("SET search_path = pg_catalog")
        loop.succeeded()

    assert fired == (1,)
    assert not planted.sprung(still_pg_cron_url), still_pg_cron_server.log()[-3000:]
