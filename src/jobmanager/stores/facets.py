"""The facets of a store but for its statistics, with the promises that every store gives.

Two processes may race for anything here; each method settles its race inside the store and says who won. Any thread may call
any method; each is one transaction. Any of them raises StoreUnavailableError when the store is locked, full, read-only or
unreachable; the call may then be repeated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime

from jobmanager.access.view import View
from jobmanager.run import Attempt, Ending, JobMetrics, LogLine, Notice, Progress, Run, RunStatus
from jobmanager.stores.job_transaction import JobTransaction
from jobmanager.stores.values import (
    AuditEntry,
    DueInstant,
    Instance,
    JobRow,
    JobStanding,
    JobSummary,
    Note,
    StoreFacts,
    Tally,
    Written,
    tally_of,
)

OPEN = (RunStatus.PENDING, RunStatus.RUNNING)
MOST_TALLIED = 1_000_000
TALLY_PAGE = 1000


class StoredJobs(ABC):
    """The stored jobs: declarations, state and account."""

    @abstractmethod
    def rows(
        self,
        *,
        changed_since: int | None = None,
        ids: Collection[str] | None = None,
        seen: View | None = None,
    ) -> list[JobRow]:
        """Return all jobs, or these, by id; with `changed_since` only those whose `change_seq` is greater.

        Here and elsewhere `seen` leaves out what that view hides, as if the store did not hold it.
        """

    @abstractmethod
    def get(self, job_id: str, *, seen: View | None = None) -> JobRow | None:
        """Return the job; None if there is none of this id."""

    @abstractmethod
    def summaries(
        self,
        *,
        changed_since: int = -1,
        after: str = "",
        limit: int | None = 1000,
        ids: Collection[str] | None = None,
        seen: View | None = None,
    ) -> list[JobSummary]:
        """Return a page of the jobs, or of these, whose `change_seq` is greater, by id, beginning after the id `after`; all for a limit of None."""

    @abstractmethod
    def places(self, *, seen: View | None = None) -> list[tuple[str, str, str]]:
        """Return id, namespace and state of every job, in no order, also of those that cannot be read."""

    def unreadable(self) -> Mapping[str, str]:
        """Return what is wrong with stored jobs that cannot be read, by id; `rows` and `summaries` leave them out."""
        return {}

    @abstractmethod
    def due(self, before: datetime, limit: int) -> list[str]:
        """Return the ids of active or paused jobs with `next_due_at` at or before the moment, longest overdue first.

        After them come those that have a schedule, an account that ends by then, and no `next_due_at`: no other call
        would ever find them. A single instant that is accounted for rightly has none.
        """

    @abstractmethod
    def add(self, rows: Sequence[JobRow]) -> None:
        """Insert rows that are not there yet; existing ones stay as they are."""

    @abstractmethod
    def create(self, row: JobRow, entry: AuditEntry) -> JobRow | None:
        """Insert a job that an operator makes, with the entry of the audit; the row that is there under its id, if there is one.

        A deleted job makes room: the new one takes its row, a further revision of its schedule, and its history. Returns None
        if the job was made.
        """

    @abstractmethod
    def declare(self, rows: Mapping[str, JobRow]) -> None:
        """Overwrite declaration and policies of existing jobs; state, schedule and account stay."""

    @abstractmethod
    def lock(self, job_id: str) -> AbstractContextManager[JobTransaction]:
        """Hold the job's row until the block ends; JobNotFoundError if there is none."""

    @abstractmethod
    def lock_many(self, runs: Sequence[Run]) -> AbstractContextManager[Mapping[str, JobTransaction]]:
        """Hold the rows of these runs' jobs, by id, in one transaction until the block ends; jobs that are not there are left out.

        What is asked there about the ticks and keys of these runs may be read beforehand, all at once, and closed rows may be
        written at the end of the block.
        """

    @abstractmethod
    def change_seq(self) -> int:
        """Return a number that grows with every change to any job."""


