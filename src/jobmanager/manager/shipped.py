"""The handlers that come with the package. No job of them exists until an operator makes one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobmanager.context import RunContext
from jobmanager.ledger.retention import forget_old_runs

if TYPE_CHECKING:
    from jobmanager.manager.parts import Parts


class ShippedHandlers:
    """Handlers that work on the manager's own store. Registered under their keys; a handler of the application takes precedence."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        registry = parts.registry
        registry.ship("test-job", succeed)
        registry.ship("test-fail-job", fail)
        registry.ship("purge-runs", self.purge_runs)
        registry.ship("rescue-stale", self.rescue_stale)

    def purge_runs(self) -> dict[str, Any]:
        """Delete the runs that the retention settings no longer keep, as each process does every six hours."""
        parts = self._parts
        now = parts.store.now()
        return {"deleted": forget_old_runs(parts.store, parts.registry.jobs.values(), parts.settings, now)}

    def rescue_stale(self) -> None:
        """Look for runs of dead processes, missed instants and late ticks, as each process does at every sweep."""
        self._parts.assembly.sweep.look()


def succeed(context: RunContext, message: str = "jobmanager works") -> dict[str, str]:
    """Succeed, with a line in the log of the run: proof that a job reaches a worker and its outcome the record."""
    context.log.info("%s", message)
    return {"message": message}


def fail(message: str = "this job fails on purpose") -> None:
    """Fail: proof that a failure is recorded, retried as declared, and told to those who are to hear of it."""
    raise RuntimeError(message)
