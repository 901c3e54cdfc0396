"""The parent's side of an isolated handler hears the child out, however late the last words come."""

from __future__ import annotations

from datetime import UTC, datetime
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, cast

import pytest

from jobmanager.clock import SystemClock
from jobmanager.context import AttemptState
from jobmanager.execution import child_process
from jobmanager.execution.attempt import Attempt
from jobmanager.execution.child_messages import outcome_fields, send
from jobmanager.execution.outcome import Outcome
from jobmanager.job import Job
from jobmanager.run import RUNNING, SUCCEEDED, Run


class EndsWhenAsked:
    """A child that says its outcome and ends between the parent's look at the pipe and its look at the process."""

    def __init__(self, pipe: Connection, *, says: bool) -> None:
        self._pipe = pipe
        self._says = says

    def done(self) -> bool:
        if not self._pipe.closed:
            if self._says:
                send(self._pipe, "done", outcome_fields(Outcome(SUCCEEDED, output=7)))
            self._pipe.close()
        return True


@pytest.mark.parametrize("says", [True, False])
def test_what_a_child_says_just_before_it_ends_is_heard(says: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "LOOK_EVERY", 0.001)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    run = Run(id="1", job_id="work", status=RUNNING, opened_at=now, due_at=now, concurrency_key="work")
    job = Job(id="work", name="work", handler="work")
    attempt = cast(Attempt, AttemptState(job, run, clock=SystemClock(), lease_ok=lambda: True))
    ours, theirs = Pipe()

    future: Any = EndsWhenAsked(theirs, says=says)
    outcome = child_process._listen(attempt, ours, future)

    assert (outcome.output if outcome else None) == (7 if says else None)
    ours.close()
