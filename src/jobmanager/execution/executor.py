"""The second half of a run: call the handler of a run that is ours, and record how that ended."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from jobmanager.clock import Clock
from jobmanager.context import CancelCause, RunContext, current_run
from jobmanager.errors import HandlerNotFoundError, PayloadError
from jobmanager.execution.child_process import ChildProcesses
from jobmanager.execution.outcome import (
    Outcome,
    cut_by_shutdown,
    ending_of,
    never_started,
    not_startable,
    outcome_of,
)
from jobmanager.execution.worker_pool import WorkerPool
from jobmanager.job import Job
from jobmanager.ledger.recorder import Recorder
from jobmanager.observe import Observer, tell_ended, tell_started
from jobmanager.process.heartbeat import Heartbeat
from jobmanager.registry import Handler, Registry
from jobmanager.run import FAILED, PENDING, Ending, Run, RunStatus

logger = logging.getLogger(__name__)


class Executor:
    """Executes runs that are running and owned by this process. Every run given to `start` holds a place of the pool."""

    def __init__(
        self,
        *,
        registry: Registry,
        recorder: Recorder,
        pool: WorkerPool,
        lease: Heartbeat,
        clock: Clock,
        isolation: ChildProcesses,
        cause_of: Callable[[BaseException], CancelCause | None] = lambda _: None,
        observers: Sequence[Observer] = (),
        backend: str = "",
        keep_lines: bool = True,
    ) -> None:
        self.running: dict[str, RunContext] = {}
        """Attempts whose handler was called and has not ended."""
        self.on_retry: Callable[[datetime], None] = lambda _: None
        """Called with the moment another attempt is due, after it was recorded."""
        self.on_ended: Callable[[Run, RunStatus], None] = lambda _run, _status: None
        """Called with a run and how it ended, after that was recorded."""
        self.on_place: Callable[[], None] = lambda: None
        """Called whenever a run gave its place back."""
        self._registry = registry
        self._recorder = recorder
        self._pool = pool
        self._lease = lease
        self._clock = clock
        self._isolation = isolation
        self._cause_of = cause_of
        self._observers = tuple(observers)
        self.backend = backend
        self._keep_lines = keep_lines
        self._queued: dict[str, Run] = {}
        self._waiters: dict[str, threading.Event] = {}
        self._draining = False
        self._drained = False

    def start(self, runs: Sequence[Run], *, here: bool = False) -> None:
        """Hand runs to the workers and the event loop, or with `here` execute them one by one on this thread.

        What was opened too late for that ends as cut by the shutdown.
        """
        if self._drained:
            for run in runs:
                context = self._context_of(run)
                self.end(context, cut_by_shutdown(context))
            return
        calls: list[Callable[[], None]] = []
        coroutines: list[Coroutine[Any, Any, None]] = []
        for run in runs:
            self._queued[run.id] = run
            handler = self._handler_of(run)
            if handler is not None and handler.is_known_coroutine and not self._is_isolated(run):
                coroutines.append(self._execute_coroutine(run, handler))
            else:
                calls.append(partial(self._execute, run, handler))
        if here:
            self._pool.run_here(calls, coroutines)
            return
        if calls:
            self._pool.submit(calls)
        if coroutines:
            self._pool.spawn(coroutines)

    # ---------------------------------------------------------------- one attempt

    def _execute(self, run: Run, handler: Handler | None) -> None:
        """On a worker thread."""
        context = self._begin(run)
        if context is not None and handler is not None and self._is_isolated(run):
            self._finish(context, contextvars.copy_context().run(self._isolated, context, handler))
            return
        call = self._call(context, handler) if context else None
        if context is None or call is None:
            return
        if handler is not None and handler.is_known_coroutine:  # known only since it was imported just now
            self._pool.spawn([self._await(context, call)])
            return
        returned, raised = contextvars.copy_context().run(self._called, context, call)
        cause = None if raised is None else self._cause_of(raised)
        if cause is not None:
            context.ask_to_end(cause)
        self._finish(context, outcome_of(context, returned, raised))
        if cause is not None and raised is not None and not isinstance(raised, Exception):
            raise raised  # it is meant for the whole process

    def _called(self, context: RunContext, call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
        current_run.set(context)
        if self._observers:
            tell_started(self._observers, context)
        try:
            return call(), None
        except BaseException as error:  # noqa: BLE001 - the handler's, to be recorded; it may not end the worker
            return None, error

    def _isolated(self, context: RunContext, handler: Handler) -> Outcome:
        if self._observers:
            tell_started(self._observers, context)
        return self._isolation.attempt(context, handler)

    async def _execute_coroutine(self, run: Run, handler: Handler) -> None:
        """On the event loop."""
        if not self._lease.ok():
            await asyncio.to_thread(self._lease.wait_until_ok)  # not here: the loop may be the application's
        context = self._begin(run)
        call = self._call(context, handler) if context else None
        if context is not None and call is not None:
            await self._await(context, call)

    async def _await(self, context: RunContext, call: Callable[[], Any]) -> None:
        current_run.set(context)
        context.runs_in(asyncio.current_task())
        if self._observers:
            tell_started(self._observers, context)
        returned, raised = None, None
        try:
            returned = await call()
        except BaseException as error:  # noqa: BLE001 - the handler's, to be recorded
            raised = error
        self._finish(context, outcome_of(context, returned, raised))

    def _begin(self, run: Run) -> RunContext | None:
        """The context of a run that is still ours at this instant; None if it was cut, or this process may be counted dead."""
        trusted = self._lease.ok() or self._lease.wait_until_ok()
        if self._queued.pop(run.id, None) is None:
            return None
        if not trusted or run.owner != self._lease.id:
            self._log(run, logging.WARNING, "job=%s run_id=%s not started: the lease was lost before")
            self._pool.release()
            return None
        context = self._context_of(run)
        self.running[run.id] = context
        if self._draining:
            context.ask_to_end("shutdown")
        return context

    def _handler_of(self, run: Run) -> Handler | None:
        job = self._registry.jobs.get(run.job_id)
        return None if job is None else self._registry.handlers.get(job.handler)

    def _is_isolated(self, run: Run) -> bool:
        job = self._registry.jobs.get(run.job_id)
        return job is not None and job.isolation == "process"

    def _call(self, context: RunContext, handler: Handler | None) -> Callable[[], Any] | None:
        """The handler with its arguments; None if it cannot be called, which is then recorded."""
        try:
            if handler is None:
                raise HandlerNotFoundError(
                    f"This process has no handler {context.job.handler!r}. "
                    "Import the module that declares it before start()."
                )
            return partial(handler.function, **handler.call_arguments(context))
        except (HandlerNotFoundError, PayloadError) as error:
            self._finish(context, not_startable(error))
            return None

    def _finish(self, context: RunContext, outcome: Outcome) -> None:
        """Write the outcome, unless the run was let go meanwhile; the worker does not wait for the commit."""
        if self.claim_completion(context):
            self.end(context, outcome)
            return
        self._log(
            context.run, logging.WARNING, "job=%s run_id=%s late writer refused: its outcome is on record"
        )
        self._pool.abandoned_worker_returned()

    def claim_completion(self, context: RunContext) -> bool:
        """Claim the right to record this attempt's end: True for exactly one caller."""
        if not context.claim_completion():
            return False
        # A later attempt of the same run may be here already; its context is another one.
        if self.running.get(context.run_id) is context:
            del self.running[context.run_id]
        return True

    # ---------------------------------------------------------------- its end

    def end(self, context: RunContext, outcome: Outcome) -> None:
        """Record how the attempt ended and give its place back."""
        elapsed = self._clock.monotonic() - context.started_mono
        ending = ending_of(context, outcome, self._clock.now(), elapsed)
        write_inline = self._pool.in_flight <= 1
        self._pool.release(seconds=elapsed)
        self._recorder.end(ending, self._ended, write_inline=write_inline)
        self.on_place()

    def _ended(self, ending: Ending, status: RunStatus | None) -> None:
        """After the commit, on the writer's thread; `ending` is what was written, without secrets."""
        run = ending.run
        why = f": {ending.error.message}" if ending.error else ""
        if status is None:
            self._log(run, logging.WARNING, "job=%s run_id=%s late writer refused: it is somebody else's")
        elif status is PENDING and ending.retry_at is not None:
            again = "job=%s run_id=%s attempt %d failed, next at %s%s"
            self._log(run, logging.WARNING, again, run.attempt, ending.retry_at, why)
            self.on_retry(ending.retry_at)
        else:
            level = logging.ERROR if status is FAILED else logging.INFO
            self._log(run, level, f"{status} job=%s run_id=%s%s", why)
            self.on_ended(run, status)
        if self._observers:
            tell_ended(self._observers, ending, status)
        waiter = self._waiters.pop(run.id, None)
        if waiter is not None:
            waiter.set()

    def request_yield(self, newcomer: Run) -> None:
        """Under `cancel_running`: ask the holder of the newcomer's key to end, if it runs here; elsewhere it polls."""
        for context in list(self.running.values()):
            cancels = context.job.overlap == "cancel_running"
            if cancels and context.run.concurrency_key == newcomer.concurrency_key:
                context.ask_to_end("requested")

    def knows(self, run_id: str) -> bool:
        """True if the run waits for a worker here, or its handler runs."""
        return run_id in self._queued or run_id in self.running

    def end_forgotten(self, run: Run) -> None:
        """Record a run of ours that was never started here as cut off, so that it may be tried again."""
        context = self._context_of(run)
        self._pool.reserve_unbounded()
        self.end(context, never_started(context))

    def event_of(self, run_id: str) -> threading.Event:
        """Set when an attempt of this run ends in this process."""
        return self._waiters.setdefault(run_id, threading.Event())

    def forget(self, run_id: str) -> None:
        """Nobody waits for this run any more."""
        self._waiters.pop(run_id, None)

    # ---------------------------------------------------------------- the end of the process

    def resume(self) -> None:
        """Runs are executed, not cut."""
        self._draining = False
        self._drained = False

    def drain(self, timeout: timedelta) -> None:
        """Ask what runs to end; after `timeout` record what did not as cut by the shutdown."""
        self._draining = True
        for context in list(self.running.values()):
            context.ask_to_end("shutdown")
        empty = self._pool.wait_empty(timeout.total_seconds())
        self._drained = True
        if empty:
            return
        for run in list(self._queued.values()):
            if self._queued.pop(run.id, None) is not None:
                context = self._context_of(run)
                self.end(context, cut_by_shutdown(context))
        for context in list(self.running.values()):
            if self.claim_completion(context):
                self._log(context.run, logging.WARNING, "job=%s run_id=%s cut after %s", timeout)
                self.end(context, cut_by_shutdown(context))
                if context.job.isolation == "process":
                    self._pool.abandon_worker()  # until its thread has seen the child die
                    context.interrupt()

    def _context_of(self, run: Run) -> RunContext:
        return RunContext(
            self._job_of(run),
            run,
            clock=self._clock,
            lease_ok=self._lease.ok,
            keep_lines=self._keep_lines,
            backend=self.backend,
        )

    def _job_of(self, run: Run) -> Job:
        """The declared job; a bare one for a run whose job this process does not know."""
        return self._registry.jobs.get(run.job_id) or Job(id=run.job_id, name=run.job_id, handler=run.job_id)

    def _log(self, run: Run, level: int, text: str, *more: object) -> None:
        """Log about a run: the text begins with its job and id, the record carries its fields."""
        if logger.isEnabledFor(level):
            logger.log(level, text, run.job_id, run.id, *more, extra=run.log_fields(self.backend))
