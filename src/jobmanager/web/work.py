"""Does what a call asks of the manager. Blocks, and turns every error into a response."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import datetime
from functools import partial
from typing import Protocol, TypeVar

from jobmanager.clock import Clock
from jobmanager.errors import (
    JobManagerError,
    JobNotFoundError,
    RunNotFoundError,
    StoppedError,
    StoreError,
    StoreUnavailableError,
    SwitchedOffError,
    UnsupportedError,
)
from jobmanager.process.throttled_log import ThrottledLogger
from jobmanager.run import Accepted, JobStatus, Run, RunStatus, Ticked, TickedJobs, Worked
from jobmanager.settings import Settings
from jobmanager.validation.printable import get_logger
from jobmanager.web.body import Call
from jobmanager.web.health import Report
from jobmanager.web.held import OF_THIS_PROCESS, Early, Held, HeldCalls
from jobmanager.web.response import (
    FAILED,
    UNAVAILABLE,
    Response,
    early,
    json_response,
    no_such_job,
    switched_off,
    wrong,
)
from jobmanager.web.start import Start, refused_response, started_response

logger = get_logger(__name__)

T = TypeVar("T")


class WorkHost(Protocol):
    """The part of `jobmanager.backends.base.Host` that the endpoint uses."""

    def accept(self, run_ids: Sequence[str]) -> Accepted: ...

    def execute(self, run_ids: Sequence[str]) -> object: ...

    def tick(self, job_id: str, *, scheduled_for: datetime | None = None) -> Ticked: ...

    def tick_all(self, *, waited_for: datetime | None = None) -> TickedJobs: ...

    def work(self, limit: int) -> Worked: ...

    def check_switch(self) -> None: ...

    def plan(self) -> object: ...

    def sweep(self) -> object: ...


class Manager(Protocol):
    """The JobManager, as far as the endpoint knows it."""

    @property
    def settings(self) -> Settings: ...

    @property
    def started(self) -> bool: ...

    @property
    def host(self) -> WorkHost: ...

    def start(self) -> object: ...

    def lifespan(self, app: object = None) -> AbstractAsyncContextManager[None]: ...

    def run(self, run_id: str) -> Run: ...

    @property
    def trigger_job(self) -> Callable[..., Run]: ...

    def get_all_job_statuses(self) -> list[JobStatus]: ...

    def health(self) -> Report: ...


class NotNowError(JobManagerError):
    """This process does not work now: it could not start, or has been stopped. Another one may."""


_LATER = (StoreError, StoppedError, NotNowError, SwitchedOffError)
_OPEN = (RunStatus.PENDING, RunStatus.RUNNING)


class Work:
    """The work of a call that needs the store. Any thread."""

    def __init__(self, jobs: Manager, clock: Clock, places: HeldCalls = OF_THIS_PROCESS) -> None:
        self._jobs = jobs
        self._places = places
        self._clock = clock
        self.waits = jobs.settings.wait
        self._started_in: int | None = None
        self._trouble = ThrottledLogger(logger)

    def respond(self, call: Call) -> Response:
        """Do everything a call needs on this thread; return the response."""
        if call.kind != "ticks":
            return self.order(call)
        [accepted] = self.accept([call])
        if isinstance(accepted, Response):
            return accepted
        return self.execute(call, accepted) if self.waits else accepted_response(call, accepted)

    def accept(self, calls: Sequence[Call]) -> list[Accepted | Response]:
        """Return for each call what became of its runs, among others, or the response that says why nothing did.

        All are accepted in one go. If that fails for no reason of the store's, each is tried alone, so that only the one
        to blame fails.
        """
        runs = tuple(dict.fromkeys(run for call in calls for run in call.runs))
        accepted = self._tried(lambda: self._jobs.host.accept(runs))
        if not isinstance(accepted, Exception):
            return [accepted] * len(calls)
        if len(calls) == 1 or isinstance(accepted, _LATER):
            return [self._failure(accepted)] * len(calls)
        return [result for call in calls for result in self.accept([call])]

    def execute(self, call: Call, accepted: Accepted) -> Response:
        """Execute the runs of the call on this thread; return the response that counts how they ended."""
        outcomes = self._tried(lambda: self._executed([run for run in call.runs if run in accepted.known]))
        if isinstance(outcomes, Exception):
            return self._failure(outcomes)
        return accepted_response(call, accepted, outcomes)

    def order(self, call: Call) -> Response:
        """Do what a call without runs orders, plan or sweep; return the response."""
        host = self._jobs.host
        done = self._tried(host.plan if call.kind == "plan" else host.sweep)
        if isinstance(done, Exception):
            return self._failure(done)
        return json_response(202, {"call": call.call, "accepted": 0, "known": 0})

    def tick(self, job_id: str | None, scheduled_for: datetime | None = None) -> Response:
        """Open the due instant of a job that a ticker names, or the one it asks for, or those of all jobs; return what became of it.

        A call that came a little early waits on this thread until its instant.
        """
        ticked = self.tick_now(job_id, scheduled_for)
        if isinstance(ticked, Response):
            return ticked
        with self.holding() as held:
            while isinstance(ticked, Early) and (seconds := held.wait(ticked)):
                self._clock.sleep(seconds)
                ticked = ticked.again()
            return held.response(ticked)

    def start(self, start: Start) -> Response:
        """Start a run by hand; return the response that names it, where it waits for its runs with the outcome."""
        run = self._tried(lambda: self._started(start))
        if isinstance(run, Exception):
            return refused_response(run) or self._failure(run)
        if not self.waits:
            return started_response(run)
        outcomes = self._tried(lambda: self._executed([run.id]))
        if isinstance(outcomes, Exception):
            return self._failure(outcomes)
        return json_response(200, {"run_id": run.id, "job": run.job_id, "outcomes": outcomes})

    def _started(self, start: Start) -> Run:
        self._jobs.host.check_switch()
        try:
            return self._jobs.trigger_job(start.job, **start.words)
        except JobNotFoundError:
            named = [status.id for status in self._jobs.get_all_job_statuses() if status.name == start.job]
            if len(named) != 1:
                raise
            return self._jobs.trigger_job(named[0], **start.words)

    def work(self, limit: int) -> Response:
        """Execute due pending runs, at most `limit`, on this thread; return the response that counts them."""
        worked = self._tried(lambda: self._jobs.host.work(limit))
        if isinstance(worked, UnsupportedError):
            return wrong(str(worked))
        if isinstance(worked, Exception):
            return self._failure(worked)
        return json_response(
            200, {"processed": worked.processed, "failed": worked.failed, "left": worked.left}
        )

    def holding(self) -> AbstractContextManager[Held]:
        """Count a call that waits, as long as the block lasts."""
        return self._places.hold(self._clock.monotonic)

    def tick_now(self, job_id: str | None, scheduled_for: datetime | None = None) -> Response | Early:
        """Do what `tick` does, but return `Early` for a call that has to wait, instead of waiting."""
        if job_id is None:
            return self._tick_all()
        ticked = self._tried(lambda: self._jobs.host.tick(job_id, scheduled_for=scheduled_for))
        if isinstance(ticked, Exception):
            return self._failure(ticked)
        facts = _facts(job_id, ticked)
        if ticked.due_in is not None:
            come_again = early(facts, ticked.due_in)
            again = partial(self.tick_now, job_id, scheduled_for)
            return Early(ticked.due_in, come_again, again) if ticked.may_be_held else come_again
        return self._ticked(facts, ticked.runs or ([ticked.run_id] if ticked.run_id else []))

    def _tick_all(self, waited_for: datetime | None = None) -> Response | Early:
        ticked = self._tried(lambda: self._jobs.host.tick_all(waited_for=waited_for))
        if isinstance(ticked, Exception):
            return self._failure(ticked)
        if ticked.due_in is not None:
            come_again = early({"finding": "early"}, ticked.due_in)
            again = partial(self._tick_all, ticked.waits_for)
            return Early(ticked.due_in, come_again, again) if ticked.may_be_held else come_again
        facts = {"jobs": [_facts(job_id, each) for job_id, each in ticked.jobs.items()]}
        return self._ticked(facts, [run for each in ticked.jobs.values() for run in each.runs])

    def _ticked(self, facts: Mapping[str, object], runs: Sequence[str]) -> Response:
        """Return the response to a tick, where it waits for its runs with their outcomes."""
        if not self.waits:
            return json_response(202, facts)
        outcomes = self._tried(lambda: self._executed(runs))
        if isinstance(outcomes, Exception):
            return self._failure(outcomes)
        return json_response(200, {**facts, "outcomes": outcomes})

    # ---------------------------------------------------------------- what the runs became

    def _executed(self, runs: Sequence[str]) -> Mapping[str, int]:
        """Return how many of the runs have which status, now that none of them is being executed any more."""
        self._jobs.host.execute(runs)
        deadline = self._clock.monotonic() + self._jobs.settings.wait_seconds
        return Counter(status for run in runs for status in self._status(run, deadline))

    def _status(self, run_id: str, deadline: float) -> list[str]:
        """Return the status of the run once no thread executes it and no attempt is near, or at the deadline; none if it was purged."""
        retried = None
        try:
            while (run := self._jobs.run(run_id)).status in _OPEN:
                waits = run.status is RunStatus.PENDING
                if waits and (not run.attempt or run.due_at == retried):
                    break
                pause = max(0.05, (run.due_at - self._clock.now()).total_seconds() if waits else 0)
                if self._clock.monotonic() + pause > deadline:
                    break
                self._clock.sleep(pause)
                if waits:
                    retried = run.due_at
                    self._jobs.host.execute([run_id])
        except RunNotFoundError:
            return []
        return [str(run.status)]

    def _tried(self, act: Callable[[], T]) -> T | Exception:
        """Return what `act` returns or raises; the second time, if the store is away: a pool may hold dead connections."""
        try:
            self._begin()
            try:
                return act()
            except StoreUnavailableError:
                return act()
        except Exception as error:  # noqa: BLE001 - it becomes a response and a log line
            return error

    def _begin(self) -> None:
        """Start the manager with the first call, where it was not started. Where the response waits for the runs, none is needed."""
        if not self._jobs.started and not self.waits:
            if self._started_in == os.getpid():
                raise NotNowError("the job manager of this process has been stopped")
            try:
                self._jobs.start()
            except Exception as error:
                raise NotNowError(
                    f"the job manager does not start: {type(error).__name__}: {error}"
                ) from error
        if self._jobs.started:
            self._started_in = os.getpid()

    def _failure(self, error: Exception) -> Response:
        """Return the response that shows nothing but whether to try again; the log has the rest."""
        if isinstance(error, JobNotFoundError):
            return no_such_job(error.job_id)
        if isinstance(error, SwitchedOffError):
            self._trouble.warning("503 for a call: %s", error)
            return switched_off(error.finding, str(error))
        if isinstance(error, _LATER):
            self._trouble.warning("503 for a call: %s", error)
            return UNAVAILABLE
        logger.error("500 for a call", exc_info=error)
        return FAILED


def accepted_response(call: Call, accepted: Accepted, outcomes: Mapping[str, int] | None = None) -> Response:
    """Return the response that the database reads: its call's number, and how many of the runs are known and accepted."""
    runs = frozenset(call.runs)  # others may have been accepted in the same go
    facts = {
        "call": call.call,
        "accepted": len(accepted.accepted & runs),
        "known": len(accepted.known & runs),
    }
    if outcomes is None:
        return json_response(202, facts)
    return json_response(200, {**facts, "outcomes": outcomes})


def _facts(job_id: str, ticked: Ticked) -> dict[str, object]:
    instant = ticked.scheduled_for
    return {
        "job": job_id,
        "finding": ticked.finding,
        "run": ticked.run_id,
        "scheduled_for": None if instant is None else instant.isoformat(),
    }
