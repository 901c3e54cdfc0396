"""The health of an application as every surface shows it: what its process knows, and what the store shows of all processes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from jobmanager.errors import JobManagerError
from jobmanager.manager.assembly import Assembly
from jobmanager.process.bounded import BoundedCall
from jobmanager.process.health import HealthReport, LedgerFacts, Limits, Symptom, judge_ledger
from jobmanager.process.ledger_facts import read_ledger
from jobmanager.settings import Settings
from jobmanager.stores.base import RunStore

REPLY_WITHIN = 5.0
"""Seconds that the store has for the facts; after them it counts as silent."""


class HealthCheck:
    """Asks the store within a bound, and the watchdog of this process if it was started. Any thread; takes no lock of the manager."""

    def __init__(
        self,
        store: RunStore,
        settings: Settings,
        *,
        keeps_time: bool,
        executes_in_process: bool,
        threaded: bool,
        started: Callable[[], Assembly | None],
    ) -> None:
        self._settings = settings
        self._keeps_time = keeps_time
        self._started = started
        self._reads = {
            thorough: BoundedCall[LedgerFacts](
                lambda thorough=thorough: read_ledger(  # type: ignore[misc]  # mypy does not infer a lambda's default
                    store, settings, executes_in_process=executes_in_process, thorough=thorough
                ),
                threaded=threaded,
            )
            for thorough in (False, True)
        }

    def report(
        self,
        *,
        late: timedelta | None = None,
        thorough: bool = False,
        within: float = REPLY_WITHIN,
        told: Callable[[datetime], str] | None = None,
    ) -> HealthReport:
        """Return what is found now. Never raises, and returns within the bound whatever the store does."""
        assembly = self._started()
        symptoms = [] if assembly is None else assembly.watchdog.look()
        facts: LedgerFacts | None = None
        try:
            facts = self._reads[thorough].ask(within)
        except Exception as error:  # noqa: BLE001 - a probe has to say something, whatever the store raises
            symptoms = [*(one for one in symptoms if one.kind != "store_silent"), store_silent(error)]
        if facts is not None and self._keeps_time:
            limits = Limits.of(self._settings, late=late)
            # A process that asks lives, and what its own heartbeat lacks is a symptom already; the store learns with the next beat.
            expects = not self._settings.wait and assembly is None
            symptoms += judge_ledger(facts, limits, expects_process=expects, told=told)
        # Where the kill switch is set, the application is to be reached all the same.
        serves = self._settings.wait or self._settings.disabled
        ready = facts is not None and (serves or (assembly is not None and assembly.ready))
        return HealthReport(ready=ready, symptoms=tuple(symptoms), facts=facts)


def store_silent(error: Exception) -> Symptom:
    """Return the symptom of a store that could not be read."""
    return Symptom(
        kind="store_silent",
        text=f"The store cannot be read: {error if isinstance(error, JobManagerError) else repr(error)}",
        fix="See whether it can be reached from this host, and by `jobmanager doctor` what it says.",
    )
