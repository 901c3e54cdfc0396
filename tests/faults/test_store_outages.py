"""The store is away or full (F7-F12): the process lives, says so now and then, resumes, and every tick has its row."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import psutil
import pytest
from tests.faults.conftest import Process, effects, until
from tests.faults.proxy import Proxy
from tests.servers import Postgres

from jobmanager import JobManager, Settings

StartProcess = Callable[..., Process]

EVERY_SECOND = """
@jobs.job("second", every=1)
def second(context):
    note("start", int(context.scheduled_for.timestamp()))

@jobs.job("coroutine", every=1, overlap="allow")
async def coroutine(context):
    note("start-coroutine", int(context.scheduled_for.timestamp()))
"""


class Outage(Protocol):
    url: str
    kind: str

    def begin(self) -> None: ...
    def end(self) -> None: ...


class LockedFile:
    """SQLite's outage: a foreign writer that does not let go."""

    kind = "locked"

    def __init__(self, url: str) -> None:
        self.url = self.direct = url
        self._foreign: sqlite3.Connection | None = None

    def begin(self) -> None:
        self._foreign = sqlite3.connect(self.url.removeprefix("sqlite:///"), timeout=10, isolation_level=None)
        self._foreign.execute("BEGIN EXCLUSIVE")

    def end(self) -> None:
        if self._foreign is not None:
            self._foreign.close()


class Network:
    """PostgreSQL's: a network that refuses, or swallows everything."""

    def __init__(self, url: str, proxy: Proxy, kind: str) -> None:
        parts = urlsplit(url)
        self.direct = url
        self.url = urlunsplit(parts._replace(netloc=f"{parts.username}@127.0.0.1:{proxy.port}"))
        self.kind = kind
        self._proxy = proxy

    def begin(self) -> None:
        self._proxy.set(self.kind)

    def end(self) -> None:
        self._proxy.set("pass")


class FullDisk:
    """PostgreSQL's server has no room for another row."""

    kind = "full"

    def __init__(self, url: str) -> None:
        self.url = self.direct = url

    def begin(self) -> None:
        self._do("""CREATE FUNCTION jobmanager.full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$""")
        self._do("""CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON jobmanager.runs
            FOR EACH ROW EXECUTE FUNCTION jobmanager.full_disk()""")

    def end(self) -> None:
        self._do("DROP FUNCTION jobmanager.full_disk CASCADE")

    def _do(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)


@pytest.fixture(
    params=[
        pytest.param("locked", marks=pytest.mark.faults),
        pytest.param("full", marks=[pytest.mark.servers, pytest.mark.faults]),
        pytest.param("refuse", marks=pytest.mark.servers),
        pytest.param("hang", marks=[pytest.mark.servers, pytest.mark.faults]),
    ]
)
def outage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A store, and how it goes away and comes back."""
    if request.param == "locked":
        trouble = LockedFile(f"sqlite:///{tmp_path}/jobs.db")
        yield trouble
        trouble.end()
        return
    url = request.getfixturevalue("postgres_url")
    if request.param == "full":
        yield FullDisk(url)
        return
    with Proxy(urlsplit(url).port or 5432) as proxy:
        yield Network(url, proxy, request.param)


@contextmanager
def looking(url: str) -> Iterator[JobManager]:
    """Somebody who reads the ledger, and is no part of it."""
    jobs = JobManager(Settings(database_url=url))
    yield jobs
    jobs.store.close()


def rows(jobs: JobManager, job_id: str) -> dict[int, str]:
    return {
        int(run.scheduled_for.timestamp()): str(run.status)
        for run in jobs.runs(job_id, limit=10_000)
        if run.scheduled_for
    }


def holes(jobs: JobManager, job_id: str, until_instant: int) -> list[int]:
    """Instants of a job of every second, from its first row to this one, that have no row."""
    found = rows(jobs, job_id)
    return [instant for instant in range(min(found), until_instant + 1) if instant not in found]


def lines_of_trouble(text: str) -> int:
    return len(re.findall(r"^(?:WARNING|ERROR|CRITICAL|Traceback)", text, re.MULTILINE))


def survive_an_outage(outage: Any, start_process: StartProcess, tmp_path: Path, seconds: float) -> None:
    process = start_process(outage.url, EVERY_SECOND, lease_seconds=2, grace_seconds=60)
    until(lambda: len(effects(tmp_path)) >= 4)
    quiet_before = lines_of_trouble(process.errors())
    outage.begin()
    time.sleep(seconds)  # the length of the outage is what is tested
    said = lines_of_trouble(process.errors()) - quiet_before
    outage.end()
    back = time.monotonic()
    gone = len(effects(tmp_path))
    until(lambda: len(effects(tmp_path)) > gone)
    resumed = time.monotonic() - back

    assert resumed < 10
    assert said <= seconds / 5 + 2, process.errors()
    assert "Traceback" not in process.errors()
    last = int(time.time())
    with looking(outage.direct) as jobs:
        until(lambda: not holes(jobs, "second", last) and not holes(jobs, "coroutine", last))
    starts = [tuple(line) for line in effects(tmp_path)]
    assert len(starts) == len(set(starts))
    assert process("jobs.started")


def test_an_outage_of_some_seconds_kills_nothing_and_loses_no_tick(
    outage: Any, start_process: StartProcess, tmp_path: Path
) -> None:
    """F7, F8, F11, F12. Fails if a thread dies of it, or if what was due meanwhile is forgotten."""
    survive_an_outage(outage, start_process, tmp_path, 4)


@pytest.mark.faults
def test_an_outage_of_half_a_minute_kills_nothing_and_loses_no_tick(
    outage: Any, start_process: StartProcess, tmp_path: Path
) -> None:
    """G9, G10 in full length."""
    survive_an_outage(outage, start_process, tmp_path, 30)


@pytest.mark.servers
def test_an_answer_cut_off_after_the_commit_starts_the_run_once(
    postgres_url: str, start_process: StartProcess, tmp_path: Path
) -> None:
    """F9 on the wire. Fails if the repeat of the statement carries another id."""
    with Proxy(urlsplit(postgres_url).port or 5432) as proxy:
        network = Network(postgres_url, proxy, "cut")
        process = start_process(
            network.url,
            """
