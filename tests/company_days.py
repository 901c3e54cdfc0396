"""Days of the reference application on a clock that is moved, on each backend: what a test compares of them is a `Days`."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.policy import default as policy
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.postgres_clock import postgres_on

from jobmanager import JobManager, Run, Settings
from jobmanager.stores.base import RunStore
from jobmanager.testing import FakeClock

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # the examples are no part of the installed package

from examples.saas import data, jobs, seed, services
from examples.saas.fakes import Fakes
from examples.saas.init import init

# A Sunday, for what is weekly; a month ends within twenty days.
START = datetime(2026, 3, 15, 1, 31, tzinfo=UTC)
STRIPE_IS_DOWN = 5  # on this day of twenty, on the last one of fewer
A_DAY = seed.Amounts(
    users=0,
    sessions=10,
    invitations=3,
    push_subscriptions=1,
    logs=20,
    error_logs=3,
    ai_requests=5,
    activities=10,
    conversions=1,
    mails=2,
)
# What an operator has tuned: what comes by the minute comes by the day, and at minutes of its own.
TUNED = {
    "process-pending-emails": "30 */12 * * *",
    "process-account-deletions": "15 9 * * *",
    "repository-sync": "40 5 * * *",
    "db_pruning": "20 12 * * *",
    "analytics-cache-cleanup": "50 12 * * *",
    **{
        job_id: "45 12 * * *"
        for job_id in jobs.defaults()
        if job_id.startswith("analytics-") and job_id != "analytics-cache-cleanup"
    },
}
SMALL = seed.Amounts(
    users=200,
    sessions=400,
    invitations=100,
    push_subscriptions=60,
    logs=1_000,
    error_logs=100,
    ai_requests=100,
    activities=100,
    conversions=40,
    mails=20,
)
PATIENCE = 60.0

MOST = 100  # rows that one question is answered with

Row = tuple[datetime, str, str, Any]
Mail = tuple[str, str, str]
Live = Callable[[JobManager, FakeClock, datetime], list[Row]]
"""Lets the clock come to a moment, and returns what ended if it has no record to read that from."""
Company = Callable[..., tuple[JobManager, FakeClock, Fakes]]
"""Makes a company on the backend of this name: its manager, its clock, and the services of others."""


@dataclass(frozen=True)
class Days:
    """What became of some days: `rows` as instant, job, status and output; `mails` as Message-ID, recipient and subject."""

    rows: list[Row]
    mails: list[Mail]

    @property
    def letters(self) -> list[tuple[str, str]]:
        """Whom was written what; the numbers of mails follow the order in which they were written, which is nobody's promise."""
        return sorted(mail[1:] for mail in self.mails)

    @property
    def table(self) -> dict[str, Counter[str]]:
        """What became of the instants of each job."""
        found: dict[str, Counter[str]] = {}
        for _, job_id, status, _ in self.rows:
            found.setdefault(job_id, Counter())[status] += 1
        return found


def mails_of(fakes: Fakes) -> list[Mail]:
    """What the mail server took, in order."""
    found = [message_from_bytes(mail.content, policy=policy) for mail in fakes.smtp.received]
    return [(mail["Message-ID"], mail["To"], mail["Subject"]) for mail in found]


def live(manager: JobManager, clock: FakeClock, fakes: Fakes, days: int, until: Live) -> Days:
    """Let so many days pass from START, with use of the application on each, and a day on which Stripe is down."""
    for job_id, cron in TUNED.items():
        manager.update_job(job_id, cron=cron, every=None, by="ana")
    assert jobs.plant(manager) == []  # a later deployment changes nothing of it
    rows: list[Row] = []
    for day in range(days):
        with data.transaction() as db:
            seed.populate(db, A_DAY, random.Random(day), data.now())
        fakes.fail("stripe", "error" if day == min(STRIPE_IS_DOWN, days - 1) else "none")
        rows += until(manager, clock, START + timedelta(days=day + 1))
    if not rows:
        found = [run for job_id in jobs.defaults() for run in manager.runs(job_id, limit=1_000)]
        rows = [(moment(run), run.job_id, str(run.status), run.output) for run in found]
    return Days(sorted(rows, key=lambda row: row[:2]), mails_of(fakes))


