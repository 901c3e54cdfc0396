"""Alarms on every kind of backend, on a clock moved by hand: time that nobody keeps is told in time, and days of work are told by nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.backends_by_hand import Sent, announced

from jobmanager import JobManager, Settings
from jobmanager.notify import Message, Notifier
from jobmanager.testing import FakeClock

pytestmark = pytest.mark.slow  # hours and days, a sweep at a time

NOON = datetime(2026, 3, 20, 12, tzinfo=UTC)  # clocks change in Berlin on 29 March
GRACE, QUARTER = timedelta(seconds=60), timedelta(minutes=15)
SWEEPS = timedelta(seconds=90)
"""What a sweep (30 s, and a tenth) and the looks around it may take."""
ALERTS = {"alerts_email": "ops@example.org", "smtp_url": "smtp://127.0.0.1:1"}


class Chat(Notifier):
    """A channel that keeps what it gets."""

    name = "email"

    def __init__(self) -> None:
        self.got: list[Message] = []

    def send(self, message: Message) -> None:
        self.got.append(message)


class Site:
    """An application whose time is kept from outside of the process that executes; `silence` ends that, and the process lives on."""

    def __init__(self, start: datetime) -> None:
        self.start = start
        self.clock = FakeClock(start)
        self.chat = Chat()
        self.processes: list[JobManager] = []
        self.silence: Callable[[], object] = lambda: None

    def manager(self, settings: Settings, **parts: Any) -> JobManager:
        jobs = JobManager(settings, clock=self.clock, notifiers=[self.chat], **parts)
        rules: dict[str, Any] = {
            "alert_on": ["failed", "recovered", "missed", "paused"],
            "alert_late": "2m",
            "alert_running": "5m",
        }
        jobs.add_job("quarterly", lambda: None, cron="*/15 * * * *", **rules)
        jobs.add_job("nightly", lambda: None, cron="0 2 * * *", timezone="Europe/Berlin", **rules)
        self.processes.append(jobs)
        return jobs

    def drive(self, due: Callable[[], datetime | None], act: Callable[[], object]) -> None:
        """Have the outside act whenever it is due, until it is silenced."""
        self.clock.drive(due, act)
        self.silence = lambda: self.clock.release(act)

    def every_quarter(self, act: Callable[[], object]) -> None:
        coming = [self.start + QUARTER]

        def called() -> None:
            coming[0] += QUARTER
            act()

        self.drive(lambda: coming[0], called)


def external(site: Site, _request: pytest.FixtureRequest, _folder: Path) -> None:
    """A clock outside calls at every quarter of an hour."""
    jobs = site.manager(Settings(backend="external", database_url="memory://", **ALERTS)).start()
    site.every_quarter(jobs.host.tick_all)


def celery(site: Site, _request: pytest.FixtureRequest, folder: Path) -> None:
    """A beat and a worker as managers of their own; silence is a beat that is gone."""
    settings = Settings(
        backend="celery", celery_broker_url="memory://", database_url=f"sqlite:///{folder}/jobs.db", **ALERTS
    )
    messages: list[str] = []
    beat, worker = Sent(site.clock, messages), Sent(site.clock, messages)
    keeps, executes = (site.manager(settings, backend=backend) for backend in (beat, worker))
    worker.start_worker()
    beat.begin_beat()

    def receive() -> None:
        arrived, messages[:] = list(messages), []
        worker.execute(arrived)

    site.clock.drive(lambda: site.clock.now() if messages else None, receive)
    site.drive(beat.timetable.top, beat.tick)

    def die() -> None:
        site.clock.release(beat.tick)
        keeps.stop()

    site.silence = die
    assert executes.started


def pg_cron(site: Site, request: pytest.FixtureRequest, _folder: Path) -> None:
    """The functions of a real database, called as pg_cron would at each quarter; silence is a pg_cron that no longer does."""
    pytest.importorskip("psycopg", reason="needs psycopg: pip install psycopg[binary]")
    from tests.postgres_clock import postgres_on

    url = request.getfixturevalue("still_pg_cron_url")

    backend = announced(url, site.clock)
    settings = Settings(backend="pg_cron", pg_cron_transport="notify", database_url=url, **ALERTS)
    site.manager(settings, backend=backend, store=postgres_on(url, site.clock)).start()

    def fire() -> None:
        with backend.database.connect() as connection:
            connection.execute("SELECT jobmanager.fire(NULL, %s)", (site.clock.now(),))
            backend.bring(connection)

    site.every_quarter(fire)


KINDS = [external, celery, pytest.param(pg_cron, marks=pytest.mark.servers)]
LONG = {external: 30, celery: 30, pg_cron: int(os.environ.get("JOBMANAGER_TEST_DAYS", "3"))}
"""Days of the fault programme; one of a real database takes half a minute: JOBMANAGER_TEST_DAYS=30."""


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    # A real database writes some moments of its own: there the days that pass are those that come.
    real = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    made = Site(real if request.node.callspec.params["kind"] is pg_cron else NOON)
    yield made
    for jobs in made.processes:
        jobs.stop()
        jobs.store.close()


@pytest.mark.parametrize("kind", KINDS)
def test_time_that_nobody_keeps_is_told_within_grace_and_one_tick(
    site: Site, request: pytest.FixtureRequest, tmp_path: Path, kind: Callable[..., None]
) -> None:
    kind(site, request, tmp_path)
    for _ in range(34):
        site.clock.advance(seconds=30)
    assert site.chat.got == []
    assert {run.status for run in site.processes[-1].runs("quarterly")} == {"succeeded"}
    due = site.start + 2 * QUARTER

    site.silence()
    while not site.chat.got and site.clock.now() < due + QUARTER:
        site.clock.advance(seconds=10)

    assert [message.event for message in site.chat.got] == ["no_time_kept"]
    assert "quarterly" in site.chat.got[0].text
    assert due <= site.clock.now() <= due + GRACE + SWEEPS


@pytest.mark.timeout(5400)
@pytest.mark.parametrize("long", [False, pytest.param(True, marks=pytest.mark.faults)], ids=["hours", "days"])
@pytest.mark.parametrize("kind", KINDS)
def test_days_without_a_false_alarm(
    site: Site, request: pytest.FixtureRequest, tmp_path: Path, kind: Callable[..., None], *, long: bool
) -> None:
    kind(site, request, tmp_path)
    end = site.start + (timedelta(days=LONG[kind]) if long else timedelta(hours=3))

    while site.clock.now() < end:
        site.clock.advance(QUARTER)

    assert site.chat.got == []
    jobs = site.processes[-1]
    for job in jobs.registry.jobs.values():
        assert job.schedule is not None
        runs = jobs.runs(job.id, limit=100_000)
        assert {run.status for run in runs} <= {"succeeded"}
        assert [run.scheduled_for for run in reversed(runs)] == list(job.schedule.between(site.start, end))
