"""RunStore: where jobs and runs are kept, and the promises every store gives. It knows rows and guards, not policies.

Two processes may race for anything here; each method settles its race inside the store and says who won.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

from jobmanager.job import Policies
from jobmanager.run import KEEPS_ATTEMPT, Attempt, Ending, JobMetrics, LogLine, Progress, Run, RunStatus

OPEN = (RunStatus.PENDING, RunStatus.RUNNING)
MOST_TALLIED = 1_000_000
TALLY_PAGE = 1000
JobState = Literal["active", "paused", "disabled", "deleted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow(Policies):
    """The stored side of a job: its account, its state, and what the code declared last, policies included.

    Every instant at or before `accounted_until` (the watermark) is accounted for; `next_due_at` is the first one after it.
    """

    id: str
    namespace: str
    declared: str
    schedule: str
    accounted_until: datetime
    next_due_at: datetime | None
    history_from: datetime
    override: Mapping[str, Any] | None = None
    definition_rev: int = 1
    schedule_rev: int = 1
    state: JobState = "active"
    state_reason: str | None = None
    state_by: str | None = None
    state_at: datetime | None = None
    max_attempts: int = 1
    retry_on_crash: bool = True
    change_seq: int = 0

    @property
    def open(self) -> bool:
        """True while runs of the job may start: active or paused."""
        return self.state in ("active", "paused")


class JobSummary(NamedTuple):
    """What tells a job that is stored as the code declares it from others, and what a process then needs of it."""

    id: str
    namespace: str
    state: JobState
    declared: str
    schedule: str
    override: Mapping[str, Any] | None
    schedule_rev: int
    next_due_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One process's stay: alive while its beat counter moves. `executes` tells whether it runs handlers."""

    id: str
    namespace: str
    host: str
    pid: int
    executes: bool
    started_at: datetime
    seen_at: datetime
    declares: str | None = None
    beats: int = 0
    last_tick_at: datetime | None = None
    lag_seconds: float | None = None
    """How late the last ticks came; both None until one came."""
    dead_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What one `write` did: ids that are open and mine, the status each accepted ending led to, and rows it could not keep."""

    opened: Collection[str] = ()
    ended: Mapping[str, RunStatus] = field(default_factory=dict)
    errors: Mapping[str, Exception] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Runs of one job in one status: how many ticks or starts they stand for, and averages in seconds over those that started.

    `duration` is that of the last attempt; `queue_delay` goes from due to start, `lateness` from the tick's instant to the start.
    """

    job_id: str
    status: RunStatus
    count: int
    duration: float | None = None
    queue_delay: float | None = None
    lateness: float | None = None


class JobTransaction(ABC):
    """One job under its lock: everything read stays true until the block ends, then all of it is committed at once."""

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
        """Close the job's pending rows: first attempts of ticks as skipped(disabled), the others as cancelled(disabled)."""

    @abstractmethod
    def reopen(self, run: Run, *, max_attempts: int, turn: str | None) -> Run:
        """Make a closed run pending, due now; its outcome becomes a row of attempts."""

    @abstractmethod
    def save(self, job: JobRow) -> None:
        """Write the job row back; the stored change counter moves if anything but the watermark differs."""


