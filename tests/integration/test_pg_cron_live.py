"""With nothing moved by hand: real pg_cron at the full minute, and an application in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.faults.conftest import until
from tests.pg_net.loop import SECRET
from tests.pg_net.stand_in import StandIn
from tests.servers import free_port

from jobmanager import JobManager, Settings

pytestmark = [pytest.mark.servers, pytest.mark.slow]

APPLICATION = """
from jobmanager import JobManager
from jobmanager.web import asgi

jobs = JobManager()

@jobs.job("work", cron="* * * * *")
def work(context):
    return {"late": context.attempt}

app = asgi(jobs)
"""


@pytest.fixture
def serve(tmp_path: Path, pg_cron_url: str) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts the application, always on the same port."""
    (tmp_path / "application.py").write_text(APPLICATION)
    port = free_port()
    environment = {
        **os.environ,
        "JOBMANAGER_BACKEND": "pg_cron",
        "JOBMANAGER_DATABASE_URL": pg_cron_url,
        "JOBMANAGER_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "JOBMANAGER_SECRET": SECRET,
    }
    processes: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            "uvicorn",
            "application:app",
            "--port",
            str(port),
            "--log-level",
            "warning",
        ]
        processes.append(subprocess.Popen(command, cwd=tmp_path, env=environment))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_a_fire_that_met_nobody_is_brought_by_the_next_start_and_the_next_one_is_on_time(
    serve: Callable[[], subprocess.Popen[bytes]], pg_cron_url: str, pg_net: StandIn
) -> None:
    """Takes up to 130 s: pg_cron knows minutes only."""
    first = serve()
    ledger = JobManager(Settings(database_url=pg_cron_url, disabled=True))
    with psycopg.connect(pg_cron_url, autocommit=True) as database:

        def ask(query: str) -> list[Any]:
            return [row[0] for row in database.execute(query)]

        until(
            lambda: (
                ask(
                    "SELECT to_regclass('cron.job') IS NOT NULL AND to_regclass('jobmanager.tickers') IS NOT NULL"
                )
                == [True]
            ),
            30,
        )
        until(lambda: len(ask("SELECT jobname FROM cron.job")) == 2, 30)
        database.execute("SELECT jobmanager.put_key('default', %s)", (SECRET,))
        first.send_signal(signal.SIGTERM)
        first.wait(30)

        until(
            lambda: ask("SELECT outcome FROM jobmanager.calls WHERE outcome IS NOT NULL") == ["refused"], 100
        )
        serve()
        back = time.monotonic()
        until(lambda: ledger.runs("work", "succeeded"), 60)
        recovered = time.monotonic() - back
        until(lambda: len(ledger.runs("work", "succeeded")) >= 2, 70)

        second, once = ledger.runs("work", "succeeded")[:2]
        assert once.accepted_at is not None
        assert second.accepted_at is not None
        assert second.accepted_at - second.due_at < once.accepted_at - once.due_at
        until(
            lambda: (
                (found := ask("SELECT outcome FROM jobmanager.calls ORDER BY id"))[0] == "refused"
                and set(found[1:]) == {"accepted"}
            ),
            30,
        )
        assert recovered < 60
    ledger.store.close()
