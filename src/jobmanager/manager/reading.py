"""The manager's methods that show jobs and their runs side by side, as pages and lists need them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime

from jobmanager.errors import JobNotFoundError, PayloadError
from jobmanager.ledger.job_view import JobView, view_of
from jobmanager.ledger.standing import Standing, standing_of
from jobmanager.manager.guarding import reads
from jobmanager.manager.parts import Parts
from jobmanager.process.heartbeat import living
from jobmanager.registry import closest
from jobmanager.run import Run, RunStatus
from jobmanager.search import DeadLetters, FoundRuns, Mark, RunCounts, RunFilter
from jobmanager.stores.values import DueInstant, Instance, JobRow, JobStanding, JobSummary
from jobmanager.validation.call_arguments import (
    check_arguments,
    duration_of,
    ids_of,
    may_be_id,
    moment_of,
    text_of,
    words_of,
)
from jobmanager.validation.texts import naming_its_caller, shown


class Reading:
    """Read jobs as they stand, and the rows of their instants. Any thread; nothing is written."""

    _parts: Parts

    @naming_its_caller
    @reads
    def list_jobs(self, *, ids: Collection[str] | None = None) -> list[JobView]:
        """Return every job that is declared here or stored in this namespace and not deleted, by id; with `ids` those of them.

        Under a principal only stored jobs that it may see, and of each the latest of the runs that it may see.
        """
        wanted = None if ids is None else {*ids_of("ids", ids)}
        rows = {job_id: row for job_id, row in self._rows(wanted).items() if row.state != "deleted"}
        known = {*rows, *(self._parts.registry.jobs if self._parts.view() is None else ())}
        return self._views(sorted(known if wanted is None else known & wanted), rows)

    @naming_its_caller
    @reads
    def standings(
        self,
        *,
        ids: Collection[str] | None = None,
        runs: bool = True,
        after: str | None = None,
        limit: int | None = None,
    ) -> list[Standing]:
        """Return how each job stands that `list_jobs` returns, by id: its state, next instant, last outcome, and whether its handler lives.

        A few statements for all of them, whatever the number of runs: for lists of thousands of jobs, which `list_jobs` then shows in pages.
        With `runs=False` it is one, and nothing is told of outcomes and handlers: every job seems never to have run. With `limit` it is
        a page of so many, beginning after the id `after`. PayloadError for arguments that mean none.
        """
        if limit is not None:
            check_arguments(limit=limit)
        if after is not None:
            after = text_of("after", after, 500, least=0)
        wanted = None if ids is None else {*ids_of("ids", ids)}
        if limit is None and after is None:
            return self._standings(wanted, runs=runs)
        known = self._known_ids()
        following = sorted(
            job_id
            for job_id in (known if wanted is None else known & wanted)
            if after is None or job_id > after
        )
        limit = len(following) if limit is None else limit
        found: list[Standing] = []
        for start in range(0, len(following), max(limit, 1)):  # once more where rows cannot be read
            if len(found) >= limit:
                break
            found += self._standings(set(following[start : start + limit]), runs=runs)
        return found[:limit]

    def _known_ids(self) -> set[str]:
        """Return the ids of the jobs that lists show, and of those that they would show if they could be read."""
        parts = self._parts
        places = parts.store.jobs.places(seen=parts.view()) if parts.store.exists() else ()
        declared, namespace = parts.registry.jobs, parts.settings.namespace
        kept = {
            job_id
            for job_id, there, state in places
            if state != "deleted" and (there == namespace or job_id in declared)
        }
        return {*kept, *(declared if parts.view() is None else ())}

    def _standings(self, wanted: Collection[str] | None, *, runs: bool) -> list[Standing]:
        parts = self._parts
        stored = (
            parts.store.jobs.summaries(limit=None, ids=wanted, seen=parts.view())
            if parts.store.exists()
            else []
        )
        rows = {row.id: row for row in stored if self._is_ours(row) and row.state != "deleted"}
        known = {*rows, *(parts.registry.jobs if parts.view() is None else ())}
        known = known if wanted is None else known & set(wanted)
        namespace, now = parts.settings.namespace, parts.store.now()
        found: Mapping[str, JobStanding] = {}
        handlers: set[str] | None = None
        if runs and parts.store.exists():
            found = parts.store.history.standings(namespace, ids=wanted, seen=parts.view())
            if living(parts.store, parts.settings):
                handlers = parts.store.processes.handlers_of_living(namespace)
        declared = parts.registry.jobs
        return [
            standing_of(
                declared.get(job_id), rows.get(job_id), found.get(job_id, JobStanding(job_id)), handlers, now
            )
            for job_id in sorted(known)
        ]

    @reads
    def get_job(self, job_id: str) -> JobView:
        """Return one job as `list_jobs` does, also a deleted one; JobNotFoundError, with the closest id, if there is none."""
        rows = self._rows({job_id} if may_be_id(job_id) else ())
        declared = self._parts.registry.jobs if self._parts.view() is None else {}
        if not may_be_id(job_id) or (job_id not in rows and job_id not in declared):
            known = {*self._rows(), *declared}
            raise JobNotFoundError(
                f"No job {shown(job_id)} is declared or stored.{closest(job_id, known)}", job_id=job_id
            )
        return self._views([job_id], rows)[0]

    @naming_its_caller
    @reads
    def due_instants(
        self, job_ids: Collection[str], *, limit: int = 30, since: datetime | None = None
    ) -> dict[str, list[DueInstant]]:
        """Return per job what became of its newest instants, newest first, at most `limit` of each and none before `since`.

        Starts by hand stand for no instant. Ids that are unknown, or hidden from the principal, are left out. PayloadError for arguments
        that mean none.
        """
        check_arguments(limit=limit)
        wanted = ids_of("job_ids", job_ids)
        since = None if since is None else moment_of("since", since)
        if not wanted or not self._parts.store.exists():
            return {}
        return self._parts.store.history.due_instants(
            wanted, limit=limit, since=since, seen=self._parts.view()
        )

    @naming_its_caller
    @reads
    def run_for(self, job_id: str, instant: datetime) -> Run | None:
        """Return the row of this instant of a job: its own, or the skipped or missed stretch that covers it; None if it has none.

        PayloadError for what is no aware datetime.
        """
        instant = moment_of("instant", instant)
        if not may_be_id(job_id) or not self._parts.store.exists():
            return None
        return self._parts.store.history.run_for(job_id, instant, seen=self._parts.view())

    @naming_its_caller
    @reads
    def runs_by_id(self, run_ids: Collection[str]) -> dict[str, Run]:
        """Return the runs with these ids, by id, in one statement. Ids that are unknown, or hidden from the principal, are left out.

        PayloadError for what is no list of ids.
        """
        wanted = ids_of("run_ids", run_ids)
        if not wanted or not self._parts.store.exists():
            return {}
        return self._parts.store.history.runs_by_id(wanted, seen=self._parts.view())

    @reads
    def search_runs(
        self, wanted: RunFilter | None = None, *, before: str | None = None, limit: int = 50
    ) -> FoundRuns:
        """Return a page of the runs that the filter wants, newest first, at most `limit`; `before` is `next` of the page before.

        Those of one job come by the instant each stands for, those of all jobs by when they were opened. A search reads at most
        100,000 rows: `searched_to` says how far back it came if it stopped there, and `next` goes on. Without a job, `until` finds
        only runs that were opened within 5 minutes after their instant, or within 31 days if they did not succeed. PayloadError for a value or a cursor that cannot be meant.
        """
        check_arguments(limit=limit)
        checked, mark = _checked(wanted), None if before is None else _mark_of(before)
        if checked is None or not self._parts.store.exists():
            return FoundRuns(())
        return self._parts.store.search.runs(checked, before=mark, limit=limit, seen=self._parts.view())

    @reads
    def count_runs(self, wanted: RunFilter | None = None) -> RunCounts:
        """Count the newest runs by status, job, reason, kind of error and trigger, 3,000 at most, and 2,000 of each status that is not success.

        What the filter says of these does not count, but for its job: so each of them can be offered with the count it would have.
        """
        checked = _checked(wanted)
        if checked is None or not self._parts.store.exists():
            return RunCounts(())
        return self._parts.store.search.counts(checked, seen=self._parts.view())

    @reads
    def dead_letters_by_error(
        self, wanted: RunFilter | None = None, *, limit: int = 1000
    ) -> list[DeadLetters]:
        """Return the newest `limit` dead letters that the filter wants, grouped by job, kind of error and first line, the largest group first."""
        check_arguments(limit=limit)
        checked = _checked(wanted)
        if checked is None or not self._parts.store.exists():
            return []
        return self._parts.store.search.dead_letters(checked, limit=limit, seen=self._parts.view())

    @reads
    def instances(self) -> list[Instance]:
        """Return the processes of this namespace that beat within the lease, oldest first; none before one was started."""
        return living(self._parts.store, self._parts.settings)

    @reads
    def runs_beside(self, run_id: str) -> tuple[Run | None, Run | None]:
        """Return the rows of the job's ticks next before and next after the instant of a run; RunNotFoundError."""
        run = self._parts.history.run(run_id)
        return self._parts.store.search.beside(run.job_id, run.instant, seen=self._parts.view())

    def _rows(self, ids: Collection[str] | None = None) -> dict[str, JobRow]:
        """Return the stored rows of this namespace, and those of declared jobs that another namespace has."""
        parts = self._parts
        stored = parts.store.jobs.rows(ids=ids, seen=parts.view()) if parts.store.exists() else []
        return {row.id: row for row in stored if self._is_ours(row)}

    def _is_ours(self, row: JobRow | JobSummary) -> bool:
        parts = self._parts
        return row.namespace == parts.settings.namespace or row.id in parts.registry.jobs

    def _views(self, job_ids: list[str], rows: dict[str, JobRow]) -> list[JobView]:
        parts = self._parts
        stored = [job_id for job_id in job_ids if job_id in rows]
        last = parts.store.history.last_runs(stored, seen=parts.view()) if stored else {}
        now = parts.store.now()
        declared = parts.registry.declared
        return [
            view_of(declared.get(job_id), rows.get(job_id), last.get(job_id, ()), now) for job_id in job_ids
        ]


def _checked(wanted: RunFilter | None) -> RunFilter | None:
    """Return the filter as a store takes it; None if it asks for a text that no store can hold."""
    if wanted is None:
        return RunFilter()
    if not isinstance(wanted, RunFilter):
        raise PayloadError(f"{shown(wanted)} is no filter of runs; pass a RunFilter.")
    names = "job", "reason", "error_kind", "text", "trigger", "scope", "requested_by"
    texts = [text for name in names if (text := getattr(wanted, name)) is not None]
    if not all(map(may_be_id, texts)):
        return None
    return replace(
        wanted,
        statuses=words_of("statuses", wanted.statuses, RunStatus),
        since=None if wanted.since is None else moment_of("since", wanted.since),
        until=None if wanted.until is None else moment_of("until", wanted.until),
        duration=None if wanted.duration is None else duration_of("duration", wanted.duration),
        text=wanted.text or None,
    )


def _mark_of(cursor: str) -> Mark:
    try:
        return Mark.of(cursor)
    except (ValueError, OverflowError, AttributeError, TypeError):
        raise PayloadError(f"before={shown(cursor)} is no cursor; pass `next` of the page before.") from None
