"""Reading the ledger: status, metrics, runs. True across processes, since it asks the store."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Literal

from jobmanager.access.view import View
from jobmanager.errors import CronError, PayloadError, RunNotFoundError
from jobmanager.job import Job
from jobmanager.ledger.bounding import bounded_json
from jobmanager.ledger.missing_instants import schedule_of
from jobmanager.ledger.redaction import Redactor
from jobmanager.registry import Registry
from jobmanager.run import FAILED, RUNNING, Attempt, JobMetrics, JobStatus, LogLine, Run, RunStatus
from jobmanager.schedule import Schedule
from jobmanager.step import Step
from jobmanager.stores.base import RunStore
from jobmanager.stores.values import JobRow, JobSummary
from jobmanager.validation.call_arguments import check_arguments, may_be_id
from jobmanager.validation.texts import shown

MOST_PLANNED = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One instant of a simulation; `fires` False with the reason in `why` when nothing would start."""

    job_id: str
    scheduled_for: datetime
    fires: bool
    why: str


class History:
    """Answers about jobs and runs; never creates a store that is not there."""

    def __init__(
        self,
        registry: Registry,
        store: RunStore,
        *,
        keeps_time: bool = True,
        view: Callable[[], View | None] = lambda: None,
        redactor: Redactor,
    ) -> None:
        """`view` says what the caller sees."""
        self._registry = registry
        self._store = store
        self._keeps_time = keeps_time
        self._view = view
        self._redactor = redactor

    def run(self, run_id: str) -> Run:
        """Return the run with this id, or whose id ends so; RunNotFoundError otherwise."""
        view, asked = self._view(), may_be_id(run_id) and self._store.exists()
        run = self._store.history.run(run_id, seen=view) if asked else None
        if run is None:
            where = f" in {self._store.url}" if view is None else ""
            raise RunNotFoundError(f"No run {shown(run_id)}{where}.", run_id=run_id)
        return run

    def runs(
        self,
        job_id: str | None,
        statuses: Collection[RunStatus],
        before: str | None,
        limit: int,
        *,
        dead: bool = False,
    ) -> list[Run]:
        check_arguments(limit=limit)
        asked = [wanted for wanted in (job_id, before) if wanted is not None]
        if not all(map(may_be_id, asked)) or not self._store.exists():
            return []
        return self._store.history.runs(
            job_id=job_id, statuses=statuses, before=before, limit=limit, dead=dead, seen=self._view()
        )

    def statuses(self, job_ids: Sequence[str] | None = None) -> list[JobStatus]:
        """Status of these jobs, or of all, by id; unknown ids are left out."""
        view = self._view()
        rows, declared = self._known(view)
        kept = {job_id for job_id, row in rows.items() if row.state != "deleted"}
        wanted = sorted({*kept, *declared}) if job_ids is None else filter(may_be_id, job_ids)
        known = [job_id for job_id in wanted if job_id in rows or job_id in declared]
        stored = [job_id for job_id in known if job_id in rows]
        last = self._store.history.last_runs(stored, seen=view) if rows else {}
        return [self._status(job_id, rows.get(job_id), last.get(job_id, [])) for job_id in known]

    def _known(self, view: View | None) -> tuple[dict[str, JobRow], dict[str, Job]]:
        """Return the stored and the declared jobs; under a view those that are stored, as only the store says who sees what."""
        rows = {row.id: row for row in self._store.jobs.rows(seen=view)} if self._store.exists() else {}
        jobs = self._registry.jobs
        return rows, {job_id: job for job_id, job in jobs.items() if view is None or job_id in rows}

    def _status(self, job_id: str, row: JobRow | None, last: Sequence[Run]) -> JobStatus:
        job = self._registry.jobs.get(job_id)
        running = next((run for run in last if run.status is RUNNING), None)
        ended = next((run for run in last if run.status.closed and run.started_at), None)
        latest = running or ended or (last[0] if last else None)
        return JobStatus(
            id=job_id,
            name=job.name if job else job_id,
            status=_word(row, running, ended, fires=self._keeps_time),
            last_run=(latest.started_at or latest.scheduled_for or latest.opened_at) if latest else None,
            next_run=next_run(job, row, self._store.now()) if self._keeps_time else None,
            duration=ended.duration if ended else None,
            error=ended.error.message if ended and ended.error else None,
        )

    def metrics(self) -> JobMetrics:
        return self._store.history.metrics(seen=self._view()) if self._store.exists() else EMPTY_METRICS

    def attempts(self, run_id: str) -> list[Attempt]:
        """Return the earlier attempts of the run, oldest first; RunNotFoundError."""
        return self._store.history.attempts(self.run(run_id).id, seen=self._view())

    def steps(self, run_id: str) -> list[Step]:
        """Return the steps of the run as people may see them; RunNotFoundError."""
        now = self._store.now()
        return [self._shown(step.at(now)) for step in self._store.steps.of(self.run(run_id).id)]

    def children(self, run_id: str, limit: int) -> list[Run]:
        """Return the runs that the run has started, those of them that the caller sees; RunNotFoundError."""
        view = self._view()
        found = self._store.steps.children(self.run(run_id).id, limit=limit)
        return found if view is None else [run for run in found if self._store.history.run(run.id, seen=view)]

    def _shown(self, step: Step) -> Step:
        hide, is_secret = self._redactor.text, self._redactor.is_secret
        return replace(step, output=bounded_json(step.output, hide=hide, is_secret=is_secret))

    def lines(self, run_id: str, after: int) -> list[tuple[int, int, LogLine]]:
        """Return the log lines of the run after a position; RunNotFoundError."""
        return self._store.history.lines(self.run(run_id).id, after=after, seen=self._view())

    def simulate(self, start: datetime, end: datetime) -> list[Planned]:
        """Every instant in (start, end] that the schedules ask for, in order, and whether it would start a run.

        Raises PayloadError for a stretch of more than 100,000 instants.
        """
        rows, declared = self._known(self._view())
        planned: list[Planned] = []
        for job in declared.values():
            row = rows.get(job.id)
            schedule = effective(job, row)
            if schedule is None:
                continue
            closed = closed_because(job, row)
            planned += [
                _planned(job.id, instant, schedule, closed)
                for instant in islice(schedule.between(start, end), MOST_PLANNED + 1 - len(planned))
            ]
            if len(planned) > MOST_PLANNED:
                raise PayloadError(
                    f"More than {MOST_PLANNED:,} instants lie between start={start.isoformat()} and end={end.isoformat()}; "
                    "choose an earlier end."
                )
        return sorted(planned, key=lambda item: (item.scheduled_for, item.job_id))


