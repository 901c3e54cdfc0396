"""Principals: what each may do and see through the manager, what is audited of it, and that nothing changes without one."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from tests.behaviour.test_kill_switch import DECLARES, LIVES, READS, WRITES

from jobmanager import JobManager, RunContext, Settings
from jobmanager.access.acting import acting, current
from jobmanager.access.principal import Principal
from jobmanager.doctor import examine
from jobmanager.errors import (
    HandlerNotFoundError,
    JobManagerError,
    JobNotFoundError,
    NotificationNotFoundError,
    PermissionDeniedError,
    RunConflictError,
    RunNotFoundError,
    TransitionError,
    UnsupportedError,
)
from jobmanager.explain import explain, explain_now
from jobmanager.manager.guarding import REFUSED
from jobmanager.run import PENDING, Run, new_id
from jobmanager.search import RunFilter
from jobmanager.testing import FakeClock

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NOBODY = Principal("nobody")
VIEWER, OPERATOR, ADMIN = (Principal(name, name) for name in ("viewer", "operator", "admin"))
ACME = Principal("acme-user", "operator", scopes=["acme"])
UNASKED = {"check", "principal_of_key"}  # before anybody is known
ADMINS_READING = {"entries", "keys", "storage"}
ADMINS_WORK = {
    "create_job",
    "create_key",
    "create_webhook",
    "delete_webhook",
    "rotate_webhooks",
    "update_webhook",
    "revoke_key",
    "delete_job",
    "purge",
    "purge_orphans",
    "retire_secrets",
    "rotate_secret",
    "seed",
    "set_entry_active",
    "sync",
    "test_notifications",
    "unschedule_entry",
}


def secret_work(context: RunContext) -> str:
    """Leave something to be found in every kind of record."""
    context.log.info("planted-system-job writes a line")
    context.progress(1, 2, "planted-system-job")
    raise OSError("planted-system-job has no disk")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.servers)])
def jobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobManager]:
    """A manager whose store has a team, a project and a system job, and runs of each."""
    url = f"sqlite:///{tmp_path}/jobs.db"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
    made = JobManager(Settings(database_url=url, backend="noop"), clock=FakeClock(NOON))
    made.add_job("work", lambda: 1, cron="0 * * * *")
    made.add_job("shared", lambda: 1, visibility="project")
    made.add_job("planted-system-job", secret_work, cron="* * * * *", visibility="system")
    yield made
    made.stop()
    made.store.close()


def filled(jobs: JobManager) -> dict[str, Run]:
    """Runs by name; those of the system job have failed, and it has been overridden."""
    runs = {
        "work": jobs.trigger_job("work", by="ana"),
        "acme": jobs.trigger_job("shared", scope="acme", by="ana"),
        "beta": jobs.trigger_job("shared", scope="beta", by="ana"),
        "system": jobs.trigger_job("planted-system-job", by="ana"),
    }
    jobs.override_job("planted-system-job", priority=3, by="ana")
    return runs


# ---------------------------------------------------------------- who may do what

CALLS: dict[str, Callable[[JobManager], object]] = {
    name: (lambda jobs, call=call: call(jobs, {"pending": "x" * 36, "failed": "y" * 36}))
    for name, call in WRITES.items()
}


def refused(call: Callable[[], object]) -> bool:
    """Return whether the call is refused for want of a permission; what else is wrong with it is of no account."""
    try:
        call()
    except PermissionDeniedError:
        return True
    except JobManagerError:
        return False
    return False


@pytest.mark.parametrize("name", sorted(WRITES))
def test_each_method_that_writes_needs_its_permission(tmp_path: Path, name: str) -> None:
    """Fails if a method that changes something can be called by a principal that may only read, or made by an operator alone."""
    jobs = JobManager(
        Settings(database_url=f"sqlite:///{tmp_path}/jobs.db", backend="noop"), clock=FakeClock(NOON)
    )
    for job_id in ("work", "overridden", "paused"):
        jobs.add_job(job_id, lambda: 1)
    may = {}
    for principal in (NOBODY, VIEWER, OPERATOR, ADMIN):
        with acting(principal):
            may[principal.name] = not refused(lambda: CALLS[name](jobs))
    operators = name not in ADMINS_WORK
    assert may == {"nobody": False, "viewer": False, "operator": operators, "admin": True}
    jobs.store.close()


def test_each_method_that_reads_needs_to_read(jobs: JobManager) -> None:
    calls = reading(jobs, jobs.trigger_job("work").id)
    assert {name.partition(" ")[0] for name in calls} == (READS - UNASKED) | {"explain", "explain_now"}
    with acting(NOBODY):
        assert [name for name, call in calls.items() if not refused(call)] == []
    with acting(VIEWER):
        assert {name for name, call in calls.items() if refused(call)} == ADMINS_READING


def test_no_other_method_asks_for_a_permission() -> None:
    """Those that declare, start and stop are called by the application itself, maybe while a request waits for its import."""
    guarded = READS - UNASKED | WRITES.keys()
    named = {name for name, _ in inspect.getmembers(JobManager, callable) if not name.startswith("_")}
    assert named - guarded == DECLARES | LIVES | UNASKED


def test_the_error_says_who_needs_what_for_what(jobs: JobManager) -> None:
    with (
        acting(VIEWER),
        pytest.raises(PermissionDeniedError, match="pause: 'viewer' needs jobs:write") as caught,
    ):
        jobs.stop_job("work")
    assert (caught.value.action, caught.value.principal, caught.value.permission) == (
        "pause",
        "viewer",
        "jobs:write",
    )
    assert isinstance(caught.value, PermissionError)


def test_without_a_principal_all_is_permitted_and_nothing_hidden(jobs: JobManager) -> None:
    runs = filled(jobs)
    assert len(jobs.runs()) == len(runs)
    assert jobs.get_job_status("planted-system-job") is not None
    assert examine(jobs)
    with acting(VIEWER), pytest.raises(PermissionDeniedError, match="jobs:admin"):
        examine(jobs)


def test_coroutines_act_for_the_same_principal(jobs: JobManager) -> None:
    async def cancel() -> None:
        with acting(VIEWER):
            await jobs.aio.cancel("x" * 36)

    with pytest.raises(PermissionDeniedError, match="cancel"):
        asyncio.run(cancel())


def test_a_handler_acts_for_nobody_whoever_started_its_run(jobs: JobManager) -> None:
    """Fails if code of the application is stopped by the rights of the one who pressed the button."""
    seen: list[object] = []

    def handler() -> None:
        seen.append(current().principal)
        jobs.stop_job("planted-system-job")

    async def coroutine() -> None:
        seen.append(current().principal)

    jobs.add_job("inner", handler)
    jobs.add_job("inner-async", coroutine)
    with acting(OPERATOR):
        assert jobs.trigger_job("inner").status == "succeeded"
        assert jobs.trigger_job("inner-async").status == "succeeded"
        assert current().principal is OPERATOR
    assert seen == [None, None]


# ---------------------------------------------------------------- who sees what


def reading(jobs: JobManager, run_id: str, job_id: str = "work") -> dict[str, Callable[[], object]]:
    """Every method that reads, with the arguments that would show this run and this job."""
    day = timedelta(days=1)
    return {
        "attempts": lambda: jobs.attempts(run_id),
        "audit": lambda: jobs.audit(limit=1000),
        "audit of the job": lambda: jobs.audit(job=job_id),
        "audit of the run": lambda: jobs.audit(target="run", target_id=run_id),
        "dead_letters": lambda: jobs.dead_letters(limit=1000),
        "dead_letters of the job": lambda: jobs.dead_letters(job_id),
        "entries": jobs.entries,
        "events": lambda: list(jobs.events()),
        "events of the job": lambda: list(jobs.events(job=job_id)),
        "events of the run": lambda: list(jobs.events(run=run_id)),
        "executors": lambda: jobs.executors(job_id),
        "explain": lambda: explain(jobs, job_id, NOON - MINUTE),
        "explain_now": lambda: explain_now(jobs, job_id),
        "get_all_job_statuses": jobs.get_all_job_statuses,
        "get_job_metrics": jobs.get_job_metrics,
        "get_job_status": lambda: jobs.get_job_status(job_id),
        "handlers": jobs.handlers,
        "health": lambda: jobs.health(thorough=True),
        "history": lambda: jobs.history(job_id),
        "instances": jobs.instances,
        "is_executed_here": lambda: jobs.is_executed_here(run_id),
        "keys": jobs.keys,
        "storage": jobs.storage,
        "logs": lambda: jobs.logs(run_id),
        "steps": lambda: jobs.steps(run_id),
        "sent_events": jobs.sent_events,
        "event_waits": jobs.event_waits,
        "children": lambda: jobs.children(run_id),
        "notification": lambda: jobs.notification("x" * 36),
        "notification_message": lambda: jobs.notification_message("x" * 36),
        "notifications": jobs.notifications,
        "notifications of the job": lambda: jobs.notifications(job=job_id),
        "run": lambda: jobs.run(run_id),
        "run by its end": lambda: jobs.run(run_id[-12:]),
        "runs": lambda: jobs.runs(limit=1000),
        "runs by status": lambda: jobs.runs(status="failed"),
        "runs of the job": lambda: jobs.runs(job_id),
        "runs before it": lambda: jobs.runs(job_id, before=run_id),
        "list_jobs": jobs.list_jobs,
        "standings": jobs.standings,
        "totals": lambda: jobs.totals([job_id]),
        "get_job": lambda: jobs.get_job("work"),
        "due_instants": lambda: jobs.due_instants(["work"]),
        "run_for": lambda: jobs.run_for("work", NOON),
        "search_runs": jobs.search_runs,
        "search_runs by status": lambda: jobs.search_runs(RunFilter(statuses=["failed"])),
        "search_runs of the job": lambda: jobs.search_runs(RunFilter(job=job_id)),
        "count_runs": jobs.count_runs,
        "runs_by_id": lambda: jobs.runs_by_id([run_id, "nobody", "a\0b"]),
        "runs_beside": lambda: jobs.runs_beside(run_id),
        "dead_letters_by_error": jobs.dead_letters_by_error,
        "simulate": lambda: jobs.simulate(NOON, NOON + day),
        "stats": jobs.stats,
        "stats of the job": lambda: jobs.stats(job_id, "1h"),
        "wait": lambda: jobs.wait(run_id, timeout=1),
        "webhooks": jobs.webhooks,
    }


def shown(call: Callable[[], object]) -> str:
    """Everything that somebody learns from the call: its result, or its error."""
    try:
        return repr(call())
    except (
        JobNotFoundError,
        RunNotFoundError,
        NotificationNotFoundError,
        PermissionDeniedError,
        UnsupportedError,
    ) as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("principal", [VIEWER, OPERATOR, ACME], ids=lambda one: one.name)
def test_no_method_shows_a_system_job_to_those_without_admin(jobs: JobManager, principal: Principal) -> None:
    """Fails if any method that reads, or the error of one, has the job, its run, or anything that its handler left."""
    run = filled(jobs)["system"]
    known = [run.id, run.id[-12:]]
    for name, call in reading(jobs, run.id, "planted-system-job").items():
        open_to_all = shown(call)
        with acting(principal):
            told = shown(call).replace("No job 'planted-system-job' is declared or stored.", "")
        told = told.replace("No run ", "").replace(f"'{run.id}'", "").replace(f"'{run.id[-12:]}'", "")
        assert "planted" not in told, name
        assert not [text for text in known if text in told], name
        if name in ("run", "runs", "get_job_status", "audit"):
            assert "planted" in open_to_all
    with acting(ADMIN):
        assert "planted" in shown(lambda: jobs.run(run.id))


@pytest.mark.parametrize("jobs", ["sqlite"], indirect=True)
@pytest.mark.parametrize("name", sorted(WRITES))
def test_no_method_changes_a_system_job_for_those_without_admin(jobs: JobManager, name: str) -> None:
    run = filled(jobs)["system"]
    before = jobs.store.jobs.get("planted-system-job"), jobs.run(run.id)
    write = WRITES[name]

    class Aimed:
        """A manager whose every call means the planted job or its run."""

        def __getattr__(self, method: str) -> Callable[..., object]:
            taken = list(inspect.signature(getattr(jobs, method)).parameters)

            def call(*args: Any, **kwargs: Any) -> object:
                target = {"job_id": "planted-system-job", "run_id": run.id}.get(taken[0] if taken else "")
                return getattr(jobs, method)(*([target, *args[1:]] if target else args), **kwargs)

            return call

    aimed: Any = Aimed()
    with acting(OPERATOR):
        try:
            write(aimed, {"pending": run.id, "failed": run.id})
        except (*REFUSED, HandlerNotFoundError, UnsupportedError) as error:
            found_nothing = (
                UnsupportedError,
                JobNotFoundError,
                RunNotFoundError,
                NotificationNotFoundError,
                HandlerNotFoundError,
            )
            assert isinstance(error, (*found_nothing, PermissionDeniedError))  # noqa: PT017
    assert (jobs.store.jobs.get("planted-system-job"), jobs.run(run.id)) == before


def test_scopes_limit_the_runs_of_project_jobs_and_who_starts_them(jobs: JobManager) -> None:
    runs = filled(jobs)
    with acting(ACME):
        assert {run.id for run in jobs.runs()} == {runs["work"].id, runs["acme"].id}
        assert [run.id for run in jobs.runs("shared")] == [runs["acme"].id]
        with pytest.raises(RunNotFoundError):
            jobs.run(runs["beta"].id)
        assert jobs.trigger_job("shared", scope="acme").scope == "acme"
        for scope in (None, "beta"):
            with pytest.raises(PermissionDeniedError, match="limited to scopes"):
                jobs.trigger_job("shared", scope=scope)
        for change in (
            lambda: jobs.stop_job("shared"),
            lambda: jobs.override_job("shared", priority=1),
            lambda: jobs.update_job("shared", priority=1),
            lambda: jobs.disable_job("shared"),
        ):
            with pytest.raises(PermissionDeniedError, match="limited to scopes"):
                change()
        jobs.stop_all_jobs()
        assert jobs.get_job_metrics().total_executions == 1
    assert {row.id: row.state for row in jobs.store.jobs.rows()} == {
        "work": "paused",
        "shared": "active",
        "planted-system-job": "active",
    }


def test_a_principal_sees_the_namespace_of_its_manager_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    ours, theirs = (
        JobManager(Settings(database_url=url, backend="noop", namespace=name), clock=FakeClock(NOON))
        for name in ("ours", "theirs")
    )
    ours.add_job("our-job", lambda: 1)
    theirs.add_job("their-job", lambda: 1)
    our_run, their_run = ours.trigger_job("our-job"), theirs.trigger_job("their-job")
    with acting(ADMIN):
        assert [run.id for run in ours.runs()] == [our_run.id]
        assert [status.id for status in ours.get_all_job_statuses()] == ["our-job"]
        with pytest.raises(RunNotFoundError):
            ours.run(their_run.id)
    for jobs in (ours, theirs):
        jobs.store.close()


# ---------------------------------------------------------------- what is audited


def audited(jobs: JobManager, **wanted: Any) -> list[tuple[str, str, str, str | None, str]]:
    """What was done to what, by whom, newest first."""
    return [
        (entry.action, entry.target, entry.target_id, entry.by, entry.outcome)
        for entry in jobs.audit(**wanted)
    ]


def test_each_change_of_a_run_is_audited_where_somebody_is_named(jobs: JobManager) -> None:
    jobs.add_job("bad", secret_work)
    with acting(OPERATOR, address="10.0.0.7", user_agent="curl/8", request_id="r-1"):
        run = jobs.trigger_job("bad")
        jobs.redrive(run.id)
        jobs.discard(run.id)
    later = jobs.trigger_job("work", delay=60, by="ana")
    jobs.cancel(later.id, by="ana")
    assert audited(jobs) == [
        ("cancel", "run", later.id, "ana", "done"),
        ("trigger", "run", later.id, "ana", "done"),
        ("discard", "run", run.id, "operator", "done"),
        ("redrive", "run", run.id, "operator", "done"),
        ("trigger", "run", run.id, "operator", "done"),
    ]
    entry = jobs.audit(action="redrive")[0]
    assert (entry.address, entry.user_agent, entry.request_id, entry.job_id) == (
        "10.0.0.7",
        "curl/8",
        "r-1",
        "bad",
    )
    assert entry.before is not None
    assert entry.after is not None
    assert (entry.before["status"], entry.after["status"]) == ("failed", "pending")
    assert (run.requested_by, later.requested_by) == ("operator", "ana")
    assert jobs.history("bad") == []


def test_plain_code_leaves_no_entry_of_its_runs(jobs: JobManager) -> None:
    jobs.add_job("bad", secret_work)
    run = jobs.trigger_job("bad", requested_by="ana")
    jobs.redrive(run.id)
    jobs.discard(run.id)
    jobs.cancel(run.id)
    jobs.purge(older_than=0)
    jobs.sync()
    assert audited(jobs) == []


AUDITED_ELSEWHERE = {
    "backfill",  # below
    *("purge_orphans", "retire_secrets", "rotate_secret", "set_entry_active", "unschedule_entry"),
}
"""Held by tests of their own: entries by tests/integration/test_pg_cron_entries.py, for no other backend has any."""


@pytest.mark.parametrize("name", sorted(WRITES.keys() - AUDITED_ELSEWHERE))
def test_each_method_that_writes_leaves_a_row_of_the_audit(tmp_path: Path, name: str) -> None:
    """Fails if a method can change something, or be refused, without a row that says for whom and from where."""
    url, clock = f"sqlite:///{tmp_path}/jobs.db", FakeClock(NOON - timedelta(days=2))
    key = Fernet.generate_key().decode()
    smtp = {"smtp_url": "smtp://localhost:1", "alerts_email": ["ops@example.com"]}
    jobs = JobManager(Settings(database_url=url, encryption_key=key, **smtp), clock=clock)
    for job_id in ("overridden", "paused", *([] if name == "delete_job" else ["work"])):
        jobs.add_job(job_id, lambda: 1, cron="0 * * * *")
    jobs.add_job("bad", secret_work)
    if name == "delete_job":
        jobs.create_job("work", handler="bad")
    ids = {"pending": jobs.trigger_job("work").id, "failed": jobs.trigger_job("bad").id}
    assert jobs.execute_here(ids["failed"])
    assert jobs.wait(ids["failed"], timeout=50).status == "failed"
    jobs.stop()
    clock.step(timedelta(days=2))
    jobs.stop_job("paused")
    jobs.override_job("overridden", priority=2)
    if name == "enable_job":
        jobs.disable_job("work")
    jobs.create_webhook("hook", url="https://example.com/")
    if name == "revoke_key":
        jobs.create_key("ci")
    before = {entry.id for entry in jobs.audit(limit=1000)}

    with acting(ADMIN, address="192.0.2.7", user_agent="curl", request_id="req-1"), suppress(JobManagerError):
        WRITES[name](jobs, ids)

    new = [entry for entry in jobs.audit(limit=1000) if entry.id not in before]
    assert new
    told = {(entry.by, entry.address, entry.user_agent, entry.request_id) for entry in new}
    assert told == {("admin", "192.0.2.7", "curl", "req-1")}
    jobs.stop()
    jobs.store.close()


def test_what_changes_nothing_is_not_audited(jobs: JobManager) -> None:
    run = jobs.trigger_job("work", key="once")
    assert jobs.trigger_job("work", key="once", by="ana").id == run.id
    jobs.cancel(run.id, by="ana")
    jobs.discard(run.id, by="ana")
    jobs.resume_job("work", by="ana")
    assert audited(jobs) == []


def test_refused_attempts_are_audited_with_the_reason(jobs: JobManager) -> None:
    done = jobs.trigger_job("work")
    jobs.add_job("slow", lambda: 1)
    active = jobs.trigger_job("slow", delay=3600)
    jobs.disable_job("work")
    with acting(VIEWER), pytest.raises(PermissionDeniedError):
        jobs.stop_job("work")
    with acting(OPERATOR):
        with pytest.raises(JobNotFoundError):
            jobs.stop_job("planted-system-job")
        with pytest.raises(RunNotFoundError):
            jobs.cancel("unknown")
        with pytest.raises(TransitionError):
            jobs.redrive(done.id)
    with pytest.raises(JobManagerError, match="disabled"):
        jobs.trigger_job("work", by="ana")
    assert audited(jobs, outcome="refused") == [
        ("trigger", "job", "work", "ana", "refused"),
        ("redrive", "run", done.id, "operator", "refused"),
        ("cancel", "run", "unknown", "operator", "refused"),
        ("pause", "job", "planted-system-job", "operator", "refused"),
        ("pause", "job", "work", "viewer", "refused"),
    ]
    reasons = [entry.reason for entry in jobs.audit(outcome="refused")]
    assert reasons[-1] is not None
    assert reasons[-1].startswith("PermissionDeniedError: pause: 'viewer' needs jobs:write")
    with acting(VIEWER):
        assert "planted" not in repr(jobs.audit(limit=1000))
    assert active.status == "pending"


def test_a_start_in_the_way_of_another_is_refused_with_its_id_and_audited(jobs: JobManager) -> None:
    jobs.add_job("waiting", lambda: 1)
    first = jobs.trigger_job("waiting", delay=0.001)
    with jobs.store.jobs.lock("waiting") as txn:
        active = txn.get(first.id)
    assert active is not None
    jobs.store.runs.write([replaced(active)], ())
    with acting(OPERATOR), pytest.raises(RunConflictError):
        jobs.trigger_job("waiting")
    assert audited(jobs, outcome="refused") == [("trigger", "job", "waiting", "operator", "refused")]


def replaced(run: Run) -> Run:
    """Return another pending run that holds the job's key."""
    return replace(
        run, id=new_id(NOON), status=PENDING, turn="holds", attempt=0, starts=0, owner=None,
        started_at=None, finished_at=None, output=None,
    )  # fmt: skip


