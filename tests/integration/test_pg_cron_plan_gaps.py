"""A job that the database has no plan for is never forgotten: it stays due, and whoever keeps the time goes on from its account (L8)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from tests.faults.conftest import until

from jobmanager import At, JobManager, Settings
from jobmanager.backends.pg_cron.admin import PgCronAdmin
from jobmanager.backends.pg_cron.backend import PgCronBackend

pytestmark = [pytest.mark.servers, pytest.mark.slow]

Make = Callable[..., JobManager]


@pytest.fixture
def url(still_pg_cron_url: str) -> str:
    """A database whose entries never run by themselves: the test fires."""
    return still_pg_cron_url


@pytest.fixture
def session(url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def make(url: str) -> Iterator[Make]:
    """Managers of one application on that database, each on another backend."""
    made: list[JobManager] = []

    def manager(backend: str, **schedules: dict[str, Any]) -> JobManager:
        own: dict[str, Any] = {
            "celery": {"celery_broker_url": "memory://"},
            "pg_cron": {"pg_cron_transport": "notify"},
        }.get(backend, {})
        settings = Settings(
            backend=backend, database_url=url, grace_seconds=1, sweep_seconds=0.3, lease_seconds=2, **own
        )
        made.append(JobManager(settings))
        for job_id, schedule in schedules.items():
            made[-1].add_job(job_id.replace("_", "-"), _work, overlap="allow", catch_up="none", **schedule)
        return made[-1]

    yield manager
    for jobs in made:
        jobs.stop(1)
        jobs.store.close()


def _work() -> None: ...


def job(session: psycopg.Connection[Any], job_id: str) -> tuple[datetime | None, datetime, str | None]:
    """When the job is due, up to when it is accounted for, and why it is parked."""
    row = session.execute(
        "SELECT next_due_at, accounted_until, error FROM jobmanager.jobs j"
        " LEFT JOIN jobmanager.parked p ON p.job_id = j.id WHERE j.id = %s",
        (job_id,),
    ).fetchone()
    assert row is not None
    return row


def overdue(session: psycopg.Connection[Any], minutes: int = 5) -> datetime:
    """Move the account of every job back; the instant until which they are accounted for."""
    end = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=minutes)
    session.execute(
        "UPDATE jobmanager.jobs SET accounted_until = %s, history_from = %s, next_due_at = %s",
        (end, end, end + timedelta(seconds=10)),
    )
    return end


def has_row_since(session: psycopg.Connection[Any], job_id: str, end: datetime) -> bool:
    """Return whether the first instant after the account's end has a row now, and the job is due again."""
    first = session.execute(
        "SELECT min(coalesce(first_for, scheduled_for)) FROM jobmanager.runs WHERE job_id = %s AND scheduled_for > %s",
        (job_id, end),
    ).fetchone()
    due = job(session, job_id)[0]
    return (
        first is not None
        and first[0] is not None
        and first[0] <= end + timedelta(minutes=1)
        and due is not None
        and due > end + timedelta(minutes=1)
    )


SCHEDULES: dict[str, dict[str, Any]] = {
    "seconds": {"every": 10},
    "new": {"cron": "* * * * *", "timezone": "Asia/Kathmandu"},
}


def planned_once(make: Make) -> None:
    """The application was on pg_cron with one job of another schedule."""
    before = make("pg_cron", old={"cron": "0 3 * * *"})
    before.sync()


@pytest.mark.parametrize("backend", ["local", "celery"])
@pytest.mark.parametrize("by", ["SELECT jobmanager.fire(NULL)", "SELECT jobmanager.sweep()"])
def test_what_moved_away_is_parked_and_stays_due(
    make: Make, session: psycopg.Connection[Any], backend: str, by: str
) -> None:
    """The old entries go on firing, and know no plan of these schedules."""
    planned_once(make)
    moved = make(backend, **SCHEDULES)
    moved.sync()
    end = overdue(session)

    session.execute(by.encode())

    for job_id in SCHEDULES:
        assert job(session, job_id) == (end + timedelta(seconds=10), end, "plan_exhausted")


@pytest.mark.parametrize("backend", ["local", "celery"])
@pytest.mark.parametrize("uninstall", [False, True])
def test_the_application_goes_on_from_the_account_after_a_move(
    make: Make, session: psycopg.Connection[Any], url: str, backend: str, *, uninstall: bool
) -> None:
    planned_once(make)
    moved = make(backend, **SCHEDULES)
    moved.sync()
    end = overdue(session)
    session.execute("SELECT jobmanager.fire(NULL)")
    if uninstall:
        PgCronAdmin(PgCronBackend(url), actor="test").uninstall(objects_too=True)
        session.execute(
            "CREATE TABLE jobmanager.parked (job_id text, error text)"
        )  # for the question of `job`

    moved.start()

    for job_id in SCHEDULES:
        until(lambda job_id=job_id: has_row_since(session, job_id, end))