def differences(here: Days, there: Days) -> list[Row]:
    """Rows that one of them has and the other has not."""
    return [row for row in here.rows if row not in there.rows] + [
        row for row in there.rows if row not in here.rows
    ]


def moment(run: Run) -> datetime:
    """The instant of a run that has one."""
    assert run.scheduled_for is not None
    return run.scheduled_for


# ---------------------------------------------------------------- who keeps the time


def by_itself(_manager: JobManager, clock: FakeClock, until: datetime) -> list[Row]:
    """The backend keeps the time by the clock."""
    clock.advance_to(until)
    return []


def by_hand(manager: JobManager, clock: FakeClock, until: datetime) -> list[Row]:
    """Nobody keeps the time: each instant that is planned is started by hand at its moment."""
    rows: list[Row] = []
    for planned in manager.simulate(until - timedelta(days=1), until):
        clock.advance_to(max(planned.scheduled_for, clock.now()))
        run = manager.trigger_job(planned.job_id)
        rows.append((planned.scheduled_for, run.job_id, str(run.status), run.output))
    clock.advance_to(until)
    return rows


def by_calls(next_tick: Callable[[], datetime | None], tick: Callable[[], object]) -> Live:
    """Others keep the time and execute: `tick` lets them deliver what is due; then each instant, and each retry, is waited for."""

    def until(manager: JobManager, clock: FakeClock, end: datetime) -> list[Row]:
        while True:
            waiting = [run.due_at for run in manager.runs(status="pending", limit=MOST)]
            following = min((at for at in (next_tick(), *waiting) if at is not None), default=end)
            if following > end:
                clock.advance_to(end)
                return []
            clock.advance_to(max(following, clock.now()))
            tick()
            settle(manager, clock, next_tick)

    return until


def settle(manager: JobManager, clock: FakeClock, next_tick: Callable[[], datetime | None]) -> None:
    """Wait until nothing that is due at this moment is left to be brought, started or ended."""
    deadline = time.monotonic() + PATIENCE
    while True:
        due = next_tick()
        left = [run for run in manager.runs(status="pending", limit=MOST) if run.due_at <= clock.now()]
        left += manager.runs(status="running", limit=MOST)
        if not left and (due is None or due > clock.now()):
            return
        assert time.monotonic() < deadline, f"it did not happen at {clock.now()}: {due=} {left=}"
        time.sleep(0.002)


@contextmanager
def on_celery(keeper: JobManager, worker: JobManager) -> Iterator[Live]:
    """A beat of one manager that looks at the clock when it has moved, a broker, and a worker of the other, which runs in a thread."""
    from celery.contrib.testing.worker import start_worker

    from jobmanager.backends.celery import CeleryBackend, Scheduler

    backend, executing = keeper.backend, worker.backend
    assert isinstance(backend, CeleryBackend)
    assert isinstance(executing, CeleryBackend)
    with start_worker(executing.app, pool="solo", perform_ping_check=False, shutdown_timeout=20):
        beat = Scheduler(backend.app)
        try:
            yield by_calls(backend.timetable.top, beat.tick)
        finally:
            beat.close()


# Every function of ours that asks the server for the time is told the test's.
MOVED = """
CREATE TABLE IF NOT EXISTS public.moved (now timestamptz);
INSERT INTO public.moved VALUES (NULL);
CREATE OR REPLACE FUNCTION public.moved_clock() RETURNS timestamptz LANGUAGE sql STABLE AS
  'SELECT coalesce(now, pg_catalog.clock_timestamp()) FROM public.moved';
DO $$ DECLARE f text; BEGIN
  FOR f IN SELECT replace(replace(pg_get_functiondef(p.oid), 'pg_catalog.clock_timestamp()', 'clock_timestamp()'), 'clock_timestamp()', 'public.moved_clock()')
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
   WHERE n.nspname = 'jobmanager' AND p.prokind IN ('f', 'p') AND p.prosrc LIKE '%clock_timestamp()%'
  LOOP EXECUTE f; END LOOP;
END $$;
"""


