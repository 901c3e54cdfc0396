"""Waiting for the end of a run; a handler that waits lends its slot to that run meanwhile."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from jobmanager.clock import Clock
from jobmanager.context import current_run
from jobmanager.errors import WaitTimeoutError
from jobmanager.execution.slots import Slot
from jobmanager.ledger.queries import History
from jobmanager.manager.assembly import Assembly
from jobmanager.run import PENDING, Run

SHORTEST_PAUSE, LONGEST_PAUSE = 0.02, 0.5  # seconds
LONGEST_WHILE_HEARING = 2.0
HEARS_AFTER = 0.05


class Waiting:
    """One wait for one run: `look` until it returns the run, with a pause after each look. Not for several threads at once.

    The handler that waits is known by its context variable, which threads of `asyncio.to_thread` have as well.
    """

    def __init__(
        self, assembly: Assembly, history: History, clock: Clock, run_id: str, limit: float | None
    ) -> None:
        self._assembly = assembly
        self._history = history
        self._clock = clock
        self._run_id = run_id
        self._limit = limit
        self._began = clock.monotonic()
        self._pause = SHORTEST_PAUSE
        self._ended = assembly.executor.event_of(run_id)
        self._lent: Slot | None = None
        self._listens = False

    def look(self) -> Run | None:
        """Return the run if it has ended; WaitTimeoutError once the limit is over."""
        self._ended = self._assembly.executor.event_of(
            self._run_id
        )  # before the look, so that no end falls between
        run = self._history.run(self._run_id)
        if run.status.closed:
            return run
        if self._left() <= 0:
            raise WaitTimeoutError(
                f"Run {self._run_id} is still {run.status} after {self._limit:g} s; it goes on.{self._hint(run)}"
            )
        self._lend(run)
        return None

    def sleep(self) -> None:
        """Wait on this thread until the next look is worth while."""
        pause = self.next_pause()
        if self._assembly.feed.by_hand:
            self._clock.sleep(pause)  # no other thread could end it meanwhile, but time may
        else:
            self._ended.wait(pause)

    def next_pause(self) -> float:
        """Return for how many seconds to wait before the next look, unless `has_ended`; longer each time."""
        if self._pause > HEARS_AFTER and not self._listens:
            self._listens = True  # the end may come in another process
            self._assembly.feed.wait_begins()
        longest = LONGEST_WHILE_HEARING if self._assembly.feed.hears else LONGEST_PAUSE
        pause, self._pause = min(self._pause, longest), min(self._pause * 1.5, longest)
        return max(0.0, min(pause, self._left()))

    @property
    def has_ended(self) -> bool:
        """True once an attempt of the run has ended in this process."""
        return self._ended.is_set()

    def _left(self) -> float:
        if self._limit is None:
            return LONGEST_WHILE_HEARING
        return self._limit - (self._clock.monotonic() - self._began)

    def _lend(self, run: Run) -> None:
        """Lend the slot of the handler that waits, if there is one and the run needs it to begin."""
        context = current_run.get()
        attempt = self._assembly.attempts.get(context.run_id) if context else None
        if attempt is not None and (self._lent is None or not self._lent.held):
            self._lent = self._assembly.claims.lend(attempt.slot, run)

    def _hint(self, run: Run) -> str:
        """Return what to do where the handler that waits may keep the run from beginning."""
        context = current_run.get()
        if context is None or run.status is not PENDING:
            return ""
        if self._assembly.claims.executes and self._assembly.attempts.get(context.run_id) is not None:
            return ""
        return (
            " The handler that waits keeps its worker, and the run may need one: have more workers than such handlers, or "
            "another queue for what they wait for."
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._assembly.executor.forget(self._run_id)
        if self._listens:
            self._assembly.feed.wait_ends()
        if self._lent is not None:
            self._lent.keep()
