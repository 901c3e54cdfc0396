"""A dashboard that is killed, or hangs for good, while people use it: no run notices."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from tests.servers import free_port
from tests.waiting import until

from jobmanager import JobManager, Settings
from jobmanager.run import RunStatus

EVERY, LEAST = 1, 4


@pytest.mark.parametrize(
    ("number", "store"),
    [
        pytest.param(signal.SIGKILL, "sqlite", id="killed, SQLite"),
        pytest.param(signal.SIGSTOP, "postgres", id="hung, PostgreSQL"),
        pytest.param(signal.SIGKILL, "postgres", id="killed, PostgreSQL", marks=pytest.mark.faults),
        pytest.param(signal.SIGSTOP, "sqlite", id="hung, SQLite", marks=pytest.mark.faults),
    ],
)
def test_no_run_notices_the_end_of_a_dashboard(
    number: signal.Signals, store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The dashboard is asked for pages, starts and events all the time, so that it ends or stops inside whatever it was doing."""
    url = f"sqlite:///{tmp_path}/jobs.db" if store == "sqlite" else request.getfixturevalue("postgres_url")
    jobs = JobManager(Settings(database_url=url, backend="local"))
    jobs.job("beat", every=EVERY)(lambda: 1)
    jobs.job("by-hand")(lambda: 1)
    with jobs:
        port = free_port()
        dashboard = subprocess.Popen(
            [sys.executable, "-m", "jobmanager", "dashboard", "--port", str(port)],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "JOBMANAGER_DATABASE_URL": url, "JOBMANAGER_BACKEND": "noop"},
            stdout=subprocess.DEVNULL,
        )
        address = f"http://127.0.0.1:{port}"
        try:
            until(lambda: is_served(address))
            stopped = threading.Event()
            visitors = [
                threading.Thread(target=visit, args=(address, path, stopped))
                for path in ("/jobs", "/runs", "/api/v1/runs", "/api/v1/events", "/")
            ]
            for visitor in visitors:
                visitor.start()
            until(lambda: len(jobs.runs("beat", limit=100)) >= 3)
            os.kill(dashboard.pid, number)
            begun = len(jobs.runs("beat", limit=500))
            by_hand = jobs.trigger_job("by-hand")
            assert jobs.wait(by_hand.id, timeout=30).status is RunStatus.SUCCEEDED
            until(lambda: len(jobs.runs("beat", limit=500)) >= begun + LEAST)
            stopped.set()
        finally:
            dashboard.kill()
            dashboard.wait(20)
        for visitor in visitors:
            visitor.join(20)
        runs = jobs.runs("beat", limit=500)
    jobs.store.close()
    ended = [run for run in runs if run.status.closed]
    assert {run.status for run in ended} == {RunStatus.SUCCEEDED}
    instants = sorted(run.instant for run in runs)
    gaps = {(after - before).total_seconds() for before, after in pairwise(instants)}
    assert gaps == {EVERY}, "an instant is missing or there twice"


def is_served(address: str) -> bool:
    try:
        return httpx.get(f"{address}/jobs").status_code == 200
    except httpx.TransportError:
        return False


def visit(address: str, path: str, stopped: threading.Event) -> None:
    """Ask for a page again and again; how it is refused is of no account."""
    with httpx.Client(timeout=2) as client:
        while not stopped.is_set():
            try:
                client.get(address + path)
            except httpx.HTTPError:
                stopped.wait(0.05)
