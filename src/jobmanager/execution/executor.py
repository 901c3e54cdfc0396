"""The second half of a run: take an attempt on, call its handler, record how that ended.

    start(runs) ─> Attempt waits ─> begin ─> invoke ─> outcome ─> record

Every exit of `execute` returns the slot and ends the run: whatever a handler or the library's own code raises is an outcome.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import timedelta

from jobmanager.beside_loop import beside_loop
from jobmanager.clock import Clock
from jobmanager.context import AttemptState, OnceCaller, StepCalls
from jobmanager.errors import StoreError
from jobmanager.execution.attempt import Attempt
from jobmanager.execution.demand import RunEvents
from jobmanager.execution.in_flight import Attempts
from jobmanager.execution.invokers import Invokers
from jobmanager.execution.outcome import (
    TIMEOUT_GRACE,
    Outcome,
    crashed,
    cut_by_shutdown,
    ending_of,
    internal_error,
    never_started,
    not_begun,
    timed_out,
)
from jobmanager.execution.slots import Slot
from jobmanager.execution.worker_pool import Worker, WorkerPool, finish
from jobmanager.job import Job
from jobmanager.ledger.recorder import Recorder
from jobmanager.notify.pings import JobPings
from jobmanager.observe import Observer, tell_ended
from jobmanager.process.heartbeat import Heartbeat
from jobmanager.registry import Registry
from jobmanager.run import FAILED, KEEPS_ATTEMPT, PENDING, Ending, Notice, Run, RunStatus
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

MOST_INTERRUPTIONS = 10
WOKEN_BY_OTHERS = ("waiting", "children")

StepsOf = Callable[[AttemptState], StepCalls]


class Executor:
    """Executes runs that are running and owned by this process. Any thread may call any method."""

    def __init__(
        self,
        *,
        registry: Registry,
        recorder: Recorder,
        pool: WorkerPool,
        heartbeat: Heartbeat,
        clock: Clock,
        attempts: Attempts,
        invokers: Invokers,
        events: RunEvents,
        observers: Sequence[Observer] = (),
        backend: str = "",
        keep_lines: bool = True,
        notices_of: Callable[[Job, Ending], tuple[Notice, ...]],
        pings: JobPings,
        once: OnceCaller | None = None,
        steps_of: Callable[[Sequence[Run]], StepsOf] | None = None,
    ) -> None:
        self.backend = backend
        self._steps_of = steps_of
        self._once = once
        self._registry = registry
        self._recorder = recorder
        self._pool = pool
        self._heartbeat = heartbeat
        self._clock = clock
        self._attempts = attempts
        self._invokers = invokers
        self._events = events
        self._observers = tuple(observers)
        self._keep_lines = keep_lines
        self._notices_of = notices_of
        self._pings = pings
        self._waiters: dict[str, threading.Event] = {}
        self._draining = False
        self._drained = False
        recorder.report_ends_to(self)

    # ---------------------------------------------------------------- taking runs on

    def start(
        self, taken: Sequence[tuple[Run, Slot | None]], *, here: bool = False, first: bool = False
    ) -> None:
        """Hand runs with their slots to the workers and the event loop, or with `here` execute them one by one on this thread.

        With `first` they begin before those that wait for a worker. What comes too late ends as cut by the shutdown.
        """
        plain: list[Attempt] = []
        coroutines: list[Attempt] = []
        steps_of = None if self._steps_of is None else self._steps_of([run for run, _ in taken])
        for run, slot in taken:
            job = self.job_of(run)
            on_loop = self.runs_on_loop(job)
            attempt = self._attempt(job, run, self._slot(slot, on_loop=on_loop), steps_of, stays=here)
            self._attempts.add(attempt)
            if self._drained:
                self._cut(attempt)
            else:
                (coroutines if on_loop else plain).append(attempt)
        if here:
            for attempt in plain:
                self.execute(attempt)
            for attempt in coroutines:
                finish(self._execute_on_loop(attempt))
            return
        if plain:
            self._pool.submit(self.execute, plain, first=first)
        if coroutines:
            self._pool.spawn(self._execute_on_loop, coroutines)

    def restart_first(self, attempt: Attempt, slot: Slot) -> bool:
        """Begin an attempt that waits for a worker before all others, with this slot; False if it does not wait any more."""
        if attempt.stays or not attempt.withdraw():
            return False
        self.start([(attempt.run, slot)], first=True)
        return True

    def runs_on_loop(self, job: Job) -> bool:
        """Return True if the job's handler is known to be a coroutine function, and is not isolated."""
        if job.isolation == "process":
            return False
        handler = self._registry.handlers.get(job.handler)
        return handler is not None and handler.is_known_coroutine

    def _slot(self, slot: Slot | None, *, on_loop: bool) -> Slot:
        """Return the slot if it is of the right lane; else one of the right lane in its place."""
        lane = self._pool.coroutines if on_loop else self._pool.threads
        return lane.take_unbounded() if slot is None else slot.moved_to(lane)

    # ---------------------------------------------------------------- one attempt

    def execute(self, attempt: Attempt, worker: Worker | None = None) -> None:
        """Execute one attempt on this thread, from its beginning to its record."""
        attempt.worker = worker
        outcome: Outcome | None = None
        try:
            if self._is_for_the_loop(attempt):
                self._pool.spawn(self._execute_on_loop, [attempt])
                return
            if self._begin(attempt, self._heartbeat.ok() or self._heartbeat.wait_until_ok()):
                self._limit_run(attempt)
                outcome = (
                    timed_out(attempt)
                    if attempt.run_is_over
                    else self._after_interruptions(attempt, self._invoke(attempt))
                )
        except BaseException as error:  # noqa: BLE001 - of our own code: an outcome, never a lost thread
            outcome = internal_error(error)
        self._record_outcome(attempt, outcome)
        if attempt.meant_for_the_process is not None:
            raise attempt.meant_for_the_process

    async def _execute_on_loop(self, attempt: Attempt) -> None:
        """Execute one attempt as a task of the event loop."""
        outcome: Outcome | None = None
        try:
            trusted = self._heartbeat.ok()
            if not trusted:
                trusted = await self._heartbeat.until_ok()
            if self._begin(attempt, trusted):
                attempt.runs_in(asyncio.current_task())
                if attempt.job.run_timeout is not None:
                    await beside_loop(self._limit_run, attempt)
                self._limit_here(attempt)
                outcome = (
                    timed_out(attempt) if attempt.run_is_over else await self._invokers.on_this_loop(attempt)
                )
        except BaseException as error:  # noqa: BLE001 - as above
            outcome = internal_error(error) if attempt.begun else None
        if outcome is not None and outcome.reason == "shutdown":
            with contextlib.suppress(BaseException):  # a loop that ends lends no threads
                outcome = await beside_loop(self._after_interruptions, attempt, outcome)
        self._record_outcome(attempt, outcome, by_writer=not attempt.stays)

    def _limit_run(self, attempt: Attempt) -> None:
        """Find out when a run with a `run_timeout` began: with its first start since it was opened, or opened again."""
        run = attempt.run
        if attempt.job.run_timeout is None:
            return
        begun = [attempt.started_at]
        if run.starts > 1:
            opened = run.accepted_at or run.opened_at
            earlier = self._recorder.store.history.attempts(run.id)
            begun += [each.started_at for each in earlier if each.started_at and each.started_at >= opened]
        attempt.limit_run(min(begun))

    def _limit_here(self, attempt: Attempt) -> None:
        """Cancel the coroutine ten seconds after its timeout where no supervisor does."""
        if not self._pool.threaded and attempt.limit is not None:
            longest = attempt.limit + TIMEOUT_GRACE
            asyncio.get_running_loop().call_later(longest.total_seconds(), attempt.interrupt)

    def _begin(self, attempt: Attempt, trusted: bool) -> bool:  # noqa: FBT001 - whether the lease still holds
        """Return True if the run is still this process's own at this instant; else nothing is called."""
        run = attempt.run
        if not trusted or run.owner != self._heartbeat.id:
            if attempt.withdraw():
                self._log(run, logging.WARNING, "job=%s run_id=%s not started: the lease was lost before")
                self._attempts.remove(attempt)
            return False
        if not attempt.begin():
            return False
        self._attempts.handlers_begun += 1  # may lose one to another thread; it only has to move
        if attempt.job.ping_url is not None:
            self._pings.started(attempt.job.ping_url, run)
        if self._draining:
            attempt.ask_to_end("shutdown")
        return True

    def _is_for_the_loop(self, attempt: Attempt) -> bool:
        """Return True for a coroutine function that is known to be one only since it was imported here."""
        handler = attempt.handler
        if handler is None or not isinstance(handler.target, str) or attempt.job.isolation == "process":
            return False
        with contextlib.suppress(Exception):  # said, and recorded, where the handler is called
            _ = handler.function
        return handler.is_known_coroutine

    def _invoke(self, attempt: Attempt) -> Outcome:
        """Call the handler as its job asks for."""
        handler = attempt.handler
        if handler is not None and attempt.job.isolation == "process":
            return self._invokers.in_a_child_process(attempt, handler)
        return self._invokers.on_this_thread(attempt)

    def _record_outcome(self, attempt: Attempt, outcome: Outcome | None, *, by_writer: bool = False) -> None:
        """Record the outcome, unless the end was recorded meanwhile; the slot goes back in any case."""
        try:
            if outcome is None:
                return
            ending = self._ending(
                attempt, outcome
            )  # what the handler left behind is looked at under its own timeout
            if attempt.claim_completion():
                self._record(attempt, ending, by_writer=by_writer)
            else:
                text = "job=%s run_id=%s late writer refused: its outcome is on record"
                self._log(attempt.run, logging.WARNING, text)
        finally:
            attempt.slot.release()

    def _after_interruptions(self, attempt: Attempt, outcome: Outcome) -> Outcome:
        """Return the outcome as it counts: of a run that shutdowns have interrupted too often, this one is an attempt."""
        if outcome.reason == "shutdown" and self._was_interrupted_often(attempt.run):
            return cut_by_shutdown(attempt)
        return outcome

    def _was_interrupted_often(self, run: Run) -> bool:
        """Return True if so many shutdowns have interrupted the run that this one counts as an attempt."""
        if run.starts - run.attempt < MOST_INTERRUPTIONS:
            return False  # each of them was a start
        try:
            earlier = self._recorder.store.history.attempts(run.id)
        except StoreError:
            return False
        return sum(each.outcome == "shutdown" for each in earlier) >= MOST_INTERRUPTIONS

    # ---------------------------------------------------------------- its end

    def end(self, attempt: Attempt, outcome: Outcome, *, by_writer: bool = False) -> None:
        """Record how an attempt ended and return its slot. For the caller that claimed the completion.

        With `by_writer` it waits for no store: the writer's thread has it written, also where nothing else is in flight.
        """
        self._record(attempt, self._ending(attempt, outcome), by_writer=by_writer)

    def _ending(self, attempt: Attempt, outcome: Outcome) -> Ending:
        """Return the outcome as it is written. Never raises: an outcome that no record can hold is an internal error."""
        if attempt.begun:
            elapsed = self._clock.monotonic() - attempt.started_mono
        else:
            attempt.started_at, elapsed = self._clock.now(), 0.0
        try:
            ending = self._recorder.presentable(ending_of(attempt, outcome, self._clock, elapsed))
        except BaseException as error:  # noqa: BLE001 - for example a retry in ten thousand years
            ending = self._recorder.presentable(
                ending_of(attempt, internal_error(error), self._clock, elapsed)
            )
        notices = self._notices_of(attempt.job, ending)
        return replace(ending, notices=notices) if notices else ending

    def _record(self, attempt: Attempt, ending: Ending, *, by_writer: bool = False) -> None:
        write_inline = not by_writer and self._pool.in_flight <= 1
        self._attempts.ending(attempt)
        took = (ending.finished_at - ending.started_at).total_seconds()
        attempt.slot.release(seconds=took if attempt.begun else None)
        try:
            self._recorder.end(ending, write_inline=write_inline)
        except BaseException:
            self._attempts.remove(attempt)
            raise
        finally:
            self._events.slot_freed()

    def ended(self, ending: Ending, status: RunStatus | None) -> None:
        """Report the end, on the writer's thread after the commit; `ending` is what was written, without secrets."""
        run = ending.run
        self._attempts.recorded(run)
        why = f": {ending.error.message}" if ending.error else ""
        if status is None:
            self._log(run, logging.WARNING, "job=%s run_id=%s late writer refused: another process owns it")
        elif status is PENDING and ending.retry_at is not None and ending.reason in KEEPS_ATTEMPT:
            self._log(run, logging.INFO, "job=%s run_id=%s is pending again (%s)%s", ending.reason, why)
            self._events.retry_due(ending.retry_at)
            if ending.reason in WOKEN_BY_OTHERS:
                self._events.may_wake()  # what it waits for may have come before it was pending
        elif status is PENDING and ending.retry_at is not None:
            again = "job=%s run_id=%s attempt %d failed, next at %s%s"
            self._log(run, logging.WARNING, again, run.attempt, ending.retry_at, why)
            self._events.retry_due(ending.retry_at)
        else:
            level = logging.ERROR if status is FAILED else logging.INFO
            if logger.isEnabledFor(level):
                self._log(run, level, f"{status} job=%s run_id=%s%s", why)
            self._events.ended(run, status)
            if run.parent_id is not None:
                self._events.may_wake()
        self._pings.ended(ending, status)
        if self._observers:
            tell_ended(self._observers, ending, status)
        self._wake_waiter(run.id)

    def end_lost(self, ending: Ending) -> None:
        """Forget an attempt whose end the store cannot keep, so that the sweep ends its run."""
        self._attempts.recorded(ending.run)
        self._wake_waiter(ending.run.id)

    def _wake_waiter(self, run_id: str) -> None:
        waiter = self._waiters.pop(run_id, None)
        if waiter is not None:
            waiter.set()

    def wake_waiters(self, run_ids: Collection[str] = ()) -> None:
        """Have those look again that wait for one of these runs, or for any run where none is named."""
        for run_id in list(run_ids or self._waiters):
            self._wake_waiter(run_id)

    def request_yield(self, newcomer: Run) -> None:
        """Under `cancel_running`: ask the holder of the newcomer's key to end, if it runs here; elsewhere it polls."""
        for attempt in self._attempts:
            cancels = attempt.job.overlap == "cancel_running"
            if cancels and attempt.begun and attempt.run.concurrency_key == newcomer.concurrency_key:
                attempt.ask_to_end("requested")

    def knows(self, run_id: str) -> bool:
        """Return True if the run waits for a worker here, its handler runs, or its end is on its way into the store."""
        return self._attempts.knows(run_id)

    def waiting(self, run_id: str) -> Attempt | None:
        """Return the attempt of this run that waits for a worker here, if there is one."""
        attempt = self._attempts.get(run_id)
        return None if attempt is None or attempt.begun else attempt

    def end_forgotten(self, run: Run) -> None:
        """Record a run of this process that was never started here as cut off, so that it may be tried again."""
        attempt = self._attempt(self.job_of(run), run, self._pool.threads.take_unbounded())
        if attempt.claim_completion():
            self.end(attempt, never_started(attempt))

    def end_stranded(self, attempt: Attempt) -> None:
        """Record an attempt whose event loop was closed under it as crashed."""
        if attempt.claim_completion():
            self.end(attempt, crashed(attempt, "its event loop was closed while the handler ran"))

    def event_of(self, run_id: str) -> threading.Event:
        """Return an event that is set when an attempt of this run ends in this process."""
        return self._waiters.setdefault(run_id, threading.Event())

    def forget(self, run_id: str) -> None:
        """Give up the event of `event_of`."""
        self._waiters.pop(run_id, None)

    # ---------------------------------------------------------------- the end of the process

    def resume(self) -> None:
        """Execute again what is taken on; the opposite of `drain`."""
        self._draining = False
        self._drained = False

    def ask_to_stop(self) -> None:
        """Ask what runs, and what begins from now on, to end because the process does. Twice is once."""
        self._draining = True
        for attempt in self._attempts.begun():
            attempt.ask_to_end("shutdown")

    def drain(self, timeout: timedelta) -> None:
        """Let what runs go on, and ask it to end when a third of `timeout` is left; record what did not as cut by the shutdown."""
        last_third = timeout.total_seconds() / 3
        empty = self._pool.wait_empty(timeout.total_seconds() - last_third)
        self.ask_to_stop()
        if not empty:
            self._pool.wait_empty(last_third)
        self.cut()

    def cut(self) -> None:
        """Record what still runs as cut by the shutdown, and give back what has not begun; nothing begins from now on."""
        self._drained = True
        for attempt in self._attempts:
            if self._cut(attempt) and attempt.begun:
                self._log(attempt.run, logging.WARNING, "job=%s run_id=%s cut at the end of the drain")
                self._pool.abandon_worker(attempt.worker)
                if attempt.job.isolation == "process":
                    attempt.interrupt()

    def _cut(self, attempt: Attempt) -> bool:
        """End an attempt with the process; a run whose handler was not called goes back as it is."""
        if not attempt.claim_completion():
            return False
        outcome = cut_by_shutdown(attempt) if attempt.begun else not_begun()
        self.end(attempt, outcome, by_writer=True)  # a store that does not reply must not hold up the stop
        return True

    def _attempt(
        self, job: Job, run: Run, slot: Slot, steps_of: StepsOf | None = None, *, stays: bool = False
    ) -> Attempt:
        return Attempt(
            job,
            run,
            handler=self._registry.handlers.get(job.handler),
            slot=slot,
            stays=stays,
            clock=self._clock,
            lease_ok=self._heartbeat.ok,
            keep_lines=self._keep_lines,
            backend=self.backend,
            once=self._once,
            steps_of=steps_of,
        )

    def job_of(self, run: Run) -> Job:
        """Return the declared job; a bare one for a run whose job this process does not know."""
        return self._registry.jobs.get(run.job_id) or Job(id=run.job_id, name=run.job_id, handler=run.job_id)

    def _log(self, run: Run, level: int, text: str, *more: object) -> None:
        """Log about a run: the text begins with its job and id, the record carries its fields."""
        if logger.isEnabledFor(level):
            logger.log(level, text, run.job_id, run.id, *more, extra=run.log_fields(self.backend))
