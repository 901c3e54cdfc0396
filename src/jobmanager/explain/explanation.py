"""An explanation: what became, or will become, of one instant of a job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from jobmanager.run import Run

Verdict = Literal["ran", "running", "pending", "did_not_run", "will_run", "will_not_run"]
Cause = Literal[
    "succeeded",
    "failed",
    "cancelled",
    "handler_missing",
    "running",
    "waits_for_executor",
    "waits_for_turn",
    "waits_for_retry",
    "sleeps",
    "waits_for_event",
    "waits_for_children",
    "overlap",
    "excluded",
    "paused",
    "disabled",
    "deleted",
    "downtime",
    "deadline",
    "transport",
    "no_schedule",
    "not_an_instant",
    "never_started",
    "before_history",
    "not_expected",
    "accounted_ahead",
    "nobody_keeps_time",
    "nobody_lives",
    "not_yet_accounted",
    "overdue",
    "due_now",
    "as_planned",
]
Told = Callable[[datetime], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What became, or will become, of one instant of a job.

    `because` is one sentence, `advice` what to do about it ('' if nothing). `before` and `after` are the nearest instants of
    the schedule on either side. `run` is the row that stands for the instant, if there is one.
    """

    job_id: str
    at: datetime
    verdict: Verdict
    cause: Cause
    because: str
    advice: str = ""
    run: Run | None = None
    before: datetime | None = None
    after: datetime | None = None


def utc(moment: datetime) -> str:
    """Return `2026-11-23 01:00:00 UTC`."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
