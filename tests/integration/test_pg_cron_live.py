"""With nothing moved by hand: real pg_cron at the full minute, and an application in a process of its own."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.faults.conftest import until
from tests.pg_net.loop import SECRET
from tests.pg_net.stand_in import StandIn
from tests.servers import PgCron, free_port

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


@pytest.fixture(scope="module")
def pg_cron_server() -> Iterator[PgCron]:
    """With four passes a minute, whatever the version: the outcome of a call is known after a quarter of a minute."""
    server = PgCron({"cron.use_background_workers": "off"})
    try:
        yield server.start()
    finally:
        server.remove()


# What happens when, noted by the database itself.
NOTED = """
CREATE TABLE public.noted (what text, at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO public.noted (what) SELECT CASE WHEN TG_TABLE_NAME = 'epoch' THEN 'pass' ELSE 'call ' || (to_jsonb(NEW)->>'run_id') END;
  RETURN NULL;
END $$;
CREATE TRIGGER note AFTER UPDATE ON jobmanager.epoch FOR EACH ROW EXECUTE FUNCTION public.note();
CREATE TRIGGER note AFTER INSERT OR UPDATE ON jobmanager.run_calls FOR EACH ROW EXECUTE FUNCTION public.note();
SELECT cron.schedule('foreign', '* * * * *', $$INSERT INTO public.noted (what) VALUES ('foreign')$$);
"""


def kept_alone(**settings: str) -> Iterator[PgCron]:
    """A server that keeps the time of a job of every minute, for an application of which no process lives."""
    server = PgCron({f"cron.{name}": value for name, value in settings.items()})
    try:
        server.start().clear()
        jobs = JobManager(Settings(database_url=server.url, backend="pg_cron", pg_cron_transport="notify"))
        jobs.add_job("work", print, cron="* * * * *")
        jobs.sync()
        # Another text than that of the job above, whose plan is there: no start, sync or plan follows.
        jobs.create_job("made", handler="work", cron="*/1 * * * *")
        jobs.store.close()
        with psycopg.connect(server.url, autocommit=True) as database:
            database.execute(NOTED)
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="module", autouse=True)
def by_workers() -> Iterator[PgCron]:
    """The minutes go by while the first test of this module waits for its own."""
    yield from kept_alone(use_background_workers="on")


@pytest.fixture(scope="module", autouse=True)
def by_connections() -> Iterator[PgCron]:
    yield from kept_alone(use_background_workers="off")


def noted(server: PgCron, what: str) -> list[datetime]:
    with psycopg.connect(server.url) as database:
        rows = database.execute("SELECT at FROM public.noted WHERE what LIKE %s ORDER BY at", (what,))
        return [row[0] for row in rows]


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


def first_calls(server: PgCron) -> list[datetime]:
    """When the run of the first minute was called for."""
    with psycopg.connect(server.url) as database:
        row = database.execute("SELECT min(what) FROM public.noted WHERE what LIKE 'call %'").fetchone()
    return noted(server, row[0]) if row is not None and row[0] is not None else []


def test_by_connections_there_are_four_passes_a_minute_and_a_run_is_called_for_in_the_third_and_sixth(
    by_connections: PgCron,
) -> None:
    """The times that docs/howto/pg-cron.md names: 29 s and 74 s after the full minute."""
    until(lambda: len(first_calls(by_connections)) >= 3, 160)

    first, second, third = first_calls(by_connections)[:3]
    passes = [at for at in noted(by_connections, "pass") if at > first - timedelta(seconds=10)][:6]

    def number(call: datetime) -> int:
        return sum(at <= call + timedelta(seconds=1) for at in passes)

    assert (number(second), number(third)) == (3, 6)
    gaps = [(later - at).total_seconds() for at, later in itertools.pairwise(passes[:4])]
    assert min(gaps) > 13, gaps


def test_by_workers_of_an_old_pg_cron_there_is_one_pass_a_minute_that_holds_no_other_entry_up(
    by_workers: PgCron,
) -> None:
    """Fails with four: until 1.5 the launcher waits for its worker, and entries of others started after 44 s."""
    with psycopg.connect(by_workers.url) as database:
        version = database.execute("SELECT extversion FROM pg_extension WHERE extname = 'pg_cron'").fetchone()
    if version is None or not version[0].startswith(("1.3", "1.4")):
        pytest.skip("needs pg_cron 1.4: apt-get install postgresql-15-cron")
    until(lambda: len(noted(by_workers, "foreign")) >= 2, 160)

    minutes = [at.replace(second=0, microsecond=0) for at in noted(by_workers, "pass")]
    assert len(minutes) == len(set(minutes))
    assert max(at.second for at in noted(by_workers, "foreign")) < 30


@pytest.mark.parametrize("server", ["by_connections", "by_workers"])
def test_a_job_that_python_made_fires_at_the_next_minute_without_another_start(
    server: str, request: pytest.FixtureRequest
) -> None:
    """Fails if the plan of a stored job is left to the next start of an application: then nothing is announced."""
    with psycopg.connect(request.getfixturevalue(server).url, autocommit=True) as database:
        rows = until(
            lambda: database.execute(
                "SELECT r.scheduled_for - a.at, r.opened_at - r.scheduled_for FROM jobmanager.runs r"
                " JOIN jobmanager.audit a ON a.job_id = r.job_id AND a.action = 'create' WHERE r.job_id = 'made' ORDER BY r.id"
            ).fetchall(),
            100,
        )
    assert timedelta() < rows[0][0] <= timedelta(minutes=1)
    assert rows[0][1] < timedelta(seconds=2)
