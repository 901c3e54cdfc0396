"""Handlers that do their worst (F17-F22): their runs end on record, and other jobs go on."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.faults.conftest import effects, shape, until

from jobmanager import JobManager, Run, RunContext, RunStatus
from jobmanager.execution.opening import OpenRequest

MakeManager = Callable[..., JobManager]


class NoTextError(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class NoRepr:
    def __repr__(self) -> str:
        raise ValueError("no repr")


class NoItems(dict[str, int]):
    def items(self) -> Any:
        raise RuntimeError("no items")


def around() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def nested() -> list[Any]:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    return deep


RAISED = [
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    BaseException("base"),
    StopIteration(1),
    asyncio.CancelledError(),
    NoTextError(),
    RuntimeError("x" * 10_000_000),
    RuntimeError("\ud800 \x00"),
]
RETURNED = [
    NoRepr(),
    NoItems(a=1),
    around(),
    nested(),
    10**5000,
    float("nan"),
    {(1, 2): 3},
    "\ud800",
    "x" * 10_000_000,
]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """What became of every hostile handler, as a function and as a coroutine, all in one process."""
    from jobmanager import Settings

    jobs = JobManager(
        Settings(database_url=f"sqlite:///{tmp_path_factory.mktemp('hostile')}/jobs.db", workers=3)
    )

    def raising(error: BaseException) -> Callable[[], None]:
        def handler() -> None:
            raise error

        return handler

    def raising_coroutine(error: BaseException) -> Callable[[], Any]:
        async def handler() -> None:
            raise error

        return handler

    for number, error in enumerate(RAISED):
        jobs.add_job(f"raised-{number}", raising(error))
        jobs.add_job(f"raised-async-{number}", raising_coroutine(error))
    for number, value in enumerate(RETURNED):
        jobs.add_job(f"returned-{number}", lambda value=value: value)
    jobs.add_job("after", lambda: "well")
    with jobs:
        # One after the other: some keep a core busy for a second, and a busy machine has none to spare.
        hostile = [job_id for job_id in jobs.registry.jobs if job_id != "after"]
        ended = {job_id: jobs.wait(jobs.trigger_job(job_id).id, timeout=60) for job_id in hostile}
        ended["after"] = jobs.wait(jobs.trigger_job("after").id, timeout=60)
        assert jobs._assembly.pool.in_flight == 0
    yield ended
    jobs.store.close()


@pytest.mark.parametrize("how", ["raised", "raised-async"])
@pytest.mark.parametrize("number", range(len(RAISED)), ids=[type(error).__name__ for error in RAISED])
def test_whatever_a_handler_raises_is_a_failed_run(ended: dict[str, Run], number: int, how: str) -> None:
    """F17. Fails if the executor catches Exception instead of BaseException."""
    run = ended[f"{how}-{number}"]
    assert shape(run) == ("failed", "exception")
    assert run.error is not None
    # Python itself makes a RuntimeError of StopIteration in a coroutine.
    assert run.error.type in (type(RAISED[number]).__name__, "RuntimeError" if number == 4 else "")
    assert len(run.error.message) < 2100


@pytest.mark.parametrize("number", range(len(RETURNED)), ids=[type(value).__name__ for value in RETURNED])
def test_whatever_a_handler_returns_is_recorded_or_said_to_be_no_json(
    ended: dict[str, Run], number: int
) -> None:
    """F22. Fails if the recorder trusts the output: the run would stay running, its place taken."""
    run = ended[f"returned-{number}"]
    assert run.status is RunStatus.SUCCEEDED
    assert len(repr(run.output)) < 70_000


def test_after_all_of_them_the_process_still_executes(ended: dict[str, Run]) -> None:
    assert ended["after"].output == "well"


@pytest.mark.faults
def test_a_million_log_lines_are_cut_and_the_run_succeeds(store_url: str, make_manager: MakeManager) -> None:
    """F22. Fails without the cap: the lines would fill the store."""
    jobs = make_manager(store_url)

    def noisy(context: RunContext) -> None:
        for number in range(100_000):
            context.log.info("line %d %s", number, "x" * 100)

    jobs.add_job("noisy", noisy)
    jobs.start()
    run = jobs.wait(jobs.trigger_job("noisy").id, timeout=200)
    lines = jobs.store.lines(run.id)

    assert run.status is RunStatus.SUCCEEDED
    assert len(lines) <= 1001
    assert sum(len(line.text) for _, _, line in lines) <= 260 * 1024


HANGING = """
import threading
forever = threading.Event()

for number in range(4):
    @jobs.job(f"stuck-{number}", timeout=0.3)
    def stuck():
        forever.wait()

@jobs.job("second", every=1, overlap="allow")
def second(context):
    note("second", int(context.scheduled_for.timestamp()))
