"""The parts of one manager, wired, and their life in one process: come up, keep going, drain, go down."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

from jobmanager.backends.base import Backend
from jobmanager.backends.timetable import Timetable
from jobmanager.clock import Clock
from jobmanager.errors import StoreError, StoreUnavailableError
from jobmanager.execution import log_capture as capture
from jobmanager.execution.child_process import ChildProcesses
from jobmanager.execution.claiming import Claiming
from jobmanager.execution.executor import Executor
from jobmanager.execution.new_runs import RunFactory
from jobmanager.execution.runner import Runner
from jobmanager.execution.supervisor import ASK_FOR_CANCEL_EVERY, FLUSH_LINES_EVERY, LOOK_EVERY, Supervisor
from jobmanager.execution.worker_pool import WorkerPool
from jobmanager.ledger.group_commit import GroupCommit
from jobmanager.ledger.job_sync import JobSync
from jobmanager.ledger.reconciliation import Reconciliation
from jobmanager.ledger.recorder import Recorder
from jobmanager.ledger.redaction import Redactor
from jobmanager.ledger.retention import forget_old_runs
from jobmanager.manager.sweep import Sweep
from jobmanager.observe import HandlerCounter, Observer, tell_stalled
from jobmanager.process.background import BackgroundTasks
from jobmanager.process.failure_detector import FailureDetector
from jobmanager.process.health import Limits, Symptom, Vitals, judge_ledger
from jobmanager.process.heartbeat import Heartbeat
from jobmanager.process.ledger_facts import read_ledger
from jobmanager.process.throttled_log import ThrottledLogger
from jobmanager.process.watchdog import DeliveryTimer, Watchdog
from jobmanager.registry import Registry
from jobmanager.run import Tick, Ticked
from jobmanager.settings import Settings
from jobmanager.stores.base import RunStore

logger = logging.getLogger(__name__)

POLL = timedelta(seconds=5)
FOLLOW_CHANGES_EVERY = timedelta(seconds=1)
CLOCKS_AGREE = timedelta(seconds=2)
COME_UP_AGAIN = timedelta(seconds=2)
PURGE_EVERY = timedelta(hours=6)
SHORTEST = timedelta(microseconds=1)
FORGET_DEAD_AFTER = timedelta(days=1)
PULSE_EVERY = timedelta(seconds=5)


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
        observers: Sequence[Observer] = (),
    ) -> None:
        keeps_time = backend.capabilities.keeps_time
        threaded = keeps_time and not clock.drive(None, _nothing)
        clock.release(_nothing)
        self._registry = registry
        self.store = store
        self.backend = backend
        self._settings = settings
        self._clock = clock
        self.account = Reconciliation(store, grace=settings.grace)
        self.declarations = JobSync(registry, store, self.account, namespace=settings.namespace)
        self._quiet = outage = ThrottledLogger(logger)  # whoever meets it, one line in five seconds is enough
        self.lease = Heartbeat(
            store,
            clock,
            namespace=settings.namespace,
            length=settings.lease,
            declares=registry.jobs.keys(),
            executes=keeps_time,
            quiet=outage,
        )
        self.commits = GroupCommit(store, clock, threaded=threaded, quiet=outage)
        self.recorder = Recorder(
            store, self.commits, grace=settings.grace, redactor=Redactor(settings.secret_values())
        )
        self.pool = WorkerPool(settings.workers, threaded=threaded)
        self.chores = BackgroundTasks(clock, quiet=outage)
        self._handlers = HandlerCounter()
        self._turned_at: float | None = None
        self._beat_at: float | None = None
        self.executor = Executor(
            registry=registry,
            recorder=self.recorder,
            pool=self.pool,
            lease=self.lease,
            clock=clock,
            isolation=ChildProcesses(capture_logs=settings.capture_logs),
            cause_of=backend.cause_of,
            observers=(*observers, self._handlers) if threaded else observers,
            backend=backend.name,
            keep_lines=settings.capture_logs,
        )
        executes = backend.capabilities.executes_in_process
        self.openings = RunFactory(self.lease, executes=executes)
        self.claims = Claiming(
            registry=registry,
            store=store,
            executor=self.executor,
            pool=self.pool,
            lease=self.lease,
            chores=self.chores,
            clock=clock,
            executes=executes,
            dispatch=backend.dispatch,
        )
        self.runner = Runner(
            registry=registry,
            recorder=self.recorder,
            account=self.account,
            executor=self.executor,
            openings=self.openings,
            claims=self.claims,
            pool=self.pool,
            lease=self.lease,
            chores=self.chores,
            clock=clock,
            reload=self._reload,
        )
        self.watch = Supervisor(self.executor, self.recorder, pool=self.pool, lease=self.lease, clock=clock)
        self.sweep = Sweep(store, self.account, self.executor, self.claims, lease=self.lease, clock=clock)
        self.failure_detector = FailureDetector(store, clock, length=settings.lease)
        self.failure_detector.on_marked_dead = partial(self.chores.run_soon, self._sweep)
        self.lease.on_beat = self._on_beat
        self.lease.on_silence = self.failure_detector.forget
        self.lease.on_lost = self.watch.lost
        self.lease.vital_signs = self._vital_signs
        self.deliver = DeliveryTimer(self.runner.deliver, clock)
        self.watchdog = Watchdog(
            self._vitals,
            limits=Limits.of(settings),
            clock=clock,
            mode=settings.watchdog,
            read_ledger=self._ledger_symptoms,
            on_stall=partial(tell_stalled, observers),
        )
        self.threaded = threaded
        """False on a clock moved by hand and on noop: then runs execute inline, in the caller's thread."""
        self._keeps_time = keeps_time
        self._executes = True
        self._installed = -1
        self._up = False
        self._capturing = False
        for name, act, every in (
            ("watch", self.watch.look, LOOK_EVERY),
            ("cancel poll", self.watch.ask_for_cancel, ASK_FOR_CANCEL_EVERY),
            ("log flush", self.watch.flush_lines, FLUSH_LINES_EVERY),
            ("claim poll", self.claims.claim, POLL),
            ("change poll", self._follow_changes, FOLLOW_CHANGES_EVERY),
            ("sweep", self._sweep, settings.sweep),
            ("purge", self._purge, PURGE_EVERY),
            ("pulse", self._pulse, min(PULSE_EVERY, Limits.of(settings).patience / 4)),
        ):
            self.chores.add(name, act, every=every)

    def install(self) -> None:
        """Make the store ready and carry the declarations over; again only when there are more of them."""
        declared = len(self._registry.declared)
        if self._installed != declared:
            self.store.install()
            self.declarations.carry_over()
            self.claims.unknown = self.declarations.unknown
            self._installed = declared

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
            self.chores.run_at(self._clock.now() + COME_UP_AGAIN, self._try_again)

    def enable_execution(self) -> None:
        """After `start`: pending runs are brought here, too."""
        if self._keeps_time:
            self.lease.start()

    def attend(self) -> None:
        """Execute what this process claims itself, without keeping time."""
        if self._settings.capture_logs and not self._capturing:
            capture.start()
            self._capturing = True
        self.executor.resume()
        if self._keeps_time:
            self.chores.start()

    def _bring_up(self) -> None:
        self._installed = -1
        self.install()
        self._warn_of_skew()
        if self._keeps_time:
            self.lease.start(executes=self._executes)
        self.runner.begin()
        self.backend.sync(self.declarations.scheduled(self._settings.grace))
        self.backend.start(self.deliver)
        self._up = True
        self._turned_at = self._clock.monotonic()
        if self.threaded:
            self.watchdog.start()
        if self._keeps_time:
            self.chores.run_soon(self._sweep)
            self.chores.run_at(self._clock.now() + self._settings.grace, self._retire_undeclared)
            self.chores.run_soon(self.claims.claim)

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
            self._quiet.warning("still not up: %s", error)
            self.chores.run_at(self._clock.now() + COME_UP_AGAIN, self._try_again)

    def stop(self, drain: timedelta) -> None:
        """Accept nothing more, let running handlers end for at most `drain`, record the rest, say good-bye. Twice is safe."""
        self.watchdog.stop()
        if not self._up:
            self.chores.stop()  # it may be coming up at this very moment; what is half up cannot be stopped
        self.backend.stop(timedelta(seconds=5))
        self.runner.drain(drain)
        self.chores.stop()
        self.commits.stop(5.0)
        self.commits.stop(5.0)  # the ends of what only now turned out to be opened
        self.pool.stop()
        self.lease.stop()
        if self._capturing:
            capture.stop()
            self._capturing = False
        self._up = False
        if not self.threaded:
            self.executor.resume()  # what is started by hand later still runs, inline

    def sync(self) -> None:
        """Carry the declarations over and tell the backend, and the others what this process declares."""
        self._installed = -1
        self.install()
        self.lease.announce()
        self.backend.sync(self.declarations.scheduled(self._settings.grace))

    def tick(self, job_id: str) -> Ticked:
        """Open a run for the job's last due instant; one that is too late is left to its catch-up policy."""
        job = self._registry.job(job_id)
        row = self.store.job(job_id)
        if job.schedule is None or row is None:
            return Ticked("not_due")
        now = self.store.now()
        instant = job.schedule.previous_before(now + SHORTEST)
        if instant is None or instant <= row.accounted_until:
            found = None if instant is None else self.store.run_for(job_id, instant)
            return Ticked("duplicate" if found else "not_due", found.id if found else None, instant)
        verdict = self.runner.bring(job, Tick(job_id, instant, row.schedule_rev))
        return Ticked(verdict.finding, verdict.run.id if verdict.run else None, instant)

    def _reload(self, job_id: str) -> None:
        logger.info("job=%s changed elsewhere; reading it again", job_id)
        self._follow_changes()

    # ---------------------------------------------------------------- what the watchdog sees

    @property
    def ready(self) -> bool:
        """True while this process accepts runs: it is up, and not draining."""
        return self._up and self.claims.accepting

    def _vitals(self) -> Vitals | None:
        """Return what this process knows of itself, without a lock; None while it comes up or drains, or keeps no time."""
        if not self._keeps_time or not self.ready:
            return None
        monotonic, running = self._clock.monotonic(), len(self.executor.running)
        timetable = getattr(self.backend, "timetable", None)
        return Vitals(
            now=self._clock.now(),
            workers=self.pool.workers,
            waiting=max(0, self.pool.in_flight - running) if self.threaded else 0,
            busy_workers=running,
            handlers_begun=self._handlers.begun,
            abandoned_workers=getattr(self.pool, "abandoned", 0),
            timetable_next=timetable.top() if isinstance(timetable, Timetable) else None,
            delivering_since=self.deliver.since if self.threaded else None,
            background_turned_at=self._turned_at,
            last_beat_at=self._beat_at,
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
            return self.runner.vital_signs()
        return since, (self._clock.now() - since).total_seconds()

    def _on_beat(self, own_id: str) -> None:
        self._beat_at = self._clock.monotonic()
        self.failure_detector.check(own_id)

    def _pulse(self) -> None:
        self._turned_at = self._clock.monotonic()

    def _follow_changes(self) -> None:
        """Take over what other processes or operators changed."""
        if self._up and self.declarations.refresh():
            self.claims.unknown = self.declarations.unknown
            self.backend.sync(self.declarations.scheduled(self._settings.grace))

    def follow_changes(self) -> None:
        """As the poll does every second, now."""
        self._follow_changes()

    def _sweep(self) -> None:
        if self._up and self.lease.ok():
            self.sweep.sweep()

    def _retire_undeclared(self) -> None:
        self.declarations.retire_undeclared()
        self._follow_changes()

    def _purge(self) -> None:
        if not self._up:
            return
        # What a backend keeps outside may have an end, such as plans that are made for some months.
        self.backend.sync(self.declarations.scheduled(self._settings.grace))
        now = self._clock.now()
        deleted = forget_old_runs(self.store, self._registry.jobs.values(), self._settings, now)
        self.store.forget_dead(now - FORGET_DEAD_AFTER)
        if deleted:
            logger.info("purged %d runs that were older or more than retention keeps", deleted)


def _nothing() -> None:
    """Asks a clock whether it drives, and no more."""
