"""What the code declares against what the store holds: seeds new jobs, carries over changes, retires what is gone."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from jobmanager.backends.timetable import ScheduledJob
from jobmanager.errors import (
    ConfigurationError,
    CronError,
    DuplicateJobError,
    StoreError,
    StoreUnavailableError,
)
from jobmanager.job import STORED_OPTIONS, Job, stored_policies
from jobmanager.ledger.definition import job_of
from jobmanager.ledger.missing_instants import is_excluded, schedule_of
from jobmanager.ledger.overrides import in_force, said
from jobmanager.ledger.reconciliation import Reconciliation
from jobmanager.registry import Registry
from jobmanager.schedule import UNTIL, Cron, Every, Schedule
from jobmanager.stores.base import RunStore
from jobmanager.stores.values import JobRow, JobSummary
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

GATED, UNDECLARED = "gate", "undeclared"
OURS = (GATED, UNDECLARED)  # reasons for `disabled` that the code gave, so the code may take them back
PAGE = 1000
NEW = timedelta(minutes=10)
"""So long after a job was made its first run is looked for: the process that made it may have died."""
UNUSABLE = (
    ConfigurationError,
    CronError,
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    AttributeError,
)
"""What an override raises that nobody checked before it was stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference between the code and the store."""

    job_id: str
    action: str
    detail: str = ""


class JobSync:
    """Keeps the stored jobs in step with the declared ones. Nothing here ever fires a job."""

    def __init__(
        self,
        registry: Registry,
        store: RunStore,
        account: Reconciliation,
        *,
        namespace: str,
        take_handlers: Callable[[RunStore, int], bool],
    ) -> None:
        self._registry = registry
        self._store = store
        self._account = account
        self._namespace = namespace
        self._take_handlers = take_handlers
        """Takes over the stored handlers that changed after a number of the store's counter; True if there were any."""
        self._plain: dict[str, ScheduledJob | None] = {}
        """Jobs of ours that are stored as the code says, and active: of their rows nothing else has to be kept."""
        self._rows: dict[str, JobRow] = {}
        self._seq = -1

    @property
    def rows(self) -> Mapping[str, JobRow]:
        """The stored jobs, as last read, that are not simply as the code says: paused, disabled, overridden, others'."""
        return self._rows

    @property
    def unknown(self) -> set[str]:
        """Jobs of this namespace that only other processes declare."""
        return {
            row.id
            for row in self._rows.values()
            if row.namespace == self._namespace and row.id not in self._registry.jobs
        }

    @property
    def elsewhere(self) -> frozenset[str]:
        """Active jobs of this namespace that only other processes declare."""
        rows = list(self._rows.values())  # another thread may refresh meanwhile
        return frozenset(
            row.id
            for row in rows
            if row.namespace == self._namespace
            and row.state == "active"
            and row.id not in self._registry.jobs
        )

    def refresh(self) -> bool:
        """Read what changed in the store since the last time; True if anything did."""
        seq = self._store.jobs.change_seq()
        if seq == self._seq:
            return False
        self._take_handlers(self._store, self._seq)  # before the jobs: those that name them need them
        page = self._store.jobs.summaries(changed_since=self._seq, limit=PAGE)
        stored: dict[str, Job | None] = {}
        while page:
            special = [brief.id for brief in page if not self._keep_plain(brief)]
            for row in self._store.jobs.rows(ids=special) if special else ():
                self._plain.pop(row.id, None)
                self._rows[row.id] = row
                if row.id in self._registry.declared:
                    self._registry.jobs[row.id] = self._in_force(row)
                elif row.definition is not None or row.id in self._registry.jobs:
                    stored[row.id] = self._defined(row)
            page = self._store.jobs.summaries(changed_since=self._seq, after=page[-1].id, limit=PAGE)
        if stored:
            self._registry.take_stored(stored)
        self._seq = seq
        return True

    def _defined(self, row: JobRow) -> Job | None:
        """Return the job that an operator made; None if it is deleted, of another namespace, or of a handler that is not here."""
        if row.definition is None or row.state == "deleted" or row.namespace != self._namespace:
            return None
        try:
            job = job_of(row.id, row.definition)
        except UNUSABLE as error:
            logger.error("job=%s has a definition that cannot be used here: %s", row.id, error)
            return None
        return _with_stored_end(job, row) if job.handler in self._registry.handlers else None

    def of_others(self, job_id: str) -> Job | None:
        """Return a stored job of this namespace whose handler is not here: it can be started, and other processes execute it."""
        row = self._rows.get(job_id)
        if (
            row is None
            or row.definition is None
            or row.state == "deleted"
            or row.namespace != self._namespace
        ):
            return None
        return job_of(row.id, row.definition)

    def defined(self, job: Job, definition: Mapping[str, Any]) -> JobRow:
        """Return the row of a job that an operator makes or edits; its first instant is the next one from now."""
        self.refresh()
        now = self._store.now()
        row = self._row(job, now, enabled=True)
        schedule = schedule_of(row)
        first = schedule.next_after(now) if schedule else None
        return replace(row, definition=definition, next_due_at=first)

    def _keep_plain(self, stored: JobSummary) -> bool:
        """Keep what is needed of a job of ours that is stored as the code says; False if it is another one."""
        declared = self._registry.declared.get(stored.id)
        if declared is None or not self._is_plain(declared, stored):
            return False
        due = stored.next_due_at
        # Under the id the code brought: that of the row would be kept a second time.
        self._plain[declared.id] = None if due is None else ScheduledJob(declared, stored.schedule_rev, due)
        self._registry.jobs[stored.id] = declared
        self._rows.pop(stored.id, None)
        return True

    def _is_stored(self, job_id: str) -> bool:
        return job_id in self._plain or job_id in self._rows

    def _is_plain(self, declared: Job, stored: JobSummary) -> bool:
        return (
            stored.state == "active"
            and not stored.override
            and stored.namespace == self._namespace
            and (stored.next_due_at is None) == (declared.schedule is None)
            and stored.schedule == _text(declared)
            and stored.declared == declared.declared()
            and stored.definition is None
        )

    def plan(self) -> list[Change]:
        """Return what `carry_over` would do."""
        new, edited, states = self._differences()
        return [
            *(Change(job_id=row.id, action="create", detail=row.schedule) for row in new),
            *(Change(job_id=row.id, action="update", detail=self._what(row)) for row in edited),
            *(Change(job_id=job_id, action=state) for job_id, state in states.items()),
            *(
                Change(job_id=job_id, action="undeclared")
                for job_id in sorted(self.unknown)
                if self._rows[job_id].definition is None
            ),
        ]

    def carry_over(self) -> None:
        """Seed new jobs, write changed declarations, follow the gates. Unchanged jobs cost nothing; twice is once."""
        new, edited, states = self._differences()
        for start in range(0, len(new), PAGE):
            self._store.jobs.add(new[start : start + PAGE])
            for row in new[start : start + PAGE]:
                if row.next_due_at is None and row.schedule != "none" and row.state == "active":
                    logger.warning("job=%s will never fire: %r has passed", row.id, row.schedule)
        policies = {row.id: row for row in edited if row.schedule == self._rows[row.id].schedule}
        if policies:
            for row in policies.values():
                logger.warning("job=%s changes with this start: %s", row.id, self._what(row))
            self._store.jobs.declare(policies)
        for row in edited:
            before = self._rows[row.id]
            _warn_of_new_owner(before, row)
            if row.id not in policies:
                logger.warning("job=%s schedule changes from %r to %r", row.id, before.schedule, row.schedule)
                self._change(row.id, declaration=row)
        self._open_first()
        for job_id, state in states.items():
            reason = GATED if state == "disabled" else None
            self._change(
                job_id, state="disabled" if state == "disabled" else "active", reason=reason, by="code"
            )
        self.refresh()

    def _open_first(self) -> None:
        """Start a run of each job that was just made and says first="now": once, also where a process died between the two."""
        wanted = [job.id for job in self._registry.declared.values() if job.first == "now"]
        for row in self._store.jobs.rows(ids=wanted) if wanted else ():
            is_new = row.definition_rev == 1 and row.history_from > self._store.now() - NEW
            if is_new and row.namespace == self._namespace:
                self._account.open_first(row.id, rev=1)

    def _change(self, job_id: str, **how: Any) -> None:
        """Change one job; what is wrong with it is logged and stops no other."""
        try:
            self._account.change(job_id, **how)
        except StoreUnavailableError:
            raise
        except (StoreError, *UNUSABLE):
            logger.exception("job=%s cannot be brought in step with the code; the others are", job_id)

    def _differences(self) -> tuple[list[JobRow], list[JobRow], dict[str, str]]:
        self.refresh()
        now = self._store.now()
        new, edited, states = [], [], {}
        for job in self._registry.declared.values():
            enabled = job.gate(os.environ)
            if job.id in self._plain:
                if not enabled:
                    states[job.id] = "disabled"
                continue
            row = self._rows.get(job.id)
            if row is None:
                new.append(self._row(job, now, enabled=enabled))
                continue
            self._check_owner(job, row)
            declared = self._row(job, now, enabled=enabled, override=row.override)
            if self._what(declared):
                edited.append(declared)
            if enabled and (row.state == "deleted" or (row.state == "disabled" and row.state_reason in OURS)):
                states[job.id] = "active"
            elif not enabled and row.open:
                states[job.id] = "disabled"
        return new, edited, states

    def _check_owner(self, declared: Job, row: JobRow) -> None:
        """Raise DuplicateJobError if an operator of another namespace made a job of this id."""
        if row.definition is not None and row.namespace != self._namespace and row.state != "deleted":
            raise DuplicateJobError(
                f"Job {row.id!r} was made by an operator in namespace {row.namespace!r}"
                f"{self._registry.place(declared.id, ', and is declared here at {}')}. Give one of them another id."
            )

    def _what(self, declared: JobRow) -> str:
        """Names of what differs from the stored row."""
        row = self._rows[declared.id]
        names = ("schedule", "namespace", "declared", "definition", *STORED_OPTIONS)
        return ", ".join(name for name in names if getattr(row, name) != getattr(declared, name))

    def overridden(self, job_id: str, override: Mapping[str, Any] | None) -> JobRow:
        """Return the row of a declared job with this override; whatever is wrong with it is raised."""
        self.refresh()
        job = self._registry.declared[job_id]
        in_force(job, override)
        return self._row(job, self._store.now(), enabled=job.gate(os.environ), override=override)

    def _in_force(self, row: JobRow) -> Job:
        declared = self._registry.declared[row.id]
        try:
            return _with_stored_end(in_force(declared, row.override), row)
        except UNUSABLE as error:
            logger.error("job=%s has an override that cannot be used, the code decides: %s", row.id, error)
            return declared

    def _row(
        self, declared: Job, now: datetime, *, enabled: bool, override: Mapping[str, Any] | None = None
    ) -> JobRow:
        """Return what the store should hold: the job in force, and beside it what the code says and what was overridden."""
        try:
            job = in_force(declared, override)
        except UNUSABLE:
            job = declared
        schedule = self._counted(job, now)
        return JobRow(
            id=job.id,
            namespace=self._namespace,
            declared=declared.declared(),
            override=override,
            schedule=schedule.text if schedule else "none",
            state="active" if enabled else "disabled",
            state_reason=None if enabled else GATED,
            state_at=now,
            accounted_until=now,
            history_from=now,
            # First registration: what was due before is no business of ours, and nothing fires.
            next_due_at=schedule.next_after(now)
            if schedule and enabled and not self._is_stored(job.id)
            else None,
            **stored_policies(job),
        )

    def _counted(self, job: Job, now: datetime) -> Schedule | None:
        """Return the job's schedule with the end that `max_runs` gives it: as it is stored, or counted from now on."""
        if job.max_runs is None or not isinstance(job.schedule, (Cron, Every)):
            return job.schedule
        row = self._rows.get(job.id)
        if row is not None and row.state != "deleted" and _is_counted(job, row):
            return schedule_of(row)
        return replace(job.schedule, until=job.schedule.end_after(now, job.max_runs))

    def excludes(self, job: Job, instant: datetime) -> bool:
        """Return whether the schedule that is stored excludes an instant of a job; it may be another one than this process declares."""
        row = self._rows.get(job.id)
        if row is not None and (job.schedule is None or job.schedule.text != row.schedule):
            return is_excluded(row, instant)
        return job.schedule is not None and job.schedule.excluded(instant) is not None

    def retire_undeclared(self) -> None:
        """Disable the namespace's jobs that no living process declares; a process without jobs retires nothing."""
        if not self._registry.jobs:
            return
        self.refresh()
        gone = self.unknown - self._store.processes.declared_by_living(self._namespace)
        for job_id in sorted(gone):
            if self._rows[job_id].open and self._rows[job_id].definition is None:
                logger.warning("job=%s is declared by no living process any more; it is disabled", job_id)
                self._change(job_id, state="disabled", reason=UNDECLARED, by="code")

    def scheduled(self, grace: timedelta) -> list[ScheduledJob]:
        """Return the active jobs of this process with the next instant each is due, by the stored schedule."""
        earliest = self._store.now() - grace
        scheduled = []
        # Older instants are the account's; the timetable goes on from what can still be on time.
        for plain in filter(None, self._plain.values()):
            late = earliest - plain.job.jitter if plain.job.jitter else earliest
            if plain.next_due_at is not None and plain.next_due_at > late:
                scheduled.append(plain)
            else:
                scheduled.append(replace(plain, next_due_at=plain.schedule.next_after(late)))
        for row in self._rows.values():
            job = self._registry.jobs.get(row.id)
            if job is None or row.state != "active" or row.schedule == "none":
                continue
            effective, due = self._as_stored(job, row), row.next_due_at
            if effective.schedule is None:
                continue
            if due is None or due <= earliest - row.jitter:
                due = effective.schedule.next_after(max(row.accounted_until, earliest - row.jitter))
            scheduled.append(ScheduledJob(effective, row.schedule_rev, due))
        return scheduled

    def _as_stored(self, job: Job, row: JobRow) -> Job:
        if job.schedule is not None and job.schedule.text == row.schedule:
            return job
        try:
            return replace(job, schedule=schedule_of(row))
        except CronError as error:
            logger.error("job=%s has a stored schedule this version cannot read: %s", job.id, error)
            return replace(job, schedule=None)


def _warn_of_new_owner(before: JobRow, row: JobRow) -> None:
    if before.definition is not None:
        logger.warning("job=%s was made by an operator; from now on its declaration holds", row.id)
    elif before.namespace != row.namespace:
        logger.warning("job=%s was declared by namespace %s; it is ours now", row.id, before.namespace)


def _is_counted(job: Job, row: JobRow) -> bool:
    """Return whether the stored schedule is that of the job, with the end of as many runs."""
    timing, _, end = row.schedule.partition(UNTIL)
    return end != "" and timing == _text(job) and said(row, "max_runs") == job.max_runs


def _with_stored_end(job: Job, row: JobRow) -> Job:
    """Return the job with the end that was stored for its `max_runs`."""
    if job.max_runs is None or not _is_counted(job, row):
        return job
    return replace(job, schedule=schedule_of(row))


def _text(job: Job) -> str:
    return job.schedule.text if job.schedule else "none"