@jobs.job("cut-off")
def cut_off(context):
    note("start", context.run_id)
""",
            lease_seconds=5,
        )
        for number in range(1, 8):  # the driver prepares its statements after some repeats
            proxy.cut_after(b"cut-off", b"manual")
            process("jobs.wait(jobs.trigger_job('cut-off').id).id")
            assert proxy.cuts == number
    starts = [line[1] for line in effects(tmp_path)]

    assert len(starts) == len(set(starts)) == 7
    with looking(postgres_url) as jobs:
        assert {run.id: str(run.status) for run in jobs.runs("cut-off")} == dict.fromkeys(starts, "succeeded")


@pytest.fixture(scope="module")
def own_server() -> Iterator[Postgres]:
    """A server that may be stopped."""
    pytest.importorskip("psycopg")
    server = Postgres()
    try:
        yield server.start()
    finally:
        server.remove()


LONG = (
    EVERY_SECOND
    + """
@jobs.job("long")
def long(context):
    note("long")
    time.sleep(3)
    return "done"
"""
)


@pytest.mark.servers
def test_a_server_that_crashes_under_a_run_and_comes_back_loses_nothing_committed(
    own_server: Postgres, start_process: StartProcess, tmp_path: Path
) -> None:
    """F10. Fails if the end of the run is not repeated until the server is back."""
    process = start_process(own_server.url, LONG, lease_seconds=2)
    run_id = process("jobs.trigger_job('long').id")
    until(lambda: ["long"] in effects(tmp_path))
    own_server.stop(immediately=True)
    time.sleep(3.5)  # longer than the run and than the lease
    own_server.start()

    with looking(own_server.url) as jobs:
        assert until(lambda: jobs.run(run_id).status.closed)
        assert jobs.run(run_id).output == "done"
        last = int(time.time())
        until(lambda: not holes(jobs, "second", last))
    assert process("jobs.started")


@pytest.mark.faults
@pytest.mark.servers
def test_a_server_that_is_frozen_blocks_the_process_no_longer_than_its_time_limits(
    own_server: Postgres, start_process: StartProcess, tmp_path: Path
) -> None:
    """F8: accepts, and never answers. Nobody is buried for it: all were silent."""
    url = own_server.url
    # A busy machine lets a process stand still for a second or two, and that is no reason to be buried either.
    processes = [start_process(url, EVERY_SECOND, lease_seconds=4) for _ in range(2)]
    until(lambda: len(effects(tmp_path)) >= 4)
    assert own_server.process is not None
    server = psutil.Process(own_server.process.pid)
    frozen = [server.pid, *(child.pid for child in server.children(recursive=True))]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(9)  # more than two leases
    for pid in frozen:
        with_care(pid)
    last = int(time.time())
    with looking(url) as jobs:
        until(lambda: not holes(jobs, "second", last))

    assert all("declared dead" not in process.errors() for process in processes)
    starts = [tuple(line) for line in effects(tmp_path) if line[0] == "start"]
    assert len(starts) == len(set(starts))


BUSY = """
def busy(context):
    note("start", context.job.id, int(context.scheduled_for.timestamp()))

for number in range(50):
    jobs.add_job(f"busy-{number}", busy, every=1, overlap="allow")
"""


@pytest.mark.faults
@pytest.mark.servers
def test_half_a_minute_without_the_server_under_load(
    own_server: Postgres, start_process: StartProcess, tmp_path: Path
) -> None:
    """G9 with fifty runs a second, of which each waits for its row. Fails if what was due meanwhile is dropped or comes twice."""
    process = start_process(own_server.url, BUSY)
    until(lambda: len(effects(tmp_path)) >= 200)
    quiet_before = lines_of_trouble(process.errors())
    own_server.stop(immediately=True)
    time.sleep(30)  # the length of the outage is what is tested
    said = lines_of_trouble(process.errors()) - quiet_before
    own_server.start()
    back, gone = time.monotonic(), len(effects(tmp_path))
    until(lambda: len(effects(tmp_path)) > gone)
    resumed = time.monotonic() - back
    last = int(time.time())

    assert resumed < 10
    assert said <= 30 / 5 + 2, process.errors()
    assert "Traceback" not in process.errors()
    with looking(own_server.url) as jobs:
        for number in range(50):
            until(lambda job_id=f"busy-{number}": not holes(jobs, job_id, last))  # type: ignore[misc]
    starts = [tuple(line) for line in effects(tmp_path)]
    assert len(starts) == len(set(starts))


def with_care(pid: int) -> None:
    """Go on, if it is still there."""
    if psutil.pid_exists(pid):
        os.kill(pid, signal.SIGCONT)
