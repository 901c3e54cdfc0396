"""Nothing stops for ever: after each trouble the next handler runs, and every slot and every thread is where it belongs."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from tests.faults.conftest import until

from jobmanager import JobManager, Retry, RunContext, RunStatus
from jobmanager.errors import WaitTimeoutError
from jobmanager.execution import supervisor
from jobmanager.execution.worker_pool import WorkerPool

MakeManager = Callable[..., JobManager]


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time-outs, stuck loops and runs that cannot begin are acted on after a fraction of the usual patience."""
    monkeypatch.setattr(supervisor, "TIMEOUT_GRACE", timedelta(seconds=0.3))
    monkeypatch.setattr(supervisor, "LOOK_EVERY", timedelta(seconds=0.1))
    monkeypatch.setattr(supervisor, "LOOP_GIVEN_UP_AFTER", 1.5)


def assert_whole(jobs: JobManager) -> None:
    """Every slot is back, nothing is in hand, and no thread beyond the pool's size works."""
    assembly = jobs._assembly
    until(lambda: assembly.pool.in_flight == 0 and len(assembly.attempts) == 0)
    assert assembly.pool.threads.in_flight == assembly.pool.coroutines.in_flight == 0
    until(lambda: assembly.pool.abandoned == 0)
    assert assembly.pool._working <= assembly.pool.threads.size


@pytest.mark.usefixtures("soon")
def test_handlers_that_ignored_their_timeout_give_way_to_others(
    each_store_url: str, make_manager: MakeManager
) -> None:
    """All workers hang, then are well again. Fails if what was taken ahead keeps its slots, or no thread is replaced."""
    jobs = make_manager(each_store_url, workers=2)
    down, never = threading.Event(), threading.Event()
    done: list[str] = []

    def call(context: RunContext) -> None:
        if down.is_set():
            never.wait(100)
        done.append(context.job.id)

    for number in range(8):
        jobs.add_job(f"poll-{number}", call, every=1, timeout=0.5)
    jobs.start()
    until(lambda: len(done) > 16)
    down.set()
    until(lambda: jobs._assembly.pool.abandoned >= 2)
    down.clear()
    before = len(done)
    until(lambda: len(set(done[before:])) == 8)
    never.set()
    jobs.stop(drain=5)
    assert_whole(jobs)


@pytest.mark.usefixtures("soon")
def test_a_thread_that_is_let_go_is_replaced_at_once_and_ends_when_it_comes_back(
    make_manager: MakeManager,
) -> None:
    """One worker, hanging. Fails if the next run waits for the thread that hangs."""
    jobs = make_manager("memory://", workers=1)
    never = threading.Event()
    jobs.add_job("hangs", lambda: never.wait(100), timeout=0.2)
    jobs.add_job("next", lambda: "ran")
    jobs.start()
    hanging = jobs.trigger_job("hangs")
    waiting = jobs.trigger_job("next")

    assert jobs.wait(waiting.id).output == "ran"
    after = jobs.run(hanging.id)
    assert after.error
    assert after.error.kind == "timeout"
    assert jobs._assembly.pool.abandoned == 1
    never.set()
    assert_whole(jobs)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("asked", ["cancel", "a newcomer"])
def test_a_timeout_holds_whatever_was_asked_before(make_manager: MakeManager, asked: str) -> None:
    """A hung handler that is asked to end first. Fails if the first cause is the only one: it would run until it returns."""
    jobs = make_manager("memory://", workers=2)
    never, entered = threading.Event(), threading.Event()

    def hangs() -> None:
        entered.set()
        never.wait(100)

    jobs.add_job("hangs", hangs, timeout=0.5, overlap="cancel_running", retry=Retry(max_attempts=3))
    jobs.start()
    run = jobs.trigger_job("hangs")
    assert entered.wait(60)
    if asked == "cancel":
        jobs.cancel(run.id)
    else:
        jobs.trigger_job("hangs")

    after = jobs.wait(run.id)
    assert (after.status, after.error and after.error.kind) == (RunStatus.FAILED, "timeout")
    assert after.attempt == 1
    never.set()


