"""What other languages call: `create_job`, `enqueue` and `send_event`, on every PostgreSQL store whatever keeps the time."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

pytest.importorskip("psycopg", reason="needs psycopg: pip install psycopg[binary]")

import psycopg
from tests.faults.conftest import until
from tests.security import planted

from jobmanager import JobManager, RunContext, RunStatus, Settings
from jobmanager.errors import RunConflictError

pytestmark = [pytest.mark.servers, pytest.mark.slow]

Connection = psycopg.Connection[Any]


@pytest.fixture
def calls() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def jobs(postgres_url: str, calls: list[dict[str, Any]]) -> Iterator[JobManager]:
    """A started local process with a handler `export`."""
    manager = JobManager(Settings(database_url=postgres_url, backend="local", sweep_seconds=0.5))

    @manager.handler("export")
    def export(region: str = "all", days: int = 1) -> None:
        calls.append({"region": region, "days": days})

    with manager:
        yield manager
    manager.store.close()


@pytest.fixture
def sql(jobs: JobManager, postgres_url: str) -> Iterator[Connection]:
    """A session of another language; the application has made its tables by then."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        yield connection


def create(sql: Connection, *values: object) -> Any:
    given = ", ".join(["%s"] * len(values))
    return sql.execute(f"SELECT jobmanager.create_job({given})".encode(), values).fetchone()


def enqueue(sql: Connection, job: str, **words: object) -> str:
    given = "".join(f", {name} => %({name})s" for name in words)
    query = f"SELECT jobmanager.enqueue(%(job)s{given})::text"
    [run] = sql.execute(query.encode(), {"job": job, **words}).fetchone() or ("",)
    return str(run)


def test_a_job_made_in_sql_fires_in_a_process_that_has_the_handler(
    jobs: JobManager, sql: Connection, calls: list[dict[str, Any]]
) -> None:
    """Fails if the change counter stands still, if the words are no definition, or if an instant before the commit fires."""
    made = datetime.now(UTC)
    assert create(sql, "nightly", "export", " *  * * * * * ", "Europe/Berlin", '{"region": "eu"}') == (
        "nightly",
    )
    run = until(lambda: jobs.runs("nightly", status="succeeded"), 10)[-1]
    assert run.scheduled_for is not None
    assert run.started_at is not None
    assert made < run.scheduled_for < made + timedelta(seconds=3)
    assert run.started_at - run.scheduled_for < timedelta(seconds=3)
    assert calls[0] == {"region": "eu", "days": 1}
    job = jobs.update_job("nightly", cron="0 3 * * *", by="ann")
    assert job.schedule is not None
    assert job.schedule.text == "cron 0 3 * * * in Europe/Berlin"
    edit, create_entry = jobs.history("nightly")
    assert (create_entry.action, create_entry.rev, edit.rev) == ("create", 1, 2)
    assert create_entry.by == sql.info.user
    assert create_entry.after == {
        "state": "active",
        "schedule": "cron * * * * * * in Europe/Berlin",
        "definition": {
            "handler": "export",
            "cron": "* * * * * *",
            "timezone": "Europe/Berlin",
            "config": {"region": "eu"},
        },
    }


def test_a_job_made_in_sql_is_the_job_that_python_would_make(jobs: JobManager, sql: Connection) -> None:
    """Fails if a policy of the row, or a word of the definition, differs from what `create_job` of Python writes."""
    sql.execute(
        "SELECT jobmanager.create_job('by-sql', 'export', '0 3 * * *', config => '{\"days\": 2}', by => 'ann')"
    )
    jobs.create_job("by-python", handler="export", cron="0 3 * * *", config={"days": 2}, by="ann")
    by_sql, by_python = jobs.store.jobs.get("by-sql"), jobs.store.jobs.get("by-python")
    assert by_sql is not None
    assert by_python is not None
    different = {
        name for name in by_sql.__dataclass_fields__ if getattr(by_sql, name) != getattr(by_python, name)
    }
    assert different <= {
        *("id", "declared", "next_due_at", "change_seq"),
        *("state_at", "accounted_until", "history_from"),
    }
    until(lambda: "by-sql" in jobs.registry.jobs)
    jobs.sync()
    assert not jobs.sync(plan=True)


