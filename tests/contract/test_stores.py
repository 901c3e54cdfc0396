"""Every store keeps the same promises."""

from pathlib import Path

import pytest

from jobmanager.stores.base import RunStore
from jobmanager.stores.sql import seen_runs
from jobmanager.stores.sql.memory import MemoryStore
from jobmanager.stores.sql.sqlite import SqliteStore
from jobmanager.testing import FakeClock, RunStoreContract
from jobmanager.testing.store_contract.visibility import VisibilityPromises


class TestMemoryStore(RunStoreContract):
    def make_store(self, clock: FakeClock, tmp_path: Path) -> RunStore:
        return MemoryStore(clock=clock)


class TestSqliteStore(RunStoreContract):
    def make_store(self, clock: FakeClock, tmp_path: Path) -> RunStore:
        return SqliteStore(tmp_path / "jobs.db", clock=clock)


class TestSqliteStoreThatWalks(VisibilityPromises):
    """With more runs than are gathered, in each question of a view."""

    @pytest.fixture(autouse=True)
    def _gathers_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(seen_runs, "GATHERED", 0)

    def make_store(self, clock: FakeClock, tmp_path: Path) -> RunStore:
        return SqliteStore(tmp_path / "jobs.db", clock=clock)
