"""The parts of one manager, wired, and their life in one process: come up, keep going, drain, go down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from jobmanager.backends.base import Backend
from jobmanager.backends.timetable import ScheduledJob, Timetable
from jobmanager.clock import Clock
from jobmanager.errors import JobDisabledError, RunCancelledError, StoreError, StoreUnavailableError
from jobmanager.execution import log_capture as capture
from jobmanager.execution.around import Arounds
from jobmanager.execution.child_process import ChildProcesses
from jobmanager.execution.claiming import Claiming
from jobmanager.execution.demand import CLAIM, FOLLOW_CHANGES, GIVE_BACK, SWEEP, WAKE, Demand
from jobmanager.execution.events import EventStarts
from jobmanager.execution.executor import Executor
from jobmanager.execution.flow import flows
from jobmanager.execution.in_flight import Attempts
from jobmanager.execution.invokers import Invokers
from jobmanager.execution.new_runs import RunFactory
from jobmanager.execution.opening import OpenRequest
from jobmanager.execution.runner import Runner
from jobmanager.execution.supervisor import (
    ASK_FOR_CANCEL_EVERY,
    FLUSH_LINES_EVERY,
    LOOK_EVERY,
    PUBLISH_EVERY,
    Liveness,
    Supervisor,
)
from jobmanager.execution.worker_pool import WorkerPool
from jobmanager.ledger.audit import Auditor
from jobmanager.ledger.group_commit import GroupCommit
from jobmanager.ledger.job_sync import JobSync
from jobmanager.ledger.once import Once
from jobmanager.ledger.outages import Outages
from jobmanager.ledger.reconciliation import Reconciliation
from jobmanager.ledger.recorder import Recorder, checked_payload
from jobmanager.ledger.redaction import Redactor
from jobmanager.ledger.retention import forget_old_entries, forget_old_runs
from jobmanager.ledger.rollup import COUNT_EVERY, Rollup
from jobmanager.ledger.steps import StepLedger
from jobmanager.manager.announcing import Announcer
from jobmanager.manager.called import CalledTicks
from jobmanager.manager.called_work import CalledWork
from jobmanager.manager.feed import Feed
from jobmanager.manager.sweep import Sweep
from jobmanager.notify.notifying import Hooks, Notifying
from jobmanager.observe import Observer, tell_stalled
from jobmanager.process.background import BackgroundTasks
from jobmanager.process.bounded import Budget, ended_within
from jobmanager.process.failure_detector import FailureDetector
from jobmanager.process.health import Limits, Symptom, Vitals, judge_ledger
from jobmanager.process.heartbeat import Heartbeat, LastTick
from jobmanager.process.ledger_facts import read_ledger
from jobmanager.process.throttled_log import ThrottledLogger
from jobmanager.process.watchdog import DeliveryTimer, Watchdog
from jobmanager.registry import Registry
from jobmanager.run import ByHand, Run
from jobmanager.settings import Settings
from jobmanager.stores.base import RunStore
from jobmanager.validation.printable import get_logger
from jobmanager.webhooks.stored import Webhooks

logger = get_logger(__name__)

POLL = timedelta(seconds=5)
FOLLOW_CHANGES_EVERY = timedelta(seconds=1)
CLOCKS_AGREE = timedelta(seconds=2)
COME_UP_AGAIN = timedelta(seconds=2)
PURGE_EVERY = timedelta(hours=6)
SETTLE_WITHIN = timedelta(seconds=60)
LONGEST_STOP = 5.0  # seconds beyond the drain
FORGET_DEAD_AFTER = timedelta(days=1)


class Assembly:
    """Everything between the public face and the store. Building it connects to nothing."""

    def __init__(
        self,
        *,
        registry: Registry,
        store: RunStore,
        backend: Backend,
        settings: Settings,
        clock: Clock,
        webhooks: Webhooks,
        observers: Sequence[Observer] = (),
        arounds: Arounds,
        hooks: Hooks,
    ) -> None:
        keeps_time = backend.capabilities.keeps_time
        clock_by_hand = clock.drive(None, _nothing)
        threaded = keeps_time and not clock_by_hand
        clock.release(_nothing)
        self._registry = registry
        self.store = store
        self.backend = backend
        self._settings = settings
        self._clock = clock
        executes = backend.capabilities.executes_in_process
        self._outage = outage = ThrottledLogger(
            logger
        )  # one line in five seconds about an outage, whichever part meets it
        self._last_tick = last_tick = LastTick()
        self.attempts = Attempts()
        self.background = BackgroundTasks(clock, outage=outage)
        self.watching = BackgroundTasks(clock, name="jobmanager-supervisor", outage=outage)
        outages = Outages(clock)
        redactor = Redactor(settings.secret_values())
        self.auditor = Auditor(redactor, namespace=settings.namespace)
        self.notifying = Notifying(
            settings,
            lambda: store,
            clock,
            hooks,
            jobs=lambda: registry.jobs,  # a new mapping with each change by an operator
            declared=registry.declared,
            addresses_of=webhooks.addresses_of,
            symptoms=self._ledger_symptoms,
            hide=redactor.text,
            threaded=threaded,
        )
        self.account = Reconciliation(
            store,
            grace=settings.grace,
            lease=settings.lease,
            outages=outages,
            auditor=self.auditor,
            keeps_time=keeps_time,
            on_step=self.background.note_progress,
            paused=self.notifying.of_pause,
        )
        self.job_sync = JobSync(
            registry,
            store,
            self.account,
            namespace=settings.namespace,
            take_handlers=webhooks.take_over,
        )
        self.pool = WorkerPool(settings.workers, threaded=threaded, coroutines=settings.coroutines)
        self.commits = GroupCommit(store, clock, threaded=threaded, quiet=outage, outages=outages)
        self.recorder = Recorder(store, self.commits, grace=settings.grace, redactor=redactor)
        self.recorder.on_notice = self.notifying.wake
        self.failure_detector = FailureDetector(
            store, clock, length=settings.lease, on_dead=partial(self.background.run_task_soon, SWEEP)
        )
        self.watchdog = Watchdog(
            self._vitals,
            limits=Limits.of(settings),
            clock=clock,
            mode=settings.watchdog,
            read_ledger=self._ledger_symptoms,
            on_stall=partial(tell_stalled, observers),
        )
        self.heartbeat = Heartbeat(
            store,
            clock,
            namespace=settings.namespace,
            length=settings.lease,
            declares=lambda: (registry.jobs, registry.handlers),
            executes=keeps_time,
            backend=backend.name,
            listener=Liveness(self.failure_detector, self.attempts),
            vital_signs=self._vital_signs,
            quiet=outage,
        )
        self.rollup = Rollup(store, clock)
        self.announcer = Announcer(store, clock.monotonic, threaded=threaded)
        demand = Demand(
            background=self.background,
            pool=self.pool,
            registry=registry,
            account=self.account,
            on_end=self._note_end,
        )
        self.executor = Executor(
            registry=registry,
            recorder=self.recorder,
            pool=self.pool,
            heartbeat=self.heartbeat,
            clock=clock,
            attempts=self.attempts,
            invokers=Invokers(
                ChildProcesses(capture_logs=settings.capture_logs, arounds=arounds),
                cause_of=backend.cause_of,
                observers=observers,
                arounds=arounds,
            ),
            events=demand,
            observers=observers,
            backend=backend.name,
            keep_lines=settings.capture_logs,
            notices_of=self.notifying.alerts.of_ending,
            pings=self.notifying.pings,
            once=Once(store, clock),
            steps_of=flows(
                StepLedger(store, clock, namespace=settings.namespace),
                clock,
                redactor,
                self._start_children,
                observers,
            ),
        )
        self.claims = Claiming(
            registry=registry,
            store=store,
            executor=self.executor,
            pool=self.pool,
            heartbeat=self.heartbeat,
            demand=demand,
            jobs=self.job_sync,
            executes=executes,
            dispatch=backend.dispatch,
            clock=clock,
        )
        self.factory = RunFactory(self.heartbeat, executes=executes)
        self.runner = Runner(
            registry=registry,
            recorder=self.recorder,
            account=self.account,
            executor=self.executor,
            factory=self.factory,
            claims=self.claims,
            demand=demand,
            pool=self.pool,
            heartbeat=self.heartbeat,
            last_tick=last_tick,
            background=self.background,
            clock=clock,
            excludes=self.job_sync.excludes,
        )
        self.deliver = DeliveryTimer(self.runner.deliver, clock)
        self.supervisor = Supervisor(
            self.executor,
            self.attempts,
            self.recorder,
            pool=self.pool,
            heartbeat=self.heartbeat,
            demand=demand,
            clock=clock,
            drain=settings.drain,
            drain_left=backend.drain_left,
        )
        self.event_starts = EventStarts(registry, store, self.runner, namespace=settings.namespace)
        self.sweep = Sweep(
            store,
            self.account,
            self.executor,
            self.claims,
            accept=self.runner.accept_announced,
            open_by_events=self.event_starts.open,
            heartbeat=self.heartbeat,
            alerts=self.notifying.alerts,
            clock=clock,
            grace=settings.grace,
        )
        self.called = CalledTicks(
            registry=registry,
            store=store,
            runner=self.runner,
            claims=self.claims,
            sweep=self.sweep,
            last_tick=last_tick,
            follow_changes=self.follow_changes,
            clock=clock,
            grace=settings.grace,
            waits=settings.wait,
            budget=timedelta(seconds=settings.wait_seconds),
        )
        self.feed = Feed(
            store,
            clock,
            namespace=settings.namespace,
            wake=self.executor.wake_waiters,
            by_hand=clock_by_hand,
        )
        self.called_work = CalledWork(
            store=store,
            claims=self.claims,
            sweep=self.sweep,
            follow_changes=self.follow_changes,
            clock=clock,
            waits=settings.wait,
            budget=timedelta(seconds=settings.wait_seconds),
        )
        self.threaded = threaded
        """False on a clock moved by hand and on noop: then runs execute inline, in the caller's thread."""
        self._keeps_time = keeps_time
        self._executes = True
        self._installed = -1
        self._up = self._capturing = False
        self.watching.add("supervision", self.supervisor.look, every=LOOK_EVERY)
        for name, act, every in (
            ("progress", self.supervisor.publish, PUBLISH_EVERY),
            ("cancel poll", self.supervisor.ask_for_cancel, ASK_FOR_CANCEL_EVERY),
            ("log flush", self.supervisor.flush_lines, FLUSH_LINES_EVERY),
            (GIVE_BACK, self.supervisor.give_back, POLL),
            (CLAIM, self.claims.claim, POLL),
            (FOLLOW_CHANGES, self.follow_changes, FOLLOW_CHANGES_EVERY),
            (SWEEP, self._sweep, settings.sweep),
            (WAKE, self.wake, settings.sweep),
            ("statistics", self._count, COUNT_EVERY),
            ("purge", self._purge, PURGE_EVERY),
        ):
            self.background.add(name, act, every=every)

    def install(self) -> None:
        """Make the store ready and carry the declarations over; again only when there are more of them."""
        declared = len(self._registry.declared)
        if self._installed != declared:
            self.store.install()
            self.job_sync.carry_over()
            self._installed = declared
            self.heartbeat.announce()  # what is declared after the start is claimed by what is announced, too

    def start(self, *, executes: bool = True) -> None:
        """Begin to keep time and execute. An outage of the store is waited out behind; a wrong configuration raises.

        `executes` False: pending runs are taken by other processes.
        """
        self._executes = executes
        self.attend()
        try:
            self._bring_up()
        except StoreUnavailableError as error:
            logger.warning("not up yet, trying again every %s: %s", COME_UP_AGAIN, error)
            self.background.run_at(self._clock.now() + COME_UP_AGAIN, self._try_again)

    def wake(self) -> None:
        """Make the resting runs due whose event or children are there, and claim them."""
        if self.store.steps.wake(self._settings.namespace):
            self.claims.claim()

    def _start_children(
        self, parent: Run, job_id: str, wanted: Sequence[tuple[str, Mapping[str, Any] | None]]
    ) -> list[Run]:
        """Open runs for a step of another run: beside each other, and once for each key."""
        job = replace(self._registry.job(job_id), overlap="allow")
        starts = [
            ByHand(payload=checked_payload(payload), key=key, parent_id=parent.id) for key, payload in wanted
        ]
        results = self.runner.accept_all([OpenRequest(job, by_hand=by_hand) for by_hand in starts])
        if any(result.finding not in ("opened", "duplicate") for result in results):
            raise JobDisabledError(
                f"Job {job_id!r} is disabled: run {parent.id} cannot start it.", job_id=job_id
            )
        [now] = self.store.runs.by_id([parent.id]) or [parent]
        if now.cancel_requested_at is not None or now.status.closed:
            # Its cancel did not meet these, which were opened after it.
            for result in results:
                if result.finding == "opened" and result.run is not None:
                    self.store.runs.cancel(result.run.id)
            attempt = self.attempts.get(parent.id)
            if attempt is not None:
                attempt.ask_to_end("requested")
                attempt.stop_seen = True
            raise RunCancelledError(f"run {parent.id} is cancelled, and so are the runs that it was starting")
        return [result.run for result in results if result.run is not None]

    def enable_execution(self) -> None:
        """After `start`: pending runs are brought here, too."""
        if self._keeps_time:
            self.heartbeat.start()

    def attend(self) -> None:
        """Execute what this process claims itself, without keeping time."""
        if self._settings.capture_logs and not self._capturing:
            capture.start()
            self._capturing = True
        self.executor.resume()
        if self._keeps_time:
            self.background.start()
            self.watching.start()
            self.notifying.start()

    def _bring_up(self) -> None:
        self._installed = -1
        self.install()
        self._warn_of_skew()
        if self._keeps_time:
            self.heartbeat.start(executes=self._executes)
            self._keep_time()
        self.runner.begin()
        self.backend.sync(self.job_sync.scheduled(self._settings.grace))
        self.backend.start(self.deliver)
        self._up = True
        if self.threaded:
            self.watchdog.start()
        if self._keeps_time:
            self.background.run_at(self._clock.now() + self._settings.grace, self._retire_undeclared)
        if self._keeps_time and not self._settings.wait:  # there the calls do it, each before it returns
            self.background.run_task_soon(SWEEP)
            self.background.run_task_soon(CLAIM)

    def _keep_time(self) -> None:
        """Note that this backend keeps the time from now on; what another one has planned outside is inert with that."""
        namespace, name = self._settings.namespace, self.backend.name
        before = self.store.processes.keep_time(namespace, name, even_if_alive=True)
        if before not in (None, name):
            text = (
                "backend=%s keeps the time of namespace %s from now on, and backend=%s no longer: what it still has planned "
                "does nothing; `jobmanager doctor` names what is left of it"
            )
            logger.warning(text, name, namespace, before)

    def _warn_of_skew(self) -> None:
        skew = (self._clock.now() - self.store.now()).total_seconds()
        if abs(skew) >= CLOCKS_AGREE.total_seconds():
            text = (
                "this host's clock is %+.1f s off the store's, which decides what is due: let both follow NTP"
            )
            logger.warning(text, skew)

    def _try_again(self) -> None:
        try:
            self._bring_up()
            logger.info("up: the store answers")
        except StoreError as error:
            self._outage.warning("still not up: %s", error)
            self.background.run_at(self._clock.now() + COME_UP_AGAIN, self._try_again)

    def stop(self, drain: timedelta, left: Budget) -> None:
        """Accept nothing more, let running handlers end for at most `drain`, record the rest, and deregister. Twice is safe.

        Ends within `drain` and what is `left`, whatever the store does; what the store did not take by then is left to the
        sweep of the other processes.
        """
        self.watchdog.stop(left.share(0.1))
        if not self._up:
            self.background.stop(left.share(0.2))  # what is half up cannot be stopped
        self._stop_backend(left.share(0.2))
        begun_outside = self.backend.drain_left()
        if begun_outside is not None:
            drain = min(drain, timedelta(seconds=max(0.0, begun_outside)))
        draining_since = self._clock.monotonic()
        self.runner.drain(drain)
        left.extend(self._clock.monotonic() - draining_since)
        self.watching.stop(left.share(0.2))
        self.background.stop(left.share(0.3))
        self.supervisor.leave_to_writer()
        self.commits.stop(left.share(0.4))
        self.commits.stop(left.share(0.4))  # the ends of what only now turned out to be opened
        self.announcer.stop(left.share(0.2))
        self.pool.stop()
        self.notifying.stop(left.share(0.4))
        self.heartbeat.stop(left.share(0.7))
        if self._capturing:
            capture.stop()
            self._capturing = False
        self._up = False
        if not self.threaded:
            self.executor.resume()  # what is started by hand later still runs, inline

    def _stop_backend(self, seconds: float) -> None:
        stop = partial(self.backend.stop, timedelta(seconds=seconds))
        if not self.threaded:
            stop()
        elif not ended_within(seconds, stop, name="stop-backend"):
            logger.warning("backend=%s did not stop within %.1f s", self.backend.name, seconds)

    def sync(self) -> None:
        """Carry the declarations over and tell the backend, and the others what this process declares."""
        self._installed = -1
        self.install()
        self.backend.sync(self.job_sync.scheduled(self._settings.grace))
        self.backend.settle(SETTLE_WITHIN)

    def planned(self) -> list[ScheduledJob]:
        """Return the jobs to keep time for, as they are stored now; none where there is no store yet."""
        if not self._up:
            if not self.store.exists():
                return []
            self.job_sync.refresh()
        return self.job_sync.scheduled(self._settings.grace)

    # ---------------------------------------------------------------- what the watchdog sees

    @property
    def ready(self) -> bool:
        """True while this process accepts runs: it is up, and not draining."""
        return self._up and self.claims.accepting

    def _vitals(self) -> Vitals | None:
        """Return what this process knows of itself, without a lock; None while it comes up or drains, or keeps no time."""
        if not self._keeps_time or not self.ready:
            return None
        monotonic, threads = self._clock.monotonic(), self.pool.threads
        busy = sum(attempt.slot.lane is threads for attempt in self.attempts.begun())
        timetable = getattr(self.backend, "timetable", None)
        return Vitals(
            now=self._clock.now(),
            workers=threads.size,
            waiting=max(0, threads.in_flight + threads.lent - busy) if self.threaded else 0,
            busy_workers=busy,
            handlers_begun=self.attempts.handlers_begun,
            abandoned_workers=self.pool.abandoned,
            timetable_next=timetable.top() if isinstance(timetable, Timetable) else None,
            delivering_since=self.deliver.since if self.threaded else None,
            background_turned_at=self.background.turned_at,
            last_beat_at=self.heartbeat.accepted_at,
            loop_lag=self.pool.loop_lag(monotonic) if self.threaded else 0.0,
        )

    def _ledger_symptoms(self) -> list[Symptom]:
        executes = self.backend.capabilities.executes_in_process
        facts = read_ledger(self.store, self._settings, executes_in_process=executes)
        return judge_ledger(facts, Limits.of(self._settings))

    def _vital_signs(self) -> tuple[datetime | None, float | None]:
        """Return the last tick and its lag for the heartbeat; while this process stands still, since when it does.

        So other processes learn of it: for them this one has not moved since.
        """
        since = self.watchdog.stalled_since()
        if since is None:
            return self._last_tick.scheduled_for, self._last_tick.lag
        return since, (self._clock.now() - since).total_seconds()

    def follow_changes(self) -> None:
        """Take over what other processes or operators changed."""
        if not self._up:
            return
        known = {*self._registry.jobs, *self._registry.handlers}
        if self.job_sync.refresh():
            if known != {*self._registry.jobs, *self._registry.handlers}:
                self.heartbeat.announce()  # others made jobs, or deleted them: their runs are claimed by what is announced
            self.backend.sync(self.job_sync.scheduled(self._settings.grace))

    def _sweep(self) -> None:
        if self._up and self.heartbeat.ok():
            self.store.processes.keep_time(self._settings.namespace, self.backend.name, even_if_alive=False)
            self.sweep.sweep()

    def _note_end(self, run_id: str) -> None:
        self.rollup.note(run_id)
        self.announcer.note(run_id)

    def _count(self) -> None:
        if self._up:
            self.rollup.round()

    def _retire_undeclared(self) -> None:
        self.job_sync.retire_undeclared()
        self.follow_changes()

    def _purge(self) -> None:
        if not self._up:
            return
        # What a backend keeps outside may have an end, such as plans that are made for some months.
        self.backend.sync(self.job_sync.scheduled(self._settings.grace))
        now = self._clock.now()
        deleted = forget_old_runs(self.store, self._registry.jobs.values(), self._settings, now)
        self.store.maintenance.forget_dead(now - FORGET_DEAD_AFTER)
        forget_old_entries(self.store, self._settings, now)
        self.rollup.forget_old(now)
        self.store.outbox.purge(now - self._settings.retention_failed)
        if deleted:
            logger.info("purged %d runs that were older or more than retention keeps", deleted)


def _nothing() -> None:
    """Asks a clock whether it drives, and no more."""
