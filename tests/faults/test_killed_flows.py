"""kill -9 at any moment of a run of steps: what was kept is never done again, no child is missing or doubled, and every flow ends."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.faults.conftest import Process, effects, until
from tests.integration.celery_processes import Application
from tests.pg_net.loop import SECRET

from jobmanager import JobManager, Retry, Run, Settings

SEEDS = int(os.environ.get("JOBMANAGER_TEST_SEEDS", "3"))
FLOW = """
from datetime import timedelta
from jobmanager import Retry

def act(run_id, name, number=0):
    note("call", run_id, name)
    time.sleep(0.02)
    return number * 2

@jobs.job("child", retry=Retry(max_attempts=50, base=0.1))
def child(context, number):
    return context.step("double", act, context.run_id, "double", number)

@jobs.job("flow", overlap="allow", retry=Retry(max_attempts=50, base=0.1))
def flow(context):
    def step(name, number=0):
        result = context.step(name, act, context.run_id, name, number)
        note("kept", context.run_id, name)
        return result
    total = sum(step(f"first-{number}", number) for number in range(5))
    context.sleep("rest", seconds=0.3)
    total += sum(step(f"second-{number}", number) for number in range(5))
    total += sum(context.gather("children", "child", [{"number": number} for number in range(8)]))
    note("kept", context.run_id, "children")
    event = context.wait_for("go", key=context.run_id)
    return [total, event.data]
"""
TOTAL = 2 * (10 + 10 + 28)


FAULTS = [pytest.mark.slow, pytest.mark.servers, pytest.mark.faults]


class Flows:
    """Three flows, whose processes are killed six times meanwhile."""

    def __init__(self, seed: int, here: JobManager) -> None:
        self._chance = random.Random(seed)
        self._seed = seed
        self._here = here

    def end_although(self, run_ids: list[str], kill: Callable[[int], None], processes: int) -> None:
        """Kill one of so many processes after another; fails unless each flow ends and each child is there once."""
        for _ in range(6):
            time.sleep(self._chance.uniform(0.1, 1.0))  # the moment is the test
            kill(self._chance.randrange(processes))
        for run_id in run_ids:
            self._here.send_event("go", key=run_id, data=self._seed)
        ended = [until(lambda run_id=run_id: self._ended(run_id), 240) for run_id in run_ids]
        assert [(run.status, run.output) for run in ended] == [("succeeded", [TOTAL, self._seed])] * 3
        for run_id in run_ids:
            children = self._here.children(run_id)
            assert len(children) == 8
            assert {child.status for child in children} == {"succeeded"}

    def _ended(self, run_id: str) -> Run | None:
        run = self._here.run(run_id)
        return run if run.status.closed else None


def nothing_kept_was_done_again(lines: list[list[str]]) -> None:
    kept: set[tuple[str, str]] = set()
    calls: Counter[tuple[str, str]] = Counter()
    for word, run_id, name in lines:
        if word == "kept":
            kept.add((run_id, name))
        else:
            calls[run_id, name] += 1
            assert (run_id, name) not in kept, f"{name} was called although its result was kept"
    assert len(calls) == 3 * (10 + 8)


def killed_on(url: str, seed: int, folder: Path, **settings: Any) -> None:
    """Two processes that execute what is due, each replaced as it is killed."""
    here = JobManager(Settings(database_url=url, backend="noop"))
    processes = [Process(url, FLOW, folder, **settings).up() for _ in range(2)]

    def kill(number: int) -> None:
        processes[number].send(signal.SIGKILL)
        processes[number].close()
        processes[number] = Process(url, FLOW, folder, **settings).up()

    try:
        flows = [processes[0]("jobs.trigger_job('flow').id") for _ in range(3)]
        Flows(seed, here).end_although(flows, kill, 2)
    finally:
        for process in processes:
            process.close()
        here.store.close()
    nothing_kept_was_done_again(effects(folder))


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.faults) for seed in range(1, SEEDS))]
)
def test_flows_end_although_their_processes_are_killed(seed: int, store_url: str, tmp_path: Path) -> None:
    """Fails if a step is kept after the next line has run, without its fence, or if a crash forgets a resting run."""
    killed_on(store_url, seed, tmp_path)


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=FAULTS) for seed in range(SEEDS)])
def test_flows_end_although_processes_on_pg_cron_are_killed(
    seed: int, still_pg_cron_url: str, tmp_path: Path
) -> None:
    """Nobody serves the calls of the database here: the applications take over what it announces and what a dead one left."""
    settings = {"backend": "pg_cron", "public_url": "http://127.0.0.1:9", "secret": SECRET}
    killed_on(still_pg_cron_url, seed, tmp_path, **settings)


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=FAULTS) for seed in range(SEEDS)])
def test_flows_end_although_beat_and_workers_are_killed(
    seed: int, store_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Fails if a run that rests, or one whose worker died, needs the message that was lost with it."""
    application = Application(tmp_path, redis_url, store_url, FLOW)
    makes = [application.beat, application.worker, application.worker]
    processes = [make() for make in makes]

    def kill(number: int) -> None:
        processes[number].kill()
        processes[number] = makes[number]()

    try:
        here = application.manager()
        here.add_job("child", "shop:nothing_here")
        here.add_job("flow", "shop:nothing_here", overlap="allow", retry=Retry(max_attempts=50, base=0.1))
        flows = [here.trigger_job("flow").id for _ in range(3)]
        Flows(seed, here).end_although(flows, kill, 3)
        nothing_kept_was_done_again(application.effects())
    finally:
        application.close()
