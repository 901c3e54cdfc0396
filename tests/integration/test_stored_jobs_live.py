"""Jobs that operators make, with nothing moved by hand: real beats and workers, local processes, and real pg_cron."""

from __future__ import annotations

import itertools
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

pytest.importorskip("psycopg", reason="needs psycopg: pip install psycopg[binary]")

import psycopg
from tests.faults.conftest import start_process
from tests.integration.celery_processes import Application, until

from jobmanager import JobManager, Run, RunStatus, Settings
from jobmanager.ledger.missing_instants import schedule_of

__all__ = ["start_process"]
pytestmark = [pytest.mark.slow, pytest.mark.servers]

SOON = timedelta(seconds=2)
BUSY = timedelta(seconds=1.5)
"""What a machine that does much else at once may add."""

HANDLERS = """
@jobs.handler("export")
def export(context: RunContext, region: str = "all"):
    note("export", context.job.id, context.run_id, region)
"""
LOCAL = "from jobmanager import RunContext" + HANDLERS
MakeApplication = Callable[..., Application]


@pytest.fixture
def make_application(tmp_path: Path, redis_url: str) -> Iterator[MakeApplication]:
    made: list[Application] = []

    def make(store: str, **settings: object) -> Application:
        made.append(Application(tmp_path, redis_url, store, HANDLERS, **settings))
        return made[-1]

    yield make
    for application in made:
        application.close()


def first_run(jobs: JobManager, job_id: str) -> Run:
    """The run of its first instant, once it has ended."""
    return until(lambda: jobs.runs(job_id, status="succeeded"), 30)[-1]


def delay_of(jobs: JobManager, job_id: str) -> timedelta:
    """How long after its first instant, and not before it was made, the handler began."""
    made = jobs.history(job_id)[-1]
    run = first_run(jobs, job_id)
    assert run.started_at is not None
    assert run.scheduled_for is not None
    assert made.at < run.scheduled_for < made.at + timedelta(seconds=4)
    return run.started_at - run.scheduled_for


def test_a_job_made_by_python_or_the_command_fires_on_celery_without_a_restart(
    make_application: MakeApplication, tmp_path: Path
) -> None:
    """Fails if a beat keeps the timetable it began with, or if workers refuse a job that they did not know at their start."""
    application = make_application(f"sqlite:///{tmp_path}/jobs.db")
    application.beat()
    application.worker()
    jobs = application.manager()
    until(lambda: len(jobs.store.processes.living()) == 2)

    jobs.create_job("python", handler="export", every=2, config={"region": "eu"}, by="ann")
    assert delay_of(jobs, "python") < SOON + BUSY
    command = ("--app", "shop:jobs", "jobs", "create", "command", "--handler", "export", "every=2")
    application.command("jobmanager", *command).wait()
    assert delay_of(jobs, "command") < SOON + BUSY
    assert ["export", "python", first_run(jobs, "python").id, "eu"] in application.effects()


@pytest.mark.faults
def test_everything_that_operators_do_is_accounted_once_while_many_processes_keep_the_time(
    make_application: MakeApplication,
    start_process: Callable[..., object],
    pg_cron_url: str,
    tmp_path: Path,
) -> None:
    """Two beats, three workers, two local processes and one of pg_cron: no instant twice, none left out, and no change audited twice."""
    settings = Settings(
        database_url=pg_cron_url,
        backend="pg_cron",
        pg_cron_transport="notify",
        grace_seconds=1,
        lease_seconds=5,
    )
    of_pg_cron = JobManager(settings)
    of_pg_cron.handler("export")(lambda region="all": None)
    with of_pg_cron:
        application = make_application(pg_cron_url, grace_seconds=1, lease_seconds=5)
        beats = [application.beat() for _ in range(2)]
        for _ in range(3):
            application.worker(pool="threads", concurrency=1)
        for _ in range(2):
            start_process(pg_cron_url, LOCAL, backend="local", grace_seconds=1, lease_seconds=5)
        jobs = application.manager()
        until(lambda: len(jobs.store.processes.living()) == 8)
        with psycopg.connect(pg_cron_url, autocommit=True) as sql:
            sql.execute("SELECT jobmanager.create_job('by-sql', 'export', '*/2 * * * * *')")
        assert delay_of(jobs, "by-sql") < SOON + BUSY
        _operate(jobs, lambda: (beats[0].end(signal.SIGTERM), application.beat()))
        until(lambda: not jobs.runs(status=["pending", "running"]))
    of_pg_cron.store.close()

    actions = [entry.action for entry in reversed(jobs.history("made"))]
    assert actions == ["create", "edit", "pause", "resume", "edit", "delete"]
    started = Counter(words[2] for words in application.effects("export"))
    assert max(started.values()) == 1
    covered = [
        instant
        for run in jobs.runs("made", limit=1000)
        if run.scheduled_for is not None
        for instant in instants_of(run)
    ]
    assert sorted(covered) == expected(jobs, "made")
    assert jobs.runs("made", status="succeeded", limit=1)


def _operate(jobs: JobManager, deploy: Callable[[], object]) -> None:
    """Change the job in each way, with a few of its instants between two changes."""

    def more(count: int = 3) -> None:
        there = len(jobs.runs("made", status=["succeeded"], limit=1000))
        until(lambda: len(jobs.runs("made", status=["succeeded"], limit=1000)) >= there + count, 30)

    jobs.create_job("made", handler="export", every=1, overlap="allow", by="ann")
    more()
    jobs.update_job("made", every=2, config={"region": "eu"}, by="ben")
    more()
    jobs.stop_job("made", by="ann")
    run = jobs.trigger_job("made")
    assert jobs.wait(run.id).status is RunStatus.SUCCEEDED
    deploy()  # neither retires it nor resumes it
    jobs.resume_job("made", by="ann")
    more()
    before = jobs.history("made")[-2].before
    assert before is not None
    jobs.update_job("made", **{"config": None, **before["definition"]}, by="ben")
    more()
    jobs.delete_job("made", by="ann")


def instants_of(run: Run) -> list[datetime]:
    """The instants that a row stands for, of which it says the first, the last and the number."""
    assert run.scheduled_for is not None
    if run.first_for is None or run.ticks == 1:
        return [run.scheduled_for]
    step = (run.scheduled_for - run.first_for) / (run.ticks - 1)
    return [run.first_for + step * number for number in range(run.ticks)]


def expected(jobs: JobManager, job_id: str) -> list[datetime]:
    """What was due by the schedules that the audit names, between one change of the job and the next."""
    due: list[datetime] = []
    row = jobs.store.jobs.get(job_id)
    assert row is not None
    changes = list(reversed(jobs.history(job_id)))
    for change, following in itertools.pairwise(changes):
        assert change.after is not None
        text = change.after.get("schedule") or (change.before or {}).get("schedule")
        if text is not None:
            schedule = schedule_of(replace(row, schedule=text))
        assert schedule is not None
        instant = schedule.next_after(change.at)
        while instant is not None and instant <= following.at:
            due.append(instant)
            instant = schedule.next_after(instant)
    return due