def test_idle_coroutines_take_no_place_of_a_thread(make_manager: MakeManager) -> None:
    """More sleeping coroutines than workers. Fails if both share one bound: the plain job would never run."""
    jobs = make_manager("memory://", workers=2, drain_seconds=5)
    ran: list[int] = []

    async def listen(context: RunContext) -> None:
        while not context.cancelled:  # noqa: ASYNC110 - as handlers do
            await asyncio.sleep(0.02)

    for number in range(6):
        jobs.add_job(f"subscriber-{number}", listen)
    jobs.add_job("plain", lambda: ran.append(1), every=1)
    jobs.start()
    for number in range(6):
        jobs.trigger_job(f"subscriber-{number}")
    until(lambda: len(ran) >= 2)

    assert jobs._assembly.pool.coroutines.in_flight == 6
    jobs.stop(drain=5)
    assert_whole(jobs)


def test_busy_threads_keep_no_pending_coroutine_waiting(
    each_store_url: str, make_manager: MakeManager
) -> None:
    """Every thread is taken, and a coroutine's run waits in the store. Fails if claims ask for threads alone."""
    jobs = make_manager(each_store_url, workers=1)
    never = threading.Event()

    async def quick() -> str:
        return "ran"

    jobs.add_job("busy", lambda: never.wait(100))
    jobs.add_job("quick", quick)
    jobs.start()
    jobs.trigger_job("busy")
    until(lambda: jobs._assembly.pool.threads.in_flight == 1)
    run = jobs.trigger_job("quick", delay=0.2)

    assert jobs.wait(run.id).output == "ran"
    never.set()


# ---------------------------------------------------------------- handlers that wait for other runs


