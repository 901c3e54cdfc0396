"""The pg_cron backend keeps the promises of every backend: its SQL on a real server, at the minutes that the test names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.unit.schedule.dst_by_definition import POLICIES, TRANSITIONS, walk
from tests.waiting import until

from jobmanager import Cron, CronError, Dst, JobManager, Settings
from jobmanager.backends.base import Backend, Deliver
from jobmanager.backends.pg_cron import PgCronBackend
from jobmanager.backends.pg_cron import schema as objects
from jobmanager.backends.pg_cron.database import PgCronDatabase
from jobmanager.backends.pg_cron.listener import Listener
from jobmanager.backends.pg_cron.plans.installing import Planning
from jobmanager.backends.pg_cron.plans.plan import plan_of, unsupported
from jobmanager.backends.timetable import ScheduledJob
from jobmanager.clock import Clock, SystemClock
from jobmanager.errors import ConfigurationError, UnsupportedError
from jobmanager.job import First, Job
from jobmanager.schedule import Every, Schedule
from jobmanager.stores.sql.postgres import PostgresStore
from jobmanager.stores.values import JobRow
from jobmanager.testing import BackendContract, FakeClock

GOLDEN = json.loads((Path(__file__).parent.parent / "unit" / "schedule" / "golden.json").read_text())["cases"]


class ByHand(PgCronBackend):
    """Writes the jobs that it is given, as the store would, and brings what was announced when the test says so."""

    def __init__(self, url: str, clock: Clock) -> None:
        super().__init__(url, transport="notify", clock=clock)
        self.store = PostgresStore(url)
        self.listener: Listener | None = None

    def sync(self, jobs: Sequence[ScheduledJob]) -> None:
        self.store.install()
        with self.database.transaction() as connection:
            known = dict(connection.execute("SELECT id, schedule_rev FROM jobmanager.jobs").fetchall())
            connection.execute(
                "UPDATE jobmanager.jobs SET state = 'disabled', schedule_rev = schedule_rev + 1000"
            )
        self.store.jobs.add([row_of(item) for item in jobs if item.job.id not in known])
        with self.database.transaction() as connection:
            for item in jobs:
                connection.execute(
                    "UPDATE jobmanager.jobs SET state = 'active', schedule_rev = %s, schedule = %s, next_due_at = %s WHERE id = %s",
                    (item.revision, item.schedule.text, item.next_due_at, item.job.id),
                )
        super().sync(jobs)

    def _listen(self, deliver: Deliver) -> None:
        self.listener = Listener(self.database, self.namespace, deliver)

    def stop(self, timeout: timedelta) -> None:
        super().stop(timeout)
        self.listener = None
        self.store.close()

    def fire(self, minute: datetime) -> None:
        """As pg_cron at that minute, and then as the listener that was notified. Nobody accepts here, so the test does."""
        with self.database.connect() as connection:
            connection.execute("SELECT jobmanager.fire(NULL, %s)", (minute,))
            if self.listener is not None:
                self.listener._bring(connection)
                connection.execute(
                    "UPDATE jobmanager.runs SET accepted_at = clock_timestamp() WHERE accepted_at IS NULL"
                )


def row_of(item: ScheduledJob) -> JobRow:
    assert item.next_due_at is not None
    return JobRow(
        id=item.job.id, namespace="default", declared="{}", schedule=item.schedule.text, schedule_rev=item.revision,
        next_due_at=item.next_due_at, accounted_until=item.next_due_at - timedelta(seconds=1), history_from=item.next_due_at,
        catch_up_window=timedelta(hours=1),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.servers
class TestPgCronBackend(BackendContract):
    url: str

    @pytest.fixture(autouse=True)
    def _fresh_clock(self, still_pg_cron_url: str) -> Iterator[None]:
        self.url = still_pg_cron_url
        self.open()
        yield
        self.close()

    def make_backend(self, clock: Clock) -> Backend:
        return ByHand(self.url, clock)

    def make_due(self, backend: Backend, scheduled: ScheduledJob, instant: datetime) -> None:
        """pg_cron's launcher comes by at every minute of which the test speaks."""
        assert isinstance(backend, ByHand)
        minutes = self.minutes.setdefault(backend, [])
        if instant not in minutes:
            minutes.append(instant)

        def act() -> None:
            minute = min(minutes)
            minutes.remove(minute)
            backend.fire(minute)

        self.clock.drive(lambda: min(minutes, default=None), act)

    def open(self) -> None:
        super().open()
        self.minutes: dict[Backend, list[datetime]] = {}

    # ---------------------------------------------------------------- under a manager: real time, and real listeners

    def manager(
        self,
        calls: list[datetime | None],
        *,
        beside: JobManager | None = None,
        exclude: str | None = None,
        first: First = "next",
    ) -> JobManager:
        manager = JobManager(
            Settings(
                database_url=self.url,
                backend="pg_cron",
                pg_cron_transport="notify",
                grace_seconds=86_400 * 10,
            )
        )
        manager.add_job(
            "job",
            lambda context: calls.append(context.scheduled_for),
            every=self.interval,
            overlap="allow",
            exclude=exclude,
            first=first,
        )
        self._stops += [manager.store.close, lambda: manager.stop(1)]
        return manager.start()

    def passes(self, manager: JobManager) -> list[datetime]:
        first = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(days=1)
        instants = [first + number * self.interval for number in range(5)]
        assert isinstance(manager.backend, PgCronBackend)
        with manager.backend.database.transaction() as connection:
            connection.execute(
                "UPDATE jobmanager.jobs SET next_due_at = %s, accounted_until = %s, catch_up_window_seconds = 864000",
                (first, first - timedelta(seconds=1)),
            )
            # The process has lived since before them: else only the newest would be on time.
            connection.execute("UPDATE jobmanager.instances SET started_at = started_at - interval '2 days'")
        for instant in instants:
            with manager.backend.database.connect() as connection:
                until(partial(self._has_fired, connection, instant))
        with manager.backend.database.transaction() as connection:
            connection.execute(
                "UPDATE jobmanager.jobs SET next_due_at = %s", (datetime.now(UTC) + timedelta(days=1),)
            )
        return instants

    def _has_fired(self, connection: psycopg.Connection[Any], instant: datetime) -> bool:
        """Come by as pg_cron at that minute: a job whose row is locked is left to the next time."""
        connection.execute("SELECT jobmanager.fire(NULL, %s)", (instant,))
        due = connection.execute("SELECT min(next_due_at) > %s FROM jobmanager.jobs", (instant,)).fetchone()
        return due == (True,)


