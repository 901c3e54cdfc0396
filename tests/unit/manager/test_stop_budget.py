"""How long a stop takes where everything that it stops takes as long as it may."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobmanager import JobManager, Settings
from jobmanager.clock import SystemClock

DRAIN = 2.0
PROMISED = 5.0


class Hurried(SystemClock):
    """Real time, and what was waited for in vain."""

    waited = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.waited


@pytest.mark.parametrize("is_half_up", [False, True])
def test_all_parts_together_take_no_longer_than_promised(
    monkeypatch: pytest.MonkeyPatch, *, is_half_up: bool
) -> None:
    """Fails if a part gets a bound of its own beside the budget, or if what the drain takes shortens the others."""
    clock = Hurried()
    jobs = JobManager(Settings(database_url="memory://", backend="local"), clock=clock)
    jobs.start()
    parts = jobs._parts
    assembly = parts.assembly

    def wait(seconds: float) -> None:
        clock.waited += seconds

    stoppable = (
        "watchdog",
        "watching",
        "background",
        "commits",
        "announcer",
        "notifying",
        "heartbeat",
        "feed",
    )
    stops = [getattr(assembly, name).stop for name in stoppable]
    for name in stoppable:
        monkeypatch.setattr(getattr(assembly, name), "stop", wait)
    monkeypatch.setattr(assembly, "_stop_backend", wait)
    monkeypatch.setattr(assembly.runner, "drain", lambda drain: wait(drain.total_seconds()))
    assembly._up = not is_half_up

    jobs.stop(DRAIN)

    monkeypatch.undo()
    assert DRAIN + PROMISED / 2 < clock.waited <= DRAIN + PROMISED + 0.2
    assembly.backend.stop(timedelta(seconds=1))
    for stop in stops:
        stop(1.0)


def test_the_thread_that_stops_leaves_the_end_of_the_last_run_to_the_writer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A silent store would hold it up for a statement's whole deadline, beyond the drain and what is left for the rest."""
    jobs = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db", backend="local"))
    began, ends = threading.Event(), threading.Event()

    @jobs.job("steady")
    def steady() -> None:
        began.set()
        ends.wait(60)

    jobs.start()
    run = jobs.trigger_job("steady")
    assert began.wait(30)
    writers, write = [], jobs.store.runs.write

    def writing(*batch: Any) -> Any:
        writers.append(threading.current_thread())
        return write(*batch)

    monkeypatch.setattr(jobs.store.runs, "write", writing)

    jobs.stop(0.1)

    ends.set()
    [ended] = jobs.store.runs.by_id([run.id])
    assert ended.error is not None
    assert ended.error.kind == "shutdown"
    assert writers
    assert threading.current_thread() not in writers
    jobs.store.close()
