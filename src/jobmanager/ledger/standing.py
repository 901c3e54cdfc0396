"""`Standing`: how a job stands at a glance, from its declaration, its stored row and a few facts about its runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from jobmanager.cheap import cheap
from jobmanager.job import Job
from jobmanager.ledger.queries import closed_because, effective
from jobmanager.run import MICROSECOND
from jobmanager.schedule import EXCEPT
from jobmanager.stores.values import JobStanding, JobSummary


@cheap
@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A job among many: what lists need to sort and filter all of them, and no more.

    `source` is `stored` for a job that an operator made, and else `code`. `next_due` is its next instant, in UTC; None while the job is not active. `has_handler` is False if processes live and none
    of them has its handler. `runs` says how its runs stand.
    """

    id: str
    name: str
    handler: str
    source: str
    state: str
    state_at: datetime | None
    next_due: datetime | None
    has_handler: bool
    runs: JobStanding


def standing_of(
    job: Job | None, row: JobSummary | None, runs: JobStanding, handlers: set[str] | None, now: datetime
) -> Standing:
    """Return the standing of a job from its declaration here and its row, of which one is given; `handlers` None if no process lives."""
    known = row or job
    assert known is not None  # noqa: S101 - promised above
    name, handler = (job.name, job.handler) if job else _named(row.declared if row else "{}")
    handler = known.id if handler is None else handler
    state = closed_because(job, None) if row is None else row.state
    state = state.partition(": ")[0] or "active"
    return Standing(
        id=known.id,
        name=known.id if name is None else name,
        handler=handler,
        source="code" if row is None or row.definition is None else "stored",
        state=state,
        state_at=row.state_at if row else None,
        next_due=_next_due(job, row, now) if state == "active" else None,
        has_handler=handlers is None or handler in handlers,
        runs=runs,
    )


@lru_cache(maxsize=4096)
def _named(declared: str) -> tuple[str | None, str | None]:
    """Return the name and the handler of a stored declaration; cached, since lists of all jobs are read again and again."""
    known = json.loads(declared)
    name, handler = known.get("name"), known.get("handler")
    return None if "name" not in known else str(name), None if "handler" not in known else str(handler)


def _next_due(job: Job | None, row: JobSummary | None, now: datetime) -> datetime | None:
    # The account is settled behind the ticks: what it waits for may have been brought already.
    if row is not None and row.next_due_at is not None and row.next_due_at > now:
        now = row.next_due_at - MICROSECOND
        if EXCEPT not in row.schedule:
            return row.next_due_at
    schedule = effective(job, row)
    return None if schedule is None else schedule.next_run_after(now)
