"""A whole application on PostgreSQL: many processes, one run for each tick; a server that goes away and comes back."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("psycopg", reason="needs psycopg: pip install psycopg[binary]")

from tests.servers import GIVEN, FreshDatabases, Postgres

from jobmanager import JobManager, RunStatus, Settings
from jobmanager.errors import RunNotFoundError, StoreError
from jobmanager.stores.sql.postgres import PostgresStore
from jobmanager.stores.sql.postgres_link import driver_of

pytestmark = pytest.mark.servers

SECONDS = 10
APPLICATION = """
import sys, time
from jobmanager import JobManager, Settings

jobs = JobManager(Settings(database_url=sys.argv[1]))

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


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait for the condition; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def start_application(folder: Path, url: str) -> subprocess.Popen[str]:
    script = folder / "application.py"
    script.write_text(APPLICATION)
    process = subprocess.Popen(
        [sys.executable, str(script), url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n", process.stderr.read() if process.stderr else ""
    return process


@pytest.mark.slow
def test_four_processes_open_one_run_for_every_tick_and_end_with_code_0(tmp_path, postgres_url):
    processes = [start_application(tmp_path, postgres_url) for _ in range(4)]
    time.sleep(SECONDS)  # the test is about this much real time; nothing is awaited here
    reader = JobManager(Settings(database_url=postgres_url))
    # Who wins a tick is a lottery; that all four take part in it is not.
    assert len(reader.store.processes.living()) == 4
    for process in processes:
        process.send_signal(signal.SIGTERM)
    errors = [process.communicate(timeout=100)[1] for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0, 0], errors
    for job in ("one", "two", "three"):
        runs = reader.runs(job, limit=500)
        assert {run.status for run in runs} == {RunStatus.SUCCEEDED}
        instants = sorted(run.scheduled_for for run in runs if run.scheduled_for)
        assert len(instants) == len(runs) >= SECONDS - 1
        assert {(b - a).total_seconds() for a, b in itertools.pairwise(instants)} == {1.0}
    assert reader.store.processes.living() == []
    [(_, _, line)] = reader.store.history.lines(reader.runs("three", limit=1)[0].id)
    assert line.text.startswith("tick ")
    reader.store.close()


@pytest.fixture
def own_server() -> Iterator[Postgres]:
    """A server that may be stopped and started."""
    if GIVEN in os.environ:
        pytest.skip(f"stops the server, and {GIVEN} names one that is not ours")
    server = Postgres()
    yield server
    server.remove()


def test_the_manager_comes_up_when_the_server_does_and_outlives_its_restart(own_server, caplog):
    caplog.set_level(logging.INFO, "jobmanager")
    jobs = JobManager(Settings(database_url=own_server.url))

    @jobs.job(
        "second", every=1, overlap="allow"
    )  # a run whose end waits for the server must not skip the next
    def second() -> str:
        return "done"

    jobs.start()
    assert "is it running, and can this host reach it?" in caplog.text
    own_server.start()
    until(lambda: "up: the store answers" in caplog.text)
    until(lambda: succeeded(jobs) >= 2)
    own_server.stop(immediately=True)
    time.sleep(2.5)  # the length of the outage
    own_server.start()
    before = succeeded(jobs)
    until(lambda: succeeded(jobs) >= before + 3)
    jobs.stop()

    instants = sorted(run.scheduled_for for run in jobs.runs("second", limit=500) if run.scheduled_for)
    assert {(b - a).total_seconds() for a, b in itertools.pairwise(instants)} == {1.0}
    assert {run.status for run in jobs.runs("second", limit=500)} == {RunStatus.SUCCEEDED}
    assert [record.name for record in caplog.records if not record.name.startswith("jobmanager")] == []
    jobs.store.close()


def succeeded(jobs: JobManager) -> int:
    """How many runs are on record as succeeded; the server may be restarting."""
    try:
        return len(jobs.runs("second", status="succeeded", limit=500))
    except StoreError:
        return 0


def test_a_forked_child_connects_anew_and_the_parent_keeps_its_connections(postgres_url):
    jobs = JobManager(Settings(database_url=postgres_url))
    jobs.store.install()
    assert jobs.store.jobs.change_seq() == 0

    child = os.fork()
    if child == 0:
        jobs.store.after_fork()
        os._exit(0 if jobs.store.jobs.change_seq() == 0 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    assert jobs.store.jobs.change_seq() == 0
    jobs.store.close()


def test_a_start_by_hand_its_conflict_and_its_wait_work_as_on_sqlite(postgres_server):
    with FreshDatabases(postgres_server) as databases:
        jobs = JobManager(Settings(database_url=databases.make()))

        @jobs.job("report")
        def report(days: int = 1) -> dict[str, int]:
            return {"days": days}

        with jobs:
            run = jobs.trigger_job("report", {"days": 7}, key="once")
            assert jobs.wait(run.id, timeout=20).output == {"days": 7}
            assert jobs.trigger_job("report", {"days": 7}, key="once").id == run.id
            assert jobs.run(run.id[-8:]) == jobs.run(run.id)
            with pytest.raises(RunNotFoundError):
                jobs.run("no such run")
            with pytest.raises(RunNotFoundError):
                jobs.cancel("no such run")
        assert jobs.get_job_metrics().successful_jobs == 1
        jobs.store.close()


def test_a_connection_that_a_thread_holds_while_the_store_closes_is_closed_after_it(
    postgres_url: str,
) -> None:
    """Fails if it goes back to a pool that nobody uses: a session on the server until the garbage collector comes."""
    store = PostgresStore(postgres_url)
    with store.database.reading() as connection:
        driver = driver_of(connection)
        store.close()
        assert not driver.closed

    assert driver.closed
    store.close()