class StoredRuns(ABC):
    """Runs from their opening to their end: all that executing them needs."""

    @abstractmethod
    def write(self, opens: Sequence[Run], endings: Sequence[Ending]) -> Written:
        """Open and end many runs in one durable transaction; repeating the same call changes nothing and returns the same.

        A tick is opened only if its job is active, its revision the job's, its instant after the watermark, due, and not older
        than `grace`; a run without tick only if its job is open; a running one only if its owner lives. Tick, idempotency key and
        held concurrency key are unique. A run that was announced is there already: it becomes the given one, unless it was
        accepted before, by this owner included: `started_at` tells its openings apart. Its revision and the watermark were right
        when it was announced. An ending counts only for the run's owner and `starts` while it is running.
        Repeated, a run that its owner was to execute is opened only while it still is running and the owner's.
        """

    @abstractmethod
    def give_back(self, runs: Sequence[Run], reason: str) -> Mapping[str, RunStatus]:
        """Return running runs to pending without using an attempt, and say by id what each became.

        `reason` is one of KEEPS_ATTEMPT: `returned` if the handler was never called, `shutdown` if it was interrupted. A run is
        due at once again, in its old place in the line, and its next start has the same attempt number. One whose cancel was
        requested, or whose job is no longer open, is cancelled instead. One that is no longer its owner's by the fence is left
        out. Repeating the call changes nothing and returns the same.
        """

    @abstractmethod
    def already_recorded(self, runs: Sequence[Run]) -> set[str]:
        """Return the ids of those of these refused runs whose tick has a row that is not only announced. Nothing is locked."""

    @abstractmethod
    def by_id(self, run_ids: Collection[str]) -> list[Run]:
        """Return the runs with these ids, as far as there are, in the order in which they were due."""

    @abstractmethod
    def claim(
        self,
        owner: str,
        namespace: str,
        limit: int,
        *,
        unknown: Collection[str] = (),
        run_ids: Collection[str] = (),
    ) -> list[Run]:
        """Make up to `limit` due pending runs running, by priority, then age; jobs in `unknown` are left to others.

        An owner that said what it declares gets runs of those jobs only: what others declare may be newer than it knows.
        A run that waits for its key is taken only if nobody holds it, a first attempt only before its `expires_at`, and none
        that was merely announced. With `run_ids` only of those.
        """

    @abstractmethod
    def to_dispatch(self, namespace: str, limit: int, *, unknown: Collection[str] = ()) -> list[Run]:
        """Return up to `limit` due pending runs that are to be sent to the workers, by priority, then age; note them as sent.

        They are those that were not sent since they became due, and those whose message must be lost: no worker started them
        for half a minute, and then for twice as long each time. Jobs in `unknown`, and what `claim` would not take, are left out, and
        of the runs that wait for one key all but the next in line: its message may be under way, and none may overtake it.
        """

    @abstractmethod
    def count_due(self, namespace: str, most: int, *, unknown: Collection[str] = ()) -> int:
        """Count the due pending runs of open jobs, as far as `most`; those of jobs in `unknown`, and merely announced ones, do not count."""

    @abstractmethod
    def note_unclaimed(self, run_ids: Collection[str]) -> list[str]:
        """Note that a claim of these runs by their ids did not get them; return those that are due and pending, with their key free.

        Those may have been locked at that moment, so that asking again is worth it. One that waits for a held key counts as not
        sent: it is sent when its key is free.
        """

    @abstractmethod
    def note_progress(self, run: Run, progress: Progress) -> None:
        """Keep how far the run is, if it is still the owner's."""

    @abstractmethod
    def add_lines(self, run_id: str, attempt: int, lines: Sequence[LogLine]) -> None:
        """Append captured log lines."""

    @abstractmethod
    def cancel(self, run_id: str, *, children: bool = True, note: Note | None = None) -> Run:
        """Cancel a pending run at once, note the request for the owner of a running one; leave a closed one. RunNotFoundError.

        With `children` the same becomes of all open runs that it, and those in turn, have started; in one transaction.

        `note` makes the entry of the audit from the run before and after; it is written in the same transaction.
        """

    @abstractmethod
    def cancel_requests(self, owner: str) -> list[str]:
        """Return the ids of the owner's running runs whose cancel was requested."""

    @abstractmethod
    def running_of(self, owner: str) -> list[Run]:
        """Return the owner's running runs."""


