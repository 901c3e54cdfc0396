"""Looks after the attempts that run in this process: progress and log lines, cancel requests, time-outs."""

from __future__ import annotations

import logging
from datetime import timedelta

from jobmanager.clock import Clock
from jobmanager.context import RunContext
from jobmanager.execution.executor import Executor
from jobmanager.execution.outcome import timed_out
from jobmanager.execution.worker_pool import WorkerPool
from jobmanager.ledger.recorder import Recorder
from jobmanager.process.heartbeat import Heartbeat
from jobmanager.process.throttled_log import ThrottledLogger

logger = logging.getLogger(__name__)

TIMEOUT_GRACE = timedelta(seconds=10)
LONGEST_TURN = 1.0  # seconds
LOOK_EVERY = timedelta(seconds=0.5)
FLUSH_LINES_EVERY = timedelta(seconds=2)
ASK_FOR_CANCEL_EVERY = timedelta(seconds=2)


class Supervisor:
    """What others may know of a running attempt, and what it must learn from others. Called by the chores' thread."""

    def __init__(
        self, executor: Executor, recorder: Recorder, *, pool: WorkerPool, lease: Heartbeat, clock: Clock
    ) -> None:
        self._executor = executor
        self._pool = pool
        self._lease = lease
        self._recorder = recorder
        self._clock = clock
        self._quiet = ThrottledLogger(logger)

    def look(self) -> None:
        """Enforce time-outs first, since the store may be slow, then publish progress."""
        running = list(self._executor.running.values())
        for context in running:
            self._enforce_timeout(context)
        self._mind_the_loop()
        for context in running:
            progress = context.take_progress()
            if progress is not None:
                self._recorder.store.note_progress(context.run, progress)

    def flush_lines(self) -> None:
        """Write the log lines captured so far."""
        for context in list(self._executor.running.values()):
            lines = self._recorder.redacted(context.take_lines())
            if lines:
                self._recorder.store.add_lines(context.run_id, context.attempt, lines)

    def ask_for_cancel(self) -> None:
        """Learn which of our running runs somebody wants to end."""
        running = self._executor.running
        if not running:
            return
        for run_id in self._recorder.store.cancel_requests(self._lease.id):
            context = running.get(run_id)
            if context is not None:
                context.ask_to_end("requested")

    def _mind_the_loop(self) -> None:
        lag = self._pool.loop_lag(self._clock.monotonic())
        if lag > LONGEST_TURN:
            text = "the event loop has not turned for %.1f s: a coroutine handler blocks it; await, or make it a plain function"
            self._quiet.warning(text, lag)

    def lost(self) -> None:
        """This process was declared dead: ask every attempt to end, nobody will accept what it writes."""
        for context in list(self._executor.running.values()):
            context.ask_to_end("lease")

    def _enforce_timeout(self, context: RunContext) -> None:
        if context.job.timeout is None:
            return
        over = self._clock.monotonic() - context.started_mono - context.job.timeout.total_seconds()
        if over >= 0:
            context.ask_to_end("timeout")
        killable = context.job.isolation == "process"
        if over < TIMEOUT_GRACE.total_seconds() or (context.cancel_cause != "timeout" and not killable):
            return
        if not context.interrupt() and self._executor.claim_completion(context):
            logger.error(
                "job=%s run_id=%s ignores its timeout of %s: its thread is let go, the run recorded as failed",
                context.job.id,
                context.run_id,
                context.job.timeout,
                extra=context.run.log_fields(context.backend),
            )
            self._pool.abandon_worker()
            self._executor.end(context, timed_out(context))