class Executing:
    """A block in which a handler executes and does not wait; `most` is how many were in one at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = self.most = 0

    def __enter__(self) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(0.002)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._now -= 1


@pytest.mark.parametrize("workers", [1, 2])
def test_handlers_that_wait_for_runs_they_started_never_starve(
    each_store_url: str, make_manager: MakeManager, workers: int
) -> None:
    """All workers wait, two deep. Fails if a waiting handler keeps its worker, or if more than `workers` execute meanwhile."""
    jobs, executing = make_manager(each_store_url, workers=workers), Executing()

    def started_and_awaited(job_id: str) -> object:
        with executing:
            run = jobs.trigger_job(job_id)
        output = jobs.wait(run.id, timeout=50).output
        with executing:
            return output

    def leaf() -> str:
        with executing:
            return "leaf"

    jobs.add_job("leaf", leaf, overlap="allow")
    jobs.add_job("branch", lambda: started_and_awaited("leaf"), overlap="allow")
    jobs.add_job("root", lambda: started_and_awaited("branch"), overlap="allow")
    jobs.start()
    runs = [jobs.trigger_job("root") for _ in range(3 * workers)]

    assert [jobs.wait(run.id, timeout=60).output for run in runs] == ["leaf"] * len(runs)
    assert executing.most <= workers
    assert_whole(jobs)


@pytest.mark.servers
def test_a_handler_that_waits_lends_its_worker_on_pg_cron_too(
    pg_cron_url: str, make_manager: MakeManager
) -> None:
    """Fails if the run has to wait until the database calls for it: with one worker that waits, no call could begin it."""
    jobs = make_manager(pg_cron_url, workers=1, backend="pg_cron", pg_cron_transport="notify")
    jobs.add_job("child", lambda: "done")
    jobs.add_job("parent", lambda: jobs.wait(jobs.trigger_job("child").id, timeout=50).output)
    jobs.start()

    assert jobs.wait(jobs.trigger_job("parent").id, timeout=60).output == "done"
    assert_whole(jobs)


def test_a_handler_lends_its_worker_to_what_stands_before_the_run_it_waits_for(
    make_manager: MakeManager,
) -> None:
    """One worker; the awaited run is the last of a line, and each fails once. Fails if only the run itself gets the worker."""
    jobs = make_manager("memory://", workers=1)

    def child(context: RunContext) -> None:
        if context.attempt == 1:
            raise ValueError("again")

    def parent() -> str:
        runs = [jobs.trigger_job("child") for _ in range(3)]
        return str(jobs.wait(runs[-1].id, timeout=50).status)

    jobs.add_job("child", child, overlap="queue_all", retry=Retry(max_attempts=2, delays=[0.1]))
    jobs.add_job("parent", parent)
    jobs.start()

    assert jobs.wait(jobs.trigger_job("parent").id, timeout=60).output == "succeeded"
    assert_whole(jobs)


def test_after_a_wait_in_vain_both_runs_go_on_and_both_are_counted(make_manager: MakeManager) -> None:
    """Fails if the run that outlives the wait has no slot, or if the handler that goes on has none."""
    jobs = make_manager("memory://", workers=1)
    waited, end = threading.Event(), threading.Event()

    def parent() -> None:
        run = jobs.trigger_job("child")
        with pytest.raises(WaitTimeoutError, match=r"is still running after 0\.5 s"):
            jobs.wait(run.id, timeout=0.5)
        waited.set()
        end.wait(50)

    jobs.add_job("child", lambda: end.wait(50))
    jobs.add_job("parent", parent)
    jobs.start()
    run = jobs.trigger_job("parent")
    assert waited.wait(50)

    assert (jobs._assembly.pool.threads.in_flight, jobs._assembly.pool.threads.lent) == (2, 0)
    end.set()
    assert jobs.wait(run.id, timeout=50).status is RunStatus.SUCCEEDED
    assert_whole(jobs)


@pytest.mark.usefixtures("soon")
def test_a_handler_that_is_let_go_while_it_waits_leaves_its_slot_to_the_run_in_its_place(
    make_manager: MakeManager,
) -> None:
    """Fails if the slot of a run whose starter has ended is free for another one meanwhile, or stays taken for ever."""
    jobs = make_manager("memory://", workers=1)
    began, end = threading.Event(), threading.Event()

    def child() -> None:
        began.set()
        end.wait(50)

    jobs.add_job("child", child)
    jobs.add_job("parent", lambda: jobs.wait(jobs.trigger_job("child").id, timeout=50), timeout=1)
    jobs.add_job("plain", lambda: "ran")
    jobs.start()
    run = jobs.trigger_job("parent")
    assert began.wait(50)
    until(lambda: jobs.run(run.id).status is RunStatus.FAILED)

    assert (jobs._assembly.pool.threads.in_flight, jobs._assembly.pool.threads.lent) == (1, 0)
    end.set()
    assert jobs.wait(jobs.trigger_job("plain").id, timeout=50).output == "ran"
    assert_whole(jobs)


def test_coroutines_that_wait_hold_no_thread_and_lend_their_places(make_manager: MakeManager) -> None:
    """More waiting coroutines than the loop has threads, and no place left. Fails if they keep either of them."""
    jobs = make_manager("memory://", workers=1, coroutines=50)

    async def leaf() -> str:
        return "leaf"

    async def branch() -> object:
        run = await jobs.aio.trigger_job("leaf")
        return (await jobs.aio.wait(run.id, timeout=50)).output

    jobs.add_job("leaf", leaf, overlap="allow")
    jobs.add_job("branch", branch, overlap="allow")
    jobs.start()
    runs = [jobs.trigger_job("branch") for _ in range(60)]

    assert [jobs.wait(run.id, timeout=60).output for run in runs] == ["leaf"] * len(runs)
    assert_whole(jobs)


@pytest.mark.usefixtures("soon")
def test_a_blocked_event_loop_is_replaced(make_manager: MakeManager) -> None:
    """A coroutine that blocks the loop. Fails if the coroutines after it wait for as long as it does."""
    jobs = make_manager("memory://", workers=2)
    never = threading.Event()

    async def blocks() -> None:
        never.wait(100)

    async def quick() -> str:
        return "ran"

    jobs.add_job("blocks", blocks)
    jobs.add_job("quick", quick)
    jobs.start()
    jobs.trigger_job("blocks")
    until(lambda: len(jobs._assembly.attempts.begun()) == 1)
    run = jobs.trigger_job("quick")

    assert jobs.wait(run.id).output == "ran"
    never.set()


def test_a_handler_that_stops_or_cancels_its_loop_harms_no_other(make_manager: MakeManager) -> None:
    """Fails if the loop's thread ends with `loop.stop()`, or a task that was cancelled before it began keeps its slot."""
    jobs = make_manager("memory://", workers=2)

    async def stops() -> None:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0)

    async def cancels() -> None:
        for task in asyncio.all_tasks():
            task.cancel()
        await asyncio.sleep(1)

    async def quick() -> str:
        return "ran"

    jobs.add_job("stops", stops)
    jobs.add_job("cancels", cancels)
    jobs.add_job("quick", quick)
    jobs.start()
    for name in ("stops", "cancels", "stops"):
        assert jobs.wait(jobs.trigger_job(name).id).status.closed
    assert jobs.wait(jobs.trigger_job("quick").id).output == "ran"
    assert_whole(jobs)


