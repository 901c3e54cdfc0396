"""The tick of one job, or of all, that an outside ticker calls for: which instant is meant, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from jobmanager.clock import Clock, later
from jobmanager.execution.claiming import Claiming
from jobmanager.execution.opening import OpenRequest
from jobmanager.execution.runner import Runner
from jobmanager.job import Job
from jobmanager.ledger.queries import effective
from jobmanager.manager.sweep import Sweep
from jobmanager.process.heartbeat import LastTick
from jobmanager.registry import Registry
from jobmanager.run import MICROSECOND, MISSED, PENDING, SKIPPED, Run, Tick, Ticked, TickedJobs
from jobmanager.schedule import Schedule
from jobmanager.stores.base import RunStore
from jobmanager.stores.values import JobRow

HOLD = timedelta(seconds=5)
"""A call that comes so much before its instant is held until then, and never by more than half of the way to the instant after it."""

EARLY = timedelta(seconds=60)
"""A call that comes so much before its instant is told to come again."""

EARLY_FOR_ALL = timedelta(seconds=30)
"""The same of a call that names no job: a ticker of every minute is not early for what is due in the next one."""

SWEEP_AFTER = timedelta(seconds=60)
MOST_OPEN = 1000
BESIDE = 10  # rows that may lie between those that the account has just opened


class CalledTicks:
    """Opens the instant that a call means. Any thread, in any number of processes: the ledger gives each instant one run.

    `waits`: the host may stop this process after the response, so a call does what is due before it returns; elsewhere the
    threads of this process do that.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        store: RunStore,
        runner: Runner,
        claims: Claiming,
        sweep: Sweep,
        last_tick: LastTick,
        follow_changes: Callable[[], object],
        clock: Clock,
        grace: timedelta,
        waits: bool,
        budget: timedelta,
    ) -> None:
        """`budget`: how long a call that waits for its runs goes on to begin others that are due."""
        self._registry = registry
        self._store = store
        self._runner = runner
        self._claims = claims
        self._sweep = sweep
        self._last_tick = last_tick
        self._follow_changes = follow_changes
        self._clock = clock
        self._grace = grace
        self._waits = waits
        self._budget = budget

    def tick(self, job_id: str, scheduled_for: datetime | None = None) -> Ticked:
        """Open a run for the job's last due instant, or for the one that is given; `early` comes with the time until it is due.

        What is too late is left to the job's catch-up policy; `runs` of the result are all that this opened for the job.
        Raises JobNotFoundError, and StoreUnavailableError, after which it may be repeated.
        """
        if not self._waits:
            return self._tick(job_id, scheduled_for)
        until = self._clock.monotonic() + self._budget.total_seconds()
        self._follow_changes()  # no thread of a process that sleeps between calls did
        self._execute(self._open_runs(job_id), until)  # what holds the job's key would have the tick skipped
        ticked = self._tick(job_id, scheduled_for)
        if ticked.finding != "early":
            self._work_off(ticked.runs, until)
        return ticked

    def tick_all(self, waited_for: datetime | None = None) -> TickedJobs:
        """Open a run for the last due instant of every job that has none yet, all in one go.

        A call that is a little early for a job opens nothing and says how long to wait: up to five seconds in any case, up to half a
        minute where nothing else is due. It is called again with `waited_for`, and opens what is due then. Raises
        StoreUnavailableError, after which it may be repeated.
        """
        until = self._clock.monotonic() + self._budget.total_seconds()
        if self._waits:
            self._follow_changes()
        now = self._store.now()
        due, coming = self._due_and_coming(now)
        if coming is not None and (waited_for is None or coming <= waited_for):
            due_in, held = coming - now, coming - now <= HOLD
            if held or not due:
                return TickedJobs({}, due_in.total_seconds(), coming, may_be_held=held)
        if self._waits:
            for job, _, _ in due:
                self._execute(self._open_runs(job.id), until)
        ticked = self._open_all(due, now)
        if self._waits:
            self._work_off([run_id for each in ticked.values() for run_id in each.runs], until)
        return TickedJobs(ticked)

    def _tick(self, job_id: str, scheduled_for: datetime | None) -> Ticked:
        job = self._registry.job(job_id)
        row = self._store.jobs.get(job_id)
        schedule = effective(job, row)
        if schedule is None or row is None:
            return Ticked("not_due")
        now = self._store.now()
        if scheduled_for is None:
            ticked = self._last(job, row, schedule, now)
        else:
            ticked = self._given(job, row, schedule, now, scheduled_for)
        self._note(job, ticked, now)
        return ticked

    def _note(self, job: Job, ticked: Ticked, now: datetime) -> None:
        """Note the tick for the health of this process: that it came, and how late if it opened something."""
        if ticked.scheduled_for is not None and ticked.run_id is not None:
            late = now - job.due_at(ticked.scheduled_for)
            self._last_tick.scheduled_for = ticked.scheduled_for
            self._last_tick.lag = late.total_seconds() if ticked.finding == "opened" else 0.0

    # ---------------------------------------------------------------- which instant is meant

    def _last(self, job: Job, row: JobRow, schedule: Schedule, now: datetime) -> Ticked:
        """Return what becomes of the last due instant, unless the call is for the next one, a little early."""
        last, coming = schedule.previous_before(now + MICROSECOND), schedule.next_after(now)
        if last is not None and job.due_at(last) > now:  # by its jitter
            last, coming = schedule.previous_before(last), last
        taken: Ticked | None = None
        if last is not None and last > row.accounted_until and job.due_at(last) > now - self._grace:
            taken = self._open(job, row, last, now)
            if taken.finding != "duplicate":
                return taken
        early = None
        if coming is not None and row.state == "active" and _is_nearer(job.due_at(coming), last, now):
            early = self._ahead(job, schedule, coming, now)
        return early or taken or self._past(job, row, last, now)

    def _due_and_coming(self, now: datetime) -> tuple[list[tuple[Job, JobRow, datetime]], datetime | None]:
        """Return the jobs with the last instant that is not accounted for, and when the next instant is due that the call may mean."""
        rows = {row.id: row for row in self._store.jobs.rows(ids=list(self._registry.jobs))}
        due: list[tuple[Job, JobRow, datetime]] = []
        means: list[datetime] = []
        for job in list(self._registry.jobs.values()):
            row = rows.get(job.id)
            schedule = effective(job, row)
            if row is None or schedule is None or not row.open:
                continue
            last, coming = schedule.previous_before(now + MICROSECOND), schedule.next_after(now)
            if last is not None and job.due_at(last) > now:  # by its jitter
                last, coming = schedule.previous_before(last), last
            if last is not None and last > row.accounted_until:
                due.append((job, row, last))
            if coming is None or row.state != "active" or not _is_nearer(job.due_at(coming), last, now):
                continue
            ahead = self._ahead(job, schedule, coming, now)
            if ahead is not None and (ahead.may_be_held or HOLD < job.due_at(coming) - now <= EARLY_FOR_ALL):
                means.append(job.due_at(coming))
        return due, min(means, default=None)

    def _given(self, job: Job, row: JobRow, schedule: Schedule, now: datetime, instant: datetime) -> Ticked:
        """Return what becomes of an instant that the caller names, if it is one of the schedule."""
        if schedule.previous_before(later(instant, MICROSECOND)) != instant:
            return Ticked("not_due", scheduled_for=instant)
        if job.due_at(instant) > now:
            return self._ahead(job, schedule, instant, now) or Ticked("not_due", scheduled_for=instant)
        return self._past(job, row, instant, now)

    def _ahead(self, job: Job, schedule: Schedule, instant: datetime, now: datetime) -> Ticked | None:
        """Return how long it is until the instant is due; None if that is too far ahead for a call that means it."""
        due_in = job.due_at(instant) - now
        if due_in > EARLY:
            return None
        after = schedule.next_after(instant)
        hold = HOLD if after is None else min(HOLD, (after - instant) / 2)
        return Ticked(
            "early", scheduled_for=instant, due_in=due_in.total_seconds(), may_be_held=due_in <= hold
        )

    # ---------------------------------------------------------------- what becomes of it

    def _past(self, job: Job, row: JobRow, instant: datetime | None, now: datetime) -> Ticked:
        """Return what became, or becomes, of an instant that has passed."""
        if instant is None:
            return Ticked("not_due")
        if instant > row.accounted_until:
            return self._open(job, row, instant, now)
        found = self._store.history.run_for(job.id, instant)
        if found is not None and found.announced and found.status is PENDING:  # by a backend that is left
            return self._open(job, row, instant, now)
        return _found("duplicate" if found else "not_due", found, instant)

    def _open(self, job: Job, row: JobRow, instant: datetime, now: datetime) -> Ticked:
        """Open the instant; of one that is too late, what the account made of it, with all that it opened for the job."""
        result = self._runner.accept(OpenRequest(job, Tick(job.id, instant, row.schedule_rev)))
        if result.finding != "late":
            return _found(result.finding, result.run, instant)
        return self._caught_up(job, row, instant, now)

    def _open_all(self, due: Sequence[tuple[Job, JobRow, datetime]], now: datetime) -> dict[str, Ticked]:
        """Open the instants of many jobs in one go; return what became of each."""
        requests = [OpenRequest(job, Tick(job.id, instant, row.schedule_rev)) for job, row, instant in due]
        opened = {
            result.run.job_id: result.run
            for result in (self._runner.accept_all(requests) if requests else ())
            if result.finding == "opened" and result.run is not None
        }
        ticked = {}
        for job, row, instant in due:
            run = opened.get(job.id)
            ticked[job.id] = (
                self._caught_up(job, row, instant, now) if run is None else _found("opened", run, instant)
            )
            self._note(job, ticked[job.id], now)
        return ticked

    def _caught_up(self, job: Job, row: JobRow, instant: datetime, now: datetime) -> Ticked:
        """Return what the account made of an instant that is too late, or has a run, with all that it opened for the job."""
        newest = self._store.history.runs(job_id=job.id, limit=row.catch_up_cap + BESIDE)
        opened = [
            run
            for run in newest
            if run.trigger == "catch_up" and run.opened_at >= now and run.status is not SKIPPED
        ]
        found = self._store.history.run_for(job.id, instant)
        if found is None or found.status is MISSED:
            return Ticked("late", scheduled_for=instant)
        if found.status is SKIPPED:
            return _found("skipped", found, instant)
        if not opened:
            return _found("duplicate", found, instant)
        return Ticked("opened", found.id, instant, runs=tuple(run.id for run in reversed(opened)))

    # ---------------------------------------------------------------- where the call waits

    def _open_runs(self, job_id: str) -> tuple[str, ...]:
        """Return the pending runs of the job that are due, oldest first."""
        pending = self._store.history.runs(job_id=job_id, statuses=[PENDING], limit=MOST_OPEN)
        now = self._store.now()
        due = [run for run in pending if run.due_at <= now and not run.announced]
        return tuple(run.id for run in sorted(due, key=lambda run: (run.due_at, run.scheduled_for or now)))

    def _work_off(self, run_ids: Sequence[str], until: float) -> None:
        """Execute these runs on this thread, check the account if that is due, and go on with what else is pending."""
        self._execute(run_ids, until)
        if self._sweep.is_older_than(SWEEP_AFTER):
            self._sweep.look()
        while self._clock.monotonic() < until and self._claims.claim_one_here():
            pass

    def _execute(self, run_ids: Sequence[str], until: float) -> None:
        """Execute these runs on this thread, one after the other, as far as they are pending and there is time to begin."""
        for run_id in run_ids:
            if self._clock.monotonic() >= until:
                break
            self._claims.claim_these([run_id], here=True)


def _found(finding: str, run: Run | None, instant: datetime) -> Ticked:
    return Ticked(finding, run.id if run else None, instant, runs=(run.id,) if run else ())


def _is_nearer(due_at: datetime, last: datetime | None, now: datetime) -> bool:
    """Return whether a call at this moment is nearer to what is due then than to the last instant."""
    return last is None or due_at - now <= now - last