# ---------------------------------------------------------------- golden


@pytest.fixture(scope="module")
def planned(postgres_server: str) -> Iterator[psycopg.Connection[Any]]:
    """A database with the store's tables and this backend's objects."""
    from tests.servers import FreshDatabases

    with FreshDatabases(postgres_server) as databases:
        url = databases.make()
        store = PostgresStore(url)
        store.install()
        store.close()
        with PgCronDatabase(url).connect() as connection:
            with connection.transaction():
                objects.install(connection)
            yield connection


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.servers
@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["id"])
def test_the_database_opens_the_golden_instants(
    case: dict[str, Any], planned: psycopg.Connection[Any]
) -> None:
    """Through plan and SQL gate: the same instants, none missed, none more."""
    if not isinstance(case["expect"], list):
        with pytest.raises(CronError):
            Job(
                id="golden", name="golden", handler="golden", schedule=Cron(case["expr"], timezone=case["tz"])
            )
        return
    schedule = Cron(case["expr"], timezone=case["tz"])
    if unsupported(schedule):
        with pytest.raises(UnsupportedError, match="golden"):
            PgCronBackend.check(Job(id="golden", name="golden", handler="golden", schedule=schedule))
        return
    start, expected = moment(case["start"]), [moment(text) for text in case["expect"]]
    Planning(FakeClock(start)).put(planned, [schedule])
    until = plan_of(schedule, start, 400).planned_until
    reached = [instant for instant in expected if instant.date() < until]

    rows = planned.execute(
        "SELECT jobmanager.ticks(%s, %s, %s, 10000)", (schedule.text, start, expected[-1])
    ).fetchall()

    assert [row[0].astimezone(UTC) for row in rows] == reached
    assert reached


@pytest.mark.servers
@pytest.mark.parametrize(("zone", "day"), TRANSITIONS)
def test_the_database_opens_the_instants_of_each_policy_for_changes_of_the_clocks(
    zone: str, day: str, planned: psycopg.Connection[Any]
) -> None:
    near = walk(zone, day)
    schedules = [Cron(near.line, zone, dst=Dst(gap, fold)) for gap, fold in POLICIES]
    Planning(FakeClock(near.start)).put(planned, schedules)

    for schedule, (gap, fold) in zip(schedules, POLICIES, strict=True):
        rows = planned.execute(
            "SELECT jobmanager.ticks(%s, %s, %s, 10000)", (schedule.text, near.start, near.end)
        ).fetchall()
        assert [row[0].astimezone(UTC) for row in rows] == near.instants(gap, fold)