@pytest.mark.parametrize("backend", ["local", "celery", "pg_cron"])
def test_a_database_that_an_older_version_damaged_is_healed(
    make: Make, session: psycopg.Connection[Any], backend: str
) -> None:
    """It set `next_due_at` to NULL, for good."""
    planned_once(make)
    past = At(datetime.now(UTC) - timedelta(minutes=2))
    schedules = {"every": {"every": 60}, "new": SCHEDULES["new"]}
    jobs = make(backend, **schedules)
    jobs.sync()
    end = overdue(session)
    session.execute("UPDATE jobmanager.jobs SET next_due_at = NULL")
    session.execute(
        "INSERT INTO jobmanager.jobs SELECT (jsonb_populate_record(j, jsonb_build_object('id', 'once', 'schedule', %s::text))).*"
        " FROM jobmanager.jobs j WHERE id = 'new'",
        (past.text,),
    )

    jobs.start()

    for job_id in schedules:
        until(lambda job_id=job_id: has_row_since(session, job_id, end))
    until(
        lambda: (
            session.execute("SELECT scheduled_for FROM jobmanager.runs WHERE job_id = 'once'").fetchall()
            == [(past.moment,)]
        )
    )
    assert job(session, "once")[0] is None


def test_a_plan_that_ends_leaves_the_job_at_its_last_instant(
    make: Make, session: psycopg.Connection[Any]
) -> None:
    """And the next plan goes on from there: nothing is announced twice, and nothing is left out."""
    jobs = make("pg_cron", minutely={"cron": "* * * * *"})
    jobs.sync()
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    last = midnight - timedelta(minutes=1)
    end = last - timedelta(minutes=2)
    session.execute(
        "UPDATE jobmanager.jobs SET accounted_until = %s, next_due_at = %s, catch_up_window_seconds = 864000",
        (end, end + timedelta(minutes=1)),
    )
    days = f"{{[{midnight.date() - timedelta(days=3)},{midnight.date()})}}"
    session.execute("UPDATE jobmanager.plans SET days = %s::datemultirange", (days,))
    session.execute("UPDATE jobmanager.schedules SET planned_until = %s", (midnight.date(),))

    later = midnight + timedelta(minutes=3)
    assert session.execute("SELECT jobmanager.fire(NULL, %s)", (later,)).fetchone() == (2,)
    assert job(session, "minutely") == (last, last, "plan_exhausted")
    assert session.execute("SELECT jobmanager.fire(NULL, %s)", (later,)).fetchone() == (0,)
    assert job(session, "minutely") == (last, last, "plan_exhausted")

    jobs.sync()

    assert job(session, "minutely") == (midnight, last, None)
    assert session.execute("SELECT jobmanager.fire(NULL, %s)", (later,)).fetchone() == (4,)


def test_a_single_instant_that_was_fired_is_due_no_more(make: Make, session: psycopg.Connection[Any]) -> None:
    """Its plan holds for ever: there is nothing that anybody could plan."""
    moment = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=5)
    jobs = make("pg_cron")
    jobs.add_job("once", _work, at=moment)
    jobs.sync()

    assert session.execute("SELECT jobmanager.fire(NULL, %s)", (moment,)).fetchone() == (1,)

    assert job(session, "once") == (None, moment, None)
    assert session.execute("SELECT jobmanager.needs_planning('default')").fetchone() == (False,)


def test_a_schedule_edited_in_sql_is_due_at_once_and_never_fires_by_the_old_plan(
    make: Make, session: psycopg.Connection[Any]
) -> None:
    jobs = make("pg_cron", edited={"cron": "0 3 * * *"})
    jobs.sync()

    session.execute("UPDATE jobmanager.jobs SET schedule = 'cron 7 * * * * in Asia/Kathmandu'")

    due, accounted, parked = job(session, "edited")
    assert due == accounted
    assert parked is None
    assert session.execute("SELECT jobmanager.fire(NULL)").fetchone() == (0,)
    assert job(session, "edited") == (due, accounted, "plan_exhausted")
    jobs.sync()
    due, _, parked = job(session, "edited")
    assert due is not None
    assert due > datetime.now(UTC)
    assert (due.astimezone(UTC).minute, parked) == (22, None)


def test_what_was_due_on_days_before_the_plan_was_made_has_its_rows(
    make: Make, session: psycopg.Connection[Any]
) -> None:
    """Fails where a plan begins with the day it is made on: what was due shortly before midnight would have no row."""
    jobs = make("pg_cron", hourly={"cron": "30 * * * *"})
    jobs.sync()
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=3)
    session.execute(
        "UPDATE jobmanager.jobs SET accounted_until = %s, history_from = %s, next_due_at = %s",
        (end, end, end + timedelta(minutes=30)),
    )
    session.execute("SELECT jobmanager.fire(NULL)")

    rows = session.execute("SELECT scheduled_for FROM jobmanager.runs ORDER BY 1").fetchall()
    until_now = session.execute("SELECT accounted_until FROM jobmanager.jobs").fetchone()
    wanted = [end + timedelta(minutes=30 + 60 * hour) for hour in range(72)]
    assert [instant for (instant,) in rows][:72] == wanted
    assert until_now is not None
    assert until_now[0] == rows[-1][0]
