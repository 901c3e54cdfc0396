"""`context.once`: a function is called until it has returned once for its key, over attempts, runs and processes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobmanager import JobManager, Retry, Run, RunContext, RunStatus, Settings
from jobmanager.errors import OnceConflictError, StoreUnavailableError
from jobmanager.testing import FakeClock

pytestmark = pytest.mark.slow

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.fixture(params=["memory", "sqlite"])
def jobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobManager]:
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/jobs.db"
    manager = JobManager(Settings(database_url=url, backend="local"))
    yield manager
    manager.stop(1)
    manager.store.close()


def ended(jobs: JobManager, job_id: str, **payload: Any) -> Run:
    return jobs.wait(jobs.trigger_job(job_id, payload).id, timeout=20)


def test_it_is_done_once_over_attempts_and_runs_and_all_get_the_result(jobs: JobManager) -> None:
    """Fails if the key is that of a run, if a later attempt calls again, or if the first caller gets another value than later ones."""
    calls: list[str] = []

    def charge(order: str) -> dict[str, Any]:
        calls.append(order)
        return {"charge": order, "items": (1, 2)}

    @jobs.job("pay", retry=Retry(max_attempts=3, delays=[0.01]), overlap="allow")
    def pay(context: RunContext, order: str, fails: bool = False) -> Any:
        charged = context.once(f"order-{order}", lambda: charge(order))
        if fails and context.attempt < 3:
            raise OSError("after the charge")
        return charged

    jobs.start()
    runs = [
        ended(jobs, "pay", order="17", fails=True),
        ended(jobs, "pay", order="17"),
        ended(jobs, "pay", order="18"),
    ]
    assert [run.output for run in runs] == [
        {"charge": order, "items": [1, 2]} for order in ("17", "17", "18")
    ]
    assert [run.attempt for run in runs] == [3, 1, 1]
    assert calls == ["17", "18"]


def test_a_coroutine_awaits_it(jobs: JobManager) -> None:
    calls: list[int] = []

    async def charge() -> int:
        await asyncio.sleep(0.01)
        calls.append(1)
        return len(calls)

    @jobs.job("pay", overlap="allow")
    async def pay(context: RunContext) -> list[int]:
        return [await context.once("key", charge), await context.once("key", charge)]

    jobs.start()
    assert [ended(jobs, "pay").output for _ in range(2)] == [[1, 1], [1, 1]]
    assert calls == [1]


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_what_raises_is_done_again(jobs: JobManager, kind: str) -> None:
    calls: list[int] = []

    def charge() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise OSError("not yet")
        return "done"

    async def charge_later() -> str:
        return charge()

    def plain(context: RunContext) -> str:
        return context.once("key", charge)

    async def coroutine(context: RunContext) -> str:
        return await context.once("key", charge_later)

    jobs.add_job("pay", plain if kind == "plain" else coroutine, retry=Retry(max_attempts=5, delays=[0.01]))
    jobs.start()
    assert (ended(jobs, "pay").output, ended(jobs, "pay").output, len(calls)) == ("done", "done", 3)


def test_a_second_run_at_once_is_told_which_one_is_at_it(jobs: JobManager) -> None:
    """Fails if both do it, or if the second waits without an end."""
    gate, inside = threading.Event(), threading.Event()

    def charge() -> str:
        inside.set()
        gate.wait(20)
        return "done"

    @jobs.job("pay", overlap="allow")
    def pay(context: RunContext) -> str:
        try:
            return context.once("key", charge)
        except OnceConflictError as error:
            return f"{error.key} {error.run_id}"

    jobs.start()
    first = jobs.trigger_job("pay")
    inside.wait(20)
    assert ended(jobs, "pay").output == f"key {first.id}"
    gate.set()
    assert jobs.wait(first.id).output == "done"
    assert ended(jobs, "pay").output == "done"


def test_inside_itself_it_is_a_conflict_and_no_deadlock(jobs: JobManager) -> None:
    @jobs.job("pay")
    def pay(context: RunContext) -> str:
        return context.once("key", lambda: context.once("key", lambda: "inner"))

    jobs.start()
    run = ended(jobs, "pay")
    assert run.error is not None
    assert run.error.type == "OnceConflictError"
    assert "this run itself" in run.error.message


def test_what_a_dead_process_began_is_done_again(tmp_path: Path) -> None:
    """Fails if a key stays taken by an attempt that no longer runs."""
    clock = FakeClock(NOON)
    url = f"sqlite:///{tmp_path}/jobs.db"
    jobs = JobManager(Settings(database_url=url, backend="local"), clock=clock)
    calls: list[str] = []
    jobs.add_job("pay", lambda context: context.once("key", lambda: calls.append("x")), overlap="allow")
    jobs.start()
    run = jobs.trigger_job("pay", delay=3600)
    # As an attempt would have had its turn whose process died.
    assert jobs.store.once.begin(run, "key").state == "ours"
    clock.advance(timedelta(hours=1))
    assert jobs.run(run.id).status is RunStatus.SUCCEEDED
    assert calls == ["x"]
    jobs.stop()
    jobs.store.close()


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({1, 2}, "not JSON serializable"),
        ("x" * 70_000, "more than 65,536"),
        (float("nan"), "not JSON compliant"),
        ("\0", "which no store can keep"),
    ],
)
def test_a_result_that_cannot_be_kept_fails_the_run_and_is_not_done_again(
    jobs: JobManager, value: Any, says: str
) -> None:
    """Fails if the effect is repeated because of its result."""
    calls: list[int] = []

    def charge() -> Any:
        calls.append(1)
        return value

    jobs.add_job(
        "pay", lambda context: context.once("key", charge), retry=Retry(max_attempts=2, delays=[0.01])
    )
    jobs.start()
    run = ended(jobs, "pay")
    assert len(calls) == 1
    [first] = jobs.store.history.attempts(run.id)
    assert first.error is not None
    assert says in first.error.message
    assert (run.status, run.output) == (RunStatus.SUCCEEDED, None)


@pytest.mark.parametrize(
    ("key", "says"),
    [("", "once=''"), (None, "once=None"), ("k" * 501, "1 to 500"), ("\0", "no store can keep")],
)
def test_a_key_that_cannot_be_meant_is_refused(jobs: JobManager, key: Any, says: str) -> None:
    jobs.add_job("pay", lambda context: context.once(key, lambda: 1))
    jobs.start()
    run = ended(jobs, "pay")
    assert run.error is not None
    assert says in run.error.message


def test_a_coroutine_that_nobody_awaits_is_refused(jobs: JobManager) -> None:
    async def charge() -> int:
        return 1

    def pay(context: RunContext) -> Any:
        pending = charge()
        try:
            return context.once("key", lambda: pending)
        finally:
            pending.close()

    jobs.add_job("pay", pay)
    jobs.start()
    run = ended(jobs, "pay")
    assert run.error is not None
    assert "Pass the coroutine function itself" in run.error.message


def test_an_outage_after_it_was_done_is_waited_out(jobs: JobManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a moment without the store has the effect repeated."""
    calls: list[int] = []
    finish, left = jobs.store.once.finish, [1, 1]

    def away(*what: Any) -> bool:
        if left:
            left.pop()
            raise StoreUnavailableError("away")
        return finish(*what)

    monkeypatch.setattr(jobs.store.once, "finish", away)
    jobs.add_job("pay", lambda context: context.once("key", lambda: calls.append(1)))
    jobs.start()
    assert [ended(jobs, "pay").status for _ in range(2)] == [RunStatus.SUCCEEDED] * 2
    assert calls == [1]


def test_a_handler_without_it_asks_the_store_nothing(
    jobs: JobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    for name in ("begin", "finish", "give_up"):
        monkeypatch.setattr(jobs.store.once, name, never)
    jobs.add_job("plain", lambda: 1)
    jobs.start()
    assert ended(jobs, "plain").output == 1
