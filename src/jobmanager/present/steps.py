"""The steps and the children of a run: in words, as JSON documents, and as a tree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from jobmanager.present.phrases import iso, seconds
from jobmanager.present.records import attempt_record, failure_record, line_record, run_record
from jobmanager.run import Run, RunStatus

if TYPE_CHECKING:
    from jobmanager.manager.manager import JobManager
    from jobmanager.step import Event, EventWait, SentEvent, Step

WAITS = frozenset({"sleep", "wait_for", "gather"})
"""Kinds of steps in which nothing is done but waiting."""
MOST_COUNTED, MOST_SHOWN, DEEPEST = 1000, 10, 3


def name_of(step: Step) -> str:
    """Return the name of a step, with its number where the run uses the name again: `send`, `send #2`."""
    return f"{step.name} #{step.occurrence + 1}" if step.occurrence else step.name


def took(step: Step) -> timedelta | None:
    """Return how long a step took with all its tries and the pauses between them; None before it ended, and for a wait."""
    return None if step.ended_at is None or step.kind in WAITS else step.ended_at - step.started_at


def waited(step: Step, now: datetime) -> timedelta | None:
    """Return how long a step has waited, so far or in all; None for one that does something."""
    if step.kind not in WAITS:
        return None
    return max(timedelta(0), (step.ended_at or now) - step.started_at)


def step_record(step: Step) -> dict[str, Any]:
    """Return a step as a JSON document."""
    return {
        "run_id": step.run_id,
        "position": step.position,
        "name": step.name,
        "occurrence": step.occurrence,
        "kind": step.kind,
        "status": step.status,
        "attempt": step.attempt,
        "started_at": iso(step.started_at),
        "ended_at": iso(step.ended_at),
        "duration_seconds": seconds(step.ended_at - step.started_at) if step.ended_at else None,
        "wakes_at": iso(step.wakes_at),
        "awaits": None if step.awaits is None else {"name": step.awaits.name, "key": step.awaits.key},
        "output": step.output,
        "error": failure_record(step.error),
    }


def whole_run_record(manager: JobManager, run: Run, *, children: int = MOST_COUNTED) -> dict[str, Any]:
    """Return a run as a JSON document with its attempts, log lines, steps and its oldest children, so many at most."""
    return {
        **run_record(run),
        "attempts": [attempt_record(attempt) for attempt in manager.attempts(run.id)],
        "lines": [line_record(attempt, line) for _, attempt, line in manager.logs(run.id)],
        "steps": [step_record(step) for step in manager.steps(run.id)],
        "children": [run_record(child) for child in manager.children(run.id, limit=children)],
    }


def event_record(event: Event) -> dict[str, Any]:
    """Return an event as a JSON document."""
    return {
        "id": event.id,
        "name": event.name,
        "key": event.key,
        "data": event.data,
        "sent_at": iso(event.sent_at),
    }


def sent_event_record(event: SentEvent) -> dict[str, Any]:
    """Return an event as lists show it, with the runs that it started, as a JSON document."""
    return {
        "id": event.id,
        "name": event.name,
        "key": event.key,
        "sent_at": iso(event.sent_at),
        "runs": [{"run_id": run.id, "job_id": run.job_id, "status": run.status.value} for run in event.runs],
    }


def wait_record(wait: EventWait) -> dict[str, Any]:
    """Return the wait of a run for an event as a JSON document."""
    return {
        "run_id": wait.run_id,
        "job_id": wait.job_id,
        "step": wait.step,
        "name": wait.name,
        "key": wait.key,
        "since": iso(wait.since),
        "until": iso(wait.until),
    }


@dataclass(frozen=True, slots=True)
class Branch:
    """A run with the runs that it has started: some of them, and in words how all of them stand."""

    run: Run
    children: Sequence[Branch] = field(default=())
    counts: str = ""
    left_out: int = 0


def tree(run: Run, children_of: Callable[[str], Sequence[Run]], *, depth: int = DEEPEST) -> Branch:
    """Return the run with its children and theirs: of each the oldest ten, failed and open ones first.

    `children_of` is asked once for each run that is shown, and returns at most a thousand.
    """
    found = children_of(run.id) if depth else ()
    shown = sorted(found, key=_interest)[:MOST_SHOWN]
    return Branch(
        run,
        [tree(child, children_of, depth=depth - 1) for child in shown],
        counted(found),
        len(found) - len(shown),
    )


def counted(runs: Sequence[Run]) -> str:
    """Return how many runs stand how: `1,000 and more: 12 failed, 988 succeeded`; '' for none."""
    if not runs:
        return ""
    numbers = Counter(run.status for run in runs)
    told = ", ".join(f"{numbers[status]:,} {status.value}" for status in RunStatus if numbers[status])
    return f"{len(runs):,}{' and more' if len(runs) >= MOST_COUNTED else ''}: {told}"


def _interest(run: Run) -> int:
    return 0 if run.status is RunStatus.FAILED else 2 if run.status.closed else 1
