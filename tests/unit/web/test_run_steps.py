"""The page of a run in steps: its steps, what it waits for, its children and its parent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.unit.web.visitor import Visitor

from jobmanager import JobManager, NonRetryable, Principal, RunContext, Settings
from jobmanager.run import Run
from jobmanager.testing import FakeClock, run_due
from jobmanager.web import dashboard
from jobmanager.web.pages import run as page_of_run

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON)


@pytest.fixture
def jobs(clock: FakeClock) -> Iterator[JobManager]:
    made = JobManager(Settings(database_url="memory://", backend="noop"), clock=clock)

    @made.job("thumb")
    def thumb(context: RunContext, size: int) -> str:
        if size == 2:
            context.sleep("rest", hours=4)
        if size == 9:
            raise NonRetryable("not yet")
        return f"{size}.png {HOSTILE}"

    @made.job("flow")
    def flow(context: RunContext) -> Any:
        context.step("load", dict)
        context.sleep("wait", hours=1)
        for _ in range(3):
            context.step(HOSTILE, list)
        return context.gather("thumbs", "thumb", [{"size": size} for size in range(3)])

    @made.job("fails")
    def fails(context: RunContext) -> None:
        context.step("load", dict)
        raise NonRetryable("not yet")

    @made.job("event")
    def event(context: RunContext) -> None:
        context.wait_for("paid", key="7", timeout="2d")

    with made:
        yield made


@pytest.fixture
def client(jobs: JobManager) -> Visitor:
    return Visitor(dashboard(jobs, authorize=lambda _: Principal("ana", ("operator",)), timezone="UTC"))


def settled(jobs: JobManager, run: Run) -> Run:
    for _ in range(4):
        run_due(jobs)
    return jobs.run(run.id)


def test_a_sleeping_run_says_until_when(client, jobs):
    run = settled(jobs, jobs.trigger_job("flow"))
    page = client.get(f"/runs/{run.id}").text
    assert "Sleeping until 13:00" in page
    assert "It sleeps in step <code>wait</code> until 13:00." in page
    assert "sleeping until 13:00" in client.get("/runs").text
    assert page.count('<svg class="chart" height="20"') == 1 + 2


def test_children_are_linked_both_ways_and_the_rests_of_an_attempt_are_one_row(client, jobs, clock):
    run = jobs.trigger_job("flow")
    settled(jobs, run)
    clock.step(timedelta(hours=1))
    run = settled(jobs, run)
    page = client.get(f"/runs/{run.id}").text
    assert "Waiting for its children" in page
    assert "It waits for 1 of 3 runs" in page
    assert "3: 1 pending, 2 succeeded" in page
    children = [child.id for child in jobs.children(run.id)]
    assert set(re.findall(r"/runs/([0-9a-f-]{36})\">thumb", page)) == set(children)
    assert f'href="/runs/{run.id}"' in client.get(f"/runs/{children[0]}").text
    assert page.count('class="nw">Attempt 1') == 1
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; #3" in page


def test_the_wait_for_an_event_says_how_it_is_sent(client, jobs):
    run = settled(jobs, jobs.trigger_job("event"))
    page = client.get(f"/runs/{run.id}").text
    assert "It waits for the event paid of 7 until Thu 12:00." in page
    assert "jobmanager events send &#39;paid&#39; --key &#39;7&#39;" in page


def test_of_many_steps_the_last_are_shown(client, jobs, monkeypatch):
    monkeypatch.setattr(page_of_run, "MOST_STEPS", 1)
    run = settled(jobs, jobs.trigger_job("flow"))
    assert "2 steps, the last 1 here" in client.get(f"/runs/{run.id}").text


def test_a_run_without_steps_has_neither_section(client, jobs):
    run = settled(jobs, jobs.trigger_job("thumb", {"size": 1}))
    page = client.get(f"/runs/{run.id}").text
    assert 'id="h-steps"' not in page
    assert 'id="h-kids"' not in page


def test_a_failed_run_goes_on_or_from_the_start_by_its_button(client, jobs, clock):
    run = settled(jobs, jobs.trigger_job("fails"))
    page = client.get(f"/runs/{run.id}").text
    [form] = re.findall(r"<form[^>]*>(?:(?!</form>).)*From the start.*?</form>", page, re.DOTALL)
    assert f'action="/runs/{run.id}/redrive"' in form
    assert 'name="from_start" value="yes"' in form

    begun = []
    for fields in ({}, {"from_start": "yes"}):
        clock.step(timedelta(minutes=1))
        client.send(f"/runs/{run.id}/redrive", **fields)
        run_due(jobs)
        begun.append(jobs.steps(run.id)[0].started_at)
    assert begun == [NOON, NOON + timedelta(minutes=2)]


def test_a_failed_run_without_steps_has_no_button_for_its_start(client, jobs):
    run = settled(jobs, jobs.trigger_job("thumb", {"size": 9}))
    assert run.status == "failed"
    assert "From the start" not in client.get(f"/runs/{run.id}").text
