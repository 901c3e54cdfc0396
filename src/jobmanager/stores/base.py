"""RunStore: where jobs and runs are kept. It knows rows and guards, not policies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime

from jobmanager.stores.audit import StoredAudit
from jobmanager.stores.changes import StoredChanges
from jobmanager.stores.events import StoredEvents
from jobmanager.stores.facets import RunHistory, StoredJobs, StoredProcesses, StoredRuns, StoreMaintenance
from jobmanager.stores.keys import StoredKeys
from jobmanager.stores.lookout import Lookout
from jobmanager.stores.once import OnceBook
from jobmanager.stores.outbox import Outbox
from jobmanager.stores.requests import RequestBook
from jobmanager.stores.search import StoredSearch
from jobmanager.stores.statistics import StoredStatistics
from jobmanager.stores.steps import StepBook
from jobmanager.stores.webhooks import StoredWebhooks


class RunStore(ABC):
    """Where jobs and runs are kept: a facet for each topic, and the few methods of the store itself.

    All methods may be called by any thread, those of the facets too. Any of them raises StoreUnavailableError when the store is
    locked, full, read-only or unreachable; the call may then be repeated.
    """

    url: str
    """Where the store is, without secrets."""

    jobs: StoredJobs
    """The stored jobs: declarations, state and account."""

    runs: StoredRuns
    """Runs from their opening to their end."""

    processes: StoredProcesses
    """The processes that share the store."""

    history: RunHistory
    """The runs on record, to be read."""

    search: StoredSearch
    """Runs by filter."""

    maintenance: StoreMaintenance
    """Take-over, expiry, retention and dead letters."""

    once: OnceBook
    """The results that handlers keep once for a key."""

    requests: RequestBook
    """The responses to requests of the API that name an idempotency key."""

    outbox: Outbox
    """The notifications that wait for their delivery, and those that were sent."""

    lookout: Lookout
    """The queries of the alarms."""

    audit: StoredAudit
    """The audit of changes by hand."""

    changes: StoredChanges
    """The changes of runs and jobs, for processes that wait for them."""

    keys: StoredKeys
    """The API keys."""

    statistics: StoredStatistics
    """Counts of the runs, by the hour."""

    webhooks: StoredWebhooks
    """Webhooks that operators make."""

    steps: StepBook
    """The steps of runs."""

    events: StoredEvents
    """The events that were sent, and the runs that wait for one."""

    @abstractmethod
    def exists(self) -> bool:
        """Return True if the tables are there; never creates anything."""

    @abstractmethod
    def install(self) -> None:
        """Create what is missing in an empty store; twice is once. SchemaError if the tables are of another version."""

    @abstractmethod
    def close(self) -> None:
        """Give up connections; twice is safe, and the next call connects again."""

    def before_fork(self) -> None:  # noqa: B027 - most stores have nothing to hold still
        """In the parent: let no write be under way while the process forks."""

    def after_fork_in_parent(self) -> None:  # noqa: B027
        """In the parent: writes may go on."""

    @abstractmethod
    def after_fork(self) -> None:
        """In a forked child: forget connections and locks of the parent without closing them."""

    @abstractmethod
    def now(self) -> datetime:
        """Return the clock that decides what is due: aware UTC."""
