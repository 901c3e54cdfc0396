"""The facet for the audit: reading it, pruning it, and writing what belongs to no change."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime

from jobmanager.access.view import View
from jobmanager.stores.values import AuditEntry, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditQuery:
    """Which entries of the audit of a namespace are wanted; what is None is of no account.

    `before` is the id of the last entry of the page before.
    """

    namespace: str
    job_id: str | None = None
    target: str | None = None
    target_id: str | None = None
    by: str | None = None
    action: str | None = None
    outcome: Outcome | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: str | None = None
    limit: int = 50


class StoredAudit(ABC):
    """The audit. The entry of a change is written by the method that makes the change, in its transaction."""

    @abstractmethod
    def write(self, entry: AuditEntry) -> None:
        """Write an entry that belongs to no change: of an attempt that was refused. Twice is once."""

    @abstractmethod
    def entries(self, wanted: AuditQuery, *, seen: View | None = None) -> list[AuditEntry]:
        """Return a page of entries, newest first.

        Under a view that hides something only those of jobs whose every run is seen.
        """

    @abstractmethod
    def purge(self, namespace: str, before: datetime, limit: int) -> int:
        """Delete up to `limit` of the oldest entries that were written before the moment, and return how many."""