def test_deleted_jobs_may_be_made_again_in_sql(jobs: JobManager, sql: Connection) -> None:
    jobs.create_job("nightly", handler="export", every=3600, priority=4, overlap="queue")
    jobs.delete_job("nightly")
    assert create(sql, "nightly", "export") == ("nightly",)
    row = jobs.store.jobs.get("nightly")
    assert row is not None
    assert (row.state, row.schedule, row.overlap, row.definition) == (
        "active",
        "none",
        "skip",
        {"handler": "export"},
    )
    assert [entry.rev for entry in jobs.history("nightly")] == [3, 2, 1]


WRONG_JOBS: list[tuple[tuple[object, ...], str, str]] = [
    (("coded", "export"), "exists already, declared by code in namespace 'default'", "Edit that one"),
    (("A b", "export"), "the id is not a slug", "a-z"),
    ((None, "export"), "the id is not a slug", "a-z"),
    (
        ("new", "exprot"),
        "no living process of namespace 'default' has a handler 'exprot'",
        "There are: export",
    ),
    (("new", None), "has a handler NULL", "There are"),
    (("new", "export", "* * * *"), "has 4", "For example"),
    (
        ("new", "export", "61 * * * *"),
        "'61' is no minute of a cron expression, which takes 0 to 59",
        "For example",
    ),
    (("new", "export", "* * * * 1;DROP"), "is no day-of-week", "For example"),
    (("new", "export", "0 3 * * *", "Mars/Olympus"), "'Mars/Olympus' is no time zone", "IANA"),
    (("new", "export", "0 3 * * *", "UTC", "[1]"), "config is no JSON object", "by name"),
    (
        ("new", "export", "0 3 * * *", "UTC", json.dumps({"a": "x" * 70_000})),
        "more than 65,536",
        "Give an id",
    ),
    (("new", "export", "0 3 * * *", "UTC", "{}", "elsewhere"), "of namespace 'elsewhere'", "Start a process"),
    (
        ("new", "export", "0 3 * * *", "UTC", "{}", "default", "x" * 501),
        "by has more than 500",
        "Give a name",
    ),
    (("'; DROP TABLE jobmanager.jobs; --", "export"), "is not a slug", "a-z"),
    (("new", "'; DROP TABLE jobmanager.jobs; --"), "has a handler '''; DROP", "There are"),
]


@pytest.mark.parametrize(("values", "said", "hint"), WRONG_JOBS)
def test_a_job_that_cannot_be_meant_is_refused_and_nothing_is_written(
    jobs: JobManager, sql: Connection, values: tuple[object, ...], said: str, hint: str
) -> None:
    jobs.add_job("coded", "export", every=3600)
    jobs.sync()
    before = jobs.store.jobs.change_seq()
    with pytest.raises(psycopg.Error) as refused:
        create(sql, *values)
    assert said in str(refused.value)
    assert hint in (refused.value.diag.message_hint or "")
    assert jobs.store.jobs.change_seq() == before
    assert not jobs.audit()


def test_the_audit_of_sql_hides_a_config_with_secrets(jobs: JobManager, sql: Connection) -> None:
    create(sql, "nightly", "export", None, "UTC", '{"region": "x", "nested": {"api_key": "hunter22"}}')
    assert "hunter22" not in repr(jobs.audit())


# ---------------------------------------------------------------- runs