@pytest.mark.usefixtures("soon")
def test_what_was_taken_ahead_and_cannot_begin_is_pending_again(
    each_store_url: str, make_manager: MakeManager
) -> None:
    """Quick runs, then one that hangs with many behind it. Fails if they stay with the process that cannot begin them."""
    jobs, other = make_manager(each_store_url, workers=1), make_manager(each_store_url, workers=1)
    never = threading.Event()
    attempts: list[int] = []
    for manager in (jobs, other):
        manager.add_job("quick", lambda context: attempts.append(context.attempt), overlap="allow")
        manager.add_job("hangs", lambda: never.wait(100))
    jobs.start()
    jobs.wait(jobs.trigger_job("quick").id)  # so quick that many are taken ahead
    jobs.trigger_job("hangs")
    until(lambda: len(jobs._assembly.attempts.begun()) == 1)
    runs = [jobs.trigger_job("quick") for _ in range(20)]
    other.start()

    for run in runs:
        after = other.wait(run.id, timeout=60)
        assert (after.status, after.attempt) == (RunStatus.SUCCEEDED, 1)
    assert set(attempts) == {1}  # what merely waited has used no attempt
    never.set()


@pytest.mark.usefixtures("soon")
def test_what_was_taken_ahead_is_pending_after_a_stop_though_the_background_thread_is_busy(
    each_store_url: str, make_manager: MakeManager
) -> None:
    """As while it waits for a lock in the store. Fails if the runs stay with the process that ended, and count as crashed."""
    jobs = make_manager(each_store_url, workers=1)
    never, free = threading.Event(), threading.Event()
    jobs.add_job("quick", lambda: None, overlap="allow")
    jobs.add_job("hangs", lambda: never.wait(100))
    jobs.start()
    jobs.wait(jobs.trigger_job("quick").id)
    jobs.trigger_job("hangs")
    until(lambda: len(jobs._assembly.attempts.begun()) == 1)
    jobs._assembly.background.run_soon(lambda: free.wait(100))
    runs = [jobs.trigger_job("quick") for _ in range(20)]
    taken = [run for run in runs if run.status is RunStatus.RUNNING]
    assert taken
    until(lambda: jobs._assembly.attempts.waiting() == [])
    jobs.stop(0.1)

    assert {jobs.run(run.id).status for run in runs} == {RunStatus.PENDING}
    assert {jobs.run(run.id).reason for run in taken} == {"returned"}
    free.set()
    never.set()


