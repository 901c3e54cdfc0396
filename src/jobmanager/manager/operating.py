"""The methods of JobManager that start, read and change runs and jobs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

from jobmanager.access.acting import in_batch
from jobmanager.access.principal import ADMIN, WRITE
from jobmanager.clock import later
from jobmanager.errors import (
    ConfigurationError,
    JobDisabledError,
    PayloadError,
    RunConflictError,
    TransitionError,
)
from jobmanager.execution.opening import OpenRequest
from jobmanager.job import Job
from jobmanager.ledger.backfill import MadeUp, backfill
from jobmanager.ledger.job_sync import Change
from jobmanager.ledger.missing_instants import schedule_of
from jobmanager.ledger.overlap import OpenResult
from jobmanager.ledger.overrides import added, checked, in_force
from jobmanager.ledger.queries import Planned
from jobmanager.ledger.recorder import checked_payload
from jobmanager.manager.guarding import changes, reads
from jobmanager.manager.health import REPLY_WITHIN
from jobmanager.manager.parts import Parts
from jobmanager.manager.waiting import Waiting
from jobmanager.process.health import HealthReport
from jobmanager.process.heartbeat import living
from jobmanager.run import SUSPENDED, Attempt, ByHand, JobMetrics, JobStatus, LogLine, Run, RunStatus, new_id
from jobmanager.stores.values import AuditEntry, Instance, JobState
from jobmanager.validation.call_arguments import (
    check_arguments,
    duration_of,
    moment_of,
    planned_moment_of,
    position_of,
    words_of,
)
from jobmanager.validation.printable import get_logger
from jobmanager.validation.texts import Located, naming_its_caller, shown

logger = get_logger(__name__)

Seconds = timedelta | float | str


class Operating:
    """The methods that operate jobs. Any thread may call them; the first use installs an empty store."""

    _parts: Parts

    @naming_its_caller
    @changes(WRITE, "trigger", of="job")
    def trigger_job(
        self,
        job_id: str,
        payload: Mapping[str, Any] | None = None,
        *,
        delay: Seconds | None = None,
        at: datetime | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        key: str | None = None,
        scope: str | None = None,
        requested_by: str | None = None,
        notify: bool = False,
        by: str | None = None,
    ) -> Run:
        """Start a run by hand, now or later, and return its record without waiting for its end; no tick is consumed.

        A started process executes it; in one that was not started it stays pending for a started process; on noop it runs
        inline and is returned ended. `priority` and `max_attempts` hold for this run, in place of the job's. With `notify` the person named by `requested_by`
        gets an e-mail when it has ended; UnsupportedError if no address of that person is known. With `key` an existing run
        of the job with that key is returned instead. With `by` the start is audited, and `requested_by` is the same name unless
        another is given. Raises RunConflictError (with the active run's id), JobDisabledError, JobNotFoundError or PayloadError.
        """
        job = self._parts.job(job_id)
        now = self._parts.clock.now()
        with Located(f"Job {job.id!r}"):
            check_arguments(
                priority=priority,
                max_attempts=max_attempts,
                key=key,
                scope=scope,
                requested_by=requested_by,
                notify=notify,
                by=by,
            )
            due_at = _moment(now, delay, at)
            checked = checked_payload(dict(payload) if isinstance(payload, Mapping) else payload)
            self._check_payload(job, checked or {})
            requested_by = by if requested_by is None else requested_by
            if notify:
                requested_by = self._parts.assembly.notifying.reachable(requested_by)
        self._parts.check_not_disabled(f"Job {job.id!r} is not started", job.id)
        self._parts.check_scope(job.id, "trigger", scope)
        assembly = self._parts.ready()
        by_hand = ByHand(
            payload=checked,
            priority=priority,
            max_attempts=max_attempts,
            key=key,
            scope=scope,
            requested_by=requested_by,
            notify=notify,
        )
        here = self._parts.executes_here and due_at <= now and job.id in self._parts.registry.jobs
        note = self._parts.noting("trigger", by)
        request = OpenRequest(job, due_at=due_at, by_hand=by_hand, here=here, note=note)
        return self._answer(job, assembly.runner.accept(request))

    def _answer(self, job: Job, verdict: OpenResult) -> Run:
        match verdict.finding, verdict.run:
            case "conflict", Run() as active:
                raise RunConflictError(
                    f"Job {job.id!r} has an active run {active.id} ({active.status}); overlap={job.overlap!r} allows no second one.",
                    run_id=active.id,
                )
            case (("opened" | "duplicate"), Run() as run):
                return run if self._parts.assembly.threaded else self._inline(run)
        raise JobDisabledError(
            f"Job {job.id!r} is disabled and cannot be started by hand either.", job_id=job.id
        )

    def _inline(self, run: Run) -> Run:
        """Return the run after its inline execution; on a backend that keeps no time further attempts follow at once, but no sleep ends."""
        after, taken = self._parts.history.run(run.id), 1
        while taken and not self._parts.backend.capabilities.keeps_time and self._goes_on_here(after):
            self._parts.clock.sleep(max(0.0, (after.due_at - self._parts.clock.now()).total_seconds()))
            taken = self._parts.assembly.claims.claim_these([after.id])
            after = self._parts.history.run(run.id)
        return after

    def _goes_on_here(self, run: Run) -> bool:
        """Return True for a run to be tried again, and for one whose turn it is in a line that nobody else serves."""
        if run.status is not RunStatus.PENDING or run.reason in SUSPENDED:
            return False
        return run.attempt > 0 or (run.turn == "holds" and run.due_at <= self._parts.clock.now())

    def _check_payload(self, job: Job, payload: Mapping[str, Any]) -> None:
        handler = self._parts.registry.handlers.get(job.handler)
        if handler is not None and not isinstance(handler.target, str):
            handler.arguments(job.config, payload)

    @naming_its_caller
    @reads
    def wait(self, run_id: str, timeout: Seconds | None = 30) -> Run:
        """Block until the run has ended and return it.

        Raises WaitTimeoutError after `timeout` seconds (None: no limit), and the run goes on; RunNotFoundError for an unknown
        id. The end of a run of this process is seen at once, that of another process within 50 ms on PostgreSQL and 250 ms on SQLite.

        A handler that waits lends its worker to the run that it waits for, so that waiting handlers never keep one another from
        ending; on Celery and in a child process it cannot. A coroutine awaits `jobs.aio.wait` instead.
        """
        with self._waiting(run_id, timeout) as waiting:
            while (run := waiting.look()) is None:
                waiting.sleep()
            return run

    @reads
    def _waiting(self, run_id: str, timeout: Seconds | None) -> Waiting:
        """Begin to wait for a run; RunNotFoundError for an unknown id."""
        limit = None if timeout is None else duration_of("timeout", timeout).total_seconds()
        run = self._parts.history.run(run_id)
        return Waiting(self._parts.assembly, self._parts.history, self._parts.clock, run.id, limit)

    @changes(WRITE, "execute", of="run")
    def execute_here(self, run_id: str, *, by: str | None = None) -> bool:
        """Execute a due pending run in this process, which was not started, unless a started one may take it; True if taken.

        A run that goes back to pending between attempts needs another call. `stop()` ends what was taken. With `by` it is audited.
        Raises RunNotFoundError.
        """
        check_arguments(by=by)
        run = self._parts.history.run(run_id)
        if (
            self._parts.settings.disabled
            or self._parts.started
            or run.status is not RunStatus.PENDING
            or self.executors(run.job_id)
        ):
            return False
        assembly = self._parts.ready()
        with self._parts.lock:
            assembly.attend()
            assembly.heartbeat.start(executes=False)
            self._parts.attending = True
        taken = bool(assembly.claims.claim_these([run.id]))
        if taken:
            self._parts.record(
                "execute", "run", run.id, by, {"host": assembly.heartbeat.id}, job_id=run.job_id
            )
        return taken

    @reads
    def is_executed_here(self, run_id: str) -> bool:
        """Return whether this process owns the run; RunNotFoundError for an unknown id."""
        return self._parts.history.run(run_id).owner == self._parts.assembly.heartbeat.id

    @reads
    def executors(self, job_id: str) -> list[Instance]:
        """List the living processes that take pending runs of this job."""
        if self._parts.view() is not None:
            self._parts.row(job_id)
        executing = [
            instance for instance in living(self._parts.store, self._parts.settings) if instance.executes
        ]
        if executing and job_id not in self._parts.store.processes.declared_by_living(
            self._parts.settings.namespace
        ):
            return []
        return executing

    @changes(WRITE, "cancel", of="run")
    def cancel(
        self, run_id: str, *, children: Literal["cancel", "keep"] = "cancel", by: str | None = None
    ) -> Run:
        """Ask a run to end, and return it: a pending one is cancelled at once, a closed one stays as it is.

        A running one ends when its handler reads `context.cancelled`, or comes to a step. The same becomes of the open runs that it has started
        in steps, and of those that these have started, unless `children` is "keep". With `by` the change is audited. Twice is safe.
        Raises PayloadError, RunNotFoundError and JobDisabledError.
        """
        check_arguments(by=by)
        if children not in ("cancel", "keep"):
            raise PayloadError(f'children={shown(children)} cannot be used; use "cancel" or "keep".')
        found = self._parts.history.run(run_id)
        self._parts.check_not_disabled(f"Run {found.id} is not cancelled", found.job_id)
        note = self._parts.noting("cancel", by)
        run = self._parts.ready().store.runs.cancel(found.id, children=children == "cancel", note=note)
        attempt = self._parts.assembly.attempts.get(run.id)
        if attempt is not None:
            attempt.ask_to_end("requested")
        if run.parent_id is not None and run.status.closed:
            self._parts.assembly.wake()
        return run

    @changes(WRITE, "redrive", of="run")
    def redrive(self, run_id: str, *, from_start: bool = False, by: str | None = None) -> Run:
        """Open a failed, cancelled, skipped or missed run again, due now, and return it.

        Its old outcome stays among its attempts. Steps that succeeded are not done again, unless it is to go `from_start`: then its steps
        are forgotten, and the runs that it has started stay what they are and are started anew. With `by` the change is audited.
        Raises TransitionError for any other status, JobDisabledError and RunNotFoundError.
        """
        check_arguments(by=by, from_start=from_start)
        found = self._parts.history.run(run_id)
        self._parts.check_not_disabled(f"Run {found.id} is not redriven", found.job_id)
        note = self._parts.noting("redrive", by)
        run = self._parts.ready().account.redrive(found.id, note, from_start=from_start)
        self._execute_soon([run.id])
        return run if self._parts.assembly.threaded else self._inline(run)

    def _execute_soon(self, run_ids: Sequence[str]) -> None:
        """Get these pending runs executed: inline on a backend that keeps no time, where no other thread or process would."""
        claims = self._parts.assembly.claims
        if self._parts.backend.capabilities.keeps_time:
            claims.claim()
            return
        for run_id in run_ids:
            claims.claim_these([run_id])
            self._inline(self._parts.history.run(run_id))

    @naming_its_caller
    @reads
    def dead_letters(self, job: str | None = None, *, limit: int = 50) -> list[Run]:
        """List the failed runs that were neither redriven nor discarded, newest first, of one job or of all."""
        return self._parts.history.runs(job, (), None, limit, dead=True)

    @changes(WRITE, "discard", of="run")
    def discard(self, run_id: str, *, by: str | None = None) -> Run:
        """Take a failed run off the dead letters; it stays on record. With `by` the change is audited. Twice is safe.

        Raises RunNotFoundError and JobDisabledError.
        """
        check_arguments(by=by)
        found = self._parts.history.run(run_id)
        self._parts.check_not_disabled(f"Run {found.id} is not discarded", found.job_id)
        return self._parts.ready().store.maintenance.discard(found.id, note=self._parts.noting("discard", by))

    @naming_its_caller
    @changes(WRITE, "redrive")
    def redrive_all(self, job: str | None = None, *, limit: int = 100, by: str | None = None) -> list[Run]:
        """Redrive the newest `limit` dead letters, oldest first, and return them; those of disabled jobs are skipped.

        With `by` each of them is audited, all under one batch. JobDisabledError while JOBMANAGER_DISABLED is set.
        """
        check_arguments(by=by)
        self._parts.check_not_disabled("Nothing is redriven", job or "")
        redriven = []
        with in_batch(self._batch_id()):
            for run in reversed(self._parts.history.runs(job, (), None, limit, dead=True)):
                try:
                    redriven.append(self.redrive(run.id, by=by))
                except (JobDisabledError, TransitionError) as error:
                    logger.warning("run_id=%s not redriven: %s", run.id, error)
        return redriven

    def _batch_id(self) -> str:
        return new_id(self._parts.clock.now())

    @naming_its_caller
    @changes(WRITE, "backfill", of="job")
    def backfill(
        self, job_id: str, start: datetime, end: datetime, *, dry_run: bool = False, by: str | None = None
    ) -> list[MadeUp]:
        """Open a run for each instant of the job in (start, end] that did not succeed; `dry_run` only lists the instants.

        JobDisabledError while JOBMANAGER_DISABLED is set. At most 1,000 instants at once. A missed stretch that is folded into one row stays as it is. Both moments are aware.
        """
        with Located(f"Job {shown(job_id)}"):
            check_arguments(by=by, dry_run=dry_run)
            start, end = moment_of("start", start), moment_of("end", end)
        if not dry_run:
            self._parts.check_not_disabled(f"Job {shown(job_id)} is not backfilled", job_id)
        self._parts.row(job_id, deleted=True)
        self._parts.check_scope(job_id, "backfill")
        note = partial(self._backfilled, job_id, start, end, by)
        made_up = backfill(self._parts.ready().store, job_id, start, end, dry_run=dry_run, by=by, note=note)
        if not dry_run:
            opened = [each.run_id for each in made_up if each.action in ("open", "redrive") and each.run_id]
            self._execute_soon(opened)
        return made_up

    def _backfilled(
        self, job_id: str, start: datetime, end: datetime, by: str | None, made_up: Sequence[MadeUp]
    ) -> AuditEntry | None:
        assembly = self._parts.assembly
        opened = sum(each.action in ("open", "redrive") for each in made_up)
        if not opened or not assembly.auditor.is_wanted(by):
            return None
        after = {"start": start.isoformat(), "end": end.isoformat(), "runs": opened}
        at = assembly.store.now()
        return assembly.auditor.entry("backfill", "job", job_id, at=at, by=by, job_id=job_id, after=after)

    @reads
    def run(self, run_id: str) -> Run:
        """Return the run with this id, or with this unambiguous end of an id; RunNotFoundError otherwise."""
        return self._parts.history.run(run_id)

    @reads
    def attempts(self, run_id: str) -> list[Attempt]:
        """Return the earlier attempts of the run, oldest first; the run itself is the last one. RunNotFoundError."""
        return self._parts.history.attempts(run_id)

    @naming_its_caller
    @reads
    def logs(self, run_id: str, *, after: int = 0) -> list[tuple[int, int, LogLine]]:
        """Return the log lines of the run as (position, attempt, line), after the position `after`. RunNotFoundError, PayloadError."""
        return self._parts.history.lines(run_id, position_of("after", after))

    @naming_its_caller
    @reads
    def runs(
        self,
        job: str | None = None,
        status: str | Collection[str] | None = None,
        *,
        before: str | None = None,
        limit: int = 50,
    ) -> list[Run]:
        """List runs, newest first, at most `limit`; `status` is one status or several.

        `before` is the id of the last run of the previous page. Runs of one job are sorted by their instants, runs of all jobs by
        the time they were opened.
        """
        wanted = [] if status is None else words_of("status", status, RunStatus)
        return self._parts.history.runs(job, wanted, before, limit)

    # ---------------------------------------------------------------- jobs

    @naming_its_caller
    @changes(WRITE, "pause", of="job")
    def stop_job(self, job_id: str, *, reason: str | None = None, by: str | None = None) -> None:
        """Pause the job in the store, for all processes: its ticks are recorded as skipped (paused). Twice is safe.

        Running and pending runs go on, and starts by hand are possible. Raises JobDisabledError and JobNotFoundError.
        """
        with Located(f"Job {shown(job_id)}"):
            check_arguments(reason=reason, by=by)
        self._change_state(job_id, "paused", reason, by)

    @naming_its_caller
    @changes(WRITE, "resume", of="job")
    def resume_job(self, job_id: str, *, by: str | None = None) -> None:
        """End a pause: the next tick is the first instant after now; instants of the pause are not caught up. Twice is safe.

        Raises JobDisabledError and JobNotFoundError.
        """
        with Located(f"Job {shown(job_id)}"):
            check_arguments(by=by)
        self._change_state(job_id, "active", None, by)

    @naming_its_caller
    @changes(WRITE, "pause")
    def stop_all_jobs(self, *, reason: str | None = None, by: str | None = None) -> None:
        """Pause every active job of this manager. JobDisabledError while JOBMANAGER_DISABLED is set."""
        check_arguments(reason=reason, by=by)
        self._parts.check_not_disabled("No job is paused")
        with in_batch(self._batch_id()):
            for job_id in self._in_state("active"):
                self.stop_job(job_id, reason=reason, by=by)

    @naming_its_caller
    @changes(WRITE, "resume")
    def resume_all_jobs(self, *, by: str | None = None) -> None:
        """Resume every paused job of this manager. JobDisabledError while JOBMANAGER_DISABLED is set."""
        check_arguments(by=by)
        self._parts.check_not_disabled("No job is resumed")
        with in_batch(self._batch_id()):
            for job_id in self._in_state("paused"):
                self.resume_job(job_id, by=by)

    def _in_state(self, state: JobState) -> list[str]:
        """Return the jobs of this manager that are in this state and that the caller may change."""
        view = self._parts.view()
        rows = self._parts.ready().store.jobs.rows(ids=list(self._parts.registry.jobs), seen=view)
        whole = view is None or view.scopes is None
        return [row.id for row in rows if row.state == state and (whole or row.visibility != "project")]

    @naming_its_caller
    @changes(WRITE, "override", of="job")
    def override_job(self, job_id: str, *, by: str | None = None, **words: Any) -> None:
        """Override options of a job in the store: `cron`, `timezone`, `every`, `config`, `timeout`, `max_attempts`, policies.

        The declaration in the code never overwrites them, and nothing fires. They add to earlier overrides; `cron`, `timezone` or
        `every` replace an earlier schedule, and None there gives the schedule back to the code.
        Raises ConfigurationError or CronError for what a declaration would not accept either, JobNotFoundError and JobDisabledError.
        """
        with Located(f"Job {shown(job_id)}"):
            check_arguments(by=by)
            given = checked(words)
        self._parts.check_not_disabled(f"Job {shown(job_id)} is not changed", job_id)
        self._override(job_id, added(self._parts.row(job_id, deleted=True).override or {}, given), by)

    @naming_its_caller
    @changes(WRITE, "reset", of="job")
    def reset_job(self, job_id: str, *, by: str | None = None) -> None:
        """Remove every override of the job: the declaration in the code holds again. Twice is safe.

        Raises JobNotFoundError and JobDisabledError.
        """
        with Located(f"Job {shown(job_id)}"):
            check_arguments(by=by)
        self._parts.check_not_disabled(f"Job {shown(job_id)} is not changed", job_id)
        self._override(job_id, None, by)

    def _override(self, job_id: str, override: dict[str, Any] | None, by: str | None) -> None:
        assembly = self._parts.ready()
        self._parts.job(job_id)
        action = "reset" if override is None else "override"
        self._parts.check_scope(job_id, action)
        with Located(f"Job {job_id!r}"):
            if job_id not in self._parts.registry.declared:
                raise ConfigurationError(
                    "an operator made it, so there is nothing to override; edit it with update_job."
                )
            row = assembly.job_sync.overridden(job_id, override)
            self._parts.backend_class.check(in_force(self._parts.registry.declared[job_id], override))
        self._parts.prepare(schedule_of(row))
        assembly.account.change(job_id, declaration=row, by=by, action=action)
        assembly.follow_changes()
        assembly.job_sync.refresh()

    def _change_state(self, job_id: str, state: JobState, reason: str | None, by: str | None) -> None:
        self._parts.check_not_disabled(f"Job {shown(job_id)} is not changed", job_id)
        row = self._parts.row(job_id, deleted=True)
        if not row.open:
            raise JobDisabledError(
                f"Job {job_id!r} is {row.state} ({row.state_reason}); it can be neither paused nor resumed.",
                job_id=job_id,
            )
        if state == "active":
            self._parts.prepare(schedule_of(row))
        action = "pause" if state == "paused" else "resume"
        self._parts.check_scope(job_id, action)
        self._parts.assembly.account.change(job_id, state=state, reason=reason, by=by, action=action)
        self._parts.assembly.follow_changes()

    @reads
    def get_job_status(self, job_id: str) -> JobStatus | None:
        """Return the job's status across all processes; None for an unknown id."""
        found = self._parts.history.statuses([job_id])
        return found[0] if found else None

    @reads
    def get_all_job_statuses(self) -> list[JobStatus]:
        """Return the status of every declared or stored job, sorted by id."""
        return self._parts.history.statuses()

    @reads
    def get_job_metrics(self) -> JobMetrics:
        """Count all runs on record, of all processes."""
        return self._parts.history.metrics()

    @reads
    def health(
        self,
        *,
        late: timedelta | None = None,
        thorough: bool = False,
        within: float = REPLY_WITHIN,
        told: Callable[[datetime], str] | None = None,
    ) -> HealthReport:
        """Return what stands still although it should move: in this process, if it was started, and by the store in all of them.

        Never raises and returns `within` so many seconds, whatever the store does, but a principal needs `jobs:read`, and jobs are named to
        those alone who see all of them. `late` is how late ticks may come (60 s), `thorough`
        reads every job, `told` writes instants inside sentences.
        """
        report = self._parts.health.report(late=late, thorough=thorough, within=within, told=told)
        view = self._parts.view()
        return report if view is None or view.is_whole else report.without_names()

    @naming_its_caller
    @reads
    def simulate(self, start: datetime, end: datetime) -> list[Planned]:
        """Compute what would fire in (start, end], in order, and why; nothing is written and nothing fires.

        Both moments are aware. PayloadError for what is none, or lies outside of the years 1970 to 9998.
        """
        return self._parts.history.simulate(planned_moment_of("start", start), planned_moment_of("end", end))

    @naming_its_caller
    @changes(ADMIN, "sync", of="namespace")
    def sync(self, plan: bool = False, *, by: str | None = None) -> list[Change]:  # noqa: FBT001, FBT002 - sync(plan=True) is the published name
        """Carry declarations over to the store and the backend, and return the changes; `plan=True` only returns them.

        With `by` it is audited. JobDisabledError while JOBMANAGER_DISABLED is set, unless with `plan`.
        """
        check_arguments(plan=plan, by=by)
        if not plan:
            self._parts.check_not_disabled("No declaration is carried over")
            carried = self._parts.assembly.job_sync.plan() if self._parts.store.exists() else []
            self._parts.assembly.sync()
            self._parts.record(
                "sync", "namespace", self._parts.settings.namespace, by, {"changes": len(carried)}
            )
            return carried
        if not self._parts.store.exists():
            return [Change(job_id=job.id, action="create") for job in self._parts.registry.jobs.values()]
        return self._parts.assembly.job_sync.plan()


def _moment(now: datetime, delay: Seconds | None, at: datetime | None) -> datetime:
    if delay is not None and at is not None:
        raise PayloadError("Give either delay or at, not both.")
    if at is not None:
        return max(moment_of("at", at), now)
    return now if delay is None else later(now, duration_of("delay", delay))
