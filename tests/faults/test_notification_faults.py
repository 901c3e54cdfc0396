"""Notifications while processes are killed, the database is away and the mail server misbehaves: each event is told at least once, at most twice.

The fault programme tries four seeds on each store; JOBMANAGER_TEST_SEEDS=20 tries more, half a minute each.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.faults.conftest import until
from tests.servers import FreshDatabases, Postgres
from tests.smtp_server import SmtpServer, smtp_server

from jobmanager import JobManager, Settings

SEEDS = int(os.environ.get("JOBMANAGER_TEST_SEEDS", "4"))

PROGRAMME = """
import sys, time
from datetime import timedelta
from jobmanager import JobManager, Settings
from jobmanager.errors import StoreError
from jobmanager.notify import delivery, email, notifying

url, smtp, starts = sys.argv[1:]
delivery.LEASE = timedelta(seconds=3)
delivery.PAUSES = (timedelta(seconds=0.3),) * 300
email.WITHIN = 1.0
email.Email.__init__.__kwdefaults__["within"] = 1.0
notifying.LOOK_EVERY = timedelta(seconds=0.2)
jobs = JobManager(Settings(
    backend="local", database_url=url, smtp_url=smtp, alerts_quiet=0, lease_seconds=2, sweep_seconds=1, workers=4))

@jobs.job("work", overlap="allow")
def work():
    raise OSError("no disk")

with jobs:
    print("up", flush=True)
    for number in range(int(starts)):
        try:
            jobs.trigger_job("work", notify=True, requested_by="ann@example.org")
        except StoreError:
            pass
        time.sleep(0.1)
    time.sleep(120)
"""
MODES = ("well", "refuse", "refuse_text", "hang", "lose", "lose_before", "busy")
RUN = re.compile(r"^Run:\s+(\S+)", re.MULTILINE)


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process and wait until it has come up; those that live are killed after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def a_process(url: str, server: SmtpServer, starts: int = 100_000) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", PROGRAMME, url, server.url, str(starts)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        return process

    yield a_process
    for process in started:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill it and take what it left; twice is safe."""
    process.send_signal(signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def told(server: SmtpServer) -> Counter[str]:
    """How many mails the server has of each run."""
    return Counter(run for got in list(server.received) for run in RUN.findall(got.mail.get_content()))


def settle(jobs: JobManager) -> None:
    """Wait until every run has ended, those of the dead too, and nothing waits to be told. Fails if they stop becoming fewer."""
    until(lambda: not jobs.runs(status=["pending", "running"], limit=1), 120)
    left = jobs.store.outbox.counts("default")["waiting"]
    while left:
        until(lambda left=left: jobs.store.outbox.counts("default")["waiting"] < left)
        left = jobs.store.outbox.counts("default")["waiting"]


class File:
    """A store that is never away: a file of SQLite."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder}/jobs.db"

    def trouble(self, drawn: random.Random) -> None:
        """Do nothing."""

    def heal(self) -> None:
        """Do nothing."""


class Server:
    """A database of a server of its own, which is stopped or killed, and comes back."""

    def __init__(self, server: Postgres, url: str) -> None:
        self.url = url
        self._server = server

    def trouble(self, drawn: random.Random) -> None:
        """Stop the server now and then, or kill it; start it again at the next occasion."""
        if self._server.process is None:
            self._server.start()
        elif drawn.random() < 0.5:
            self._server.stop(immediately=drawn.random() < 0.5)

    def heal(self) -> None:
        if self._server.process is None:
            self._server.start()


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    pytest.importorskip("psycopg", reason="needs psycopg: pip install psycopg[binary]")
    made = Postgres(conf={"synchronous_commit": "on"})
    try:
        yield made.start()
    finally:
        made.remove()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.servers)])
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[File | Server]:
    if request.param == "sqlite":
        yield File(tmp_path)
        return
    server: Postgres = request.getfixturevalue("server")
    with FreshDatabases(server.url) as databases:
        made = Server(server, databases.make())
        yield made
        made.heal()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(0, marks=pytest.mark.slow),
        *(pytest.param(seed, marks=pytest.mark.faults) for seed in range(1, SEEDS + 1)),
    ],
)
def test_each_event_is_told_once_or_twice_whatever_dies(
    ground: File | Server, start: Start, seed: int
) -> None:
    """Fails if an event has no message, if one is marked as sent before it was, or is sent a third time after its sender died."""
    drawn = random.Random(seed)
    with smtp_server() as server:
        for _ in range(4):
            processes = [start(ground.url, server) for _ in range(2)]
            for _ in range(3):
                time.sleep(drawn.uniform(0.3, 0.8))
                server.mode = drawn.choice(MODES)
                ground.trouble(drawn)
            for process in processes:
                time.sleep(drawn.uniform(0, 0.3))
                kill(process)
        server.mode = "well"
        server.release.set()
        ground.heal()
        start(ground.url, server, starts=0)
        jobs = JobManager(Settings(backend="noop", database_url=ground.url))
        settle(jobs)
        events = [item.subject for item in jobs.store.outbox.list("default", limit=100_000)]
        failed = {run.id for run in jobs.runs(status="failed", limit=100_000) if run.notify}
        counts = told(server)
        assert len(events) > 20
        assert set(events) == failed
        assert {event: counts[event] for event in events if not 1 <= counts[event] <= 2} == {}
        jobs.store.close()


@pytest.mark.slow
def test_a_mail_server_that_hangs_delays_no_run(tmp_path: Path) -> None:
    """Fails if anything of a delivery happens where a run waits for it."""
    with smtp_server("hang") as server:
        jobs = JobManager(
            Settings(
                backend="local",
                database_url=f"sqlite:///{tmp_path}/jobs.db",
                smtp_url=server.url,
                alerts_quiet=0,
            )
        )

        @jobs.job("work", overlap="allow", notify_on_failure=True, alert_to="ann@example.org")
        def work() -> None:
            raise OSError("no disk")

        with jobs:
            began = time.monotonic()
            runs = [jobs.trigger_job("work") for _ in range(200)]
            for run in runs:
                jobs.wait(run.id, timeout=20)
            took = time.monotonic() - began
            assert server.connections >= 1
        stopped = time.monotonic() - began - took
    assert took < 10
    assert stopped < 8
