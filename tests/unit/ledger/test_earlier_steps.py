"""Runs that are taken on at once: their steps are read by few statements, each run's once, and afresh where they may have changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from jobmanager import JobManager, Run, RunContext, Settings
from jobmanager.errors import StoreUnavailableError
from jobmanager.ledger.steps import READ_AT_ONCE, READ_FIRST, EarlierSteps
from jobmanager.run import RUNNING, new_id
from jobmanager.step import Step
from jobmanager.testing import FakeClock

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FLOWS = 1000


class Reads(list[int]):
    """Answers so many equal steps for each run, and notes of how many runs it was asked."""

    away = False
    steps = 1

    def __call__(self, run_ids: Sequence[str]) -> list[list[Step]]:
        self.append(len(run_ids))
        if self.away:
            raise StoreUnavailableError("no connection")
        return [[_step(run_id)] * self.steps for run_id in run_ids]


def _step(run_id: str) -> Step:
    return Step(run_id=run_id, name="rest", occurrence=0, kind="sleep", status="waiting", started_at=NOW)


def _runs(count: int, *, starts: int) -> list[Run]:
    run = Run(
        id="",
        job_id="flow",
        status=RUNNING,
        trigger="manual",
        due_at=NOW,
        opened_at=NOW,
        concurrency_key="flow",
        starts=starts,
    )
    return [replace(run, id=new_id(NOW)) for _ in range(count)]


@pytest.mark.parametrize("steps", [0, 1, 100, 2 * READ_AT_ONCE])
def test_a_read_takes_those_along_that_come_next_as_many_as_their_steps_allow(steps: int) -> None:
    reads, runs = Reads(), _runs(FLOWS, starts=2)
    reads.steps = steps
    earlier = EarlierSteps(reads, runs)

    assert [earlier.of(run) for run in reversed(runs)] == [[_step(run.id)] * steps for run in reversed(runs)]
    assert reads[0] == READ_FIRST
    assert max(reads[1:]) == min(FLOWS - READ_FIRST, max(1, READ_AT_ONCE // steps) if steps else FLOWS)
    assert sum(reads) == FLOWS


def test_first_starts_ask_no_store() -> None:
    reads, [first, again] = Reads(), [*_runs(1, starts=1), *_runs(1, starts=2)]
    earlier = EarlierSteps(reads, [first, again])

    assert earlier.of(first) == []
    assert earlier.of(again) == [_step(again.id)]
    assert reads == [1]


def test_what_was_not_read_is_asked_for_again() -> None:
    reads, runs = Reads(), _runs(3, starts=2)
    earlier = EarlierSteps(reads, runs)

    reads.away = True
    with pytest.raises(StoreUnavailableError):
        earlier.of(runs[0])
    reads.away = False

    assert [earlier.of(run) for run in runs] == [[_step(run.id)] for run in runs]
    assert reads == [3, 3]


@pytest.mark.parametrize(("trusted", "asked"), [(True, [3]), (False, [1, 1, 1])])
def test_only_with_the_lease_what_was_read_before_the_run_began_is_trusted(
    trusted: bool, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if a process that stood still does again what another has kept meanwhile."""
    clock, inside = FakeClock(NOW), False
    jobs = JobManager(Settings(backend="local", database_url="memory://"), clock=clock).start()
    of_runs, reads = jobs.store.steps.of_runs, Reads()

    def reading(run_ids: Sequence[str]) -> list[list[Step]]:
        reads(run_ids)
        return of_runs(run_ids)

    def handler(context: RunContext) -> None:
        nonlocal inside
        inside = True
        try:
            context.sleep("rest", days=1)
        finally:
            inside = False

    monkeypatch.setattr(jobs.store.steps, "of_runs", reading)
    monkeypatch.setattr(jobs._assembly.heartbeat, "ok", lambda: trusted or not inside)
    try:
        jobs.add_job("flow", handler, overlap="allow")
        runs = [jobs.trigger_job("flow") for _ in range(3)]
        clock.step(timedelta(days=1))
        jobs._assembly.claims.claim()
        assert {jobs.run(run.id).status for run in runs} == {"succeeded"}
        assert reads == asked
    finally:
        jobs.stop()
