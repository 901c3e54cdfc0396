"""`run_flow`: a run of several steps from its start to its end, with all its sleeps, in no time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from jobmanager.manager.manager import JobManager
from jobmanager.registry import HandlerTarget
from jobmanager.run import Run
from jobmanager.settings import Settings
from jobmanager.step import Step
from jobmanager.testing.assertions import run_due
from jobmanager.testing.clock import FakeClock

LONGEST = 10_000


@dataclass(frozen=True, slots=True)
class FlowRun:
    """A run that has ended, with its steps; `took` is the time from its start to its end by the clock of the test."""

    run: Run
    steps: tuple[Step, ...]
    took: timedelta

    @property
    def names(self) -> list[str]:
        """The names of the steps, in the order in which they began."""
        return [step.name for step in self.steps]


def run_flow(
    flow: HandlerTarget,
    payload: Mapping[str, Any] | None = None,
    *,
    jobs: JobManager | None = None,
    events: Mapping[str, Any] | None = None,
) -> FlowRun:
    """Run a handler, or with `jobs` the job of that id, until it has ended, and return its run with its steps.

    Time passes as far as the next moment at which the run goes on, so that a sleep of days takes milliseconds. An event of `events`, by its name,
    is sent with that data when the run waits for it; a wait for any other is over when its time-out is. `jobs` is a started manager on
    noop with a FakeClock. AssertionError if the run never ends.
    """
    with _manager(jobs, flow) as (manager, job_id, clock):
        begun = clock.now()
        run = manager.trigger_job(job_id, payload)
        for _ in range(LONGEST):
            if run.status.closed:
                return FlowRun(run, tuple(manager.steps(run.id)), clock.now() - begun)
            sent = _sent(manager, run, events or {})
            rest = timedelta(0) if sent else _next(manager, manager.run(run.id)) - clock.now()
            clock.step(max(timedelta(0), rest))
            run_due(manager)
            run = manager.run(run.id)
    raise AssertionError(
        f"run {run.id} of job {run.job_id!r} is still {run.status} ({run.reason}) after {LONGEST:,} starts"
    )


@contextmanager
def _manager(jobs: JobManager | None, flow: HandlerTarget) -> Iterator[tuple[JobManager, str, FakeClock]]:
    if jobs is not None:
        clock = jobs._clock  # noqa: SLF001 - the kit may move the parts
        assert isinstance(clock, FakeClock), "run_flow(jobs=...) needs a manager on a FakeClock"
        yield jobs, str(flow), clock
        return
    clock = FakeClock()
    manager = JobManager(Settings(backend="noop", database_url="memory://"), clock=clock)
    manager.add_job("flow", flow)
    manager.start()
    try:
        yield manager, "flow", clock
    finally:
        manager.stop()


def _next(jobs: JobManager, run: Run) -> datetime:
    """Return when the run goes on, or the first of the runs that it waits for."""
    children = jobs.children(run.id, limit=LONGEST) if run.reason == "children" else []
    return min([run.due_at, *(_next(jobs, child) for child in children if not child.status.closed)])


def _sent(jobs: JobManager, run: Run, events: Mapping[str, Any]) -> bool:
    """Send the event that the run waits for, if the test has one."""
    awaited = next(
        (step.awaits for step in jobs.steps(run.id) if step.status == "waiting" and step.awaits), None
    )
    if awaited is None or awaited.name not in events:
        return False
    jobs.send_event(awaited.name, key=awaited.key, data=events[awaited.name])
    return True
