"""A run that this process took on, and lost again before its handler was called: others may be executing it by now."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobmanager import JobManager, RunContext, RunStatus, Settings

PATIENCE = 30.0


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobManager]:
    """One worker, a heartbeat four times a second, and no sweep that would interfere."""
    settings = Settings(
        database_url=f"sqlite:///{tmp_path}/jobs.db", workers=1, lease_seconds=1, sweep_seconds=3600
    )
    manager = JobManager(settings)
    yield manager
    manager.stop(drain=1)


def declared_dead(jobs: JobManager) -> None:
    """As others would see it after a pause of this process: it is dead, its runs are taken over, and it learns of it later."""
    [me] = jobs.store.processes.living()
    jobs.store.processes.deregister(me.id)
    jobs.store.maintenance.take_over()
    until(lambda: [instance.id for instance in jobs.store.processes.living()] not in ([], [me.id]))


@pytest.mark.parametrize("coroutine", [False, True])
def test_the_handler_of_a_run_that_was_taken_over_is_not_called(jobs: JobManager, coroutine: bool) -> None:
    """It waits behind another run for the only worker, or for the event loop, while the process is declared dead and renewed."""
    inside, let_out = threading.Event(), threading.Event()
    called: list[str] = []

    def handler(context: RunContext) -> None:
        called.append(context.job.id)
        if context.job.id == "blocker":
            inside.set()
            let_out.wait(PATIENCE)

    async def coroutine_handler(context: RunContext) -> None:
        handler(context)

    for job_id in ("quick", "blocker", "behind"):
        jobs.add_job(job_id, coroutine_handler if coroutine else handler)
    jobs.start()
    for _ in range(20):  # a process takes on more than it has workers for when runs are short
        jobs.wait(jobs.trigger_job("quick").id)
    jobs.trigger_job("blocker")
    until(inside.is_set)
    behind = jobs.trigger_job("behind")
    taken_on = jobs.run(behind.id).status
    declared_dead(jobs)
    let_out.set()
    jobs.wait(jobs.trigger_job("quick").id)  # its turn comes after that of the run behind

    assert taken_on is RunStatus.RUNNING
    assert "behind" not in called
    run = jobs.run(behind.id)
    assert run.error is not None
    assert (run.status, run.error.kind) == (RunStatus.FAILED, "crashed")
