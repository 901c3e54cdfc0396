"""The condition of a job in one word, the gravest first: how lists of jobs are sorted, and which filter shows a job."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

from jobmanager.ledger.job_view import JobView
from jobmanager.run import RunStatus

LATE_AFTER = timedelta(seconds=60)
Outcome = Literal["succeeded", "late", "failed", "missed", "skipped", "cancelled", "running", "pending"]
Word = Literal["failed", "missing", "missed", "late", "paused", "disabled", "running", "never", "succeeded"]
TROUBLE: tuple[Word, ...] = ("failed", "missing", "missed", "late", "paused")
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


def outcome_of(instant: Instant, late_after: timedelta = LATE_AFTER) -> Outcome:
    """Return the status of an instant, or `late` for one that succeeded after a late start."""
    started = instant.started_at
    if (
        instant.status is RunStatus.SUCCEEDED
        and started is not None
        and started - instant.scheduled_for > late_after
    ):
        return "late"
    return instant.status.value


def condition_of(view: JobView, instants: Sequence[Instant], missing: Collection[str]) -> Condition:
    """Return the condition of a job by its last instants, newest first; `missing` are the handlers that no living process has."""
    if view.state in ("disabled", "deleted"):
        return Condition("disabled")
    if view.state == "paused":
        return Condition("paused", since=view.row.state_at if view.row else None)
    outcomes = [outcome_of(instant) for instant in instants]
    if view.handler in missing:
        return Condition("missing")
    closed = [place for place, word in enumerate(outcomes) if word not in ("running", "pending")]
    newest = outcomes[closed[0]] if closed else None
    for word in ("failed", "missed", "late"):
        if newest == word:
            row = [place for place in closed if outcomes[place] == word]
            count = next((n for n, place in enumerate(row) if place != closed[n]), len(row))
            return Condition(word, count=count, since=instants[closed[count - 1]].scheduled_for)
    if view.latest and any(run.status is RunStatus.RUNNING for run in view.latest):
        return Condition("running")
    if view.last is None:
        return Condition("never")
    if newest is None and view.last.status is RunStatus.FAILED:
        return Condition("failed", since=view.last.opened_at)
    return Condition("succeeded")
