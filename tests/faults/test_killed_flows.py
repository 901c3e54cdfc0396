"""kill -9 at any moment of a run of steps: what was kept is never done again, no child is missing or doubled, and every flow ends."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.faults.conftest import Process, effects, until

from jobmanager import JobManager, Run, Settings

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


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.faults) for seed in range(1, SEEDS))]
)
def test_flows_end_although_their_processes_are_killed(seed: int, store_url: str, tmp_path: Path) -> None:
    """Fails if a step is kept after the next line has run, without its fence, or if a crash forgets a resting run."""
    chance = random.Random(seed)
    here = JobManager(Settings(database_url=store_url, backend="noop"))
    processes = [Process(store_url, FLOW, tmp_path).up() for _ in range(2)]
    try:
        flows = [processes[0]("jobs.trigger_job('flow').id") for _ in range(3)]
        for _ in range(6):
            time.sleep(chance.uniform(0.1, 1.0))  # the moment is the test
            killed = chance.randrange(2)
            processes[killed].send(signal.SIGKILL)
            processes[killed].close()
            processes[killed] = Process(store_url, FLOW, tmp_path).up()
        for run_id in flows:
            here.send_event("go", key=run_id, data=seed)
        ended = [until(lambda run_id=run_id: ended_of(here, run_id), 120) for run_id in flows]
    finally:
        for process in processes:
            process.close()

    assert [(run.status, run.output) for run in ended] == [("succeeded", [TOTAL, seed])] * 3
    for run_id in flows:
        children = here.children(run_id)
        assert len(children) == 8
        assert {child.status for child in children} == {"succeeded"}
    kept: set[tuple[str, str]] = set()
    calls: Counter[tuple[str, str]] = Counter()
    for word, run_id, name in effects(tmp_path):
        if word == "kept":
            kept.add((run_id, name))
        else:
            calls[run_id, name] += 1
            assert (run_id, name) not in kept, f"{name} was called although its result was kept"
    assert len(calls) == 3 * (10 + 8)
    here.store.close()


def ended_of(jobs: JobManager, run_id: str) -> Run | None:
    run = jobs.run(run_id)
    return run if run.status.closed else None