"""


def test_handlers_that_never_return_fill_the_pool_only_until_their_timeout(
    store_url: str, start_process: Callable[..., Any], tmp_path: Path
) -> None:
    """F18. Fails if a thread that ignores its time-out keeps its place in the pool."""
    process = start_process(store_url, HANGING, workers=4, timeout_grace=0.5)
    ids = [process(f"jobs.trigger_job('stuck-{number}').id") for number in range(4)]
    for run_id in ids:
        until(lambda run_id=run_id: process(f"str(jobs.run({run_id!r}).status)") == "failed")  # type: ignore[misc]
    begin = int(time.time()) + 1
    ticks = set(range(begin, begin + 3))
    until(lambda: ticks <= {int(line[1]) for line in effects(tmp_path)})

    assert process(f"jobs.run({ids[0]!r}).error.kind") == "timeout"


BLOCKED = """
@jobs.job("blocking")
async def blocking():
    note("blocked")
    time.sleep(3)

@jobs.job("coroutine", every=1)
async def coroutine(context):
    note("coroutine", int(context.scheduled_for.timestamp()))

@jobs.job("thread", every=1, overlap="allow")
def thread(context):
    note("thread", int(context.scheduled_for.timestamp()))
"""


@pytest.mark.faults
def test_a_coroutine_that_blocks_the_loop_holds_up_coroutines_only_and_no_tick_is_lost(
    store_url: str, start_process: Callable[..., Any], tmp_path: Path
) -> None:
    """F19. Fails if heartbeat, ticks or threads depend on the loop, or nobody says why coroutines wait; every tick has a row."""
    process = start_process(store_url, BLOCKED)
    until(lambda: effects(tmp_path))
    process("jobs.trigger_job('blocking').id")
    until(lambda: ["blocked"] in effects(tmp_path))
    begin = int(time.time()) + 1
    until(lambda: time.time() > begin + 4)
    until(lambda: {begin, begin + 1} <= {int(line[1]) for line in effects(tmp_path) if line[0] == "thread"})

    assert "the event loop has not turned for" in process.errors()
    for job in ("coroutine", "thread"):

        def rows(job: str = job) -> dict[int, str]:
            expression = (
                f"{{int(run.scheduled_for.timestamp()): str(run.status) for run in jobs.runs({job!r})}}"
            )
            found: dict[int, str] = process(expression)
            return found

        # The row of a skipped tick is written a moment after the one that was opened.
        until(lambda rows=rows: set(range(min(rows()), begin + 5)) <= rows().keys())  # type: ignore[misc]
        assert set(rows().values()) <= {"succeeded", "running", "skipped"}


def test_while_the_lease_is_in_doubt_the_applications_loop_goes_on(
    store_url: str, make_manager: MakeManager
) -> None:
    """A coroutine run that is held until the next accepted beat must not hold the loop that it waits on."""
    jobs = make_manager(store_url, lease_seconds=30)

    @jobs.job("held")
    async def held() -> str:
        return "ran"

    async def application() -> tuple[float, str]:
        async with jobs.lifespan():
            lease: Any = jobs._assembly.heartbeat
            beat, lease.beat = lease.beat, lambda: False
            lease._trusted_until = float("-inf")  # as after an outage: the next beat is seconds away
            run = await asyncio.to_thread(open_without_a_beat, jobs)
            slowest, last = 0.0, time.monotonic()
            for _ in range(50):
                await asyncio.sleep(0.01)
                slowest, last = max(slowest, time.monotonic() - last), time.monotonic()
            lease.beat = beat
            await asyncio.to_thread(lease.beat)
            return slowest, (await jobs.aio.wait(run.id, timeout=10)).output

    slowest, output = asyncio.run(application())

    assert output == "ran"
    assert slowest < 5


def open_without_a_beat(jobs: JobManager) -> Run:
    """Open a run as this process's own while the lease is not sure of itself."""
    jobs._assembly.runner.open([OpenRequest(jobs.registry.job("held"))])
    return until(lambda: jobs.runs("held"))[0]  # type: ignore[no-any-return]


def test_progress_and_lines_with_nul_bytes_do_not_stop_the_watch(
    store_url: str, make_manager: MakeManager
) -> None:
    """One run's bad text must not keep the other runs' time-outs, lines and progress from being looked after."""
    jobs = make_manager(store_url)
    go = threading.Event()

    def bad(context: RunContext) -> None:
        for number in itertools.count():
            context.progress(number, None, "\x00 \ud800")
            context.log.info("\x00 \ud800")
            if go.wait(0.05):
                return

    def good(context: RunContext) -> None:
        context.progress(1, 2, "half")
        context.log.info("a line")
        go.wait(100)

    jobs.add_job("a-bad", bad)
    jobs.add_job("good", good)
    jobs.start()
    bad_run, run = jobs.trigger_job("a-bad"), jobs.trigger_job("good")
    try:
        until(lambda: jobs.run(run.id).progress)
        until(lambda: any(line.text == "a line" for _, _, line in jobs.store.lines(run.id)))
    finally:
        go.set()
    assert jobs.wait(run.id).status is RunStatus.SUCCEEDED
    assert jobs.wait(bad_run.id).status is RunStatus.SUCCEEDED
