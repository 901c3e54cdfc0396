"""`run_flow`: a week of a run's life in no time, with the events that a test sends."""

from __future__ import annotations

from datetime import timedelta

import pytest

from jobmanager import AsyncRunContext, JobManager, RunContext, Settings
from jobmanager.testing import FakeClock, run_flow


def order(context: RunContext, name: str = "") -> str:
    context.sleep("rest", days=1)
    event = context.wait_for("paid", key=name, timeout="2d")
    return "never paid" if event is None else event.data


def test_time_passes_as_far_as_the_run_needs() -> None:
    ended = run_flow(order)
    assert ended.run.output == "never paid"
    assert ended.names == ["rest", "paid"]
    assert ended.took == timedelta(days=3)


def test_an_event_comes_when_it_is_waited_for() -> None:
    ended = run_flow(order, {"name": "4711"}, events={"paid": "by card", "other": 1})
    assert (ended.run.output, ended.took) == ("by card", timedelta(days=1))


def test_a_job_of_a_manager_runs_with_the_jobs_beside_it() -> None:
    with JobManager(Settings(backend="noop", database_url="memory://"), clock=FakeClock()) as jobs:
        jobs.add_job("child", lambda number: number * 2)
        jobs.add_job("parent", lambda context: context.gather("all", "child", [{"number": 1}, {"number": 2}]))
        assert run_flow("parent", jobs=jobs).run.output == [2, 4]


def test_a_gather_with_a_limit_starts_the_next_as_time_passes() -> None:
    with JobManager(Settings(backend="noop", database_url="memory://"), clock=FakeClock()) as jobs:

        async def child(context: AsyncRunContext, number: int) -> int:
            await context.sleep("work", hours=1)
            return number

        async def parent(context: AsyncRunContext) -> list[int]:
            return await context.gather("all", "child", [{"number": number} for number in range(5)], limit=2)

        jobs.add_job("child", child)
        jobs.add_job("parent", parent)
        ended = run_flow("parent", jobs=jobs)
    assert ended.run.output == [0, 1, 2, 3, 4]
    assert ended.took == timedelta(hours=3)


def test_a_manager_on_another_clock_is_refused() -> None:
    jobs = JobManager(Settings(backend="noop", database_url="memory://"))
    with pytest.raises(AssertionError, match="needs a manager on a FakeClock"):
        run_flow("parent", jobs=jobs)
