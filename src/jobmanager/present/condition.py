"""The condition of a job in one word, the gravest first: how lists of jobs are sorted, and which filter shows a job."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

from jobmanager.ledger.job_view import JobView
from jobmanager.ledger.standing import Standing
from jobmanager.run import RunStatus

LATE_AFTER = timedelta(seconds=60)
Outcome = Literal["succeeded", "late", "failed", "missed", "skipped", "cancelled", "running", "pending"]
Word = Literal[
    "failed", "missing", "missed", "recovered", "late", "paused", "disabled", "running", "never", "succeeded"
]
TROUBLE: tuple[Word, ...] = ("failed", "missing", "missed", "recovered", "late", "paused")
ORDER: tuple[Word, ...] = (*TROUBLE, "running", "succeeded", "never", "disabled")


class Instant(Protocol):
    """One row of a job's instants, as `JobManager.due_instants` returns it."""

    @property
    def scheduled_for(self) -> datetime: ...
    @property
    def status(self) -> RunStatus: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def started_at(self) -> datetime | None: ...
    @property
    def finished_at(self) -> datetime | None: ...


@dataclass(frozen=True)
class Condition:
    """The word for a job, and how many of its last instants in a row say so."""

    word: Word
    count: int = 1
    since: datetime | None = None

    @property
    def needs_attention(self) -> bool:
        """Whether a person should look."""
        return self.word in TROUBLE

    @property
    def symbol(self) -> str:
        """The name of the status that it is drawn as."""
        return "failed" if self.word == "recovered" else self.word


def outcome_of(instant: Instant, late_after: timedelta = LATE_AFTER) -> Outcome:
    """Return the status of an instant, or `late` for one that succeeded after a late start."""
    started = instant.started_at
    if (
        instant.status is RunStatus.SUCCEEDED
        and started is not None
        and started - instant.scheduled_for > late_after
    ):
        return "late"
    return instant.status._value_  # a page asks for thousands, and `value` takes three times as long


def condition_of(view: JobView, instants: Sequence[Instant], missing: Collection[str]) -> Condition:
    """Return the condition of a job by its last instants, newest first; `missing` are the handlers that no living process has."""
    if view.state in ("disabled", "deleted"):
        return Condition("disabled")
    if view.state == "paused":
        return Condition("paused", since=view.row.state_at if view.row else None)
    if view.handler in missing:
        return Condition("missing")
    found = streak_of(instants)
    if found is not None and found.word in ("failed", "missed", "late"):
        return found
    if view.latest and any(run.status is RunStatus.RUNNING for run in view.latest):
        return Condition("running")
    if view.last is None:
        return Condition("never")
    if found is None and view.last.status is RunStatus.FAILED:
        return Condition("failed", since=view.last.opened_at)
    return Condition("succeeded")


def streak_of(instants: Sequence[Instant]) -> Condition | None:
    """Return what became of the newest settled instant as a condition, with how many before it ended alike; None without one."""
    word: Literal["failed", "missed", "late"] | None = None
    since, alike = None, 0
    for instant in instants:
        outcome = outcome_of(instant)
        if outcome in ("running", "pending"):
            continue
        if word is not None and outcome != word:
            break
        if outcome not in ("failed", "missed", "late"):
            return Condition("succeeded")
        word, alike, since = outcome, alike + 1, instant.scheduled_for
    return None if word is None else Condition(word, count=alike, since=since)


def condition_at_a_glance(standing: Standing, *, dead: int = 0) -> Condition:
    """Return the condition of a job by its last settled instant alone, as lists of all jobs are sorted by.

    `dead` counts its failed runs of late that nobody saw to: a job that went well since then has `recovered`.
    """
    runs = standing.runs
    if standing.state in ("disabled", "deleted"):
        return Condition("disabled")
    if standing.state == "paused":
        return Condition("paused", since=standing.state_at)
    instant = runs.instant
    outcome = None if instant is None else outcome_of(instant)
    if not standing.has_handler:
        return Condition("missing", since=None if instant is None else instant.scheduled_for)
    if instant is not None and outcome in ("failed", "missed"):
        return Condition(outcome, since=instant.scheduled_for)
    if instant is None and runs.by_hand is RunStatus.FAILED:
        return Condition("failed")
    if dead:
        return Condition("recovered", count=dead)
    if instant is not None and outcome == "late":
        return Condition("late", since=instant.scheduled_for)
    if runs.running:
        return Condition("running")
    return Condition("succeeded" if runs.ran else "never")
