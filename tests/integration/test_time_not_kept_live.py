"""Time that nobody keeps is told by a process that lives, on real brokers and databases: a killed beat, and a pg_cron that is silent."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("psycopg", reason="needs psycopg: pip install psycopg[binary]")

import psycopg
from tests.faults.conftest import start_process, until
from tests.integration.celery_processes import Application
from tests.smtp_server import SmtpServer, smtp_server

from jobmanager import JobManager, Settings
from jobmanager.stores.outbox import Notification

__all__ = ["start_process"]
pytestmark = [pytest.mark.servers, pytest.mark.slow]

OFTEN = """
from datetime import timedelta
from jobmanager.notify import notifying
notifying.LOOK_EVERY = timedelta(seconds=0.5)
"""
GRACE = 20.0
"""Seconds: a busy machine takes a few for the start of each process, and that is to be no alarm."""
BUSY = timedelta(seconds=10)
"""What a sweep and a look take, on a machine that does much else at once."""


def told(jobs: JobManager) -> list[Notification]:
    """The alarms that were written, oldest first."""
    return [item for item in jobs.notifications(limit=100) if item.event == "no_time_kept"][::-1]


def alerting(server: SmtpServer) -> dict[str, Any]:
    return {"smtp_url": server.url, "alerts_email": "ops@example.org", "grace_seconds": GRACE}


def test_a_beat_that_is_killed_is_told_while_a_worker_lives(redis_url: str, tmp_path: Path) -> None:
    """Fails if workers leave it to the beat to say that there is none, or if its replacement is told."""
    tick = timedelta(seconds=2)
    source = OFTEN + '\n@jobs.job("work", every=2, overlap="allow")\ndef work(): note("work")\n'
    with smtp_server() as server:
        application = Application(
            tmp_path, redis_url, f"sqlite:///{tmp_path}/jobs.db", source, **alerting(server)
        )
        try:
            first = application.beat()
            application.worker()
            jobs = application.manager()
            until(lambda: len(jobs.runs("work", status="succeeded")) >= 3)
            last = application.beat()
            first.end()
            seen = len(jobs.runs("work", status="succeeded"))
            until(lambda: len(jobs.runs("work", status="succeeded")) >= seen + 3)
            assert told(jobs) == []

            last.kill()
            killed = datetime.now(UTC)

            alarm = until(lambda: told(jobs), 60)[0]
            assert alarm.created_at - killed <= timedelta(seconds=GRACE) + tick + BUSY
            until(lambda: [item for item in server.received if "No tick comes" in item.mail.get_content()])
            assert "work" in server.received[-1].mail.get_content()
        finally:
            application.close()


@contextmanager
def hung(session: psycopg.Connection[Any]) -> Iterator[None]:
    """Meanwhile pg_cron stands still, as one that waits for ever."""
    [[pid]] = session.execute(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_cron launcher'"
    ).fetchall()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def switched_off(session: psycopg.Connection[Any]) -> Iterator[None]:
    """Somebody has switched our entries off."""
    session.execute("UPDATE cron.job SET active = false")
    yield


@pytest.mark.parametrize("silenced", [hung, switched_off])
def test_a_pg_cron_that_is_silent_is_told_by_the_process_that_lives(
    pg_cron_url: str,
    start_process: Callable[..., object],
    silenced: Callable[[psycopg.Connection[Any]], AbstractContextManager[None]],
) -> None:
    """Fails if a process that listens takes silence for a time without work. Its own sweep has the instant all the same."""
    source = OFTEN + '\n@jobs.job("work", cron="* * * * *")\ndef work(): note("work")\n'
    jobs = JobManager(Settings(database_url=pg_cron_url, backend="noop"))
    with smtp_server() as server, psycopg.connect(pg_cron_url, autocommit=True) as session:
        start_process(pg_cron_url, source, backend="pg_cron", pg_cron_transport="notify", **alerting(server))
        with silenced(session):
            row = jobs.store.jobs.get("work")
            assert row is not None
            assert row.next_due_at is not None

            alarm = until(lambda: told(jobs), 120)[0]

        assert alarm.created_at - row.next_due_at <= timedelta(seconds=GRACE) + BUSY
        until(lambda: [item for item in server.received if "No tick comes" in item.mail.get_content()])
        until(lambda: jobs.runs("work", status="succeeded"))
        assert {run.trigger for run in jobs.runs("work") if run.scheduled_for == row.next_due_at} == {
            "catch_up"
        }
    jobs.store.close()