@pytest.mark.servers
def test_an_end_that_waits_for_a_locked_store_is_one_end(
    postgres_url: str, make_manager: MakeManager, caplog: pytest.LogCaptureFixture
) -> None:
    """The table is locked while a handler ends. Fails if the sweep takes the run for forgotten: observers hear of several ends."""
    ends: list[tuple[str, str | None]] = []

    class Seen:
        def started(self, context: RunContext) -> None: ...

        def ended(self, ending: Any, status: RunStatus | None) -> None:
            ends.append((str(status), ending.error and ending.error.kind))

    from jobmanager.manager import sweep

    jobs = make_manager(postgres_url)
    jobs._parts._observers = [Seen()]
    begun, go = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go.wait(100)

    jobs.add_job("work", work)
    jobs.start()
    run = jobs.trigger_job("work")
    assert begun.wait(60)
    sweeps: list[float] = []
    round_, patience = jobs._assembly.sweep.sweep, sweep.FORGOTTEN_AFTER
    sweep.FORGOTTEN_AFTER = timedelta(0)
    jobs._assembly.sweep.sweep = lambda: (sweeps.append(time.monotonic()), round_())[1]  # type: ignore[method-assign]
    try:
        with psycopg.connect(postgres_url) as connection:
            connection.execute(
                "LOCK TABLE jobmanager.runs IN SHARE MODE"
            )  # as CREATE INDEX takes: reads go on
            go.set()
            for _ in range(3):
                jobs._assembly.background.run_task_soon("sweep")
                seen = len(sweeps)
                until(lambda seen=seen: len(sweeps) > seen)
        assert jobs.wait(run.id).status is RunStatus.SUCCEEDED
        until(lambda: ends)
    finally:
        sweep.FORGOTTEN_AFTER = patience

    assert ends == [("succeeded", None)]
    assert "never started here" not in caplog.text


@contextmanager
def switching_threads_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def test_no_call_waits_while_a_thread_may_be_started_for_it() -> None:
    """Calls that all have to be at work at once. Fails if a thread that has just got a call still counts as idle."""
    pool = WorkerPool(4, threaded=True)
    with switching_threads_often():
        for _ in range(500):
            together = threading.Barrier(5)
            for _ in range(4):
                pool.submit(lambda barrier, _: barrier.wait(60), [together])
            together.wait(60)
    pool.stop()


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, RuntimeError])
def test_no_error_ends_a_worker(error: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    """Fails if anything that a call raises ends its thread: after as many of them as there are workers nothing runs."""
    caplog.set_level(logging.CRITICAL, logger="jobmanager.execution.worker_pool")
    pool = WorkerPool(2, threaded=True)
    ran = threading.Event()

    def fails(*_: object) -> None:
        raise error("from a call")

    pool.submit(fails, range(10))
    pool.submit(lambda event, _: event.set(), [ran])
    assert ran.wait(60)
    assert pool._working <= 2
    pool.stop()


def test_an_error_in_the_policies_of_a_job_ends_its_run(make_manager: MakeManager) -> None:
    """Code of ours raises on the way of an attempt. Fails if the worker only logs it: the run would stay running."""
    jobs = make_manager("memory://", workers=1)

    class Bad(Retry):
        def allows(self, error: BaseException, attempt: int) -> bool:
            raise TypeError("isinstance() arg 2 must be a type")

    jobs.add_job("bad", lambda: 1 / 0, retry=Bad(max_attempts=3))
    jobs.start()
    for _ in range(3):
        run = jobs.wait(jobs.trigger_job("bad").id)
        assert (run.status, run.error and run.error.kind) == (RunStatus.FAILED, "internal")
    assert_whole(jobs)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("how", ["thread", "coroutine"])
@pytest.mark.parametrize("leaves", ["by returning", "by raising"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_that_comes_back_out_of_its_handler_is_ended(
    make_manager: MakeManager, tmp_path: Any, how: str, leaves: str
) -> None:
    """A handler forks and forgets `os._exit`. Fails if the child's return becomes the outcome, or the child lives on."""
    jobs = make_manager(f"sqlite:///{tmp_path}/jobs.db")
    beside = JobManager(store=jobs.store)  # each fork is announced to a shared store twice

    def forks() -> dict[str, int]:
        child = os.fork()
        if child == 0:
            # A child that hangs says where, and ends with a code that the test refuses.
            faulthandler.dump_traceback_later(20, exit=True)
            if leaves == "by raising":
                raise RuntimeError("in the child")
            return {"child": 0}
        return {"child": child, "code": os.waitpid(child, 0)[1]}

    async def forks_on_the_loop() -> dict[str, int]:
        return forks()

    jobs.add_job("forks", forks if how == "thread" else forks_on_the_loop)
    jobs.start()
    run = jobs.wait(jobs.trigger_job("forks").id, timeout=60)

    assert run.status is RunStatus.SUCCEEDED
    assert run.output["child"] > 0
    assert run.output["code"] == 0
    assert beside.run(run.id).status is RunStatus.SUCCEEDED
    assert_whole(jobs)
