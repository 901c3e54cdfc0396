"""Runs of several steps on Celery: they rest without a message, and any worker goes on with them, also after a kill."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.celery_processes import Application, until

pytestmark = [pytest.mark.slow, pytest.mark.servers]

JOBS = """
def act(name, number=0):
    note("act", name, number)
    return number * 2

@jobs.job("child")
def child(context: RunContext, number: int):
    return context.step("double", act, "double", number)

@jobs.job("flow", overlap="allow")
def flow(context: RunContext):
    first = context.step("first", act, "first", 1)
    context.sleep("rest", seconds=2)
    doubled = context.gather("children", "child", [{"number": number} for number in range(3)])
    event = context.wait_for("go", key=context.run_id)
    return [first, *doubled, event.data]


@jobs.job("greet", on="user/created")
def greet(user: str):
    note("greet", user)
"""


@pytest.fixture
def application(tmp_path: Path, redis_url: str) -> Iterator[Application]:
    made = Application(tmp_path, redis_url, f"sqlite:///{tmp_path}/jobs.db", JOBS)
    yield made
    made.close()


def test_a_flow_rests_and_goes_on_in_whichever_worker_there_is_and_an_event_starts_a_job(
    application: Application,
) -> None:
    application.beat()
    worker = application.worker()
    jobs = application.manager()
    for job_id in ("flow", "child"):
        jobs.add_job(job_id, "shop:nothing_here", overlap="allow" if job_id == "flow" else "skip")
    run = jobs.trigger_job("flow")
    until(lambda: jobs.run(run.id).reason == "sleeping")

    worker.kill()
    application.worker()

    until(lambda: jobs.run(run.id).reason == "waiting")
    jobs.send_event("go", key=run.id, data="now")
    ended = jobs.wait(run.id, timeout=60)
    assert (ended.status, ended.output, ended.attempt) == ("succeeded", [2, 0, 2, 4, "now"], 1)
    assert [child.status for child in jobs.children(run.id)] == ["succeeded"] * 3
    assert set(Counter(map(tuple, application.effects("act"))).values()) == {1}

    # An event of this process, which knows no job with on=, starts one over there: once for its id.
    for _ in range(2):
        jobs.send_event("user/created", data={"user": "ann"}, id="signup-1")
    [greeting] = until(lambda: jobs.runs("greet", status="succeeded"))
    assert (greeting.idempotency_key, greeting.requested_by) == ("event:signup-1", "event user/created")
    assert application.effects("greet") == [["greet", "ann"]]
