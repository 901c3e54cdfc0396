"""SqlStore: a RunStore with a facet for each topic over one Database."""

from __future__ import annotations

from datetime import datetime

from jobmanager.stores.base import RunStore
from jobmanager.stores.sql.audit import SqlAudit
from jobmanager.stores.sql.changes import SqlChanges
from jobmanager.stores.sql.database import Database
from jobmanager.stores.sql.events import SqlEvents
from jobmanager.stores.sql.history import SqlHistory
from jobmanager.stores.sql.jobs import SqlJobs
from jobmanager.stores.sql.keys import SqlKeys
from jobmanager.stores.sql.lookout import SqlLookout
from jobmanager.stores.sql.maintenance import SqlMaintenance
from jobmanager.stores.sql.once import SqlOnceBook
from jobmanager.stores.sql.outbox import SqlOutbox
from jobmanager.stores.sql.processes import SqlProcesses
from jobmanager.stores.sql.requests import SqlRequestBook
from jobmanager.stores.sql.runs import SqlRuns
from jobmanager.stores.sql.schema import Schema
from jobmanager.stores.sql.search import SqlSearch
from jobmanager.stores.sql.statistics import SqlStatistics
from jobmanager.stores.sql.steps import SqlStepBook
from jobmanager.stores.sql.webhooks import SqlWebhooks


class SqlStore(RunStore):
    """A RunStore in a SQL database: the dialect brings the database and its hot path, the other facets are the same for all."""

    def __init__(self, database: Database, runs: SqlRuns, steps: SqlStepBook, changes: SqlChanges) -> None:
        self.database = database
        self.url = database.url
        self.schema = Schema(database)
        self.jobs = SqlJobs(database)
        self.runs = runs
        self.processes = SqlProcesses(database)
        self.history = SqlHistory(database)
        self.search = SqlSearch(database)
        self.maintenance = SqlMaintenance(database)
        self.once = SqlOnceBook(database)
        self.requests = SqlRequestBook(database)
        self.outbox = SqlOutbox(database)
        self.lookout = SqlLookout(database)
        self.audit = SqlAudit(database)
        self.changes = changes
        self.keys = SqlKeys(database)
        self.statistics = SqlStatistics(database)
        self.webhooks = SqlWebhooks(database)
        self.steps = steps
        self.events = SqlEvents(database)

    def exists(self) -> bool:
        return self.schema.exists()

    def install(self) -> None:
        self.schema.install()

    def close(self) -> None:
        self.database.close()

    def before_fork(self) -> None:
        self.database.before_fork()

    def after_fork_in_parent(self) -> None:
        self.database.after_fork_in_parent()

    def after_fork(self) -> None:
        self.database.after_fork()

    def now(self) -> datetime:
        return self.database.now()
