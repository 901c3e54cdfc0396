"""Checked by mypy, not run: what applications see keeps its types."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import assert_type

from jobmanager import Cron, JobManager, JobStatus, Retry, Run, RunContext, RunStatus

jobs = JobManager()


@jobs.job(
    "typed",
    cron="0 2 * * *",
    timezone="Europe/Berlin",
    retry=Retry(max_attempts=3),
    timeout=timedelta(minutes=5),
)
def typed(context: RunContext, days: int = 30) -> dict[str, int]:
    assert_type(context.scheduled_for, datetime | None)
    for item in context.track(["a", "b"]):
        assert_type(item, str)
    return {"days": days}


@jobs.job("coroutine", every=30)
async def coroutine() -> str:
    return "x"


def decorated_functions_keep_their_signature(context: RunContext) -> None:
    assert_type(typed(context, days=3), dict[str, int])
    typed(context, days="3")  # type: ignore[arg-type]


async def decorated_coroutines_too() -> None:
    assert_type(await coroutine(), str)


def answers_are_values() -> None:
    run = jobs.trigger_job("typed", {"days": 7}, delay=timedelta(seconds=1))
    assert_type(run, Run)
    assert_type(run.status, RunStatus)
    assert_type(jobs.get_job_status("typed"), JobStatus | None)
    assert_type(jobs.runs(status="failed"), list[Run])
    assert_type(Cron("0 2 * * *").next_after(datetime.now().astimezone()), datetime | None)


jobs.job("mistyped", evry=30)  # type: ignore[call-arg]
jobs.job("wrong", overlap="sometimes")  # type: ignore[arg-type]


async def awaitable_methods_are_typed_as_the_others() -> None:
    assert_type(await jobs.aio.trigger_job("typed", {"days": 7}), Run)
    assert_type(await jobs.aio.get_job_status("typed"), JobStatus | None)
    await jobs.aio.triger_job("typed")  # type: ignore[attr-defined]  # a typo is an error
    await jobs.aio.wait("id", tiemout=3)  # type: ignore[call-arg]
