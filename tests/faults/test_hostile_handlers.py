"""Handlers that do their worst (F17-F22): their runs end on record, and other jobs go on."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.faults.conftest import effects, until
from tests.faults.hostile.driver import faults_of, one_process, run_programme
from tests.faults.hostile.handlers import CASES
from tests.faults.hostile.programme import MODES, cases_of, is_well

from jobmanager import JobManager, Run, RunContext, RunStatus
from jobmanager.execution.opening import OpenRequest

MakeManager = Callable[..., JobManager]


# What is tried with every change, where all of them would take a minute or need a server.
SAMPLE = {
    "plain-error", "text-no-store-can-keep", "sys-exit", "cancelled-error", "cancel-run-with-odd-text", "returns-a-text-of-10-mb",
    "returns-a-deep-nest", "returns-text-no-store-can-keep", "returns-a-huge-number", "returns-a-generator", "progress-beyond-every-number",
    "lines-no-store-can-keep", "computes-for-ever", "stops-itself", "aborts", "terminates-itself", "cancels-itself", "awaits-for-ever",
}  # fmt: skip


def trouble(mode: str, url: str, folder: Path, names: set[str]) -> dict[str, list[str]]:
    """What is wrong with each of the cases that is not as it should be."""
    said = run_programme(mode, url, folder, sorted(names))
    stop = said.pop("stop", None)
    assert said.keys() == names
    found = {name: wrong for name, line in said.items() if (wrong := faults_of(CASES[name], line))}
    assert found or (stop is not None and stop["stopped"] < 6), stop
    return found


def names_of(mode: str) -> set[str]:
    return {case.name for case in cases_of(mode)}


@pytest.mark.parametrize(
    "mode", ["thread", *(pytest.param(mode, marks=pytest.mark.faults) for mode in ("coroutine", "isolated"))]
)
def test_whatever_a_handler_does_its_run_is_recorded_and_the_next_one_runs(mode: str, tmp_path: Path) -> None:
    """F17, F22, L2, L12, L13. Fails if an attempt has an exit that leaves its run running or keeps its slot."""
    assert not trouble(mode, f"sqlite:///{tmp_path}/jobs.db", tmp_path, names_of(mode))


@pytest.mark.servers
@pytest.mark.faults
@pytest.mark.parametrize("mode", MODES)
def test_the_same_on_postgresql(mode: str, postgres_url: str, tmp_path: Path) -> None:
    """Fails if its driver or jsonb refuses what a handler left behind."""
    assert not trouble(mode, postgres_url, tmp_path, names_of(mode))


@pytest.mark.parametrize("mode", ["coroutine", "isolated"])
def test_a_sample_of_them_in_the_other_modes(mode: str, tmp_path: Path) -> None:
    assert not trouble(mode, f"sqlite:///{tmp_path}/jobs.db", tmp_path, names_of(mode) & SAMPLE)


@pytest.mark.servers
@pytest.mark.parametrize("mode", ["thread", "coroutine"])
def test_a_sample_of_them_on_postgresql(mode: str, postgres_url: str, tmp_path: Path) -> None:
    assert not trouble(mode, postgres_url, tmp_path, names_of(mode) & SAMPLE)


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 100
    assert all(len(names_of(mode)) >= 60 for mode in MODES)


@pytest.mark.faults
@pytest.mark.parametrize("mode", ["thread", "coroutine"])
def test_after_ten_thousand_hostile_runs_no_thread_and_no_slot_is_lost(mode: str, tmp_path: Path) -> None:
    """Fails if one exit in ten thousand forgets a slot or a thread."""
    names = [case.name for case in cases_of(mode) if case.is_quick]
    lines = one_process(mode, f"sqlite:///{tmp_path}/jobs.db", tmp_path / "report", names, runs=10_000)

    assert lines, (tmp_path / "output").read_text()
    assert lines[-1]["runs"] >= 10_000
    assert lines[-1]["unended"] == 0
    assert is_well({"shape": "", **lines[-1]}), lines[-1]


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
    lines = jobs.store.history.lines(run.id)

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
        until(lambda: any(line.text == "a line" for _, _, line in jobs.store.history.lines(run.id)))
    finally:
        go.set()
    assert jobs.wait(run.id).status is RunStatus.SUCCEEDED
    assert jobs.wait(bad_run.id).status is RunStatus.SUCCEEDED
