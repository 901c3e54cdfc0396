"""The reasons of a run that waits in its steps: for a moment, an event, or other runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from jobmanager.clock import LONGEST
from jobmanager.explain.explanation import Cause, Told
from jobmanager.explain.question import Decision
from jobmanager.run import PENDING, SUSPENDED, Run
from jobmanager.step import GATHERED, Step

MOST_TOLD = 3
_CAUSES: dict[str, Cause] = {
    "sleeping": "sleeps",
    "waiting": "waits_for_event",
    "children": "waits_for_children",
}


def rests(run: Run, now: datetime) -> bool:
    """Whether the run is pending because its handler waits in a step, and still does."""
    return run.status is PENDING and run.reason in SUSPENDED and run.due_at > now


def ends(since: datetime, until: datetime) -> bool:
    """Whether a wait has an end: one without time-out is written with a moment a hundred years ahead."""
    return until - since < LONGEST / 2


def resting(
    run: Run, steps: Sequence[Step], children: Sequence[Run], *, now: datetime, told: Told
) -> Decision | None:
    """Say what the run waits for and until when; None if it does not rest. `children` are those that it has started."""
    if not rests(run, now):
        return None
    waits = [step for step in steps if not step.is_done and step.wakes_at is not None]
    phrases = [_phrase(step, children, told) for step in waits[:MOST_TOLD]]
    more = f" (and {len(waits) - MOST_TOLD:,} more)" if len(waits) > MOST_TOLD else ""
    because = f"It {', and '.join(phrases) or f'waits in its steps until {told(run.due_at)}'}{more}."
    is_retry = run.reason == "sleeping" and bool(waits) and all(step.status == "retrying" for step in waits)
    cause: Cause = "waits_for_retry" if is_retry else _CAUSES[run.reason or ""]
    return Decision("pending", cause, because, _advice(waits) if cause == "waits_for_event" else "")


def waited_for(step: Step, told: Told) -> str:
    """Return what an unfinished step waits for: `user/confirmed of 42 until 5 May 09:00`; '' for one that does not."""
    if step.is_done or step.wakes_at is None:
        return ""
    until = f"until {told(step.wakes_at)}" if ends(step.started_at, step.wakes_at) else ""
    event = (
        ""
        if step.awaits is None
        else step.awaits.name + (f" of {step.awaits.key}" if step.awaits.key else "")
    )
    runs = "its children" if step.kind == "gather" else ""
    return " ".join(filter(None, (event or runs, until)))


def _phrase(step: Step, children: Sequence[Run], told: Told) -> str:
    waited = waited_for(step, told)
    if step.status == "retrying":
        error = f" after {step.error.type or step.error.kind}" if step.error else ""
        return f"rests before try {step.attempt + 1} of step `{step.name}`{error} {waited}"
    if step.kind == "gather":
        prefix = f"{GATHERED}{step.run_id}/{step.name}#{step.occurrence}/"
        mine = [child for child in children if (child.idempotency_key or "").startswith(prefix)]
        still = sum(not child.status.closed for child in mine)
        return f"waits for {still:,} of {len(mine):,} runs that step `{step.name}` has started"
    if step.awaits is not None:
        return f"waits for the event {waited}"
    return f"sleeps in step `{step.name}` {waited}"


def _advice(waits: Sequence[Step]) -> str:
    awaited = next((step.awaits for step in waits if step.awaits is not None), None)
    if awaited is None:
        return ""
    key = f" --key '{awaited.key}'" if awaited.key else ""
    return f"`jobmanager events send '{awaited.name}'{key}` sends it by hand."
