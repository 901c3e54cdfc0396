"""One question about a job and an instant, and the facts that decide it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from jobmanager.access.acting import current
from jobmanager.access.principal import READ
from jobmanager.access.view import current_view
from jobmanager.errors import JobNotFoundError
from jobmanager.explain.explanation import Cause, Told, Verdict
from jobmanager.ledger.queries import effective
from jobmanager.manager.guarding import check_permission
from jobmanager.manager.manager import JobManager
from jobmanager.process.health import Symptom
from jobmanager.registry import closest
from jobmanager.run import Run
from jobmanager.schedule import Schedule


def start_one(jobs: JobManager) -> str:
    """Return what to do where no process lives, on this backend."""
    if jobs.settings.wait:
        return "The next call to the endpoint starts one: see that the clock outside calls, and what it gets as response."
    if jobs.backend.capabilities.executes_in_process:
        return "Start one: `jobmanager run`, or jobs.start() in the application."
    return "Start both: `jobmanager beat`, which keeps the time, and `jobmanager worker`."


@dataclass(frozen=True, slots=True)
class Decision:
    """The part of an explanation that one step decides."""

    verdict: Verdict
    cause: Cause
    because: str
    advice: str = ""


class Question:
    """One question about a job and an instant, with the facts that decide it, each read at most once."""

    def __init__(self, jobs: JobManager, job_id: str, at: datetime, told: Told) -> None:
        principal = current().principal
        if principal is not None:
            check_permission(principal, "explain", READ)
        self.jobs = jobs
        self.at = at.astimezone(UTC).replace(microsecond=0)
        self.told = told
        self.stored = jobs.store.exists()
        self.view = current_view(jobs.settings.namespace)
        self.row = jobs.store.jobs.get(job_id, seen=self.view) if self.stored else None
        self.job = jobs.registry.jobs.get(job_id) if self.view is None or self.row is not None else None
        self.job_id = job_id
        if self.row is None and self.job is None:
            suggested = closest(job_id, jobs.registry.jobs) if self.view is None else ""
            raise JobNotFoundError(f"No job {job_id!r} is declared or stored.{suggested}", job_id=job_id)
        self.now = jobs.store.now()

    @cached_property
    def schedule(self) -> Schedule | None:
        return effective(self.job, self.row)

    @cached_property
    def before(self) -> datetime | None:
        return None if self.schedule is None else self.schedule.previous_before(self.at)

    @cached_property
    def after(self) -> datetime | None:
        return None if self.schedule is None else self.schedule.next_after(self.at)

    @cached_property
    def run(self) -> Run | None:
        return self.jobs.store.history.run_for(self.job_id, self.at, seen=self.view) if self.stored else None

    @cached_property
    def standstill(self) -> Symptom | None:
        """The symptom that keeps every job of the namespace from running, if there is one."""
        symptoms = self.jobs.health(told=self.told).symptoms if self.stored else ()
        return next((one for one in symptoms if one.failing and one.since is not None), None)

    def no(self, cause: Cause, because: str, advice: str = "") -> Decision:
        """Return the decision that it did not run, or will not."""
        verdict: Verdict = "will_not_run" if self.at > self.now else "did_not_run"
        return Decision(verdict, cause, because, advice)
