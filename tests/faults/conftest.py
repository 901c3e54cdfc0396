"""What fault tests stand on: a store of either kind, processes that can be told things and killed, and waiting for a condition."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.faults import worker
from tests.forked import FORKSERVER

from jobmanager import JobManager, Run, Settings
from jobmanager.clock import Clock, SystemClock
from jobmanager.errors import UnsupportedError
from jobmanager.stores import store_for
from jobmanager.stores.base import RunStore

LEASE = 1.0
QUICK = {"lease_seconds": LEASE, "sweep_seconds": 0.4, "grace_seconds": 60.0, "drain_seconds": 2.0}

STORES = ["sqlite", pytest.param("postgres", marks=pytest.mark.servers)]
# What does not depend on the store's own ways is tried on PostgreSQL in the full programme only.
MOSTLY_SQLITE = ["sqlite", pytest.param("postgres", marks=[pytest.mark.servers, pytest.mark.faults])]


def empty_store(request: pytest.FixtureRequest, folder: Path) -> str:
    """The URL of an empty store of the kind that the fixture's parameter names."""
    sqlite = request.param == "sqlite"
    url = f"sqlite:///{folder}/jobs.db" if sqlite else request.getfixturevalue("postgres_url")
    skip_if_unsupported(url)
    return url


@pytest.fixture(params=MOSTLY_SQLITE)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store; PostgreSQL joins in the full programme."""
    return empty_store(request, tmp_path)


@pytest.fixture(params=STORES)
def each_store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store on SQLite and on PostgreSQL, always: for what each of them does by its own means."""
    return empty_store(request, tmp_path)


def skip_if_unsupported(url: str) -> None:
    """Skip where this version has no store for the URL."""
    try:
        store_for(Settings(database_url=url), SystemClock()).close()
    except UnsupportedError as error:
        pytest.skip(str(error))


# What a busy machine may need. With a mechanism removed a test is to fail, and it may do so soon.
PATIENCE = 15.0 if "JOBMANAGER_TEST_MUTATION" in os.environ else 60.0


def until(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """What the condition answers, once it is true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return answer


def is_locked(database: Path) -> bool:
    """True while somebody is inside a writing transaction on the SQLite file."""
    with closing(sqlite3.connect(database, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        connection.execute("ROLLBACK")
        return False


class Process:
    """A process with a manager of its own that does what it is told; `settings` as Settings, and `skew`, `timeout_grace`."""

    def __init__(self, url: str, jobs: str, folder: Path, *, crash_at: str = "", **settings: Any) -> None:
        self._errors = folder / f"errors-{time.monotonic_ns()}"
        self._database = Settings(database_url=url).database_path
        self._pipe, theirs = FORKSERVER.Pipe()
        arguments = (theirs, url, folder / "effects", self._errors, jobs, crash_at, {**QUICK, **settings})
        self._process = FORKSERVER.Process(target=worker.main, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        self.pid = self._process.pid or 0

    def up(self) -> Process:
        """Wait until its manager is started, or was asked to start."""
        assert self.answer() == "up"
        return self

    def __call__(self, expression: str) -> Any:
        """The value of an expression over there; `jobs` is its manager."""
        self._pipe.send(expression)
        return self.answer()

    def tell(self, expression: str) -> None:
        """Evaluate it over there, and do not wait."""
        self._pipe.send(expression)

    def answer(self) -> Any:
        """What it said to the oldest expression it was told."""
        if not self._pipe.poll(120):
            pytest.fail(f"process {self.pid} does not answer\n{self._stacks()}")
        try:
            good, value = self._pipe.recv()
        except EOFError:
            raise AssertionError(f"process {self.pid} is gone\n{self.errors()}") from None
        assert good, value
        return value

    def _stacks(self) -> str:
        """Its log, with what each of its threads and of its children's threads stands at; it does not survive that."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        for pid in (*map(int, children), self.pid):
            os.kill(pid, signal.SIGABRT)
        self._process.join(PATIENCE)
        return self.errors()[-20_000:]

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def stop(self) -> None:
        """SIGSTOP, and wait until it stands; outside a transaction, since on SQLite its lock would stop everybody."""
        until(self._stands)

    def _stands(self) -> bool:
        self.send(signal.SIGSTOP)
        until(lambda: Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        if self._database is None or not is_locked(self._database):
            return True
        self.send(signal.SIGCONT)
        return False

    def wait(self, seconds: float = PATIENCE) -> int:
        """Its exit code, or minus the signal that ended it."""
        self._process.join(seconds)
        assert self._process.exitcode is not None, f"process {self.pid} does not end\n{self.errors()}"
        return self._process.exitcode

    def errors(self) -> str:
        """What it logged."""
        return self._errors.read_text(errors="replace") if self._errors.exists() else ""

    def close(self) -> None:
        """Kill -9; stopped or not, it is gone."""
        self._process.kill()
        self._process.join(10)
        self._pipe.close()


@pytest.fixture
def start_process(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start a process on a store with these jobs (Python source); `crash_at` names where it kills itself."""
    started: list[Process] = []

    def start(url: str, jobs: str = "", *, wait: bool = True, **options: Any) -> Process:
        started.append(Process(url, jobs, tmp_path, **options))
        return started[-1].up() if wait else started[-1]

    yield start
    for process in started:
        process.close()


def effects(folder: Path) -> list[list[str]]:
    """What handlers noted with `note(...)`, in order: the words of each line."""
    path = folder / "effects"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def make_manager() -> Iterator[Callable[..., JobManager]]:
    """Managers of this process; they are stopped after the test."""
    made: list[JobManager] = []

    def make(
        url: str, *, clock: Clock | None = None, store: RunStore | None = None, **settings: Any
    ) -> JobManager:
        manager = JobManager(Settings(database_url=url, **{**QUICK, **settings}), clock=clock, store=store)
        made.append(manager)
        return manager

    yield make
    for manager in made:
        manager.stop(drain=0.2)
        manager.store.close()


def shape(run: Run) -> tuple[str, str | None]:
    """The status and the kind of its error, or else its reason."""
    return str(run.status), run.error.kind if run.error else run.reason
