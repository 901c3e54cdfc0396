"""Notifications while processes are killed and the mail server misbehaves: each event is told at least once, at most twice.

The fault programme tries four seeds; JOBMANAGER_TEST_SEEDS=20 tries more, a minute each.
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
from pathlib import Path

import pytest
from tests.smtp_server import SmtpServer, smtp_server

from jobmanager import JobManager, Settings

SEEDS = int(os.environ.get("JOBMANAGER_TEST_SEEDS", "4"))

PROGRAMME = """
import sys, time
from datetime import timedelta
from jobmanager import JobManager, Settings
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
        jobs.trigger_job("work", notify=True, requested_by="ann@example.org")
        time.sleep(0.02)
    time.sleep(120)
"""
MODES = ("well", "refuse", "refuse_text", "hang", "lose", "lose_before", "busy")
RUN = re.compile(r"^Run:\s+(\S+)", re.MULTILINE)


def a_process(url: str, server: SmtpServer, starts: int = 100_000) -> subprocess.Popen[bytes]:
    """Return a process that was started and has come up."""
    command = [sys.executable, "-c", PROGRAMME, url, server.url, str(starts)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def told(server: SmtpServer) -> Counter[str]:
    """How many mails the server has of each run."""
    return Counter(run for got in list(server.received) for run in RUN.findall(got.mail.get_content()))


def settle(jobs: JobManager, within: float) -> None:
    """Wait until nothing waits to be told."""
    end = time.monotonic() + within
    while jobs.store.outbox.counts("default")["waiting"]:
        assert time.monotonic() < end, "notifications wait although the server accepts them"
        time.sleep(0.2)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(0, marks=pytest.mark.slow),
        *(pytest.param(seed, marks=pytest.mark.faults) for seed in range(1, SEEDS + 1)),
    ],
)
def test_each_event_is_told_once_or_twice_whatever_dies(tmp_path: Path, seed: int) -> None:
    """Fails if a message is marked as sent before it was, or is sent a third time after its sender died."""
    drawn = random.Random(seed)
    url = f"sqlite:///{tmp_path}/jobs.db"
    with smtp_server() as server:
        for _ in range(4):
            processes = [a_process(url, server) for _ in range(2)]
            for _ in range(3):
                time.sleep(drawn.uniform(0.3, 0.8))
                server.mode = drawn.choice(MODES)
            for process in processes:
                time.sleep(drawn.uniform(0, 0.3))
                kill(process)
        server.mode = "well"
        server.release.set()
        last = a_process(url, server, starts=0)
        jobs = JobManager(Settings(backend="noop", database_url=url))
        try:
            time.sleep(4)  # dead processes are noticed, and their runs ended
            settle(jobs, within=120)
        finally:
            kill(last)
        ended = list(jobs.store.outbox.list("default", limit=100_000))
        counts = told(server)
        assert len(ended) > 20
        assert {
            item.subject: counts[item.subject] for item in ended if not 1 <= counts[item.subject] <= 2
        } == {}
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
