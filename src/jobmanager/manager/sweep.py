"""The account check of every live process: what should have rung and did not, and what died. Harmless when many do it at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from jobmanager.clock import Clock
from jobmanager.execution.claiming import Claiming
from jobmanager.execution.executor import Executor
from jobmanager.ledger.reconciliation import Reconciliation
from jobmanager.notify.alerts import Alerts
from jobmanager.process.heartbeat import Heartbeat
from jobmanager.run import PENDING, Notice, Run
from jobmanager.stores.base import RunStore
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

FORGOTTEN_AFTER = timedelta(seconds=10)
ACCEPTED_AT_ONCE = 1000


class Sweep:
    """Takes over the runs of dead processes, settles overdue accounts, and gets what that opened executed."""

    def __init__(
        self,
        store: RunStore,
        account: Reconciliation,
        executor: Executor,
        claims: Claiming,
        *,
        accept: Callable[[Sequence[str]], object],
        open_by_events: Callable[[], object],
        heartbeat: Heartbeat,
        alerts: Alerts,
        clock: Clock,
        grace: timedelta,
    ) -> None:
        self._store = store
        self._accept = accept
        self._open_by_events = open_by_events
        self._grace = grace
        self._account = account
        self._executor = executor
        self._claims = claims
        self._heartbeat = heartbeat
        self._alerts = alerts
        self._clock = clock
        self._unknown_since: dict[str, float] = {}
        self._looked_at: datetime | None = None

    def sweep(self) -> None:
        """Make one round: every `sweep` seconds, once after start, and when a process was declared dead."""
        self.look()
        self._claims.claim()

    def is_older_than(self, age: timedelta) -> bool:
        """Return whether the last round of this process began so long ago by the wall clock, which no suspended host stops."""
        return self._looked_at is None or abs(self._clock.now() - self._looked_at) > age

    def look(self) -> None:
        """Make one round without claiming what it opens."""
        self._looked_at = self._clock.now()
        self._take_over()
        self._end_forgotten()
        expired = self._store.maintenance.expire_pending()
        if expired:
            logger.warning("%d pending runs missed their start deadline", expired)
        self._accept_announced()
        self._account.settle_due()
        self._account.settle_announced()
        if self._claims.accepting:
            self._open_by_events()

    def _accept_announced(self) -> None:
        """Accept what SQL announced and no call brought, as long as it is on time, whichever backend this process has."""
        if not self._claims.accepting:
            return
        now = self._store.now()
        on_time = self._store.maintenance.unaccepted_runs(now - self._grace, now, ACCEPTED_AT_ONCE)
        if on_time:
            self._accept(on_time)

    def _take_over(self) -> None:
        for run in self._store.maintenance.take_over(self._notices_of):
            after = "it is tried again" if run.status is PENDING else str(run.status)
            logger.warning(
                "job=%s run_id=%s attempt %d died with its process: %s",
                run.job_id,
                run.id,
                run.attempt,
                after,
            )

    def _notices_of(self, run: Run) -> Sequence[Notice]:
        return self._alerts.of_run(self._executor.job_of(run), run)

    def _end_forgotten(self) -> None:
        """End runs that this process owns by the record, but that nothing here executes: a reply of the store was lost on its way.

        Only those that two sweeps met, ten seconds apart: the first may have come between the commit and the start.
        """
        now = self._clock.monotonic()
        ours = self._store.runs.running_of(self._heartbeat.id)
        unknown = {run.id: run for run in ours if not self._executor.knows(run.id)}
        self._unknown_since = {run_id: self._unknown_since.get(run_id, now) for run_id in unknown}
        for run_id, since in self._unknown_since.items():
            if now - since > FORGOTTEN_AFTER.total_seconds():
                run = unknown[run_id]
                fields = run.log_fields(self._executor.backend)
                text = "job=%s run_id=%s is ours and was never started here"
                logger.warning(text, run.job_id, run.id, extra=fields)
                self._executor.end_forgotten(run)