def test_a_run_started_in_sql_is_as_one_started_in_python(
    jobs: JobManager, sql: Connection, calls: list[dict[str, Any]]
) -> None:
    by_sql = enqueue(
        sql,
        "export",
        payload='{"days": 3}',
        priority=5,
        max_attempts=4,
        key="k",
        scope="eu",
        requested_by="ann",
    )
    by_python = jobs.trigger_job(
        "export", {"days": 3}, priority=5, max_attempts=4, key="l", scope="us", requested_by="ann"
    )
    runs = [jobs.wait(run, timeout=15) for run in (by_sql, by_python.id)]
    assert [run.status for run in runs] == [RunStatus.SUCCEEDED] * 2
    assert calls == [{"region": "all", "days": 3}] * 2
    own = {
        "id",
        "idempotency_key",
        "concurrency_key",
        "opened_at",
        "accepted_at",
        "due_at",
        "started_at",
        "finished_at",
    }
    first, second = (
        {name: getattr(run, name) for name in run.__dataclass_fields__ if name not in own} for run in runs
    )
    assert first == second
    assert (runs[0].scope, runs[0].idempotency_key) == ("eu", "k")
    assert enqueue(sql, "export", key="k") == by_sql


def test_a_delayed_run_of_sql_starts_when_it_is_due_and_not_before(jobs: JobManager, sql: Connection) -> None:
    run = jobs.wait(enqueue(sql, "export", delay="1.5 seconds"), timeout=15)
    assert run.started_at is not None
    assert timedelta(seconds=1) < run.due_at - run.opened_at < timedelta(seconds=2)
    assert run.started_at >= run.due_at


WRONG_RUNS: list[tuple[dict[str, object], str]] = [
    ({"payload": "[1]"}, "the payload is no JSON object"),
    ({"payload": json.dumps({"a": "x" * 70_000})}, "the payload has more than 65,536 bytes"),
    ({"priority": 40_000}, "priority = 40000 cannot be used"),
    ({"max_attempts": 0}, "max_attempts = 0 cannot be used"),
    ({"max_attempts": 1001}, "max_attempts = 1001 cannot be used"),
    ({"delay": "-1 second"}, "delay = -00:00:01 cannot be used"),
    ({"delay": "200 years"}, "delay = 200 years cannot be used"),
    ({"key": "k" * 501}, "more than 500 characters"),
    ({"scope": "k" * 501}, "more than 500 characters"),
    ({"requested_by": "k" * 501}, "more than 500 characters"),
]


@pytest.mark.parametrize(("words", "said"), WRONG_RUNS)
def test_a_start_that_cannot_be_meant_is_refused(
    jobs: JobManager, sql: Connection, words: dict[str, object], said: str
) -> None:
    with pytest.raises(psycopg.Error, match=said):
        enqueue(sql, "export", **words)
    assert not jobs.runs()


def test_jobs_that_are_unknown_deleted_or_disabled_are_not_started(jobs: JobManager, sql: Connection) -> None:
    jobs.create_job("gone", handler="export")
    jobs.delete_job("gone")
    jobs.disable_job("export")
    for job, said in (
        ("gone", "No job 'gone'"),
        ("nobody", "No job 'nobody'"),
        ("x' OR 1=1", "No job"),
        ("export", "is disabled"),
    ):
        with pytest.raises(psycopg.Error, match=said):
            enqueue(sql, job)
    assert not jobs.runs()


@pytest.mark.parametrize("overlap", ["skip", "queue", "queue_all", "cancel_running", "allow"])
@pytest.mark.parametrize("earlier", ["nothing", "running", "running, waiting", "delayed"])
def test_sql_and_python_decide_alike_when_a_run_is_in_the_way(
    postgres_url: str, overlap: Any, earlier: str
) -> None:
    """Fails if a row of the table of overlap is missing in SQL: each start is made by both, on two jobs in the same state."""
    jobs = JobManager(Settings(database_url=postgres_url, backend="local"))
    for job_id in ("sql", "python"):
        jobs.add_job(job_id, print, overlap=overlap, queue_cap=1)
    jobs.sync()
    with psycopg.connect(postgres_url, autocommit=True) as sql:
        seen = {}
        for job_id in ("sql", "python"):
            ids = []
            if earlier == "delayed":
                ids.append(jobs.trigger_job(job_id, delay=3600).id)
            elif earlier != "nothing":
                ids.append(jobs.trigger_job(job_id).id)
                sql.execute(
                    "INSERT INTO jobmanager.instances (id, namespace, host, pid, executes, beats, started_at, seen_at)"
                    " VALUES ('other', 'default', 'h', 1, false, 1, now(), now()) ON CONFLICT DO NOTHING"
                )
                sql.execute(
                    "UPDATE jobmanager.runs SET status = 'running', owner = 'other', started_at = now() WHERE id = %s",
                    ids,
                )
            if earlier.endswith("waiting") and overlap in ("queue", "queue_all", "cancel_running"):
                ids.append(jobs.trigger_job(job_id).id)
            try:
                ids.append(enqueue(sql, job_id) if job_id == "sql" else jobs.trigger_job(job_id).id)
                said = "opened"
            except (psycopg.errors.ObjectInUse, RunConflictError) as error:
                blocker = error.diag.message_detail if isinstance(error, psycopg.Error) else error.run_id
                said = f"conflict with {ids.index(str(blocker))}"
            runs = [jobs.run(run) for run in ids]
            seen[job_id] = (
                said,
                [(run.status, run.reason, run.turn, run.cancel_requested_at is None) for run in runs],
            )
        assert seen["sql"] == seen["python"]
    jobs.store.close()