def test_all_of_one_request_are_one_batch(jobs: JobManager) -> None:
    jobs.add_job("bad", secret_work)
    failed = [jobs.trigger_job("bad") for _ in range(3)]
    jobs.redrive_all("bad", by="ana")
    jobs.stop_all_jobs(by="ana")
    redriven = jobs.audit(action="redrive")
    assert {entry.target_id for entry in redriven} == {run.id for run in failed}
    batches = {entry.batch_id for entry in redriven}
    assert len(batches) == 1
    assert None not in batches
    paused = {entry.batch_id for entry in jobs.audit(action="pause")}
    assert len(paused) == 1
    assert paused != batches


def test_backfill_purge_and_sync_are_audited_as_one_change_each(jobs: JobManager) -> None:
    jobs.sync()
    jobs.backfill("work", NOON - timedelta(hours=3), NOON, by="ana")
    jobs.purge(older_than=0, by="ana")
    jobs.sync(by="ana")
    found = audited(jobs)
    assert ("purge", "runs", "default", "ana", "done") in found
    assert ("sync", "namespace", "default", "ana", "done") in found
    assert jobs.history("work") == [entry for entry in jobs.audit(target="job") if entry.target_id == "work"]


def test_the_start_and_its_entry_are_one_transaction(
    jobs: JobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if a run could be opened whose entry is lost."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    jobs.trigger_job("work")
    monkeypatch.setattr(jobs.store.database, "note", fail)  # type: ignore[attr-defined]
    with pytest.raises(ZeroDivisionError):
        jobs.trigger_job("work", by="ana")
    assert len(jobs.runs()) == 1


def test_old_entries_of_the_audit_are_purged_and_newer_ones_stay(tmp_path: Path) -> None:
    """Fails if the audit grows for ever, or goes with the runs that it tells of."""
    clock = FakeClock(NOON)
    settings = Settings(
        database_url=f"sqlite:///{tmp_path}/jobs.db",
        backend="noop",
        audit_retention_days=30,
        retention_days=1,
    )
    jobs = JobManager(settings, clock=clock)
    jobs.add_job("work", lambda: 1)
    jobs.trigger_job("work", by="ana")
    clock.step(timedelta(days=29))
    jobs.trigger_job("work", by="ben")
    assert jobs.purge() == 1
    assert [entry.by for entry in jobs.audit()] == ["ben", "ana"]
    clock.step(timedelta(days=2))
    jobs.purge()
    assert [entry.by for entry in jobs.audit()] == ["ben"]
    jobs.store.close()


def test_a_start_that_nobody_is_named_for_makes_no_statement_more(tmp_path: Path) -> None:
    """Fails if the audit or the views cost a start of plain code anything."""
    jobs = JobManager(
        Settings(database_url=f"sqlite:///{tmp_path}/jobs.db", backend="local"), clock=FakeClock(NOON)
    )
    jobs.add_job("work", lambda: 1)
    said: list[str] = []
    with jobs:
        jobs.trigger_job("work")
        driver: Any = jobs.store.database.opened_writer().connection.dbapi_connection  # type: ignore[attr-defined]
        driver.set_trace_callback(said.append)
        jobs.trigger_job("work")
        driver.set_trace_callback(None)
    assert [statement.split()[0] for statement in said] == [
        *("BEGIN", "SELECT", "SELECT", "INSERT", "COMMIT"),
        *("BEGIN", "UPDATE", "COMMIT"),
    ]
    assert not [statement for statement in said if "audit" in statement]
    jobs.store.close()
