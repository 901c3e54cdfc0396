"""A tool executes a pending run itself when nobody else lives to do it; and what it asks the store for that."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from jobmanager import JobManager, Retry, RunStatus, Settings
from jobmanager.run import MISSED, Run, new_id

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path):
    return Settings(backend="local", database_url=f"sqlite:///{tmp_path}/jobs.db", drain_seconds=2)


@pytest.fixture
def declared(settings):
    """Makes managers of one job each, and ends them with the test."""
    made = []

    def declare(function=lambda: "done", *, job="work", **policies):
        manager = JobManager(settings)
        manager.job(job, **policies)(function)
        made.append(manager)
        return manager

    yield declare
    for manager in made:
        manager.stop()
        manager.store.close()


def test_a_pending_run_is_executed_where_nobody_lives(declared):
    tool = declared()
    run = tool.trigger_job("work")
    assert run.status is RunStatus.PENDING

    assert tool.execute_here(run.id)

    assert tool.wait(run.id, 5).output == "done"
    tool.stop()
    assert tool.store.processes.living() == []


def test_a_living_executor_keeps_its_runs(declared):
    tool = declared()
    with declared() as server:
        assert [instance.executes for instance in tool.executors("work")] == [True]
        run = tool.trigger_job("work", delay=3600)
        assert not tool.execute_here(run.id)
        assert server.run(run.id).status is RunStatus.PENDING
    assert tool.executors("work") == []


def test_an_executor_of_other_jobs_is_nobody_to_wait_for(declared):
    other = declared(job="other")
    tool = declared()
    with other:
        run = tool.trigger_job("work")
        assert tool.execute_here(run.id)
        assert tool.wait(run.id, 5).status is RunStatus.SUCCEEDED
        tool.stop()


def test_a_tool_that_executes_is_nobody_to_wait_for(declared):
    first, second = declared(overlap="allow"), declared(overlap="allow")
    assert first.execute_here(first.trigger_job("work").id)
    assert second.executors("work") == []
    first.stop()


def test_the_next_attempt_is_asked_for_again(declared):
    calls = []

    def fail_once():
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("not yet")

    tool = declared(fail_once, retry=Retry(max_attempts=2, delays=[0], jitter=0))
    run = tool.trigger_job("work")
    assert tool.execute_here(run.id)
    while len(calls) < 2:
        tool.execute_here(run.id)
    assert tool.wait(run.id, 5).attempt == 2
    tool.stop()


def test_a_silent_process_is_not_living(declared):
    tool = declared()
    with declared() as server:
        instance = server.store.processes.living()[0]
    tool.store.processes.register(
        replace(instance, id="a-crashed-process", seen_at=instance.seen_at - timedelta(seconds=31)), ["work"]
    )
    assert [instance.id for instance in tool.store.processes.living()] == ["a-crashed-process"]
    assert tool.executors("work") == []


def test_the_row_of_a_tick_is_its_own_or_the_stretch_over_it(declared):
    tool = declared(cron="0 * * * *")
    tool.sync()

    def missed(instant, **values):
        return Run(
            id=new_id(NOON), job_id="work", status=MISSED, reason="downtime", scheduled_for=instant, due_at=instant,
            opened_at=NOON, finished_at=NOON, concurrency_key="work", **values,
        )  # fmt: skip

    hour = timedelta(hours=1)
    with tool.store.jobs.lock("work") as page:
        page.insert(missed(NOON, first_for=NOON - 3 * hour, ticks=4))
        page.insert(missed(NOON + 2 * hour))

    assert tool.store.history.run_for("work", NOON - 2 * hour).ticks == 4
    assert tool.store.history.run_for("work", NOON).ticks == 4
    assert tool.store.history.run_for("work", NOON + 2 * hour).ticks == 1
    for uncovered in (NOON - 4 * hour, NOON + hour, NOON + 3 * hour):
        assert tool.store.history.run_for("work", uncovered) is None
    assert tool.store.history.run_for("other", NOON) is None


def test_a_closed_gate_is_told_before_the_first_start(declared, monkeypatch):
    monkeypatch.delenv("WITH_WORK", raising=False)
    tool = declared(every=60, enabled_when="WITH_WORK")
    planned = tool.simulate(NOON, NOON + timedelta(minutes=2))
    assert [(item.fires, item.why) for item in planned] == [(False, "disabled: gate")] * 2
    assert tool.get_job_status("work").next_run is None
    monkeypatch.setenv("WITH_WORK", "true")
    assert all(item.fires for item in tool.simulate(NOON, NOON + timedelta(minutes=2)))