def test_one_key_at_once_from_both_sides_is_one_run(jobs: JobManager, postgres_url: str) -> None:
    """Fails without the job's lock: two starts with one key would both find none."""
    jobs.add_job("wide", "export", overlap="allow")
    jobs.sync()
    gate, ids = threading.Barrier(6), []

    def start(number: int) -> None:
        with psycopg.connect(postgres_url, autocommit=True) as sql:
            gate.wait()
            ids.append(jobs.trigger_job("wide", key="k").id if number % 2 else enqueue(sql, "wide", key="k"))

    threads = [threading.Thread(target=start, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 6
    assert len(set(ids)) == 1


# ---------------------------------------------------------------- events


def send(sql: Connection, name: object, **words: object) -> str:
    given = "".join(f", {word} => %({word})s" for word in words)
    query = f"SELECT jobmanager.send_event(%(name)s{given})"
    [event] = sql.execute(query.encode(), {"name": name, **words}).fetchone() or ("",)
    return str(event)


def event_rows(sql: Connection) -> list[Any]:
    return sql.execute("SELECT name, data, key, is_new FROM jobmanager.events ORDER BY sent_at").fetchall()


def test_an_event_of_sql_wakes_what_waits_and_starts_jobs_as_one_of_python_does(
    jobs: JobManager, sql: Connection, calls: list[dict[str, Any]]
) -> None:
    """Fails if a run that waits is left until its time-out, if the event is no event of `on=`, or if an id counts twice."""

    def wait(context: RunContext) -> list[Any]:
        event = context.wait_for("paid", key="7", timeout="1h")
        return [event and event.data]

    jobs.add_job("wait", wait, overlap="allow")
    jobs.add_job("by-event", "export", on="paid")
    jobs.sync()
    run = jobs.trigger_job("wait")
    until(lambda: jobs.run(run.id).reason == "waiting")

    sent = send(sql, "paid", data='{"region": "eu", "days": 2}', key="7", id="stripe-1", by="ann")
    assert send(sql, "paid", data='{"region": "us"}', key="7", id="stripe-1") == sent == "stripe-1"

    assert jobs.wait(run.id, timeout=15).output == [{"region": "eu", "days": 2}]
    [started] = until(lambda: jobs.runs("by-event", status="succeeded"), 10)
    assert (started.idempotency_key, started.requested_by) == ("event:stripe-1", "event paid")
    assert calls == [{"region": "eu", "days": 2}]
    [entry] = jobs.audit()
    assert (entry.by, entry.action, entry.target, entry.target_id, entry.after) == (
        "ann",
        "send",
        "event",
        "stripe-1",
        {"name": "paid", "key": "7"},
    )


def test_events_of_sql_and_python_have_moments_of_their_own(jobs: JobManager, sql: Connection) -> None:
    """Fails if two events of one transaction or one name have one moment: a wait for the second would pass it over."""
    with sql.transaction():
        ids = [send(sql, "paid") for _ in range(3)]
    ids.append(jobs.send_event("paid").id)
    rows = sql.execute("SELECT id, sent_at FROM jobmanager.events ORDER BY sent_at").fetchall()
    assert [event for event, _ in rows] == ids
    assert len({sent_at for _, sent_at in rows}) == 4
    assert [tuple(row[:3]) for row in event_rows(sql)] == [("paid", None, "")] * 4


def test_an_event_of_another_namespace_or_of_no_commit_wakes_nothing(
    jobs: JobManager, sql: Connection
) -> None:
    jobs.add_job("wait", lambda context: context.wait_for("paid", timeout="1h") and 1)
    jobs.sync()
    run = jobs.trigger_job("wait")
    until(lambda: jobs.run(run.id).reason == "waiting")
    due_at = jobs.run(run.id).due_at

    send(sql, "paid", namespace="other")
    with sql.transaction(force_rollback=True):
        send(sql, "paid")
    send(sql, "paid", key="8")

    assert jobs.run(run.id).due_at == due_at
    send(sql, "paid")
    assert jobs.wait(run.id, timeout=15).output == 1


WRONG_EVENTS: list[tuple[dict[str, object], str]] = [
    ({"name": None}, "Event NULL: the name has not 1 to 200"),
    ({"name": ""}, "the name has not 1 to 200"),
    ({"name": "n" * 201}, "the name has not 1 to 200"),
    ({"id": ""}, "the id is empty"),
    ({"id": "i" * 201}, "more than 200 characters"),
    ({"key": "k" * 201}, "more than 200 characters"),
    ({"data": json.dumps("x" * 70_000)}, "the data has more than 65,536 bytes"),
    ({"by": "b" * 501}, "by has more than 500"),
]


@pytest.mark.parametrize(("words", "said"), WRONG_EVENTS)
def test_an_event_that_cannot_be_meant_is_refused(
    jobs: JobManager, sql: Connection, words: dict[str, Any], said: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=said):
        send(sql, **{"name": "paid", **words})
    assert not event_rows(sql)


# ---------------------------------------------------------------- rights


def test_a_role_with_execute_alone_may_start_runs_and_nothing_else(jobs: JobManager, sql: Connection) -> None:
    """Fails if the functions have the caller's rights, or if anybody may call them."""
    sql.execute("DROP ROLE IF EXISTS shop_web")
    sql.execute("CREATE ROLE shop_web NOLOGIN; GRANT USAGE ON SCHEMA jobmanager TO shop_web")
    signature = "jobmanager.enqueue(text, jsonb, int, interval, int, text, text, text)"
    try:
        sql.execute("SET ROLE shop_web")
        for call in (
            "create_job('x', 'export')",
            "enqueue('export')",
            "send_event('paid')",
            "row_id(now())",
            "presentable('{}')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                sql.execute(f"SELECT jobmanager.{call}".encode())
        sql.execute("RESET ROLE")
        sql.execute(f"GRANT EXECUTE ON FUNCTION {signature} TO shop_web".encode())
        sql.execute("SET ROLE shop_web")
        assert jobs.wait(enqueue(sql, "export"), timeout=15).status is RunStatus.SUCCEEDED
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            sql.execute("SELECT * FROM jobmanager.runs")
    finally:
        sql.execute("RESET ROLE")
        sql.execute("DROP OWNED BY shop_web; DROP ROLE shop_web")


def test_nothing_planted_in_public_is_called(jobs: JobManager, postgres_url: str) -> None:
    """Fails if a function has no pinned path: each operator and call would be taken from the schema that comes first."""
    assert planted.plant(postgres_url) > 100
    planted.prefer_public(postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as sql:
        create(sql, "nightly", "export", "0 3 * * *", "Europe/Berlin", '{"days": 2}')
        for _ in range(2):
            run = enqueue(sql, "nightly", payload='{"days": 3}', delay="1 hour", key="k", priority=3)
            send(sql, "paid", data="{}", key="k", id="1", by="ann")
        with pytest.raises(psycopg.Error, match="is no minute"):
            create(sql, "other", "export", "99 3 * * *")
    assert not planted.sprung(postgres_url)
    assert jobs.run(run).priority == 3
