"""Runs of several steps on pg_cron: a tick starts one, and the database calls for it again when its rest is over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.faults.conftest import until
from tests.pg_net.loop import Loop
from tests.pg_net.stand_in import StandIn

from jobmanager import RunContext

pytestmark = [pytest.mark.servers, pytest.mark.slow]


@pytest.fixture
def pg_cron_url(still_pg_cron_url: str) -> str:
    return still_pg_cron_url


@pytest.fixture
def loop(pg_cron_url: str, pg_net: StandIn) -> Iterator[Loop]:
    with Loop(pg_cron_url, pg_net, jobs=("work", "child")) as loop:
        yield loop


def test_the_database_calls_for_a_run_whose_rest_is_over(loop: Loop) -> None:
    done: list[str] = []

    def flow(context: RunContext) -> list[int]:
        context.step("first", done.append, "first")
        context.sleep("rest", hours=1)
        context.step("second", done.append, "second")
        return context.gather("children", "double", [{"number": number} for number in range(3)])

    loop.manager.add_job("double", lambda number: number * 2)
    loop.manager.add_job("flow", flow, overlap="allow")
    run = loop.manager.trigger_job("flow")
    until(lambda: loop.manager.run(run.id).reason == "sleeping")
    assert loop.sweep() == 0

    loop.ask("UPDATE jobmanager.run_steps SET wakes_at = wakes_at - interval '1 hour' RETURNING 1")
    assert loop.sweep(after=3600) == 1

    ended = loop.manager.wait(run.id, timeout=30)
    assert (ended.status, ended.output, ended.attempt) == ("succeeded", [0, 2, 4], 1)
    assert done == ["first", "second"]
    loop.answered()
    loop.sweep()
    assert loop.outcomes()[0] == "accepted"
