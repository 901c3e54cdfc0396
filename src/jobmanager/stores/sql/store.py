"""What both SQL stores share: everything that is not the hot path, as SQLAlchemy Core statements.

The dialects add how to connect, lock, open, end and claim.
"""

from __future__ import annotations

from jobmanager.stores.sql.care import CareStatements
from jobmanager.stores.sql.database import Connection
from jobmanager.stores.sql.history import HistoryStatements
from jobmanager.stores.sql.jobs import JobStatements
from jobmanager.stores.sql.processes import ProcessStatements
from jobmanager.stores.sql.runs import RunStatements

__all__ = ["Connection", "SqlStore"]


class SqlStore(JobStatements, RunStatements, ProcessStatements, HistoryStatements, CareStatements):
    """A RunStore in a SQL database, but for the statements in which the dialects differ."""
