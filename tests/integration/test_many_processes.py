"""Any number of processes may keep the same time on one store: each tick becomes one run."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

SECONDS = 20
APPLICATION = """
import sys, time
from jobmanager import JobManager, Settings

jobs = JobManager(Settings(database_url="sqlite:///" + sys.argv[1]))

@jobs.job("one", every=1, overlap="allow")  # none is skipped where a busy machine is late
def one(): ...

@jobs.job("two", every=1, overlap="allow")
async def two(): ...

@jobs.job("three", cron="* * * * * *", overlap="allow")
def three(context):
    context.log.info("tick %s", context.scheduled_for)

jobs.start()
print("up", flush=True)
time.sleep(3600)
"""


def start_application(folder: Path) -> subprocess.Popen[str]:
    script = folder / "application.py"
    script.write_text(APPLICATION)
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder / "jobs.db")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n", process.stderr.read() if process.stderr else ""
    return process


@pytest.mark.slow
def test_four_processes_open_one_run_for_every_tick_and_end_with_code_0(tmp_path: Path) -> None:
    processes = [start_application(tmp_path) for _ in range(4)]
    time.sleep(SECONDS)  # the test is about this much real time; nothing is awaited here
    with sqlite3.connect(tmp_path / "jobs.db") as database:
        # Who wins a tick is a lottery; that all four take part in it is not.
        living = database.execute(
            "SELECT count(*) FROM jobmanager_instances WHERE dead_at IS NULL"
        ).fetchone()
    assert living == (4,)
    for process in processes:
        process.send_signal(signal.SIGTERM)
    errors = [process.communicate(timeout=100)[1] for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0, 0], errors
    with sqlite3.connect(tmp_path / "jobs.db") as database:
        rows = database.execute(
            "SELECT job_id, scheduled_for / 1000000, status FROM jobmanager_runs ORDER BY job_id, scheduled_for"
        ).fetchall()
    assert {status for _, _, status in rows} == {"succeeded"}
    for job in ("one", "two", "three"):
        instants = [instant for job_id, instant, _ in rows if job_id == job]
        assert instants == list(range(instants[0], instants[0] + len(instants)))
        assert len(instants) >= SECONDS - 1
