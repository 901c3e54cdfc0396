"""JobTransaction: one job under its lock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from datetime import datetime

from jobmanager.run import Notice, Run
from jobmanager.stores.values import AuditEntry, JobRow


class JobTransaction(ABC):
    """One job under its lock: until the block ends nothing else opens, settles or changes it, then all of it is committed at once.

    Claims and endings go on meanwhile: a key that was free may be held by a run that waited for it.
    """

    job: JobRow
    now: datetime

    @abstractmethod
    def get(self, run_id: str) -> Run | None: ...

    @abstractmethod
    def run_for(self, instant: datetime) -> Run | None:
        """Return the row of exactly this tick."""

    @abstractmethod
    def run_with_key(self, idempotency_key: str) -> Run | None: ...

    @abstractmethod
    def holder(self, concurrency_key: str) -> Run | None:
        """Return the run that holds the key: running, first in line, or waiting for its retry."""

    @abstractmethod
    def waiting(self, concurrency_key: str) -> list[Run]:
        """Due runs that wait for the key, next in line first."""

    @abstractmethod
    def supersede(self, run: Run) -> None:
        """Cancel a pending run in favour of a newer one: cancelled (superseded)."""

    @abstractmethod
    def request_cancel(self, run: Run) -> None:
        """Ask the owner of a running run to end it."""

    @abstractmethod
    def last_ended(self, count: int) -> list[Run]:
        """Return the job's last executed runs that have ended, newest first."""

    @abstractmethod
    def instants(self, after: datetime, until: datetime) -> set[datetime]:
        """`scheduled_for` of the job's rows in (after, until]."""

    @abstractmethod
    def range_over(self, instant: datetime) -> Run | None:
        """Return the row of many ticks that covers the instant."""

    @abstractmethod
    def newest_instant(self) -> datetime | None:
        """Return the latest `scheduled_for` of the job."""

    @abstractmethod
    def opened_after(self, instant: datetime) -> bool:
        """Return True if a tick later than `instant` was really opened (its row is neither skipped nor missed)."""

    @abstractmethod
    def pause_row(self) -> Run | None:
        """Return the newest row skipped(paused), if it ends at the watermark: the row a pause grows."""

    @abstractmethod
    def was_alive(self, instant: datetime) -> bool:
        """Return True if some instance of the job's namespace lived at that instant."""

    @abstractmethod
    def executed_since(self, seen: datetime) -> datetime | None:
        """Return since when runs of the job's namespace are executed: the start of the first process that lives and was seen since `seen`.

        None if no such process executes runs.
        """

    @abstractmethod
    def is_alive(self, instance_id: str) -> bool:
        """Return True unless the instance is dead or unknown."""

    @abstractmethod
    def announced(self, before: datetime) -> dict[datetime, str]:
        """Ids of the job's rows that were only announced, and were due before the moment, by instant."""

    @abstractmethod
    def delete_unaccepted(self, run_ids: Collection[str]) -> None:
        """Delete rows that were only announced: what becomes of their ticks is written anew."""

    @abstractmethod
    def insert(self, run: Run) -> bool:
        """Write a row as it is; False if its id, tick, key or turn is taken."""

    @abstractmethod
    def grow(self, run: Run) -> None:
        """Overwrite `scheduled_for`, `first_for` and `ticks` of a skipped or missed row."""

    @abstractmethod
    def close_pending(self) -> None:
        """Close the job's pending rows: first attempts of ticks as skipped(disabled), the others as cancelled(disabled).

        Runs that rest in a step stay, and go on when the job opens again, unless it is deleted.
        """

    @abstractmethod
    def reopen(self, run: Run, *, max_attempts: int, turn: str | None, from_start: bool = False) -> Run:
        """Make a closed run pending, due now; its outcome becomes a row of attempts.

        Steps that failed are forgotten; with `from_start` all are, and its children lose the keys under which it finds them.
        """

    @abstractmethod
    def audit(self, entry: AuditEntry | None) -> None:
        """Write an entry of the audit, if there is one."""

    @abstractmethod
    def notify(self, notices: Sequence[Notice]) -> None:
        """Write notices into the outbox."""

    @abstractmethod
    def save(self, job: JobRow) -> None:
        """Write the job row back; the stored change counter moves if anything but the watermark differs."""
