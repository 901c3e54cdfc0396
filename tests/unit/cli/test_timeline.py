"""What `runs show` says of the moments of a run that needed several attempts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from jobmanager.cli.commands.runs import _timeline
from jobmanager.present.phrases import both
from jobmanager.run import Attempt, Run, RunStatus

DUE = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return DUE + timedelta(seconds=seconds)


def a_run(**fields: object) -> Run:
    values = {
        "id": "019ca94e-31c0-7000-8000-0f4cd71ac90d", "job_id": "work", "status": RunStatus.SUCCEEDED, "trigger": "schedule",
        "scheduled_for": DUE, "due_at": DUE, "opened_at": at(0), "started_at": at(3), "finished_at": at(5), "attempt": 1,
        "concurrency_key": "work", "max_attempts": 2, **fields,
    }  # fmt: skip
    return Run(**values)  # type: ignore[arg-type]


def test_a_run_of_one_attempt_began_when_that_did() -> None:
    told = dict(_timeline(a_run(), []))
    assert told["started"] == f"{both(at(3))}  3.0 s after it was due"
    assert not told.get("attempt 1")


def test_a_run_that_was_tried_again_keeps_its_first_start() -> None:
    """Fails where the start of the last attempt, counted from the moment of the retry, stands for the run's."""
    first = Attempt(
        run_id="r", starts=1, attempt=1, owner=None, started_at=at(3), ended_at=at(4), outcome="failed"
    )
    told = dict(_timeline(a_run(attempt=2, due_at=at(64), started_at=at(64.5), finished_at=at(66)), [first]))
    assert told["started"] == f"{both(at(3))}  3.0 s after it was due"
    assert told["attempt 2"] == both(at(64.5))
