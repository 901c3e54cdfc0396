"""Prometheus: what this process counted, what the store says of all of them, and how it is served."""

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobmanager import JobManager, Retry, RunStatus, Settings
from jobmanager.cli.app import run as command
from jobmanager.errors import MissingExtraError, StoreUnavailableError
from jobmanager.observe.prometheus import LedgerCollector, Prometheus, text_of
from jobmanager.run import Run, first_id, new_id
from jobmanager.stores.facets import RunHistory
from jobmanager.stores.values import Tally
from jobmanager.testing import FakeClock

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def clock():
    return FakeClock(NOON)


@pytest.fixture
def settings(tmp_path):
    return Settings(backend="local", database_url=f"sqlite:///{tmp_path}/jobs.db")


def samples(text):
    """Value by name and labels."""
    return {
        (
            sample.name.removeprefix("jobmanager_"),
            *(value for _, value in sorted(sample.labels.items())),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def declared(settings, clock, **more):
    jobs = JobManager(settings, clock=clock, **more)

    def work(context):
        clock.sleep(2)
        if context.job.id == "bad":
            raise ConnectionError

    jobs.add_job("good", work, every=60)
    jobs.add_job("bad", work, every=600, retry=Retry(max_attempts=2, base=0, jitter=0))
    jobs.add_job("by-hand", work)
    return jobs


# ---------------------------------------------------------------- what this process counted


def test_ends_and_times_are_counted_as_they_happen(settings, clock):
    counted = Prometheus()
    with declared(settings, clock, observers=[counted]) as jobs:
        clock.advance(minutes=10, seconds=30)
        jobs.trigger_job("by-hand")

    def value(name, **labels):
        return counted.registry.get_sample_value(f"jobmanager_{name}", labels)

    assert value("runs_total", job="good", status="succeeded") == 10
    assert value("runs_total", job="bad", status="failed") == 1
    assert value("failed_attempts_total", job="bad", kind="exception") == 2
    assert value("active_attempts", job="good") == 0
    assert value("run_duration_seconds_count", job="bad") == 2
    assert value("run_duration_seconds_sum", job="good") == 20
    assert value("run_lateness_seconds_count", job="good") == 10
    assert value("run_lateness_seconds_count", job="by-hand") is None
    assert value("run_queue_delay_seconds_count", job="by-hand") == 1


# ---------------------------------------------------------------- what the store says


def test_the_store_speaks_for_all_processes(settings, clock):
    with declared(settings, clock) as jobs:
        clock.advance(minutes=10)
        jobs.stop_job("bad")
        clock.advance(minutes=10)
        clock.advance(seconds=5)
        said = samples(text_of(jobs))

    assert said["store_up",] == said["scheduler_up",] == said["processes",] == 1
    assert said["recent_runs", "good", "succeeded"] == 20
    assert said["recent_runs", "bad", "failed"] == 1
    assert said["recent_duration_seconds", "good", "succeeded"] == 2
    assert 0 <= said["recent_lateness_seconds", "good", "succeeded"] < 60
    assert said["next_due_timestamp_seconds", "good"] == NOON.timestamp() + 21 * 60
    assert 0 <= said["account_behind_seconds",] < 120
    assert ("next_due_timestamp_seconds", "bad") not in said
    assert (said["jobs", "active"], said["jobs", "paused"]) == (2, 1)
    assert said["last_beat_age_seconds",] >= 0
    assert 0 <= said["last_tick_age_seconds",] <= 65
    assert said["scrape_seconds",] > 0


def test_missed_ticks_count_one_by_one(settings, clock):
    jobs = JobManager(settings, clock=clock)
    jobs.add_job("work", lambda: None, every=60, catch_up="none")
    with jobs:
        clock.advance(minutes=1)
    clock.advance(hours=5)
    with jobs:
        clock.advance(seconds=30)
        said = samples(text_of(jobs))

    assert said["recent_runs", "work", "missed"] == pytest.approx(300, abs=2)
    assert len(jobs.runs("work", status="missed", limit=1000)) < 299


def test_only_the_window_counts_but_open_runs_of_any_age(settings, clock):
    jobs = declared(settings, clock)
    with jobs:
        clock.advance(minutes=2)
        jobs.trigger_job("by-hand", delay=timedelta(days=9))
        clock.advance(hours=3)
    said = samples(text_of(jobs, window=timedelta(minutes=30)))

    assert said["recent_runs", "good", "succeeded"] in (29, 30, 31)
    assert said["open_runs", "by-hand", "pending"] == 1
    assert said["scheduler_up",] == said["processes",] == 0
    assert ("last_beat_age_seconds",) not in said


def test_a_ledger_that_is_not_there_is_not_made(settings):
    jobs = JobManager(settings)

    said = samples(text_of(jobs))
    assert {name for name, *_ in said} == {"store_up", "healthy", "symptom", "scrape_seconds"}
    assert said["symptom", "no_process"] == 1
    assert not jobs.store.exists()


def test_a_store_that_does_not_answer_is_said_and_nothing_else(settings, clock, monkeypatch):
    with declared(settings, clock) as jobs:
        monkeypatch.setattr(
            jobs.store.history, "tally", lambda since: (_ for _ in ()).throw(StoreUnavailableError("away"))
        )

        assert samples(text_of(jobs))["store_up",] == 0


def test_what_was_read_is_told_again_for_a_while(settings, clock, monkeypatch):
    with declared(settings, clock) as jobs:
        asked = []
        monkeypatch.setattr(jobs.store.history, "tally", lambda since: asked.append(since) or [])
        remembers, forgets = LedgerCollector(jobs), LedgerCollector(jobs, remembered=timedelta(0))
        for _ in range(3):
            list(remembers.collect())
        assert len(asked) == 1
        for _ in range(3):
            list(forgets.collect())
        assert len(asked) == 4


# ---------------------------------------------------------------- how it is served


def test_metrics_are_served_over_asgi(settings, clock):
    counted = Prometheus()
    sent = []

    async def ask(application):
        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/metrics", "query_string": b"", "headers": []}
        await application(scope, receive, send)

    with declared(settings, clock, observers=[counted]) as jobs:
        clock.advance(minutes=1)
        asyncio.run(ask(counted.asgi(jobs)))

    assert sent[0]["status"] == 200
    said = samples(b"".join(message.get("body", b"") for message in sent[1:]).decode())
    assert said["runs_total", "good", "succeeded"] == said["recent_runs", "good", "succeeded"] == 1


@pytest.fixture
def ledger(settings, clock, monkeypatch):
    with declared(settings, clock):
        clock.advance(minutes=1)
    monkeypatch.setenv("JOBMANAGER_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("JOBMANAGER_BACKEND", "noop")


@pytest.mark.usefixtures("ledger")
def test_the_command_prints_the_text_format(capsys):
    assert command(["metrics", "--window", "9000d"]) == 0
    plain = samples(capsys.readouterr().out)
    assert command(["metrics", "--window", "9000d", "--json"]) == 0
    wrapped = samples(json.loads(capsys.readouterr().out)["text"])

    assert plain["recent_runs", "good", "succeeded"] == wrapped["recent_runs", "good", "succeeded"] == 1


@pytest.mark.usefixtures("ledger")
def test_the_command_writes_a_textfile(tmp_path, capsys):
    file = tmp_path / "jobmanager.prom"

    assert command(["metrics", "--output", str(file)]) == 0

    assert samples(file.read_text())["store_up",] == 1
    assert capsys.readouterr().out == ""


def test_without_the_extra_it_says_what_to_install(monkeypatch, capsys, settings):
    monkeypatch.delitem(sys.modules, "jobmanager.observe.prometheus")
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.setenv("JOBMANAGER_DATABASE_URL", settings.database_url)

    assert command(["metrics"]) != 0
    assert "jobmanager-backends[prometheus]" in capsys.readouterr().err
    with pytest.raises(MissingExtraError):
        import jobmanager.observe.prometheus  # noqa: F401


# ---------------------------------------------------------------- how the store counts


def test_ids_are_bounded_by_their_moment():
    later = NOON + timedelta(milliseconds=1)

    assert first_id(NOON) <= new_id(NOON) < first_id(later) <= new_id(later)
    assert len(first_id(NOON)) == len(new_id(NOON))


def history(store, clock):
    """Some of everything, some of it old."""
    jobs = JobManager(Settings(backend="local", database_url="memory://"), clock=clock, store=store)

    def work(context):
        clock.sleep(3)
        if context.scheduled_for and context.scheduled_for.minute % 3 == 0:
            raise ValueError

    jobs.add_job("work", work, every=60)
    jobs.add_job("other", work, every=300, catch_up="none")
    with jobs:
        clock.advance(minutes=30)
    clock.advance(hours=2)
    with jobs:
        clock.advance(minutes=15)
        jobs.trigger_job("work", delay=HOUR)
        now = store.now()
        waits = Run(
            id=new_id(now - 5 * HOUR), job_id="other", status=RunStatus.PENDING, opened_at=now - 5 * HOUR,
            due_at=now + HOUR, concurrency_key="other/old", accepted_at=now,
        )  # fmt: skip
        store.runs.write([waits], [])


def by_job(tallies):
    return {
        (t.job_id, t.status): (
            t.count, *(None if x is None else pytest.approx(x, abs=1e-3) for x in (t.duration, t.queue_delay, t.lateness)),
        )
        for t in tallies
    }  # fmt: skip


@pytest.mark.parametrize("window", [HOUR, 9 * HOUR, timedelta(0)])
def test_a_store_tallies_by_statement_as_it_would_by_reading(clock, window):
    from jobmanager.stores.sql.memory import MemoryStore

    store = MemoryStore(clock=clock)
    history(store, clock)
    since = store.now() - window

    found = store.history.tally(since)

    assert by_job(found) == by_job(RunHistory.tally(store.history, since))
    assert {tally.status for tally in found} >= {RunStatus.PENDING}
    if window:
        assert {t.status for t in found} >= {RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.MISSED}
    assert all(isinstance(tally, Tally) for tally in found)


def rows_of_a_day(store, now):
    """An hour ago and older, straight into the table: a database that goes by its own clock keeps no history of ours."""
    JobManager(Settings(backend="noop", database_url="memory://"), store=store).sync()
    endings = {
        "succeeded": {"owner": "x", "started_at": 5, "finished_at": 65},
        "failed": {"owner": "x", "started_at": 15, "finished_at": 16},
        "missed": {"ticks": 7, "finished_at": 0},
        "running": {"owner": "x", "started_at": 1},
        "pending": {},
    }
    for number in range(100):
        status = list(endings)[number % 5]
        at = now - timedelta(minutes=15 * number)
        facts = {
            key: at + timedelta(seconds=value) if key.endswith("_at") else value
            for key, value in endings[status].items()
        }
        row = {
            "id": new_id(at), "job_id": f"job-{number % 3}", "status": status, "opened_at": at, "due_at": at,
            "concurrency_key": "any", "schedule_rev": 1, "scheduled_for": at, "ticks": 1, "trigger": "schedule", "notify": False,
            "attempt": 1, "max_attempts": 1, "retry_on_crash": True, "priority": 0, **facts,
        }  # fmt: skip
        with store.database.writing() as connection:
            connection.execute(store.database.tables.runs.insert().values(**row))


def tallies_as_by_reading(store):
    now = store.now()
    rows_of_a_day(store, now)
    since = now - timedelta(minutes=10 * 60 + 1)

    found = store.history.tally(since)

    assert by_job(found) == by_job(RunHistory.tally(store.history, since))
    counts = {status: sum(t.count for t in found if t.status == status) for status in RunStatus}
    assert counts == {
        "pending": 20,
        "running": 20,
        "succeeded": 9,
        "failed": 8,
        "missed": 56,
        "cancelled": 0,
        "skipped": 0,
    }
    assert {t.duration for t in found if t.status == "succeeded"} == {60}


def test_sqlite_tallies_as_by_reading(tmp_path):
    from jobmanager.stores.sql.sqlite import SqliteStore

    store = SqliteStore(tmp_path / "jobs.db")
    store.install()
    tallies_as_by_reading(store)


def test_a_tally_reads_its_window_by_index_and_not_the_whole_history(settings, clock):
    with declared(settings, clock) as jobs:
        pass
    plans = []
    with jobs.store.database.reading() as connection:
        for statement in jobs.store.history.tallied(NOON):
            text = str(statement.compile(connection, compile_kwargs={"literal_binds": True}))
            plans.append([row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")])

    pending, running, ended = plans
    assert any("USING INDEX jobmanager_runs_pending" in step for step in pending), pending
    assert any("USING INDEX jobmanager_runs_running" in step for step in running), running
    assert any("SEARCH jobmanager_runs USING INDEX sqlite_autoindex" in step for step in ended), ended
    assert not any(step == "SCAN jobmanager_runs" for plan in plans for step in plan)