class RunStore(ABC):
    """Where jobs and runs are kept. All methods may be called by any thread; each is one transaction.

    Any of them raises StoreUnavailableError when the store is locked, full, read-only or unreachable; the call may then be repeated.
    """

    url: str
    """Where the store is, without secrets."""

    # ---------------------------------------------------------------- the store itself

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

    # ---------------------------------------------------------------- jobs

    @abstractmethod
    def jobs(self, *, changed_since: int | None = None, ids: Collection[str] | None = None) -> list[JobRow]:
        """All jobs, or these, by id; with `changed_since` only those whose `change_seq` is greater."""

    def unreadable_jobs(self) -> Mapping[str, str]:
        """Return what is wrong with stored jobs that cannot be read, by id; `jobs` and `job_summaries` leave these out."""
        return {}

    @abstractmethod
    def job_summaries(self, *, changed_since: int, after: str = "", limit: int = 1000) -> list[JobSummary]:
        """Return a page of the jobs whose `change_seq` is greater, by id, beginning after the id `after`."""

    @abstractmethod
    def job(self, job_id: str) -> JobRow | None: ...

    @abstractmethod
    def due_jobs(self, before: datetime, limit: int) -> list[str]:
        """Return the ids of active or paused jobs with `next_due_at` at or before the moment, longest overdue first.

        After them come those that have a schedule, an account that ends by then, and no `next_due_at`: nobody would ever
        look at them again. A single instant that is accounted for rightly has none.
        """

    @abstractmethod
    def add_jobs(self, rows: Sequence[JobRow]) -> None:
        """Insert rows that are not there yet; existing ones stay as they are."""

    @abstractmethod
    def declare(self, rows: Mapping[str, JobRow]) -> None:
        """Overwrite declaration and policies of existing jobs; state, schedule and account stay."""

    @abstractmethod
    def lock_job(self, job_id: str) -> AbstractContextManager[JobTransaction]:
        """Hold the job's row until the block ends; JobNotFoundError if there is none."""

    @abstractmethod
    def change_seq(self) -> int:
        """Return a number that grows with every change to any job."""

    # ---------------------------------------------------------------- runs: the hot path

    @abstractmethod
    def write(self, opens: Sequence[Run], endings: Sequence[Ending]) -> Written:
        """Open and end many runs in one durable transaction; repeating the same call changes nothing and answers the same.

        A tick is opened only if its job is active, its revision the job's, its instant after the watermark, due, and not older
        than `grace`; a run without tick only if its job is open; a running one only if its owner lives. Tick, idempotency key and
        held concurrency key are unique. A run that was announced is there already: it becomes the given one, unless somebody
        accepted it before, this owner included: `started_at` tells its openings apart. Its revision and the watermark were right when it was announced. An ending counts only for the run's owner and `starts` while it is running.
        Repeated, a run that its owner was to execute is opened only while it still is running and the owner's.
        """

    def give_back(self, runs: Sequence[Run], reason: str) -> Mapping[str, RunStatus]:
        """Return running runs to pending without using an attempt, and say by id what each became.

        `reason` is one of KEEPS_ATTEMPT: `returned` if the handler was never called, `shutdown` if it was interrupted. A run is
        due at once again, in its old place in the line, and its next start has the same attempt number. One whose cancel was
        requested, or whose job is no longer open, is cancelled instead. One that is no longer its owner's by the fence is left
        out. Repeating the call changes nothing and returns the same.
        """
        if reason not in KEEPS_ATTEMPT:
            raise ValueError(
                f"{reason!r} uses an attempt; a run is given back as one of {sorted(KEEPS_ATTEMPT)}."
            )
        now = self.now()
        return self.write(
            (),
            [
                Ending(
                    run=run,
                    status=RunStatus.CANCELLED,
                    reason=reason,
                    started_at=run.started_at or now,
                    finished_at=now,
                    retry_at=min(run.due_at, now),
                )
                for run in runs
            ],
        ).ended

    @abstractmethod
    def already_recorded(self, runs: Sequence[Run]) -> set[str]:
        """Of these runs that were not opened, the ids of those whose tick has a row that is not only announced.

        Nothing is locked.
        """

    @abstractmethod
    def runs_by_id(self, run_ids: Collection[str]) -> list[Run]:
        """Those of these runs that there are, in the order in which they were due."""

    @abstractmethod
    def jobs_with_unaccepted_runs(self, before: datetime, limit: int) -> list[str]:
        """Ids of jobs that have an announced row which was due before the moment."""

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
        """Up to `limit` due pending runs that are to be sent to whoever executes, by priority, then age; noted as sent.

        Those that nobody has sent since they became due, and those whose message must be lost: nobody started them for half
        a minute, and then for twice as long each time. Jobs in `unknown`, and what `claim` would not take, are left out.
        """

    # ---------------------------------------------------------------- runs: while they last

    @abstractmethod
    def note_progress(self, run: Run, progress: Progress) -> None:
        """Keep how far the run is, if it is still the owner's."""

    @abstractmethod
    def add_lines(self, run_id: str, attempt: int, lines: Sequence[LogLine]) -> None:
        """Append captured log lines."""

    @abstractmethod
    def cancel(self, run_id: str) -> Run:
        """Pending: cancelled at once. Running: the request is noted for its owner. Closed: unchanged. RunNotFoundError."""

    @abstractmethod
    def running_of(self, owner: str) -> list[Run]:
        """Return the owner's running runs."""

    @abstractmethod
    def take_over(self) -> list[Run]:
        """Give running runs whose owner is dead or unknown their end, and answer them as they are now; repeating is harmless.

        Pending, if a crash may be retried and attempts remain; cancelled, if that was requested; else failed (crashed).
        """

    @abstractmethod
    def expire_pending(self) -> int:
        """Close pending ticks that were never started and whose `expires_at` has passed as missed (deadline)."""

    @abstractmethod
    def cancel_requests(self, owner: str) -> list[str]:
        """Ids of the owner's running runs whose cancel was requested."""

    # ---------------------------------------------------------------- processes

    @abstractmethod
    def register(self, instance: Instance, declares: Collection[str] = ()) -> None:
        """Write down that this process lives, and which jobs its code declares; again when it declares others."""

    @abstractmethod
    def declared_by_living(self, namespace: str) -> set[str]:
        """Ids of all jobs that some process of the namespace declares that is not dead."""

    @abstractmethod
    def beat(
        self, instance_id: str, *, last_tick_at: datetime | None = None, lag_seconds: float | None = None
    ) -> bool:
        """Move the counter and note the vital signs; False if the instance was declared dead or is unknown."""

    @abstractmethod
    def mark_dead(self, instance: Instance) -> bool:
        """Declare the instance dead, if its counter still stands where it was seen; True for whoever did it."""

    @abstractmethod
    def deregister(self, instance_id: str) -> None:
        """Remove the instance: its process has ended in order."""

    @abstractmethod
    def acquire_role(self, role: str, instance_id: str) -> bool:
        """Return True if the instance has the role now: it had it already, or no living instance has. One of all has it at a time."""

    @abstractmethod
    def instances(self) -> list[Instance]:
        """All that are not dead."""

    # ---------------------------------------------------------------- reading

    @abstractmethod
    def run(self, run_id: str) -> Run | None:
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
    ) -> list[Run]:
        """Newest first; `before` is the id of the last run of the page before. `dead`: failed ones nobody discarded.

        Those of one job come by the instant each stands for (`Run.instant`), those of all jobs by when they were opened.
        """

    @abstractmethod
    def run_for(self, job_id: str, instant: datetime) -> Run | None:
        """Return the row that answers for this tick: its own, or the skipped or missed stretch that covers it."""

    @abstractmethod
    def last_runs(self, job_ids: Collection[str]) -> dict[str, list[Run]]:
        """Per job its newest run, a running one, and the newest that was executed and has ended: each once, newest first."""

    def unreadable_runs(self, limit: int = 1000) -> Mapping[str, str]:
        """Return what is wrong with stored runs that cannot be read, by id, among the newest and the open ones."""
        return {}

    @abstractmethod
    def attempts(self, run_id: str) -> list[Attempt]: ...

    @abstractmethod
    def lines(self, run_id: str, *, after: int = 0) -> list[tuple[int, int, LogLine]]:
        """List captured lines as (position, attempt, line), from position `after` on."""

    @abstractmethod
    def metrics(self) -> JobMetrics:
        """Count all runs on record."""

    def tally(self, since: datetime) -> list[Tally]:
        """Tally ended runs that were opened since the moment, and open ones of any age, by job and status.

        Reads only those, never the whole history. Other stores than SQL ones need not write their own.
        """
        found = self.runs(statuses=OPEN, limit=MOST_TALLIED)
        before, page = None, self.runs(limit=TALLY_PAGE)
        while page and page[0].opened_at >= since:
            found += [run for run in page if run.status.closed and run.opened_at >= since]
            before = page[-1].id
            page = self.runs(before=before, limit=TALLY_PAGE)
        grouped: dict[tuple[str, RunStatus], list[Run]] = {}
        for run in found:
            grouped.setdefault((run.job_id, run.status), []).append(run)
        return [tally_of(job_id, status, runs) for (job_id, status), runs in sorted(grouped.items())]

    # ---------------------------------------------------------------- care

    @abstractmethod
    def discard(self, run_id: str) -> Run:
        """Mark a failed run as seen to: no dead letter any more. Others are answered unchanged; RunNotFoundError."""

    @abstractmethod
    def purge(
        self,
        before: datetime,
        *,
        job_id: str | None = None,
        but: Collection[str] = (),
        keep: int | None = None,
    ) -> int:
        """Delete closed runs that ended before the moment and whose tick is accounted for; answers how many.

        Of all jobs but those in `but`, or of one; with `keep` that one keeps its newest so many rows, and no more.
        """

    @abstractmethod
    def forget_dead(self, before: datetime) -> int:
        """Delete processes that died before the moment, and declarations nobody living made; answers how many died."""


def tally_of(job_id: str, status: RunStatus, runs: Sequence[Run]) -> Tally:
    """Return what these runs of one job and status come to."""
    started = [run for run in runs if run.started_at is not None]
    return Tally(
        job_id=job_id,
        status=status,
        count=sum(run.ticks for run in runs),
        duration=_average([(run.finished_at, run.started_at) for run in started]),
        queue_delay=_average([(run.started_at, run.due_at) for run in started]),
        lateness=_average([(run.started_at, run.scheduled_for) for run in started]),
    )


def _average(stretches: Sequence[tuple[datetime | None, datetime | None]]) -> float | None:
    seconds = [
        (end - start).total_seconds() for end, start in stretches if end is not None and start is not None
    ]
    return sum(seconds) / len(seconds) if seconds else None
