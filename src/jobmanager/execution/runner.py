"""The heart: tick in, run out. Read this first.

    deliver(ticks) ─> open, one guarded insert for all ─> execute what is ours ─> end, with the fence
                        └─ refused: somebody else has it, or it is decided under the job's lock

Ticks and starts by hand go the same way; what waits in the store joins it by `Claims`. Everything here may be called by any thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial

from jobmanager.clock import Clock
from jobmanager.errors import StoreError, StoreUnavailableError
from jobmanager.execution.claiming import Claiming
from jobmanager.execution.executor import Executor
from jobmanager.execution.in_flight import InFlightRuns
from jobmanager.execution.new_runs import RunFactory
from jobmanager.execution.worker_pool import WorkerPool
from jobmanager.job import Job
from jobmanager.ledger.overlap import OpenResult, unstarted
from jobmanager.ledger.reconciliation import Reconciliation
from jobmanager.ledger.recorder import Recorder
from jobmanager.process.background import BackgroundTasks
from jobmanager.process.heartbeat import Heartbeat
from jobmanager.registry import Registry
from jobmanager.run import FAILED, PENDING, RUNNING, Accepted, Run, RunStatus, Tick
from jobmanager.stores.base import Written

logger = logging.getLogger(__name__)

LONGEST_ACCEPT = timedelta(seconds=10)
SHORTEST_OUTAGE = timedelta(seconds=1)
SHORTEST_WAIT = timedelta(milliseconds=1)


class Runner:
    """Turns ticks into runs and gets them executed. What two processes may race for is settled in the store, not here."""

    def __init__(
        self,
        *,
        registry: Registry,
        recorder: Recorder,
        account: Reconciliation,
        executor: Executor,
        openings: RunFactory,
        claims: Claiming,
        pool: WorkerPool,
        lease: Heartbeat,
        chores: BackgroundTasks,
        clock: Clock,
        reload: Callable[[str], None],
    ) -> None:
        self._registry = registry
        self._recorder = recorder
        self._account = account
        self._executor = executor
        self._openings = openings
        self._claims = claims
        self._pool = pool
        self._lease = lease
        self._chores = chores
        self._clock = clock
        self._reload = reload
        self._last_tick_at: datetime | None = None
        self._lag: float | None = None
        self._in_hand = InFlightRuns()
        executor.on_ended = self._after_end

    # ---------------------------------------------------------------- a tick becomes a run

    def deliver(self, ticks: Sequence[Tick]) -> None:
        """Open a run for every tick that nobody opened yet, and execute what is ours. Returns at once; never raises."""
        jobs = self._registry.jobs
        known = [(jobs[tick.job_id], tick) for tick in ticks if tick.job_id in jobs]
        known = [
            (job, tick) for job, tick in known if tick.run_id is None or self._in_hand.acquire(tick.run_id)
        ]
        if not known or not self._claims.accepting:
            self._in_hand.release(tick.run_id for _, tick in known)
            return
        now = self._clock.now()
        job, tick = known[-1]
        self._last_tick_at, self._lag = (
            tick.scheduled_for,
            (now - job.due_at(tick.scheduled_for)).total_seconds(),
        )
        free = [(job, tick) for job, tick in known if not job.queues]
        if len(free) < len(known):
            in_line = [self._openings.build(job, now, tick=tick) for job, tick in known if job.queues]
            self._chores.run_soon(partial(self._settle_refused, in_line))
        self._open(free, now)

    def _open(self, free: Sequence[tuple[Job, Tick]], now: datetime) -> None:
        """One guarded insert for all: the store says who wins, and only what it refuses is looked at one by one."""
        if not free:
            return
        ours = self._claims.reserve_slots(len(free))
        runs = [
            self._openings.build(job, now, tick=tick, ours=place < ours)
            for place, (job, tick) in enumerate(free)
        ]
        try:
            self._recorder.open(runs, self._opened, write_inline=len(runs) == 1 and self._pool.in_flight <= 1)
        except StoreError as error:
            self._pool.release(ours)
            self._in_hand.release(run.id for run in runs)
            logger.warning("%d ticks are left to the sweep: %s", len(runs), error)

    def accept(self, run: Run) -> OpenResult:
        """Open one run, wait until that is durable, and get it executed. Raises what the store says against it."""
        if run.status is PENDING and self._registry.job(run.job_id).queues:
            return self._decide(run)
        refused, errors = self._open_and_wait([run], write_inline=self._pool.in_flight <= 1)
        if run.id in errors:
            raise errors[run.id]
        return self._decide(run) if refused else OpenResult("opened", run)

    def bring(self, job: Job, tick: Tick) -> OpenResult:
        """Accept one tick, and do what its verdict asks for."""
        ours = not job.queues and self._claims.reserve_slots(1, require_live_heartbeat=True) == 1
        run = self._openings.build(job, self._clock.now(), tick=tick, ours=ours)
        verdict = self.accept(run)
        self._act_on(verdict, run)
        return verdict

    def _open_and_wait(
        self, runs: list[Run], *, write_inline: bool
    ) -> tuple[list[Run], Mapping[str, Exception]]:
        """Open these and hand on what was opened; answers what the store refused, and its errors by id."""
        answered = threading.Event()
        answers: list[tuple[list[Run], Mapping[str, Exception]]] = []

        def then(opened: list[Run], refused: list[Run], written: Written) -> None:
            self._hand_on(opened, refused)
            answers.append((refused, written.errors))
            answered.set()

        try:
            self._recorder.open(runs, then, write_inline=write_inline)
        except StoreError:
            self._give_back(runs)
            raise
        if not answered.wait(LONGEST_ACCEPT.total_seconds()):
            raise StoreUnavailableError(
                f"Opening run {runs[0].id} of job {runs[0].job_id!r} is not confirmed after {LONGEST_ACCEPT.seconds} s; "
                "it may still be opened. Ask again with key=... to be sure of one run."
            )
        return answers[0]

    def accept_announced(self, run_ids: Sequence[str]) -> Accepted:
        """Decide what becomes of these announced runs, wait until that is durable, and get executed what is to run.

        What is accepted already, or unknown here, changes nothing. Raises what the store says against it.
        """
        ids = [
            run_id
            for run_id in dict.fromkeys(run_ids)
            if self._in_hand.acquire(run_id, patience=LONGEST_ACCEPT.total_seconds())
        ]
        try:
            return self._accept_announced(ids)
        finally:
            self._in_hand.release(ids)

    def _accept_announced(self, run_ids: Sequence[str]) -> Accepted:
        jobs, now = self._registry.jobs, self._clock.now()
        rows = self._recorder.store.runs_by_id(run_ids)
        found = [run for run in rows if run.announced and run.status is PENDING and run.job_id in jobs]
        ticks = [(jobs[run.job_id], Tick(run.job_id, run.instant, run.schedule_rev, run.id)) for run in found]
        in_line = [self._openings.build(job, now, tick=tick) for job, tick in ticks if job.queues]
        free = [(job, tick) for job, tick in ticks if not job.queues]
        places = self._claims.reserve_slots(len(free), require_live_heartbeat=True)
        runs = [
            self._openings.build(job, now, tick=tick, ours=place < places)
            for place, (job, tick) in enumerate(free)
        ]
        # On this thread, which has to wait: what comes meanwhile is accepted together, after it.
        refused, errors = self._open_and_wait(runs, write_inline=True) if runs else ([], {})
        if errors:
            raise next(iter(errors.values()))
        for run in [*refused, *in_line]:
            self._act_on(self._decide(run), run)
        if len(found) < len(rows):
            self._claims.claim_at(now)  # some of them were accepted before, and may wait for a worker
        left = {run.id for run in rows if run.announced and run.job_id not in jobs}
        known = frozenset(run.id for run in rows)
        return Accepted(known, known - left)

    # ---------------------------------------------------------------- after the insert

    def _opened(self, opened: list[Run], refused: list[Run], written: Written) -> None:
        """On the writer's thread: only hand on."""
        self._hand_on(opened, refused)
        left = [run for run in refused if run.id not in written.errors]
        self._in_hand.release(run.id for run in [*opened, *refused] if run not in left)
        if left:
            self._chores.run_soon(partial(self._settle_refused, left))

    def _hand_on(self, opened: list[Run], refused: list[Run]) -> None:
        """Execute what is ours, send or get claimed the rest, and give back the places of what was refused."""
        ours = [run for run in opened if run.status is RUNNING]
        if ours:
            self._executor.start(ours)
        self._claims.send([run for run in opened if run.dispatched_at is not None])
        for due_at in {run.due_at for run in opened if run.status is PENDING and run.dispatched_at is None}:
            self._claims.claim_at(due_at)
        self._give_back(refused)

    def _settle_refused(self, refused: list[Run]) -> None:
        try:
            taken = self._recorder.store.already_recorded(refused)
        except StoreUnavailableError:
            # They may still be on time when it is back.
            self._chores.run_at(self._clock.now() + SHORTEST_OUTAGE, partial(self._settle_refused, refused))
            raise
        try:
            for run in refused:
                if run.id not in taken:
                    self._act_on(self._decide(run), run)
        finally:
            self._in_hand.release(run.id for run in refused)

    def _decide(self, run: Run) -> OpenResult:
        """Settle a refused run under the job's lock; if that opens it after all, it is executed."""
        if run.status is RUNNING and not self._pool.reserve(1):
            run = unstarted(run)
        try:
            verdict = self._recorder.decide(run)
        except BaseException:
            self._give_back([run])
            raise
        opened = verdict.run if verdict.finding == "opened" else None
        if opened is not None and opened.turn == "waits":
            self._executor.request_yield(opened)
        if opened is not None:
            self._hand_on([opened], [])
        if opened is None or opened.status is not RUNNING:
            self._give_back([run])
        return verdict

    def _act_on(self, verdict: OpenResult, run: Run) -> None:
        """Do what a verdict about a tick asks for."""
        match verdict.finding:
            case "stale":
                self._reload(run.job_id)
            case "late":
                self._account.settle(run.job_id)
                self._claims.claim_at(run.due_at)
            case "early":
                # By the store's clock; ours may be ahead, and asking again at once would keep both busy until it is due.
                wait = max(run.due_at - self._recorder.store.now(), SHORTEST_WAIT)
                self._chores.run_at(self._clock.now() + wait, partial(self._again, run))
            case "dead":
                self._lease.beat()
                self._again(run)
            case "skipped":
                text = "skipped job=%s scheduled_for=%s reason=overlap"
                fields = run.log_fields(self._executor.backend)
                logger.info(text, run.job_id, run.scheduled_for, extra=fields)
            case finding:
                logger.debug("job=%s scheduled_for=%s: %s", run.job_id, run.scheduled_for, finding)

    def _again(self, run: Run) -> None:
        if run.scheduled_for is not None:
            self.deliver(
                [Tick(job_id=run.job_id, scheduled_for=run.scheduled_for, revision=run.schedule_rev)]
            )

    def _give_back(self, runs: Sequence[Run]) -> None:
        places = sum(run.status is RUNNING for run in runs)
        if places:
            self._pool.release(places)

    def _after_end(self, run: Run, status: RunStatus) -> None:
        """Whoever waits in line for the key of a run that ended is next."""
        job = self._registry.jobs.get(run.job_id)
        if job is None:
            return
        if job.queues or job.catch_up == "all":
            self._claims.claim_soon()
        if status is FAILED and job.pause_after_failures:
            self._chores.run_soon(partial(self._pause_if_failing, job.id))

    def _pause_if_failing(self, job_id: str) -> None:
        if self._account.pause_if_failing(job_id):
            self._reload(job_id)

    # ---------------------------------------------------------------- beginning and end

    def begin(self) -> None:
        """Accept from now on."""
        self._claims.accepting = True

    def drain(self, timeout: timedelta) -> None:
        """Accept nothing more and let what runs end, for at most `timeout`."""
        self._claims.accepting = False
        self._executor.drain(timeout)

    def vital_signs(self) -> tuple[datetime | None, float | None]:
        """The instant of the last ticks delivered here, and how late they came in seconds."""
        return self._last_tick_at, self._lag