def _planned(job_id: str, instant: datetime, schedule: Schedule, closed: str) -> Planned:
    excluded = schedule.excluded(instant)
    why = closed or (schedule.describe() if excluded is None else f"excluded: {excluded}")
    return Planned(job_id=job_id, scheduled_for=instant, fires=not closed and excluded is None, why=why)


def next_run(job: Job | None, row: JobRow | None, now: datetime) -> datetime | None:
    """Return the next instant the job runs, None if it is paused, disabled or has no schedule."""
    schedule = effective(job, row)
    return None if schedule is None or closed_because(job, row) else schedule.next_run_after(now)


def closed_because(job: Job | None, row: JobRow | None) -> str:
    """Why ticks of the job open no run: its stored state, or its gate if no process has started with it yet; '' if they do."""
    if row is not None and row.state != "active":
        return f"{row.state}: {row.state_reason or 'no reason given'}"
    return "disabled: gate" if row is None and job is not None and not job.gate(os.environ) else ""


def effective(job: Job | None, row: JobRow | JobSummary | None) -> Schedule | None:
    """Return the schedule that holds: the stored one, the declared one while nothing is stored; None without one."""
    if row is None:
        return job.schedule if job else None
    try:
        return schedule_of(row)
    except CronError:
        return None


def _word(
    row: JobRow | None, running: Run | None, ended: Run | None, *, fires: bool
) -> Literal["running", "completed", "failed", "scheduled", "stopped"]:
    if running is not None:
        return "running"
    if not fires or (row is not None and row.state != "active"):
        return "stopped"
    if ended is None:
        return "scheduled"
    if ended.status is FAILED:
        return "failed"
    return "completed" if ended.status is RunStatus.SUCCEEDED else "scheduled"


EMPTY_METRICS = JobMetrics(
    total_executions=0, successful_jobs=0, failed_jobs=0, average_job_duration=timedelta(0), last_cleanup=None
)
