"""Stored jobs on pg_cron at the edges: a plan whose job was never stored, and a job that SQL made while no process lived."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from tests.faults.conftest import Process, start_process, until

from jobmanager import JobManager, Settings

__all__ = ["start_process"]
pytestmark = [pytest.mark.servers, pytest.mark.slow]

APPLICATION = """
@jobs.handler("export")
def export(region="all"): note("export", region)
"""
PG_CRON: dict[str, Any] = {"backend": "pg_cron", "pg_cron_transport": "notify"}
MINUTE = timedelta(minutes=1)
Start = Callable[..., Process]


@pytest.fixture
def session(still_pg_cron_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(still_pg_cron_url, autocommit=True) as connection:
        yield connection


def rows_of(session: psycopg.Connection[Any], query: str, *values: object) -> list[tuple[Any, ...]]:
    return session.execute(query.encode(), values).fetchall()


# ---------------------------------------------------------------- a plan before its job


@pytest.mark.parametrize("layout", ["dispatcher", "entries"])
def test_a_plan_whose_job_was_never_stored_announces_nothing_and_is_used_by_the_next_job(
    still_pg_cron_url: str,
    session: psycopg.Connection[Any],
    start_process: Start,
    layout: str,
) -> None:
    """The plan is committed just before the job. A process that is killed between the two leaves a plan that nothing refers to."""
    process = start_process(
        still_pg_cron_url,
        APPLICATION + "jobs.store.jobs.create = lambda *_: os.kill(os.getpid(), 9)\n",
        **PG_CRON,
        pg_cron_layout=layout,
    )
    before = rows_of(session, "SELECT jobname, command FROM cron.job ORDER BY 1")
    process.tell("jobs.create_job('made', handler='export', cron='*/5 * * * *')")
    assert process.wait() == -9
    planned = "SELECT planned_until FROM jobmanager.schedules WHERE schedule = 'cron */5 * * * * in UTC'"
    assert len(rows_of(session, planned)) == 1

    session.execute("SELECT jobmanager.fire(NULL, clock_timestamp() + interval '10 minutes')")
    session.execute("SELECT jobmanager.sweep()")

    assert (
        rows_of(
            session,
            "SELECT id FROM jobmanager.jobs WHERE id = 'made' UNION ALL SELECT id::text FROM jobmanager.runs",
        )
        == []
    )
    assert rows_of(session, "SELECT jobname, command FROM cron.job ORDER BY 1") == before
    assert rows_of(session, "SELECT jobmanager.needs_planning('default')") == [(False,)]

    again = start_process(still_pg_cron_url, APPLICATION, **PG_CRON, pg_cron_layout=layout)
    again("jobs.create_job('made', handler='export', cron='*/5 * * * *') and None")
    ((due,),) = rows_of(session, "SELECT next_due_at FROM jobmanager.jobs WHERE id = 'made'")
    assert timedelta() < due - datetime.now(UTC) <= 5 * MINUTE


def test_no_job_is_stored_whose_plan_could_not_be(still_pg_cron_url: str) -> None:
    """Fails if the job is committed first: without its plan, and with no process, it would never be due."""
    jobs = JobManager(Settings(database_url=still_pg_cron_url, **PG_CRON))
    jobs.handler("export")(lambda: None)
    jobs.sync()
    with psycopg.connect(still_pg_cron_url, autocommit=True) as session:
        session.execute(
            "ALTER TABLE jobmanager.schedules ADD CONSTRAINT full_up CHECK (schedule NOT LIKE '%*/7%') NOT VALID"
        )
        with pytest.raises(Exception, match="full_up"):
            jobs.create_job("made", handler="export", cron="*/7 * * * *")
        assert rows_of(session, "SELECT id FROM jobmanager.jobs WHERE id = 'made'") == []
        session.execute("ALTER TABLE jobmanager.schedules DROP CONSTRAINT full_up")
    assert jobs.create_job("made", handler="export", cron="*/7 * * * *").id == "made"
    jobs.store.close()


# ---------------------------------------------------------------- a job by SQL, and nobody there


def test_a_job_that_sql_made_while_no_process_lived_goes_on_from_its_account_at_the_first_start(
    pg_cron_url: str, start_process: Start
) -> None:
    """Fails if instants before the start are left out or run more than once, or if pg_cron does not announce the next minute by itself."""
    killed = start_process(pg_cron_url, APPLICATION, **PG_CRON)
    killed.send(9)
    killed.wait()
    with psycopg.connect(pg_cron_url, autocommit=True) as session:
        session.execute(
            "SELECT jobmanager.create_job('by-sql', 'export', '* * * * *', config => '{\"region\": \"eu\"}')"
        )
        made = datetime.now(UTC).replace(second=30, microsecond=0) - 4 * MINUTE
        session.execute(
            "UPDATE jobmanager.jobs SET accounted_until = %s, history_from = %s WHERE id = 'by-sql'",
            (made, made),
        )
        session.execute("SELECT jobmanager.fire(NULL)")
        session.execute("SELECT jobmanager.sweep()")
        assert rows_of(session, "SELECT id FROM jobmanager.runs") == []
        assert rows_of(session, "SELECT jobmanager.needs_planning('default')") == [(True,)]

        start_process(pg_cron_url, APPLICATION, **PG_CRON, grace_seconds=1)

        started = datetime.now(UTC)
        first = until(
            lambda: rows_of(
                session, "SELECT scheduled_for, reason FROM jobmanager.runs WHERE status = 'succeeded'"
            )
        )
        assert first[0][0] <= started
        by_pg_cron = until(
            lambda: rows_of(
                session,
                "SELECT scheduled_for, opened_at - scheduled_for FROM jobmanager.runs WHERE status = 'succeeded' AND scheduled_for > %s",
                started,
            ),
            90,
        )
        assert by_pg_cron[0][1] < timedelta(seconds=10)
        covered = rows_of(
            session,
            "SELECT generate_series(coalesce(first_for, scheduled_for), scheduled_for, '1 minute') FROM jobmanager.runs ORDER BY 1",
        )
    instants = [instant for (instant,) in covered]
    assert instants == [made.replace(second=0) + MINUTE * number for number in range(1, len(instants) + 1)]
    assert instants[-1] >= by_pg_cron[0][0]