@contextmanager
def on_pg_cron(url: str, manager: JobManager, clock: FakeClock) -> Iterator[Live]:
    """The database announces by SQL at the minutes at which pg_cron would call it, and notifies; the manager's own listener brings it."""
    with psycopg.connect(url, autocommit=True) as database:

        def told(statement: str) -> Any:
            database.execute("UPDATE public.moved SET now = %s", (clock.now(),))
            row = database.execute(statement).fetchone()  # type: ignore[arg-type]
            return None if row is None else row[0]

        def next_minute() -> datetime | None:
            due = told("SELECT min(next_due_at) FROM jobmanager.jobs WHERE state = 'active'")
            return None if due is None else due.astimezone(UTC)

        def minute() -> None:
            told("SELECT jobmanager.fire(NULL)")
            told("SELECT jobmanager.sweep()")

        manager.sync()  # installs the functions, which are then given the clock, before anything listens
        database.execute(MOVED)
        told("SELECT 1")
        with manager:
            yield by_calls(next_minute, minute)


# ---------------------------------------------------------------- a company on a backend


@pytest.fixture
def company(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Company]:
    """Make a company on a backend, with a clock of its own; the database and the services are real."""
    opened: list[Fakes] = []
    stores: list[RunStore] = []

    def make(
        backend: str, amounts: seed.Amounts = SMALL, url: str | None = None, **settings: Any
    ) -> tuple[JobManager, FakeClock, Fakes]:
        clock = FakeClock(START)
        monkeypatch.setattr(data, "now", clock.now)
        monkeypatch.setenv("SAAS_DATABASE_URL", url or f"sqlite:///{tmp_path / backend}.db")
        for gate in ("LOGS_ENABLED", "AFFILIATES_ENABLED"):
            monkeypatch.setenv(gate, "true")
        fakes = Fakes(now=clock.now)
        opened.append(fakes.__enter__())
        for name, value in fakes.environment.items():
            monkeypatch.setenv(name, value)
        given = Settings(**{"backend": backend, "database_url": "memory://", **settings})
        store = postgres_on(given.database_url, clock) if backend == "pg_cron" else None
        manager = JobManager(given, clock=clock, store=store)
        stores.append(manager.store)
        jobs.register(manager)
        init(manager, amounts)
        return manager, clock, fakes

    yield make
    services.disconnect()
    for fakes in opened:
        fakes.__exit__(None, None, None)
    for store in stores:
        store.close()


def days_on(backend: str, company: Company, request: pytest.FixtureRequest, days: int) -> Days:
    """So many days on this backend; each has a database of its own, of the same rows."""
    manager, clock, fakes = company(backend, **settings_of(backend, request))
    with ExitStack() as stack:
        match backend:
            case "celery":
                worker = JobManager(manager.settings, clock=clock)
                jobs.register(worker)
                until = stack.enter_context(on_celery(manager, worker))
            case "pg_cron":
                until = stack.enter_context(on_pg_cron(manager.settings.database_url, manager, clock))
            case _:
                stack.enter_context(manager)
                until = by_hand if backend == "noop" else by_itself
        return live(manager, clock, fakes, days, until)


def settings_of(backend: str, request: pytest.FixtureRequest) -> dict[str, str]:
    """What the backend needs: its servers are real ones."""
    match backend:
        case "celery":
            store = f"sqlite:///{request.getfixturevalue('tmp_path')}/jobs.db"
            return {"database_url": store, "celery_broker_url": request.getfixturevalue("redis_url")}
        case "pg_cron":
            url = request.getfixturevalue("still_pg_cron_url")
            return {"database_url": url, "pg_cron_transport": "notify"}
    return {}
