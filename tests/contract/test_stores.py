"""Every store keeps the same promises."""

from pathlib import Path

from jobmanager.stores.base import RunStore
from jobmanager.stores.sql.memory import MemoryStore
from jobmanager.stores.sql.sqlite import SqliteStore
from jobmanager.testing import FakeClock, RunStoreContract


class TestMemoryStore(RunStoreContract):
    def make_store(self, clock: FakeClock, tmp_path: Path) -> RunStore:
        return MemoryStore(clock=clock)


class TestSqliteStore(RunStoreContract):
    def make_store(self, clock: FakeClock, tmp_path: Path) -> RunStore:
        return SqliteStore(tmp_path / "jobs.db", clock=clock)
