"""Pending runs that a call has executed, for hosts where no process lives between the calls: so many, and for so long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import timedelta
from itertools import islice

from jobmanager.clock import Clock
from jobmanager.errors import UnsupportedError
from jobmanager.execution.claiming import Claiming
from jobmanager.manager.sweep import Sweep
from jobmanager.run import FAILED, PENDING, RUNNING, Run, RunStatus, Worked
from jobmanager.stores.base import RunStore

LOOK_EVERY = 0.05  # seconds, at a run whose end another thread records
SWEEP_AFTER = timedelta(seconds=60)


class CalledWork:
    """Executes due pending runs on the thread of a call. Any thread, in any number of processes: each run is claimed once."""

    def __init__(
        self,
        *,
        store: RunStore,
        claims: Claiming,
        sweep: Sweep,
        follow_changes: Callable[[], object],
        clock: Clock,
        waits: bool,
        budget: timedelta,
    ) -> None:
        """`budget`: how long a call goes on to begin runs; a handler that has begun is not cut by it.

        `waits`: the host may stop this process after the response, so nothing may be begun on other threads meanwhile.
        """
        self._store = store
        self._claims = claims
        self._sweep = sweep
        self._follow_changes = follow_changes
        self._clock = clock
        self._waits = waits
        self._budget = budget

    def work(self, limit: int) -> Worked:
        """Execute up to `limit` due pending runs, by priority, then age; return how they ended and how many are left.

        An attempt that failed counts as failed, also where another one follows. What a dead process left behind is pending again
        before. Raises UnsupportedError where others execute, and StoreUnavailableError, after which it may be repeated.
        """
        if not self._claims.executes:
            raise UnsupportedError("the workers of this backend execute what is pending; no call has to")
        until = self._clock.monotonic() + self._budget.total_seconds()
        self._follow_changes()  # no thread of a process that sleeps between calls did
        if self._sweep.is_older_than(SWEEP_AFTER):
            self._sweep.look()
        with self._claims.alone() if self._waits else nullcontext():
            ended = list(islice(self._worked_off(until), limit))
        failed = sum(status in (FAILED, PENDING) for status in ended)
        return Worked(processed=len(ended) - failed, failed=failed, left=self._claims.count_due())

    def _worked_off(self, until: float) -> Iterator[RunStatus]:
        """Execute one due pending run after the other; yield what each attempt left its run as."""
        while self._clock.monotonic() < until and (run := self._claims.claim_one_here()) is not None:
            yield self._ended(run, until)

    def _ended(self, run: Run, until: float) -> RunStatus:
        """Return what the attempt left the run as; `running` if its end is not recorded when the time is over."""
        while True:
            found = self._store.runs.by_id([run.id])
            is_over = not found or found[0].status is not RUNNING or found[0].starts != run.starts
            if is_over or self._clock.monotonic() >= until:
                return found[0].status if found else run.status
            self._clock.sleep(LOOK_EVERY)
