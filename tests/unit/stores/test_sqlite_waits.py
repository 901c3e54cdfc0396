"""No wait of the SQLite store is without a bound, and each says what it waited for."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from jobmanager.errors import StoreUnavailableError
from jobmanager.stores.sql.memory import MemoryStore
from jobmanager.stores.sql.sqlite import SqliteStore

PATIENCE = timedelta(seconds=0.2)
SLACK = 2.0


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqliteStore]:
    made = (
        SqliteStore(tmp_path / "jobs.db", lock_timeout=PATIENCE)
        if request.param == "file"
        else MemoryStore(lock_timeout=PATIENCE)
    )
    made.install()
    yield made
    made.close()


@contextmanager
def held(make: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
    """Another thread is inside, and does not leave."""
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with make():
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert inside.wait(5)
        yield
    finally:
        leave.set()
        thread.join(5)


def refused(act: Callable[[], object], sentence: str) -> None:
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError, match=sentence):
        act()
    assert time.monotonic() - began < SLACK


def test_a_writer_waits_for_another_thread_no_longer_than_for_another_process(store: SqliteStore) -> None:
    with held(store.database.writing):
        refused(
            lambda: store.processes.beat("me"),
            r"waited 0\.2 s for another thread of this process that writes",
        )
    assert store.processes.beat("me") is False


def test_a_reader_of_the_only_connection_waits_no_longer_either() -> None:
    store = MemoryStore(lock_timeout=PATIENCE)
    store.install()

    with held(store.database.writing):
        refused(store.processes.living, r"waited 0\.2 s for another thread of this process that writes")
    assert store.processes.living() == []


def test_closing_waits_no_longer_either(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "jobs.db", lock_timeout=PATIENCE)
    store.install()

    began = time.monotonic()
    with held(store.database.writing):
        store.close()
    assert time.monotonic() - began < SLACK
    store.close()
    assert store.processes.living() == []
    store.close()


def test_a_frozen_process_that_holds_the_write_lock_is_waited_for_with_a_bound(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "jobs.db", lock_timeout=PATIENCE)
    store.install()
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    refused(lambda: store.processes.beat("me"), "another process holds the write lock")
    other.close()
    store.close()


def test_a_reader_waits_for_a_connection_with_a_bound(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "jobs.db", lock_timeout=PATIENCE)
    store.install()

    def read_with_all() -> None:
        with ExitStack() as readers:
            for _ in range(50):
                readers.enter_context(store.database.reading())

    refused(read_with_all, r"waited 0\.2 s for a connection")
    assert store.processes.living() == []
    store.close()


def test_a_reader_waits_for_a_fork_with_a_bound(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "jobs.db", lock_timeout=PATIENCE)
    store.install()

    @contextmanager
    def forking() -> Iterator[None]:
        store.before_fork()
        yield
        store.after_fork_in_parent()

    with held(forking):
        refused(store.processes.living, r"waited 0\.2 s for a fork of this process")
        refused(lambda: store.processes.beat("me"), r"waited 0\.2 s for another thread")
    assert store.processes.living() == []
    store.close()


@contextmanager
def in_a_thread_that_ends(act: Callable[[], object]) -> Iterator[None]:
    """Let another thread act and end: what it still holds then is held for ever."""
    thread = threading.Thread(target=act)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    yield


def test_a_fork_that_two_managers_of_one_store_prepare_leaves_it_usable(store: SqliteStore) -> None:
    def fork() -> None:
        store.before_fork()
        store.before_fork()
        store.after_fork_in_parent()
        store.after_fork_in_parent()

    with in_a_thread_that_ends(fork):
        assert store.processes.living() == []
        assert store.processes.beat("me") is False


def test_a_fork_of_a_thread_that_could_not_wait_for_another_leaves_the_store_usable(
    store: SqliteStore,
) -> None:
    first, second = threading.Event(), threading.Event()

    def fork_slowly() -> None:
        store.before_fork()
        first.set()
        second.wait(10)
        store.after_fork_in_parent()

    def fork() -> None:
        store.before_fork()
        store.after_fork_in_parent()
        second.set()

    slow = threading.Thread(target=fork_slowly)
    slow.start()
    assert first.wait(10)
    with in_a_thread_that_ends(fork):
        slow.join(10)
        assert store.processes.living() == []
        assert store.processes.beat("me") is False


def test_a_fork_by_a_thread_that_reads_does_not_wait_for_itself(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "jobs.db", lock_timeout=timedelta(seconds=30))
    store.install()

    began = time.monotonic()
    with store.database.reading():
        store.before_fork()
        store.after_fork_in_parent()
    assert time.monotonic() - began < SLACK
    assert store.processes.living() == []
    store.close()
