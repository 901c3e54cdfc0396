"""The heart: tick in, run out. Read this first.

    deliver(ticks) ─> open, one guarded insert for all ─> execute what has a slot ─> end, with the fence
                        └─ refused: another process has it, or it is decided under the job's lock

Ticks, starts by hand and announced runs go the same way, `open`; what waits in the store joins it by `Claiming`. Everything
here may be called by any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial

from jobmanager.clock import Clock
from jobmanager.errors import StoreError, StoreUnavailableError
from jobmanager.execution.claiming import Claiming
from jobmanager.execution.demand import FOLLOW_CHANGES, Demand
from jobmanager.execution.executor import Executor
from jobmanager.execution.in_flight import NOTHING, Hold, InFlightRuns
from jobmanager.execution.new_runs import RunFactory
from jobmanager.execution.opening import Opening, OpenRequest
from jobmanager.execution.worker_pool import WorkerPool
from jobmanager.job import Job
from jobmanager.ledger.overlap import OpenResult, unstarted
from jobmanager.ledger.reconciliation import Reconciliation
from jobmanager.ledger.recorder import Recorder
from jobmanager.process.background import BackgroundTasks
from jobmanager.process.heartbeat import Heartbeat, LastTick
from jobmanager.registry import Registry
from jobmanager.run import PENDING, RUNNING, Accepted, Run, Tick
from jobmanager.stores.values import Note, Written
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

LONGEST_ACCEPT = timedelta(seconds=10)
SHORTEST_OUTAGE = timedelta(seconds=1)
LATE = timedelta(seconds=1)  # a tick that comes at once is later by less
SHORTEST_WAIT = timedelta(milliseconds=1)
DECIDED_AT_ONCE = 500


class Runner:
    """Turns ticks into runs and gets them executed. What two processes may race for is settled in the store, not here."""

    def __init__(
        self,
        *,
        registry: Registry,
        recorder: Recorder,
        account: Reconciliation,
        executor: Executor,
        factory: RunFactory,
        claims: Claiming,
        demand: Demand,
        pool: WorkerPool,
        heartbeat: Heartbeat,
        last_tick: LastTick,
        background: BackgroundTasks,
        clock: Clock,
        excludes: Callable[[Job, datetime], bool],
    ) -> None:
        self._registry = registry
        self._recorder = recorder
        self._account = account
        self._executor = executor
        self._factory = factory
        self._claims = claims
        self._demand = demand
        self._pool = pool
        self._heartbeat = heartbeat
        self._last_tick = last_tick
        self._background = background
        self._clock = clock
        self._excludes = excludes
        self._announced = InFlightRuns()

    # ---------------------------------------------------------------- what brings ticks and starts

    def deliver(self, ticks: Sequence[Tick]) -> None:
        """Open a run for every tick that has none yet, and execute what has a slot. Returns at once; never raises."""
        try:
            self._deliver(ticks)
        except StoreError as error:
            logger.warning("%d ticks are left to the sweep: %s", len(ticks), error)
        except Exception:
            logger.exception("%d ticks are left to the sweep", len(ticks))

    def _deliver(self, ticks: Sequence[Tick]) -> None:
        jobs = self._registry.jobs
        if any(tick.run_id is not None for tick in ticks):
            ticks = self._without_left(ticks)
        announced = [tick.run_id for tick in ticks if tick.run_id is not None and tick.job_id in jobs]
        hold = self._announced.acquire(announced) if announced else NOTHING
        mine = {None, *hold.ids}
        requests = [
            OpenRequest(jobs[tick.job_id], tick)
            for tick in ticks
            if tick.job_id in jobs and tick.run_id in mine
        ]
        if not requests or not self._claims.accepting:
            hold.release()
            return
        last = next(tick for tick in reversed(ticks) if tick.job_id in jobs)
        self._last_tick.scheduled_for = last.scheduled_for
        lag = self._clock.now() - jobs[last.job_id].due_at(last.scheduled_for)
        self._last_tick.lag = lag.total_seconds()
        self.open(requests, hold=hold)

    def accept(self, request: OpenRequest) -> OpenResult:
        """Open one run, wait until that is durable, and get it executed. Raises what the store says against it."""
        return self._settled(self.open([request], waited_for=True))[0]

    def accept_all(self, requests: Sequence[OpenRequest]) -> list[OpenResult]:
        """Do what `accept` does for many runs, in one transaction as far as they are on time; the order is not that of the requests."""
        return self._settled(self.open(requests, waited_for=True))

    def accept_announced(self, run_ids: Sequence[str]) -> Accepted:
        """Decide what becomes of these announced runs, wait until that is durable, and get executed what is to run.

        What is accepted already, or unknown here, changes nothing. Raises what the store says against it.
        """
        with self._announced.acquire(run_ids, patience=LONGEST_ACCEPT.total_seconds()) as hold:
            jobs = self._registry.jobs
            rows = self._recorder.store.runs.by_id(hold.ids)
            found = [run for run in rows if run.announced and run.status is PENDING and run.job_id in jobs]
            ticks = [Tick(run.job_id, run.instant, run.schedule_rev, run.id) for run in found]
            requests = [OpenRequest(jobs[tick.job_id], tick) for tick in self._without_left(ticks)]
            # Written on this thread, which has to wait: what comes meanwhile is accepted together, after it.
            self._settled(self.open(requests, waited_for=True, write_inline=True))
            if len(found) < len(rows):
                self._demand.claim_soon()  # some of them were accepted before, and may wait for a worker
            left = {run.id for run in rows if run.announced and run.job_id not in jobs}
            known = frozenset(run.id for run in rows)
            return Accepted(known, known - left)

    def _without_left(self, announced: Sequence[Tick]) -> Sequence[Tick]:
        """Leave to `catch_up` what was announced while no process lived, but for the newest instant of each job; return the others."""
        jobs, late_by = self._registry.jobs, self._clock.now() - LATE
        late = {
            tick.job_id
            for tick in announced
            if tick.job_id in jobs and jobs[tick.job_id].due_at(tick.scheduled_for) < late_by
        }
        decided = self._account.settle_left(late) if late else set()
        if decided:
            self._demand.claim_soon()
        return [tick for tick in announced if tick.run_id not in decided]

    # ---------------------------------------------------------------- the way of a run

    def open(
        self,
        requests: Sequence[OpenRequest],
        *,
        hold: Hold = NOTHING,
        waited_for: bool = False,
        write_inline: bool = False,
    ) -> Opening:
        """Open runs in one guarded insert; the store says which, and what it refuses is settled one by one.

        With `waited_for` the caller waits for the opening and settles it, else the background thread does.
        """
        opening = Opening(hold, waited_for=waited_for)
        try:
            runs = self._rows(requests, opening)
            if not runs:
                opening.committed((), {})
                self._go_on(opening)
                return opening
            inline = write_inline or (len(runs) == 1 and self._pool.in_flight <= 1)
            self._recorder.open(runs, partial(self._opened, opening), write_inline=inline)
        except BaseException:
            opening.close()
            raise
        return opening

    def _rows(self, requests: Sequence[OpenRequest], opening: Opening) -> list[Run]:
        """Return the rows to insert: running where this process has a slot for it, else pending. Lines are decided, not inserted."""
        now = self._clock.now()
        free = [request for request in requests if not self._needs_lock(request)]
        slots = self._claims.slots_for(free, require_live_heartbeat=opening.is_waited_for)
        runs = []
        for request, slot in zip(free, slots, strict=True):
            run = self._factory.build(request, now, ours=slot is not None)
            if slot is not None:
                opening.slots[run.id] = slot
            if request.note is None:
                runs.append(run)
            else:
                opening.release_slot(run)  # what decides takes it again
                opening.leave_undecided(run, request.note)
        if len(free) < len(requests):
            for request in requests:
                if self._needs_lock(request):
                    opening.leave_undecided(self._factory.build(request, now, ours=False), request.note)
        return runs

    def _needs_lock(self, request: OpenRequest) -> bool:
        """Whether only the job's lock can decide: its runs may have to wait for each other, or its schedule excludes the instant."""
        tick = request.tick
        return request.job.queues or (tick is not None and self._excludes(request.job, tick.scheduled_for))

    def _opened(
        self, opening: Opening, opened: Sequence[Run], refused: Sequence[Run], written: Written
    ) -> None:
        """Go on with what the store opened. On the writer's thread: only hand on."""
        try:
            self._hand_on(opened, opening)
        finally:
            for run in refused:
                opening.release_slot(run)
            if opening.is_waited_for:
                opening.results += [OpenResult("opened", run) for run in opened]
            opening.committed(refused, written.errors)
            self._go_on(opening)

    def _hand_on(self, opened: Sequence[Run], opening: Opening) -> None:
        """Execute what has a slot, and send or get claimed the rest."""
        slots = opening.slots
        ours = [(run, slots.pop(run.id)) for run in opened if run.id in slots]
        if ours:
            self._executor.start(ours)
        if len(ours) < len(opened):
            self._claims.send([run for run in opened if run.dispatched_at is not None])
            for due_at in {
                run.due_at for run in opened if run.status is PENDING and run.dispatched_at is None
            }:
                self._demand.claim_at(due_at)

    def _go_on(self, opening: Opening) -> None:
        """Leave to the background thread what is undecided and not waited for."""
        if opening.is_waited_for:
            return
        if opening.undecided:
            self._background.run_soon(partial(self._settle, opening))
        else:
            opening.close()

    # ---------------------------------------------------------------- what the store refused

    def _settled(self, opening: Opening) -> list[OpenResult]:
        """Wait for the opening and settle what the store refused; return what became of each run."""
        with opening:
            if not opening.wait(LONGEST_ACCEPT.total_seconds()):
                raise StoreUnavailableError(
                    f"Opening a run is not confirmed after {LONGEST_ACCEPT.seconds} s; it may still be opened. "
                    "Ask again with key=... to be sure of one run."
                )
            for error in opening.errors.values():
                raise error
            for run in opening.undecided:
                opening.results.append(self._decided(run, opening.notes.get(run.id)))
            return opening.results

    def _settle(self, opening: Opening) -> None:
        """Settle what was refused, unless another process has it: on the background thread."""
        try:
            recorded = self._recorder.store.runs.already_recorded(opening.undecided)
        except StoreUnavailableError as error:
            # They may still be on time when it is back.
            self._recorder.outages.note(self._clock.now(), opening.undecided, error)
            self._background.run_at(self._clock.now() + SHORTEST_OUTAGE, partial(self._settle, opening))
            raise
        with opening:
            left = [run for run in opening.undecided if run.id not in recorded]
            for start in range(0, len(left), DECIDED_AT_ONCE):
                self._decide_together(left[start : start + DECIDED_AT_ONCE])

    def _decide_together(self, runs: Sequence[Run]) -> None:
        """Decide many refused ticks in one transaction; what is opened after all is claimed, as it has no slot."""
        results: Mapping[str, OpenResult] = {}
        if len(runs) > 1:
            try:
                results = self._recorder.decide_many([unstarted(run) for run in runs])
            except StoreUnavailableError:
                raise
            except Exception:  # one of them, or its job: the others must not wait for it
                logger.exception("%d ticks are decided one by one", len(runs))
        for run in runs:
            result = results.get(run.id)
            if result is None:
                self._decided(run)
                continue
            if result.finding == "opened" and result.run is not None:
                if result.run.turn == "waits":
                    self._executor.request_yield(result.run)
                with Opening(NOTHING, waited_for=False) as opening:
                    self._hand_on([result.run], opening)
            self._act_on(result, run)

    def _decided(self, run: Run, note: Note | None = None) -> OpenResult:
        """Decide under the job's lock what becomes of a run, do what that asks for, and return it."""
        result = self._decide(run, note)
        if result.finding == "dead" and run.scheduled_for is None:
            self._heartbeat.beat()
            result = self._decide(unstarted(run), note)
        self._act_on(result, run)
        return result

    def _decide(self, run: Run, note: Note | None = None) -> OpenResult:
        """Settle one run under the job's lock; if that opens it after all, it is executed."""
        job = self._registry.jobs.get(run.job_id)
        with Opening(NOTHING, waited_for=False) as opening:
            slot = self._claims.slots_for([OpenRequest(job)])[0] if job and run.status is RUNNING else None
            if slot is not None:
                opening.slots[run.id] = slot
            result = self._recorder.decide(unstarted(run) if slot is None else run, note)
            opened = result.run if result.finding == "opened" else None
            if opened is None:
                return result
            if opened.turn == "waits":
                self._executor.request_yield(opened)
            if slot is not None and opened.status is RUNNING:
                opening.slots = {opened.id: slot}  # an announced run keeps the id that it was announced under
            else:
                opening.close()
            self._hand_on([opened], opening)
        return result

    def _act_on(self, result: OpenResult, run: Run) -> None:
        """Do what the result of opening a tick asks for."""
        match result.finding:
            case "stale":
                logger.info("job=%s changed elsewhere; reading it again", run.job_id)
                self._background.run_task_soon(FOLLOW_CHANGES)
            case "late":
                self._account.settle(run.job_id)
                self._demand.claim_at(run.due_at)
            case "early":
                # By the store's clock; ours may be ahead, and asking again at once would keep both busy until it is due.
                wait = max(run.due_at - self._recorder.store.now(), SHORTEST_WAIT)
                self._background.run_at(self._clock.now() + wait, partial(self._again, run))
            case "dead":
                self._heartbeat.beat()
                self._again(run)
            case "skipped":
                text = "skipped job=%s scheduled_for=%s reason=%s"
                fields = run.log_fields(self._executor.backend)
                reason = result.run.reason if result.run else None
                logger.info(text, run.job_id, run.scheduled_for, reason, extra=fields)
            case "missed":
                text = "missed job=%s scheduled_for=%s reason=transport: the store could not take it in time"
                fields = run.log_fields(self._executor.backend)
                logger.warning(text, run.job_id, run.scheduled_for, extra=fields)
            case finding:
                logger.debug("job=%s scheduled_for=%s: %s", run.job_id, run.scheduled_for, finding)

    def _again(self, run: Run) -> None:
        if run.scheduled_for is not None:
            self.deliver(
                [Tick(job_id=run.job_id, scheduled_for=run.scheduled_for, revision=run.schedule_rev)]
            )

    # ---------------------------------------------------------------- beginning and end

    def begin(self) -> None:
        """Accept from now on."""
        self._claims.open()

    def drain(self, timeout: timedelta) -> None:
        """Accept nothing more and let what runs end, for at most `timeout`."""
        self._claims.close()
        self._executor.drain(timeout)
