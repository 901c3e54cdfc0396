"""`JobView`: a job as it stands, from its declaration, its stored row and its latest runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jobmanager.errors import ConfigurationError, CronError
from jobmanager.job import Job
from jobmanager.ledger.definition import job_of
from jobmanager.ledger.overrides import in_force
from jobmanager.ledger.queries import closed_because, effective, next_run
from jobmanager.run import Run
from jobmanager.schedule import Schedule
from jobmanager.stores.values import JobRow


@dataclass(frozen=True)
class JobView:
    """A job as declared in this process, as stored, and its latest runs. One of `job` and `row` is there.

    `last` is its newest run, `latest` that and, where they are others, a running one and the newest that was executed and has ended.
    `why` says why the job is not active; '' while it is. `ended` is True once the `until` of the schedule has passed: no further instant
    comes. Instants are in UTC.
    """

    id: str
    job: Job | None
    row: JobRow | None
    schedule: Schedule | None
    next_run: datetime | None
    last: Run | None
    state: str
    why: str
    latest: Sequence[Run] = ()
    ended: bool = False

    @property
    def name(self) -> str:
        """The name for people; the id where it has no other."""
        return self.job.name if self.job else str(self.declared.get("name", self.id))

    @property
    def source(self) -> str:
        """`stored` for a job that an operator made, `code` for every other."""
        return "code" if self.row is None or self.row.definition is None else "stored"

    @property
    def handler(self) -> str:
        """The key of its handler."""
        return self.job.handler if self.job else str(self.declared.get("handler", ""))

    @property
    def declared(self) -> dict[str, Any]:
        """Return the declaration in force, overrides included: that of the code that started last, or of this code."""
        overridden = self.job is not None and self.row is not None and self.row.override
        stored = None if overridden or self.row is None else self.row.declared
        text = stored or (self.job.declared() if self.job else "{}")
        return dict(json.loads(text))

    @property
    def words(self) -> str:
        """The schedule in plain English, and the event that starts the job."""
        return start_words(self.schedule, self.on)

    @property
    def on(self) -> str | None:
        """The event that starts the job; None where none does."""
        known = self.row or self.job
        return None if known is None else known.on


def start_words(schedule: Schedule | None, on: str | None) -> str:
    """Return what starts a job, in plain English: `at 03:00 every day`, `on event user/created`, `by hand`."""
    parts = ["" if schedule is None else schedule.describe(), f"on event {on}" if on else ""]
    return " and ".join(filter(None, parts)) or "by hand"


def view_of(job: Job | None, row: JobRow | None, last: Sequence[Run], now: datetime) -> JobView:
    """Return the view of a job from its declaration here, its row and its latest runs; one of the first two is given."""
    if row is not None and row.definition is not None:
        job = _defined(row)
    elif job is not None and row is not None:
        job = in_force(job, row.override)
    known = row or job
    assert known is not None  # noqa: S101 - promised above
    state, _, why = closed_because(job, row).partition(": ")
    schedule = effective(job, row)
    return JobView(
        id=known.id,
        job=job,
        row=row,
        schedule=schedule,
        next_run=next_run(job, row, now),
        last=next(iter(last), None),
        state=state or "active",
        why=why,
        latest=tuple(last),
        ended=schedule is not None and schedule.ended(now),
    )


def _defined(row: JobRow) -> Job | None:
    """Return the job that an operator made; None if a newer version wrote what this one cannot read."""
    try:
        return job_of(row.id, row.definition or {})
    except (ConfigurationError, CronError, LookupError, TypeError):
        return None
