"""Attempt: one call of a run's handler in this process, from its slot to its end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from jobmanager.clock import Clock
from jobmanager.context import AsyncRunContext, AttemptState, OnceCaller, RunContext, StepCalls
from jobmanager.execution.slots import Slot
from jobmanager.execution.worker_pool import Worker
from jobmanager.job import Job
from jobmanager.registry import Handler
from jobmanager.run import Run


class Attempt(AttemptState):
    """One attempt in this process: its slot, its handler, its stop request, its captured lines and its end.

    It waits until `begin`, unless it is withdrawn before; it ends once, by the one caller of `claim_completion` that got True.
    """

    __slots__ = (
        "_completed",
        "_interrupt",
        "_owner_pid",
        "begun",
        "handler",
        "interrupted",
        "loop",
        "meant_for_the_process",
        "slot",
        "stays",
        "taken_mono",
        "worker",
    )

    def __init__(
        self,
        job: Job,
        run: Run,
        *,
        handler: Handler | None,
        slot: Slot,
        stays: bool,
        clock: Clock,
        lease_ok: Callable[[], bool],
        keep_lines: bool = True,
        backend: str = "",
        once: OnceCaller | None = None,
        steps_of: Callable[[AttemptState], StepCalls] | None = None,
    ) -> None:
        super().__init__(
            job,
            run,
            clock=clock,
            lease_ok=lease_ok,
            keep_lines=keep_lines,
            backend=backend,
            once=once,
            steps_of=steps_of,
        )
        self.handler = handler
        self.slot = slot
        self.stays = stays
        """True if the thread that took the run executes it, however long others take before it."""
        self.taken_mono = clock.monotonic()
        """When this process took the run on (monotonic)."""
        self.worker: Worker | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.interrupted = False
        self.meant_for_the_process: BaseException | None = None
        """The exception that ended the handler, if the whole process is to end by it."""
        self._owner_pid = os.getpid()
        self._interrupt: Callable[[], object] | None = None
        self.begun = False
        """True once the handler was about to be called."""
        self._completed = False

    # ---------------------------------------------------------------- its life

    def begin(self) -> bool:
        """Say that the handler is about to be called; False if the attempt was withdrawn or ended before."""
        with self._lock:
            if self._completed:
                return False
            self.begun = True
        self.started_at = self._clock.now()
        self.started_mono = self._clock.monotonic()
        return True

    def withdraw(self) -> bool:
        """End the attempt before it began, and give its slot back; False if it began or ended already."""
        with self._lock:
            if self.begun or self._completed:
                return False
            self._completed = True
        self.slot.release()
        return True

    def claim_completion(self) -> bool:
        """Claim the right to record how this attempt ended: True for exactly one caller."""
        with self._lock:
            completed, self._completed = self._completed, True
            return not completed

    @property
    def completed(self) -> bool:
        """True once a caller has claimed the end."""
        return self._completed

    @property
    def is_forked(self) -> bool:
        """True in a child process that the handler forked: the attempt is its parent's."""
        return os.getpid() != self._owner_pid

    def context(self, *, awaited: bool = False) -> RunContext:
        """Return what the handler receives; `awaited` for a coroutine function."""
        return AsyncRunContext(self) if awaited else RunContext(self)

    # ---------------------------------------------------------------- how it may be ended from outside

    def runs_in(self, task: asyncio.Task[Any] | None) -> None:
        """Say that the attempt is this task, which `interrupt` may cancel."""
        if task is not None:
            self.loop = loop = task.get_loop()
            self.interrupted_by(lambda: loop.call_soon_threadsafe(task.cancel))

    def interrupted_by(self, act: Callable[[], object]) -> None:
        """Say that the attempt ends when `act` is called, by any thread."""
        self._interrupt = act

    def interrupt(self) -> bool:
        """Cancel the coroutine or kill the process of this attempt, once; False if it is neither (a thread cannot be interrupted)."""
        act, self._interrupt = self._interrupt, None
        if act is None:
            return False
        self.interrupted = True
        try:
            act()
        except RuntimeError:  # its event loop is closed
            return False
        return True
