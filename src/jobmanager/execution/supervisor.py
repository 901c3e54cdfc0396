"""Looks after the attempts of this process: time-outs and what cannot begin, progress and log lines, cancel requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

from jobmanager.clock import Clock
from jobmanager.errors import StoreUnavailableError
from jobmanager.execution.attempt import Attempt
from jobmanager.execution.demand import Demand
from jobmanager.execution.executor import Executor
from jobmanager.execution.in_flight import Attempts
from jobmanager.execution.outcome import TIMEOUT_GRACE, not_begun, timed_out
from jobmanager.execution.slots import AHEAD_SECONDS
from jobmanager.execution.worker_pool import WorkerPool
from jobmanager.ledger.recorder import Recorder
from jobmanager.process.failure_detector import FailureDetector
from jobmanager.process.heartbeat import Heartbeat
from jobmanager.process.throttled_log import ThrottledLogger
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

LONGEST_TURN = 1.0  # seconds
LOOP_GIVEN_UP_AFTER = 10.0  # seconds
LOOK_EVERY = timedelta(seconds=0.5)
PUBLISH_EVERY = timedelta(seconds=0.5)
FLUSH_LINES_EVERY = timedelta(seconds=2)
ASK_FOR_CANCEL_EVERY = timedelta(seconds=2)


class Supervisor:
    """Enforces what attempts must keep to. `look` waits for no store, and has a thread of its own; the rest is background work."""

    def __init__(
        self,
        executor: Executor,
        attempts: Attempts,
        recorder: Recorder,
        *,
        pool: WorkerPool,
        heartbeat: Heartbeat,
        demand: Demand,
        clock: Clock,
        drain: timedelta,
        drain_left: Callable[[], float | None],
    ) -> None:
        """`drain_left` says how much is left of a drain of the length `drain` that an outside system began."""
        self._drain = drain
        self._drain_left = drain_left
        self._executor = executor
        self._attempts = attempts
        self._recorder = recorder
        self._pool = pool
        self._heartbeat = heartbeat
        self._demand = demand
        self._clock = clock
        self._throttled = ThrottledLogger(logger)
        self._returning: list[Attempt] = []

    # ---------------------------------------------------------------- without the store

    def look(self) -> None:
        """Enforce time-outs, take back what cannot begin, and keep threads and event loop usable."""
        left = self._drain_left()
        if left is not None and left <= self._drain.total_seconds() / 3:
            self._executor.ask_to_stop()
        if left is not None and left < 0:
            self._executor.cut()
        for attempt in self._attempts.begun():
            self._enforce_timeout(attempt)
        self._mind_the_loop()
        self._withdraw_what_waits()
        self._pool.grow()

    def _enforce_timeout(self, attempt: Attempt) -> None:
        """Ask at the timeout, interrupt what can be interrupted one grace later, and give up the thread or task in the end.

        An earlier request to end changes none of it.
        """
        over = attempt.seconds_over()
        if over < 0:
            return
        attempt.ask_to_end("timeout")
        grace = TIMEOUT_GRACE.total_seconds()
        if over < grace or attempt.interrupt() or (attempt.interrupted and over < 2 * grace):
            return
        if attempt.claim_completion():
            logger.error(
                "job=%s run_id=%s ignores its timeout of %s: its thread is let go, the run recorded as failed",
                attempt.job.id,
                attempt.run.id,
                attempt.limit,
                extra=attempt.run.log_fields(attempt.backend),
            )
            self._executor.end(attempt, timed_out(attempt))
            self._pool.abandon_worker(attempt.worker)

    def _mind_the_loop(self) -> None:
        lag = self._pool.loop_lag(self._clock.monotonic())
        self._pool.coroutines.close(closed=lag > LONGEST_TURN)
        if lag > LONGEST_TURN:
            text = "the event loop has not turned for %.1f s: a coroutine handler blocks it; await, or make it a plain function"
            self._throttled.warning(text, lag)
        if lag > LOOP_GIVEN_UP_AFTER and self._pool.abandon_loop():
            logger.error("the event loop is given up after %.0f s; the next coroutine gets another one", lag)
            self._pool.coroutines.close(closed=False)
        for attempt in self._attempts.begun():
            if attempt.loop is not None and attempt.loop.is_closed():
                self._executor.end_stranded(attempt)

    def _withdraw_what_waits(self) -> None:
        """Take back attempts that were taken ahead and could not begin within a second: another process may be free."""
        if not self._pool.threaded or not self._heartbeat.ok():
            return
        now = self._clock.monotonic()
        late = [a for a in self._attempts.waiting() if not a.stays and now - a.taken_mono > AHEAD_SECONDS]
        withdrawn = [attempt for attempt in late if attempt.withdraw()]
        for attempt in withdrawn:
            self._attempts.ending(attempt)
        if withdrawn:
            self._pool.threads.stop_running_ahead()
            self._returning += withdrawn
            self._demand.give_back_soon()

    # ---------------------------------------------------------------- with the store, on the background thread

    def give_back(self) -> None:
        """Make runs pending again whose attempts were withdrawn; what the store does not take now is tried again."""
        waiting = list(self._returning)
        if not waiting:
            return
        try:
            given = self._recorder.store.runs.give_back([attempt.run for attempt in waiting], "returned")
        except StoreUnavailableError:
            raise
        except Exception:
            self._forget(waiting)  # the sweep finds runs of ours that nothing here knows
            raise
        self._forget(waiting)
        logger.info("%d runs could not begin within a second and are pending again", len(given))
        self._demand.claimed(all_slots=True)
        self._demand.slot_freed()

    def leave_to_writer(self) -> None:
        """Have the writer give back what the background thread did not: at the stop that thread may be busy, and ends with the process.

        If both do it, the second write changes nothing.
        """
        for attempt in list(self._returning):
            self._executor.end(attempt, not_begun(), by_writer=True)

    def _forget(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            self._returning.remove(attempt)
            self._attempts.remove(attempt)

    def publish(self) -> None:
        """Write the progress of the running attempts that changed."""
        for attempt in self._attempts.begun():
            progress = attempt.take_progress()
            if progress is not None:
                self._recorder.store.runs.note_progress(
                    attempt.run, self._recorder.redacted_progress(progress)
                )

    def flush_lines(self) -> None:
        """Write the log lines captured so far."""
        for attempt in self._attempts.begun():
            lines = self._recorder.redacted(attempt.take_lines())
            if lines:
                self._recorder.store.runs.add_lines(attempt.run.id, attempt.run.attempt, lines)

    def ask_for_cancel(self) -> None:
        """Learn which of the running runs are to be cancelled."""
        if not len(self._attempts):
            return
        for run_id in self._recorder.store.runs.cancel_requests(self._heartbeat.id):
            attempt = self._attempts.get(run_id)
            if attempt is not None:
                attempt.ask_to_end("requested")


class Liveness:
    """Listens to the heartbeat, on its thread, for the runs of this process and of others."""

    def __init__(self, detector: FailureDetector, attempts: Attempts) -> None:
        self._detector = detector
        self._attempts = attempts

    def beat_accepted(self, own_id: str) -> None:
        """Look whether another process has died."""
        self._detector.check(own_id)

    def beat_failed(self) -> None:
        """Forget what was seen of others: it proves nothing any more."""
        self._detector.forget()

    def declared_dead(self) -> None:
        """Ask every attempt to end: the store will not accept what it writes."""
        for attempt in self._attempts.begun():
            attempt.ask_to_end("lease")
