"""The manager's methods that show jobs and their runs side by side, as pages and lists need them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from jobmanager.errors import JobNotFoundError
from jobmanager.ledger.job_view import JobView, view_of
from jobmanager.manager.guarding import reads
from jobmanager.manager.parts import Parts
from jobmanager.registry import closest
from jobmanager.run import Run
from jobmanager.stores.values import DueInstant, JobRow
from jobmanager.validation.call_arguments import check_arguments, may_be_id


class Reading:
    """Read jobs as they stand, and the rows of their instants. Any thread; nothing is written."""

    _parts: Parts

    @reads
    def list_jobs(self) -> list[JobView]:
        """Return every job that is declared here or stored in this namespace and not deleted, by id.

        Under a principal only stored jobs that it may see, and of each the latest of the runs that it may see.
        """
        rows = {job_id: row for job_id, row in self._rows().items() if row.state != "deleted"}
        known = {*rows, *(self._parts.registry.jobs if self._parts.view() is None else ())}
        return self._views(sorted(known), rows)

    @reads
    def get_job(self, job_id: str) -> JobView:
        """Return one job as `list_jobs` does, also a deleted one; JobNotFoundError, with the closest id, if there is none."""
        rows = self._rows()
        known = {*rows, *(self._parts.registry.jobs if self._parts.view() is None else ())}
        if not may_be_id(job_id) or job_id not in known:
            raise JobNotFoundError(
                f"No job {job_id!r} is declared or stored.{closest(job_id, known)}", job_id=job_id
            )
        return self._views([job_id], rows)[0]

    @reads
    def due_instants(
        self, job_ids: Collection[str], *, limit: int = 30, since: datetime | None = None
    ) -> dict[str, list[DueInstant]]:
        """Return per job what became of its newest instants, newest first, at most `limit` of each and none before `since`.

        Starts by hand stand for no instant. Ids that are unknown, or hidden from the principal, are left out.
        """
        check_arguments(limit=limit)
        wanted = [job_id for job_id in job_ids if may_be_id(job_id)]
        if not wanted or not self._parts.store.exists():
            return {}
        return self._parts.store.history.due_instants(
            wanted, limit=limit, since=since, seen=self._parts.view()
        )

    @reads
    def run_for(self, job_id: str, instant: datetime) -> Run | None:
        """Return the row of this instant of a job: its own, or the skipped or missed stretch that covers it; None if it has none."""
        if not may_be_id(job_id) or not self._parts.store.exists():
            return None
        return self._parts.store.history.run_for(job_id, instant, seen=self._parts.view())

    def _rows(self) -> dict[str, JobRow]:
        """Return the stored rows of this namespace, and those of declared jobs that another namespace has."""
        parts = self._parts
        stored = parts.store.jobs.rows(seen=parts.view()) if parts.store.exists() else []
        return {
            row.id: row
            for row in stored
            if row.namespace == parts.settings.namespace or row.id in parts.registry.jobs
        }

    def _views(self, job_ids: list[str], rows: dict[str, JobRow]) -> list[JobView]:
        parts = self._parts
        stored = [job_id for job_id in job_ids if job_id in rows]
        last = parts.store.history.last_runs(stored, seen=parts.view()) if stored else {}
        now = parts.store.now()
        declared = parts.registry.declared
        return [
            view_of(declared.get(job_id), rows.get(job_id), last.get(job_id, ()), now) for job_id in job_ids
        ]