class StoredProcesses(ABC):
    """The processes that share the store: which of them live, what each declares, and which has a role."""

    @abstractmethod
    def register(
        self, instance: Instance, declares: Collection[str] = (), handlers: Collection[str] = ()
    ) -> None:
        """Write down that this process lives, which jobs and which handlers it has; again when it has others."""

    @abstractmethod
    def beat(
        self,
        instance_id: str,
        *,
        last_tick_at: datetime | None = None,
        lag_seconds: float | None = None,
        lives_since: datetime | None = None,
    ) -> bool:
        """Move the counter and note the vital signs; False if the instance was declared dead or is unknown.

        `lives_since` becomes its `started_at`: before that moment the process stood still as a whole.
        """

    @abstractmethod
    def mark_dead(self, instance: Instance) -> bool:
        """Declare the instance dead, if its counter still stands where it was seen; True for the one caller that did it."""

    @abstractmethod
    def deregister(self, instance_id: str) -> None:
        """Remove the instance: its process has ended in order."""

    @abstractmethod
    def living(self) -> list[Instance]:
        """Return the instances that are not dead, oldest first."""

    @abstractmethod
    def declared_by_living(self, namespace: str) -> set[str]:
        """Return the ids of all jobs that some process of the namespace declares that is not dead."""

    @abstractmethod
    def handlers_of_living(self, namespace: str) -> set[str]:
        """Return the keys of all handlers that some process of the namespace has that is not dead."""

    @abstractmethod
    def acquire_role(self, role: str, instance_id: str) -> bool:
        """Return True if the instance has the role now: it had it already, or no living instance has. One of all has it at a time."""

    @abstractmethod
    def keeper(self, namespace: str) -> str | None:
        """Return the name of the backend that keeps the time of the namespace; None before any did."""

    @abstractmethod
    def keep_time(self, namespace: str, backend: str, *, even_if_alive: bool) -> str | None:
        """Note that this backend keeps the time of the namespace from now on, and return the name of the one before.

        Without `even_if_alive` nothing changes while a living process of the namespace has the backend that is on file.
        """


class RunHistory(ABC):
    """Questions about the runs on record. Nothing here writes."""

    @abstractmethod
    def run(self, run_id: str, *, seen: View | None = None) -> Run | None:
        """Return the run with this id, or whose id ends so, if only one does."""

    @abstractmethod
    def runs(
        self,
        *,
        job_id: str | None = None,
        statuses: Collection[RunStatus] = (),
        dead: bool = False,
        before: str | None = None,
        limit: int = 50,
        seen: View | None = None,
    ) -> list[Run]:
        """Return a page of runs, newest first; `before` is the id of the last run of the page before.

        With `dead` only failed ones that were not discarded. Those of one job come by the instant each stands for (`Run.instant`), those of all jobs by when they were opened.
        """

    @abstractmethod
    def runs_by_id(self, run_ids: Collection[str], *, seen: View | None = None) -> dict[str, Run]:
        """Return the runs with these whole ids by them, without those that are not there or cannot be read."""

    @abstractmethod
    def run_for(self, job_id: str, instant: datetime, *, seen: View | None = None) -> Run | None:
        """Return the row of this tick: its own, or the skipped or missed stretch that covers it."""

    @abstractmethod
    def last_runs(self, job_ids: Collection[str], *, seen: View | None = None) -> dict[str, list[Run]]:
        """Return per job its newest run, a running one, and the newest that was executed and has ended: each once, newest first."""

    @abstractmethod
    def due_instants(
        self,
        job_ids: Collection[str],
        *,
        limit: int = 30,
        since: datetime | None = None,
        seen: View | None = None,
    ) -> dict[str, list[DueInstant]]:
        """Return per job the newest rows of its instants, newest first, at most `limit` of each; with `since` none before that moment.

        Starts by hand stand for no instant. Jobs without a row are left out.
        """

    @abstractmethod
    def standings(
        self, namespace: str, *, ids: Collection[str] | None = None, seen: View | None = None
    ) -> dict[str, JobStanding]:
        """Return how each job of the namespace, or of these, stands by its runs, by id, without deleted ones.

        A few statements for all jobs, however many runs there are.
        """

    def unreadable(self, limit: int = 1000) -> Mapping[str, str]:
        """Return what is wrong with stored runs that cannot be read, by id, among the newest and the open ones."""
        return {}

    @abstractmethod
    def attempts(self, run_id: str, *, seen: View | None = None) -> list[Attempt]:
        """Return the earlier attempts of the run, oldest first."""

    @abstractmethod
    def lines(
        self, run_id: str, *, after: int = 0, seen: View | None = None
    ) -> list[tuple[int, int, LogLine]]:
        """List captured lines as (position, attempt, line), from position `after` on."""

    @abstractmethod
    def metrics(self, *, seen: View | None = None) -> JobMetrics:
        """Count all runs on record; under a view those of jobs whose every run is seen."""

    def tally(self, since: datetime, *, seen: View | None = None) -> list[Tally]:
        """Tally ended runs that were opened since the moment, and open ones of any age, by job and status.

        Reads only those, never the whole history. Under a view only jobs whose every run is seen count. Other stores than SQL ones
        need not write their own.
        """
        if seen is not None and seen.scopes is not None:
            seen = replace(seen, scopes=frozenset())
        found = self.runs(statuses=OPEN, limit=MOST_TALLIED, seen=seen)
        before, page = None, self.runs(limit=TALLY_PAGE, seen=seen)
        while page and page[0].opened_at >= since:
            found += [run for run in page if run.status.closed and run.opened_at >= since]
            before = page[-1].id
            page = self.runs(before=before, limit=TALLY_PAGE, seen=seen)
        grouped: dict[tuple[str, RunStatus], list[Run]] = {}
        for run in found:
            grouped.setdefault((run.job_id, run.status), []).append(run)
        return [tally_of(job_id, status, runs) for (job_id, status), runs in sorted(grouped.items())]


