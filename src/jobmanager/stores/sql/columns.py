"""The columns of a run that the hot path writes, named once for all stores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from operator import attrgetter
from typing import Any

from jobmanager.run import PENDING, Ending, Run
from jobmanager.stores.sql.rows import failure_values, line_values

INSTANT = "timestamptz"

OPENED = {
    "id": "uuid",
    "job_id": "text",
    "schedule_rev": "int",
    "scheduled_for": INSTANT,
    "status": "text",
    "trigger": "text",
    "requested_by": "text",
    "notify": "bool",
    "due_at": INSTANT,
    "expires_at": INSTANT,
    "attempt": "int",
    "starts": "int",
    "max_attempts": "int",
    "retry_on_crash": "bool",
    "owner": "text",
    "concurrency_key": "text",
    "turn": "text",
    "priority": "smallint",
    "idempotency_key": "text",
    "payload": "jsonb",
    "opened_at": INSTANT,
    "accepted_at": INSTANT,
    "dispatched_at": INSTANT,
    "started_at": INSTANT,
    "parent_id": "uuid",
}
ENDED = {
    "id": "uuid",
    "owner": "text",
    "starts": "int",
    "attempt": "int",
    "status": "text",
    "reason": "text",
    "output": "jsonb",
    "error": "jsonb",
    "progress": "jsonb",
    "started_at": INSTANT,
    "finished_at": INSTANT,
    "lines": "jsonb",
}
ACCEPTED = {
    name: OPENED[name]
    for name in ("id", "job_id", "status", "due_at", "expires_at", "attempt", "starts", "max_attempts", "retry_on_crash", "owner",
                 "concurrency_key", "turn", "priority", "dispatched_at", "started_at")
}  # fmt: skip
BECOMES = tuple(name for name in ACCEPTED if name not in ("id", "job_id"))

TO_PENDING = "status = 'pending', owner = NULL, started_at = NULL, progress = NULL, dispatched_at = NULL"
"""What every run loses that goes back to pending, as SQL; `to_pending` has the same as values."""


def to_pending(**others: Any) -> dict[str, Any]:
    """Return what a run becomes that goes back to pending, with the other columns that change then."""
    lost = dict.fromkeys(("owner", "started_at", "progress", "dispatched_at"))
    return {"status": PENDING, **lost, **others}


_opened = attrgetter(*OPENED)
_MOMENTS = tuple(place for place, kind in enumerate(OPENED.values()) if kind == INSTANT)
_STATUS = tuple(OPENED).index("status")


def opened_row(run: Run, instant: Callable[[datetime], Any]) -> list[Any]:
    """Return the values of OPENED in their order, each moment as `instant` writes it."""
    row = list(_opened(run))
    before = written = None
    for place in _MOMENTS:
        moment = row[place]
        if moment is not None:
            if moment is not before:  # a tick is due at its instant, and accepted when it is opened
                before, written = moment, instant(moment)
            row[place] = written
    row[_STATUS] = run.status._value_
    return row


def ended_values(ending: Ending, instant: Callable[[datetime | None], Any]) -> dict[str, Any]:
    """Return the values of ENDED, each moment as `instant` writes it."""
    return {
        "id": ending.run.id,
        "owner": ending.run.owner,
        "starts": ending.run.starts,
        "attempt": ending.run.attempt,
        "status": ending.status.value,
        "reason": ending.reason,
        "output": ending.output,
        "error": failure_values(ending.error),
        "progress": None if ending.progress is None else asdict(ending.progress),
        "started_at": instant(ending.started_at),
        "finished_at": instant(ending.finished_at),
        "lines": line_values(ending.lines) if ending.lines else None,
    }