@pytest.mark.servers
@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (Cron("30 2 * * *"), {"cron": "30 2 * * *", "timezone": "UTC", "dst": "end,first"}),
        (
            Cron("30 2 * * *", "Europe/Berlin", dst=Dst("skip", "both")),
            {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "dst": "skip,both"},
        ),
        (Every(30), {"every": 30}),
        (Every(30, until="2026-03-10T12:00Z"), {"every": 30, "until": "2026-03-10T12:00:00Z"}),
        (
            Every(30, until="2026-03-10T12:00Z", exclude=["weekends", "* 2 * * *"]),
            {"every": 30, "until": "2026-03-10T12:00:00Z", "exclude": "weekends; * 2 * * *"},
        ),
        (
            Cron("0 9 * * 1", "Europe/Berlin", dst="skip", exclude="2026-12-24; 0-9 9 * * *"),
            {
                "cron": "0 9 * * 1",
                "timezone": "Europe/Berlin",
                "dst": "skip,first",
                "exclude": "2026-12-24; 0-9 9 * * *",
            },
        ),
        (
            Cron("30 2 * * *", "Europe/Berlin", until="2026-03-10T12:00Z"),
            {
                "cron": "30 2 * * *",
                "timezone": "Europe/Berlin",
                "dst": "end,first",
                "until": "2026-03-10T12:00:00Z",
            },
        ),
    ],
)
def test_a_schedule_edited_in_sql_becomes_the_words_of_an_override(
    schedule: Schedule, words: dict[str, Any], planned: psycopg.Connection[Any]
) -> None:
    assert planned.execute("SELECT jobmanager.override_of(%s)", (schedule.text,)).fetchone() == (words,)


@pytest.mark.servers
@pytest.mark.parametrize(
    "schedule",
    [
        Every(90, until="2026-03-10T12:10:30Z"),
        Every(60, until="2026-03-10T12:10Z"),
        Cron("*/5 * * * *", until="2026-03-10T12:10Z"),
    ],
)
def test_the_database_opens_no_instant_after_the_end_of_a_schedule(
    schedule: Cron | Every, planned: psycopg.Connection[Any]
) -> None:
    start = datetime(2026, 3, 10, 12, tzinfo=UTC)
    Planning(FakeClock(start)).put(planned, [schedule])

    rows = planned.execute(
        "SELECT jobmanager.ticks(%s, %s, %s, 10000)", (schedule.text, start, start + timedelta(days=60))
    ).fetchall()

    assert [row[0].astimezone(UTC) for row in rows] == schedule.upcoming(start, 100)
    assert planned.execute("SELECT jobmanager.lacks_plan(%s)", (schedule.text,)).fetchone() == (False,)


@pytest.mark.servers
def test_intervals_and_single_instants_need_no_horizon(planned: psycopg.Connection[Any]) -> None:
    anchored = Every(timedelta(seconds=90), anchor=datetime(2026, 1, 1, 0, 0, 7, tzinfo=UTC))
    Planning(SystemClock()).put(planned, [anchored])
    start = datetime(2031, 5, 5, 12, 0, 1, tzinfo=UTC)

    rows = planned.execute(
        "SELECT jobmanager.ticks(%s, %s, %s, 5)", (anchored.text, start, start + timedelta(hours=1))
    ).fetchall()

    assert [row[0].astimezone(UTC) for row in rows] == anchored.upcoming(start, 5)
    assert planned.execute("SELECT jobmanager.next_tick('cron 1 1 * * * in UTC', now())").fetchall() == [
        (None,)
    ]


@pytest.mark.servers
def test_older_functions_are_replaced_and_newer_ones_stay(planned: psycopg.Connection[Any]) -> None:
    """Fails if a digest alone decided: in a rolling deployment old and new processes would overwrite each other for ever."""
    for found, replaced in (("99.abcdef", False), ("0.abcdef", True), ("abcdef", True)):
        with planned.transaction():
            planned.execute(f"COMMENT ON FUNCTION {objects.STAMP} IS '{found}'")
            assert objects.install(planned) is replaced
            assert objects.installed(planned) == (objects.release() if replaced else found)
    assert not objects.install(planned)


# ---------------------------------------------------------------- what it asks for


@pytest.mark.parametrize("schedule", [Every(30), Cron("*/15 * * * * *"), Cron("30 0 2 * * *")])
def test_what_has_seconds_is_refused_with_a_suggestion(schedule: Every | Cron) -> None:
    with pytest.raises(UnsupportedError, match=r"'often'.*(Choose|Write)"):
        PgCronBackend.check(Job(id="often", name="Often", handler="often", schedule=schedule))


def test_a_store_that_is_no_postgresql_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="JOBMANAGER_DATABASE_URL=postgresql"):
        PgCronBackend.from_settings(Settings(database_url="sqlite:///x.db"), clock=SystemClock())


@pytest.mark.servers
def test_a_database_without_pg_cron_is_refused_with_what_to_do(postgres_url: str) -> None:
    jobs = JobManager(Settings(database_url=postgres_url, backend="pg_cron", pg_cron_transport="notify"))

    with pytest.raises(ConfigurationError, match="no extension pg_cron; "):
        jobs.start()
    jobs.store.close()
