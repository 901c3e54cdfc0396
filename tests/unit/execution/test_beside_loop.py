"""Coroutines and the loop that they share with an application: neither waits for what the other has put on threads."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobmanager import JobManager, Settings
from jobmanager.beside_loop import DaemonThreads, beside_loop
from jobmanager.context import AsyncRunContext


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobManager]:
    jobs = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db", backend="local"))
    yield jobs
    jobs.store.close()


async def test_what_is_called_sees_the_context_and_its_error_comes_back() -> None:
    def act(text: str, *, more: str) -> str:
        if not more:
            raise LookupError(text)
        return f"{text} {more} on {threading.current_thread().name}"

    assert (await beside_loop(act, "one", more="two")).startswith("one two on jobmanager-beside-loop")
    with pytest.raises(LookupError, match="one"):
        await beside_loop(act, "one", more="")


def test_no_more_threads_than_that_and_each_call_once() -> None:
    threads = DaemonThreads(3, "few")
    meet = threading.Barrier(3)
    names = [call.result(30) for call in [threads.submit(_meeting, meet) for _ in range(9)]]
    assert len(set(names)) == 3
    assert [threads.submit(int, "7").result(30), threads.submit(int, "8", base=9).result(30)] == [7, 8]
    assert len({thread.name for thread in threading.enumerate()} & set(names)) == 3


def test_threads_end_when_nobody_can_call_them_any_more() -> None:
    """Fails if each event loop that comes and goes, as in a suite of tests, leaves threads behind."""
    threads = DaemonThreads(3, "left")
    meet = threading.Barrier(3)
    names = {call.result(30) for call in [threads.submit(_meeting, meet) for _ in range(3)]}
    left = [thread for thread in threading.enumerate() if thread.name in names]
    del threads
    gc.collect()
    for thread in left:
        thread.join(30)
    assert not any(thread.is_alive() for thread in left)


def _meeting(meet: threading.Barrier) -> str:
    meet.wait(30)
    return threading.current_thread().name


async def test_a_flow_goes_on_while_the_application_fills_its_executor(jobs: JobManager) -> None:
    """Fails if the steps of a coroutine wait for threads that functions of hours may hold."""

    @jobs.job("flow")
    async def flow(context: AsyncRunContext) -> list[str]:
        async def one() -> str:
            return "one"

        first = await context.step("first", one)
        await context.now()
        return [first, await context.once("second", one)]

    busy = threading.Event()
    async with jobs.lifespan():
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        blocked = asyncio.ensure_future(asyncio.to_thread(busy.wait, 60))
        try:
            run = await beside_loop(jobs.trigger_job, "flow")
            ended = await beside_loop(jobs.wait, run.id, 30)
        finally:
            busy.set()
            await blocked
    assert ended.output == ["one", "one"]


async def test_runs_that_wait_for_the_lease_hold_no_thread_of_the_application(
    jobs: JobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if an outage of the store takes the application's look-ups of host names along."""
    waiting = threading.Event()

    @jobs.job("work", overlap="allow")
    async def work() -> str:
        return "done"

    async with jobs.lifespan():
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        heartbeat = jobs._parts.assembly.heartbeat
        with monkeypatch.context() as lost:

            def not_ok() -> bool:
                waiting.set()
                return False

            lost.setattr(heartbeat, "ok", not_ok)
            runs = [await beside_loop(jobs.trigger_job, "work") for _ in range(3)]
            assert await beside_loop(waiting.wait, 30)
            async with asyncio.timeout(30):
                assert await asyncio.to_thread(lambda: "a host") == "a host"
        for run in runs:
            assert (await jobs.aio.wait(run.id)).output == "done"
