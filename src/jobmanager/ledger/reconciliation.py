"""The account of a job: which instants were due and have no row, and how a job changes without losing or inventing one.

`settle` fills the holes up to a moment; `change` settles by the old rule first and then moves the watermark, in one transaction,
so an edit, a pause or a resume never fires anything, unless the job says on_change="now".
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from jobmanager.errors import (
    CronError,
    EditConflictError,
    JobDisabledError,
    RunNotFoundError,
    StoreUnavailableError,
    TransitionError,
)
from jobmanager.job import STORED_OPTIONS
from jobmanager.ledger.audit import Auditor
from jobmanager.ledger.missing_instants import (
    Missing,
    caught_up,
    grow_pause,
    missing_of,
    record_excluded,
    record_missed,
    row_of,
    schedule_of,
)
from jobmanager.ledger.outages import Outages
from jobmanager.ledger.overlap import apply_overlap
from jobmanager.ledger.overrides import said
from jobmanager.run import (
    FAILED,
    PENDING,
    RUNNING,
    SKIPPED,
    SUCCEEDED,
    Notice,
    Run,
    Trigger,
    check_transition,
)
from jobmanager.stores.base import RunStore
from jobmanager.stores.job_transaction import JobTransaction
from jobmanager.stores.values import JobRow, JobState, Note
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

BITE = 200_000  # instants settled under one lock
BITES = 5  # in one go: a job whose account is older than that goes on with the next sweep, and keeps no other waiting


class Reconciliation:
    """Keeps the account of every job. Any process may settle any job: the job's lock and the unique tick decide."""

    def __init__(
        self,
        store: RunStore,
        *,
        grace: timedelta,
        lease: timedelta,
        outages: Outages,
        auditor: Auditor,
        keeps_time: bool = True,
        on_step: Callable[[], object] = lambda: None,
        paused: Callable[[JobRow], Sequence[Notice]] = lambda _: (),
    ) -> None:
        """`on_step` is called between jobs: a first sweep over very many takes long, and goes on.

        Without `keeps_time` neither a new job nor a change starts a run: nobody would execute it.
        What `paused` returns of a job that its failures paused is written with the pause.
        """
        self._store = store
        self._auditor = auditor
        self._grace = grace
        self._lease = lease
        self._outages = outages
        self._keeps_time = keeps_time
        self._on_step = on_step
        self._paused = paused

    def settle_due(self, limit: int = 50) -> int:
        """Settle jobs whose next instant is overdue by more than `grace`; answers how many runs were opened.

        A job that cannot be settled is logged and never stops the others.
        """
        opened, settled = 0, set[str]()
        while True:
            due = self._store.jobs.due(self._store.now() - self._grace, limit + len(settled))
            left = [job_id for job_id in due if job_id not in settled]
            for job_id in left:
                opened += self._settle_alone(job_id)
            settled.update(left)
            if len(left) < limit:
                return opened

    def settle_announced(self, limit: int = 50) -> int:
        """Settle jobs with announced runs that no process accepted while they were on time."""
        late = self._store.maintenance.jobs_with_unaccepted_runs(self._store.now() - self._grace, limit)
        return sum(self._settle_alone(job_id) for job_id in late)

    def settle_left(self, job_ids: Collection[str]) -> set[str]:
        """Settle what a start, a take-over or a wake finds announced of these jobs; return the ids of the rows that are decided.

        Of the instants that are older than each living process the newest is on time; older ones follow `catch_up`. Those that
        came while a process lived are merely late, and all of them are on time.
        """
        crowded = self._store.maintenance.jobs_with_several_unaccepted_runs(job_ids, self._store.now())
        return {run_id for job_id in crowded for run_id in self._settle_left(job_id)}

    def _settle_left(self, job_id: str) -> Collection[str]:
        with self._store.jobs.lock(job_id) as txn:
            announced = txn.announced(txn.now)
            executed_since = txn.executed_since(txn.now - self._lease)
            older = sorted(announced)[:-1]
            left = [instant for instant in older if executed_since is None or instant < executed_since]
            ids = {instant: announced[instant] for instant in left}
            if ids:
                self._fill_anew(txn, ids, superseded=True)
            return ids.values()

    def _settle_alone(self, job_id: str) -> int:
        self._on_step()
        try:
            return self.settle(job_id)
        except StoreUnavailableError:
            raise
        except Exception:
            logger.exception("job=%s cannot be settled; the others are", job_id)
            return 0

    def settle(self, job_id: str) -> int:
        """Account for every instant of the job that is more than `grace` old; answers how many runs were opened."""
        opened = self._settle_late_announcements(job_id)
        for _ in range(BITES):
            with self._store.jobs.lock(job_id) as txn:
                count, complete = self._settle(txn)
            opened += count
            if complete:
                break
        return opened

    def _settle_late_announcements(self, job_id: str) -> int:
        """Fill the instants that were announced and not accepted in time, as if they had no row: by the same policy."""
        with self._store.jobs.lock(job_id) as txn:
            paused = txn.job.state == "paused"
            ids = txn.announced(txn.now if paused else txn.now - self._grace - txn.job.jitter)
            return self._fill_anew(txn, ids) if ids else 0

    def _fill_anew(self, txn: JobTransaction, ids: dict[datetime, str], *, superseded: bool = False) -> int:
        """Give announced instants that no process accepted the rows that they would get if they had none."""
        txn.delete_unaccepted(list(ids.values()))
        covered = txn.instants(min(ids), max(ids))
        return self._fill(txn, Missing(sorted(ids), covered, max(ids), ids=ids), superseded=superseded)

    def _settle(self, txn: JobTransaction) -> tuple[int, bool]:
        """One bite of it: how many runs were opened, and whether nothing is left."""
        until = max(txn.now - self._grace - txn.job.jitter, txn.job.accounted_until)
        try:
            schedule = schedule_of(txn.job)
        except CronError as error:
            # Somebody with a newer version can read it: until then nothing is due, and nothing counts as accounted for.
            logger.error("job=%s cannot be settled: %s", txn.job.id, error)
            return 0, True
        account = missing_of(txn, schedule if txn.job.open else None, until, bite=BITE)
        opened = self._fill(txn, account)
        txn.save(
            replace(
                txn.job,
                accounted_until=account.until,
                next_due_at=schedule.next_after(account.until) if schedule and txn.job.open else None,
            )
        )
        return opened, account.complete

    def change(
        self,
        job_id: str,
        *,
        state: JobState | None = None,
        reason: str | None = None,
        by: str | None = None,
        declaration: JobRow | None = None,
        action: str | None = None,
        if_rev: int | None = None,
    ) -> JobRow:
        """Settle the job by its old rule up to now, then give it a new state, or a new declaration, from the next instant on.

        Nothing changes, and nothing is written, if it is so already. With `action` the audit has an entry of that name. Raises
        EditConflictError if the job's revision is not `if_rev`.
        """
        with self._store.jobs.lock(job_id) as txn:
            before = txn.job
            if if_rev is not None and before.definition_rev != if_rev:
                raise EditConflictError(
                    f"Job {job_id!r} was changed meanwhile: it has revision {before.definition_rev}, not {if_rev}. "
                    "Read it again and repeat the edit.",
                    job_id=job_id,
                    rev=before.definition_rev,
                )
            after = before if declaration is None else _declared_anew(before, declaration)
            if state is not None and state != before.state:
                after = replace(after, state=state, state_reason=reason, state_by=by, state_at=txn.now)
            if after.override != before.override:
                after = replace(after, override_by=by, override_at=txn.now)
            if after == before:
                return before
            if (after.state, after.schedule) != (before.state, before.schedule):
                end = max(txn.now, before.accounted_until, txn.newest_instant() or before.accounted_until)
                self._close_revision(txn, end, becomes=after.state)
                schedule = schedule_of(after)
                after = replace(
                    after,
                    schedule_rev=before.schedule_rev + 1,
                    accounted_until=end,
                    next_due_at=schedule.next_after(end) if schedule and after.open else None,
                )
            after = replace(after, definition_rev=before.definition_rev + 1)
            txn.save(after)
            if after.schedule != before.schedule and said(after, "on_change") == "now":
                self._open_now(txn, key=f"change:{job_id}:{after.schedule_rev}", by=by)
            if after.state_reason == "failures" and after.state != before.state:
                txn.notify(self._paused(after))
            if action is not None:
                txn.audit(self._auditor.of_job(action, before, after, by=by, at=txn.now))
            if not after.open and (before.open or after.state != before.state):
                txn.close_pending()
            return txn.job

    def pause_if_failing(self, job_id: str) -> bool:
        """Pause the job (reason `failures`) if its last `pause_after_failures` runs all failed; True if it was paused now."""
        with self._store.jobs.lock(job_id) as txn:
            wanted = txn.job.pause_after_failures
            last = txn.last_ended(wanted) if wanted else []
            failing = len(last) == wanted and all(run.status is FAILED for run in last)
            is_active = txn.job.state == "active"
        if failing and is_active:
            logger.error("job=%s is paused: its last %d runs failed", job_id, wanted)
            by = "pause_after_failures"
            self.change(job_id, state="paused", reason="failures", by=by, action="pause")
        return failing and is_active

    def redrive(self, run_id: str, note: Note | None = None, *, from_start: bool = False) -> Run:
        """Open a closed run again, due now; TransitionError for one that is open or succeeded, or stands for many ticks.

        `note` makes the entry of the audit. With `from_start` its steps are forgotten.
        """
        found = self._store.history.run(run_id)
        if found is None:
            raise RunNotFoundError(f"No run {run_id!r}.", run_id=run_id)
        with self._store.jobs.lock(found.job_id) as txn:
            run = txn.get(found.id) or found
            check_transition(run.status if run.status is not RUNNING else SUCCEEDED, PENDING)
            if run.ticks != 1:
                raise TransitionError(
                    f"Run {run_id} stands for {run.ticks:,} ticks; start the job by hand instead."
                )
            if not txn.job.open:
                raise JobDisabledError(
                    f"Job {run.job_id!r} is {txn.job.state}; enable it before redriving its runs.",
                    job_id=run.job_id,
                )
            again = in_line_again(txn, run, from_start=from_start)
            txn.audit(None if note is None else note(run, again))
            return again

    def open_first(self, job_id: str, *, rev: int | None = None, by: str | None = None) -> None:
        """Start the run of a job that was just made and says first="now"; with `rev` only while the job has that revision. Twice is once."""
        with self._store.jobs.lock(job_id) as txn:
            if rev is None or txn.job.definition_rev == rev:
                self._open_now(txn, key=f"first:{job_id}:{txn.job.definition_rev}", by=by)

    def _open_now(self, txn: JobTransaction, *, key: str, by: str | None) -> None:
        """Open a run that is due now, as a start by hand, unless one has the key, the job is not active, or its overlap forbids it."""
        if not self._keeps_time or txn.job.state != "active" or txn.run_with_key(key) is not None:
            return
        row = row_of(txn, txn.now, PENDING, None, trigger="manual")
        run = replace(
            row, scheduled_for=None, schedule_rev=0, due_at=txn.now, expires_at=None,
            idempotency_key=key, requested_by=by or "code",
        )  # fmt: skip
        apply_overlap(txn, run)

    # ---------------------------------------------------------------- filling holes

    def _fill(self, txn: JobTransaction, account: Missing, *, superseded: bool = False) -> int:
        """Give every missing instant its row, by the job's catch-up policy; return how many run.

        `superseded`: a newer instant is on time and about to run, so that `latest` runs none of these.
        """
        if txn.job.state == "paused":
            grow_pause(txn, account.instants, account)
            return 0
        account = record_excluded(txn, account)
        missing = account.instants
        if not missing:
            return 0
        again = [] if superseded and txn.job.catch_up == "latest" else caught_up(txn, account)
        chosen = set(again)
        record_missed(txn, [instant for instant in missing if instant not in chosen], account, self._outages)
        for instant in again:
            # Runs of `all` wait for one another: under `skip` the second would skip itself.
            waits = txn.job.catch_up == "all"
            self._open(txn, instant, "catch_up", waits=waits, run_id=account.ids.get(instant))
        return len(again)

    def _close_revision(self, txn: JobTransaction, end: datetime, *, becomes: JobState) -> None:
        """Account for the old rule up to `end`: the newest instant on time still runs or is skipped, older ones are missed.

        It runs only if a living process executes the job, and before the grace has passed: else the change would fire, later.
        """
        try:
            account = missing_of(txn, schedule_of(txn.job) if txn.job.open else None, end, bite=None)
            missing = account.instants
        except CronError as error:
            logger.error("job=%s had an unreadable schedule: %s", txn.job.id, error)
            return
        if txn.job.state == "paused":
            grow_pause(txn, missing, account)
            return
        account = record_excluded(txn, account)
        missing = account.instants
        earliest = txn.now - self._grace
        on_time = [instant for instant in missing if instant > earliest]
        if becomes == "active":
            on_time = on_time[-1:] if txn.executed_since(earliest) else []
        record_missed(txn, missing[: len(missing) - len(on_time)], account, self._outages)
        if becomes == "paused":
            grow_pause(txn, on_time, account)
            return
        for instant in on_time:
            if becomes == "active":
                self._open(txn, instant, "schedule", expires_after=self._grace)
            else:
                txn.insert(row_of(txn, instant, SKIPPED, "disabled"))

    def _open(
        self,
        txn: JobTransaction,
        instant: datetime,
        trigger: Trigger,
        *,
        waits: bool = False,
        run_id: str | None = None,
        expires_after: timedelta | None = None,
    ) -> None:
        """Open a pending run for the instant, or record what the overlap policy makes of it."""
        run = row_of(txn, instant, PENDING, None, trigger=trigger)
        deadlines = [run.expires_at, None if expires_after is None else run.due_at + expires_after]
        run = replace(run, id=run_id or run.id, expires_at=min(filter(None, deadlines), default=None))
        apply_overlap(txn, replace(run, turn="waits") if waits and run.turn else run)


def in_line_again(txn: JobTransaction, run: Run, *, from_start: bool = False) -> Run:
    """Open a closed run again: pending, due now, waiting for its key, with as many attempts as the policy gives."""
    turn = None if txn.job.overlap == "allow" else "waits"
    most = run.attempt + txn.job.max_attempts
    return txn.reopen(run, max_attempts=most, turn=turn, from_start=from_start)


def _declared_anew(before: JobRow, declaration: JobRow) -> JobRow:
    taken = ("namespace", "declared", "override", "definition", "schedule", *STORED_OPTIONS)
    return replace(before, **{name: getattr(declaration, name) for name in taken})