class StoreMaintenance(ABC):
    """Work of sweeps and operators on the record: end runs of dead processes and late ticks, and delete what is old."""

    @abstractmethod
    def take_over(self, notices_of: Callable[[Run], Sequence[Notice]] | None = None) -> list[Run]:
        """Give running runs whose owner is dead or unknown their end, and return them as they are now; repeating is harmless.

        Pending, if a crash may be retried and attempts remain; cancelled, if that was requested; else failed (crashed). What
        `notices_of` returns for each is written with it.
        """

    @abstractmethod
    def expire_pending(self) -> int:
        """Close pending ticks that were never started and whose `expires_at` has passed as missed (deadline)."""

    @abstractmethod
    def jobs_with_unaccepted_runs(self, before: datetime, limit: int) -> list[str]:
        """Return the ids of jobs that have an announced row which was due before the moment."""

    @abstractmethod
    def jobs_with_several_unaccepted_runs(self, job_ids: Collection[str], before: datetime) -> list[str]:
        """Return those of these jobs that have more than one announced row which was due before the moment."""

    @abstractmethod
    def unaccepted_runs(self, after: datetime, until: datetime, limit: int) -> list[str]:
        """Return the ids of announced rows that were due after the one moment and up to the other, the oldest first."""

    @abstractmethod
    def discard(self, run_id: str, *, note: Note | None = None) -> Run:
        """Mark a failed run as seen to: no dead letter any more. Others are returned unchanged; RunNotFoundError.

        `note` as with `StoredRuns.cancel`.
        """

    @abstractmethod
    def purge(
        self,
        before: datetime,
        *,
        job_id: str | None = None,
        but: Collection[str] = (),
        keep: int | None = None,
        statuses: Collection[RunStatus] = (),
        dry_run: bool = False,
    ) -> int:
        """Delete closed runs that ended before the moment and whose tick is accounted for; return how many.

        Of all jobs but those in `but`, or of one; with `keep` that one keeps its newest so many rows, and no more. With `statuses`
        only runs that ended so. With `dry_run` they are counted and stay.
        """

    @abstractmethod
    def purge_beyond(self, most: int, *, dry_run: bool = False) -> int:
        """Delete closed runs whose tick is accounted for and that are older than the newest `most` runs; return how many.

        Open runs stay, however old. With `dry_run` they are counted and stay.
        """

    @abstractmethod
    def purge_beyond_bytes(self, most: int, *, dry_run: bool = False) -> int:
        """Do the same with as many of the newest runs as take about so many bytes, with what hangs on them; return how many went.

        What a run takes is the average of those on record. Space that deleted rows have left does not count, so a second purge
        finds little more to do. With `dry_run` they are counted and stay.
        """

    @abstractmethod
    def facts(self) -> StoreFacts:
        """Return what the database is, and how large the record is in it; of an SQLite file the whole file."""

    @abstractmethod
    def forget_dead(self, before: datetime) -> int:
        """Delete processes that died before the moment, and declarations that no living one made; return how many died."""
