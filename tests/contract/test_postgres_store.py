"""PostgreSQL keeps the promises of every store, by itself and behind a transaction pooler."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("psycopg", reason="needs psycopg: pip install psycopg[binary]")

from tests.servers import FreshDatabases, Pooler

from jobmanager.stores.sql.postgres import PostgresStore
from jobmanager.testing import FakeClock, RunStoreContract

pytestmark = pytest.mark.servers


class TestPostgresStore(RunStoreContract):
    @pytest.fixture(autouse=True)
    def _fresh_store(self, postgres_server: str, tmp_path: Path) -> Iterator[None]:
        with FreshDatabases(postgres_server) as self.databases:
            self.open(tmp_path)
            yield
            self.close()

    def open(self, tmp_path: Path) -> None:
        """As on every store, but the tables are copied: making them anew for each test takes ten times as long."""
        self._new_database = self.databases.make_installed
        super().open(tmp_path)
        self._new_database = self.databases.make

    def make_store(self, _clock: FakeClock, _tmp_path: Path) -> PostgresStore:
        return PostgresStore(self._new_database())


@pytest.mark.slow
class TestPostgresStoreThroughAPooler(TestPostgresStore):
    @pytest.fixture(autouse=True)
    def _pooled(self, postgres_pooler: Pooler) -> None:
        self.pooler = postgres_pooler

    @pytest.fixture(autouse=True)
    def _fresh_store(self, _pooled: None, postgres_server: str, tmp_path: Path) -> Iterator[None]:
        with FreshDatabases(postgres_server) as self.databases:
            self.open(tmp_path)
            yield
            self.close()

    def make_store(self, _clock: FakeClock, _tmp_path: Path) -> PostgresStore:
        return PostgresStore(self.pooler.url(self._new_database()) + "?jobmanager_pooler=true")
