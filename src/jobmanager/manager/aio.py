"""The methods of JobManager as coroutines, for applications that live on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, Unpack

from jobmanager.access.keys import ApiKey
from jobmanager.access.principal import READ, WRITE, Principal
from jobmanager.backends.base import PurgedEntries, RawEntry
from jobmanager.job import Job, JobOptions, PolicyWords
from jobmanager.ledger.backfill import MadeUp
from jobmanager.ledger.job_sync import Change
from jobmanager.ledger.job_view import JobView
from jobmanager.ledger.queries import Planned
from jobmanager.ledger.standing import Standing
from jobmanager.ledger.statistics import JobTotals, Period, Statistics
from jobmanager.manager.bulk import BulkAction, BulkResult
from jobmanager.manager.health import REPLY_WITHIN
from jobmanager.manager.listening import Events
from jobmanager.notify.message import Message
from jobmanager.process.health import HealthReport
from jobmanager.registry import HandlerInfo, HandlerTarget
from jobmanager.run import Attempt, JobMetrics, JobStatus, LogLine, Run
from jobmanager.schedule import Dst
from jobmanager.schedule.dst import DEBIAN
from jobmanager.search import DeadLetters, FoundRuns, RunCounts, RunFilter
from jobmanager.step import Event, EventWait, SentEvent, Step
from jobmanager.stores.outbox import Notification
from jobmanager.stores.values import AuditEntry, DueInstant, Instance, Outcome, StoreFacts
from jobmanager.validation.texts import MISTAKES, add_place
from jobmanager.webhooks import WebhookInfo, WebhookTest

if TYPE_CHECKING:
    from jobmanager.manager.manager import JobManager
    from jobmanager.manager.operating import Seconds


P = ParamSpec("P")
R = TypeVar("R")
NOTICED_WITHIN = 0.05
"""Seconds in which a coroutine that waits learns that a run has ended in its process."""


class AsyncJobManager:
    """Offer the methods of a JobManager as coroutines: `await jobs.aio.trigger_job(...)`.

    Arguments, results and errors are those of the method of the same name. Each call runs on a thread of the loop's default
    executor, so the loop is free meanwhile; only `wait` holds none. Cancelling the awaiting task does not interrupt the call: it goes on, and its
    result is dropped. The decorators, `webhook`, `lifespan` and `run_forever` exist on JobManager alone.
    """

    def __init__(self, manager: JobManager) -> None:
        self._manager = manager

    # ---------------------------------------------------------------- life

    async def start(self) -> JobManager:
        """Start the manager; see `JobManager.start`. Signal handlers stay as they are: this is not the main thread."""
        return await _on_thread(self._manager.start)

    async def stop(self, drain: Seconds | None = None) -> None:
        """Stop the manager; see `JobManager.stop`."""
        await _on_thread(self._manager.stop, drain)

    async def check(self) -> None:
        """Check the declared jobs; see `JobManager.check`."""
        await _on_thread(self._manager.check)

    # ---------------------------------------------------------------- declaring

    async def add_job(self, job_id: str, handler: HandlerTarget, **options: Unpack[JobOptions]) -> Job:
        """Declare a job; see `JobManager.add_job`."""
        return await _on_thread(self._manager.add_job, job_id, handler, **options)

    async def schedule_job(
        self,
        job_id: str,
        name: str,
        handler: HandlerTarget,
        interval: float | timedelta | str,
        **policies: Unpack[PolicyWords],
    ) -> Job:
        """Declare a job by interval; see `JobManager.schedule_job`."""
        return await _on_thread(self._manager.schedule_job, job_id, name, handler, interval, **policies)

    async def schedule_cron_job(
        self,
        job_id: str,
        name: str,
        handler: HandlerTarget,
        cron: str,
        *,
        timezone: str = "UTC",
        dst: Dst | str = DEBIAN,
        **policies: Unpack[PolicyWords],
    ) -> Job:
        """Declare a job by cron expression; see `JobManager.schedule_cron_job`."""
        return await _on_thread(
            self._manager.schedule_cron_job,
            job_id,
            name,
            handler,
            cron,
            timezone=timezone,
            dst=dst,
            **policies,
        )

    # ---------------------------------------------------------------- runs

    async def trigger_job(
        self,
        job_id: str,
        payload: Mapping[str, Any] | None = None,
        *,
        delay: Seconds | None = None,
        at: datetime | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        key: str | None = None,
        scope: str | None = None,
        requested_by: str | None = None,
        notify: bool = False,
        by: str | None = None,
    ) -> Run:
        """Start a run by hand; see `JobManager.trigger_job`."""
        return await _on_thread(
            self._manager.trigger_job,
            job_id,
            payload,
            delay=delay,
            at=at,
            priority=priority,
            max_attempts=max_attempts,
            key=key,
            scope=scope,
            requested_by=requested_by,
            notify=notify,
            by=by,
        )

    # ---------------------------------------------------------------- notifications

    async def notifications(
        self,
        state: str | Collection[str] = (),
        *,
        job: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> list[Notification]:
        """List notifications; see `JobManager.notifications`."""
        return await _on_thread(self._manager.notifications, state, job=job, before=before, limit=limit)

    async def notification(self, notification_id: str) -> Notification:
        """Return a notification; see `JobManager.notification`."""
        return await _on_thread(self._manager.notification, notification_id)

    async def notification_message(self, notification_id: str) -> Message:
        """Return the message of a notification; see `JobManager.notification_message`."""
        return await _on_thread(self._manager.notification_message, notification_id)

    async def resend_notification(self, notification_id: str, *, by: str | None = None) -> Notification:
        """Send a notification again; see `JobManager.resend_notification`."""
        return await _on_thread(self._manager.resend_notification, notification_id, by=by)

    async def drop_notification(self, notification_id: str, *, by: str | None = None) -> Notification:
        """Drop a notification; see `JobManager.drop_notification`."""
        return await _on_thread(self._manager.drop_notification, notification_id, by=by)

    async def notify_admins(
        self,
        subject: str,
        title: str = "",
        body: str = "",
        details: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
        *,
        by: str | None = None,
    ) -> int:
        """Tell the admins something; see `JobManager.notify_admins`."""
        return await _on_thread(self._manager.notify_admins, subject, title, body, details, tags, by=by)

    async def test_notifications(
        self, to: str | None = None, *, by: str | None = None
    ) -> dict[str, str | None]:
        """Send a message at once; see `JobManager.test_notifications`."""
        return await _on_thread(self._manager.test_notifications, to, by=by)

    # ---------------------------------------------------------------- the end of a run

    async def wait(self, run_id: str, timeout: Seconds | None = 30) -> Run:  # noqa: ASYNC109 - equal to JobManager.wait
        """Wait for the end of a run; see `JobManager.wait`. No thread is held meanwhile."""
        beginning = _on_thread(self._manager._waiting, run_id, timeout)  # noqa: SLF001 - the other half of the manager
        with await beginning as waiting:
            while (run := await asyncio.to_thread(waiting.look)) is None:
                left = waiting.next_pause()
                while left > 0 and not waiting.has_ended:
                    await asyncio.sleep(min(left, NOTICED_WITHIN))
                    left -= NOTICED_WITHIN
            return run

    async def execute_here(self, run_id: str, *, by: str | None = None) -> bool:
        """Execute a due pending run in this process; see `JobManager.execute_here`."""
        return await _on_thread(self._manager.execute_here, run_id, by=by)

    async def is_executed_here(self, run_id: str) -> bool:
        """Return whether this process owns the run; see `JobManager.is_executed_here`."""
        return await _on_thread(self._manager.is_executed_here, run_id)

    async def executors(self, job_id: str) -> list[Instance]:
        """List the living processes that execute a job; see `JobManager.executors`."""
        return await _on_thread(self._manager.executors, job_id)

    async def cancel(
        self, run_id: str, *, children: Literal["cancel", "keep"] = "cancel", by: str | None = None
    ) -> Run:
        """Ask a run to end; see `JobManager.cancel`."""
        return await _on_thread(self._manager.cancel, run_id, children=children, by=by)

    async def redrive(self, run_id: str, *, from_start: bool = False, by: str | None = None) -> Run:
        """Open a closed run again; see `JobManager.redrive`."""
        return await _on_thread(self._manager.redrive, run_id, from_start=from_start, by=by)

    async def redrive_all(
        self, job: str | None = None, *, limit: int = 100, by: str | None = None
    ) -> list[Run]:
        """Open dead letters again; see `JobManager.redrive_all`."""
        return await _on_thread(self._manager.redrive_all, job, limit=limit, by=by)

    async def dead_letters(self, job: str | None = None, *, limit: int = 50) -> list[Run]:
        """List the dead letters; see `JobManager.dead_letters`."""
        return await _on_thread(self._manager.dead_letters, job, limit=limit)

    async def discard(self, run_id: str, *, by: str | None = None) -> Run:
        """Take a failed run off the dead letters; see `JobManager.discard`."""
        return await _on_thread(self._manager.discard, run_id, by=by)

    async def bulk(
        self, action: BulkAction, run_ids: Collection[str], *, dry_run: bool = False, by: str | None = None
    ) -> BulkResult:
        """Change many runs; see `JobManager.bulk`."""
        return await _on_thread(self._manager.bulk, action, run_ids, dry_run=dry_run, by=by)

    async def backfill(
        self, job_id: str, start: datetime, end: datetime, *, dry_run: bool = False, by: str | None = None
    ) -> list[MadeUp]:
        """Open instants of the past; see `JobManager.backfill`."""
        return await _on_thread(self._manager.backfill, job_id, start, end, dry_run=dry_run, by=by)

    async def run(self, run_id: str) -> Run:
        """Return one run; see `JobManager.run`."""
        return await _on_thread(self._manager.run, run_id)

    async def attempts(self, run_id: str) -> list[Attempt]:
        """Return the earlier attempts of a run; see `JobManager.attempts`."""
        return await _on_thread(self._manager.attempts, run_id)

    async def send_event(
        self,
        name: str,
        *,
        key: str = "",
        data: Any = None,
        id: str | None = None,  # noqa: A002 - as the event has it
        by: str | None = None,
    ) -> Event:
        """Say that something has happened; see `JobManager.send_event`."""
        return await _on_thread(self._manager.send_event, name, key=key, data=data, id=id, by=by)

    async def sent_events(
        self, *, name: str | None = None, before: str | None = None, limit: int = 100
    ) -> list[SentEvent]:
        """Return the events that were sent; see `JobManager.sent_events`."""
        return await _on_thread(self._manager.sent_events, name=name, before=before, limit=limit)

    async def event_waits(self, *, name: str | None = None, limit: int = 100) -> list[EventWait]:
        """Return the waits for events; see `JobManager.event_waits`."""
        return await _on_thread(self._manager.event_waits, name=name, limit=limit)

    async def steps(self, run_id: str) -> list[Step]:
        """Return the steps of a run; see `JobManager.steps`."""
        return await _on_thread(self._manager.steps, run_id)

    async def children(self, run_id: str, *, limit: int = 100) -> list[Run]:
        """Return the runs that a run has started; see `JobManager.children`."""
        return await _on_thread(self._manager.children, run_id, limit=limit)

    async def logs(self, run_id: str, *, after: int = 0) -> list[tuple[int, int, LogLine]]:
        """Return the log lines of a run; see `JobManager.logs`."""
        return await _on_thread(self._manager.logs, run_id, after=after)

    async def runs(
        self,
        job: str | None = None,
        status: str | Collection[str] | None = None,
        *,
        before: str | None = None,
        limit: int = 50,
    ) -> list[Run]:
        """List runs, newest first; see `JobManager.runs`."""
        return await _on_thread(self._manager.runs, job, status, before=before, limit=limit)

    # ---------------------------------------------------------------- jobs

    async def stop_job(self, job_id: str, *, reason: str | None = None, by: str | None = None) -> None:
        """Pause a job; see `JobManager.stop_job`."""
        await _on_thread(self._manager.stop_job, job_id, reason=reason, by=by)

    async def resume_job(self, job_id: str, *, by: str | None = None) -> None:
        """Resume a job; see `JobManager.resume_job`."""
        await _on_thread(self._manager.resume_job, job_id, by=by)

    async def stop_all_jobs(self, *, reason: str | None = None, by: str | None = None) -> None:
        """Pause every job; see `JobManager.stop_all_jobs`."""
        await _on_thread(self._manager.stop_all_jobs, reason=reason, by=by)

    async def resume_all_jobs(self, *, by: str | None = None) -> None:
        """Resume every paused job; see `JobManager.resume_all_jobs`."""
        await _on_thread(self._manager.resume_all_jobs, by=by)

    async def override_job(self, job_id: str, *, by: str | None = None, **words: Any) -> None:
        """Change a job without touching code; see `JobManager.override_job`."""
        await _on_thread(self._manager.override_job, job_id, by=by, **words)

    async def reset_job(self, job_id: str, *, by: str | None = None) -> None:
        """Remove every override of a job; see `JobManager.reset_job`."""
        await _on_thread(self._manager.reset_job, job_id, by=by)

    # ---------------------------------------------------------------- stored jobs

    async def handlers(self) -> list[HandlerInfo]:
        """Return the handlers of this process; see `JobManager.handlers`."""
        return await _on_thread(self._manager.handlers)

    async def create_job(self, job_id: str, *, handler: str, by: str | None = None, **options: Any) -> Job:
        """Make a stored job; see `JobManager.create_job`."""
        return await _on_thread(self._manager.create_job, job_id, handler=handler, by=by, **options)

    async def update_job(
        self, job_id: str, *, by: str | None = None, if_rev: int | None = None, **options: Any
    ) -> Job:
        """Edit a job; see `JobManager.update_job`."""
        return await _on_thread(self._manager.update_job, job_id, by=by, if_rev=if_rev, **options)

    async def delete_job(self, job_id: str, *, by: str | None = None) -> None:
        """Delete a stored job; see `JobManager.delete_job`."""
        await _on_thread(self._manager.delete_job, job_id, by=by)

    async def enable_job(self, job_id: str, *, by: str | None = None) -> None:
        """Enable a disabled job; see `JobManager.enable_job`."""
        await _on_thread(self._manager.enable_job, job_id, by=by)

    async def disable_job(self, job_id: str, *, reason: str | None = None, by: str | None = None) -> None:
        """Disable a job; see `JobManager.disable_job`."""
        await _on_thread(self._manager.disable_job, job_id, reason=reason, by=by)

    async def seed(self, jobs: Mapping[str, Mapping[str, Any]], *, by: str | None = "seed") -> list[str]:
        """Make the stored jobs that are missing; see `JobManager.seed`."""
        return await _on_thread(self._manager.seed, jobs, by=by)

    async def history(self, job_id: str, *, limit: int = 50) -> list[AuditEntry]:
        """Return the changes of a job; see `JobManager.history`."""
        return await _on_thread(self._manager.history, job_id, limit=limit)

    async def audit(
        self,
        *,
        job: str | None = None,
        target: str | None = None,
        target_id: str | None = None,
        actor: str | None = None,
        action: str | None = None,
        outcome: Outcome | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> list[AuditEntry]:
        """Return what was changed by hand, and what was refused; see `JobManager.audit`."""
        return await _on_thread(
            self._manager.audit,
            job=job,
            target=target,
            target_id=target_id,
            actor=actor,
            action=action,
            outcome=outcome,
            since=since,
            until=until,
            before=before,
            limit=limit,
        )

    async def create_key(
        self,
        name: str,
        *,
        permissions: Collection[str] = (READ, WRITE),
        scopes: Collection[str] | None = None,
        expires: datetime | None = None,
        by: str | None = None,
    ) -> str:
        """Make an API key; see `JobManager.create_key`."""
        return await _on_thread(
            self._manager.create_key, name, permissions=permissions, scopes=scopes, expires=expires, by=by
        )

    async def revoke_key(self, name: str, *, by: str | None = None) -> ApiKey:
        """End an API key; see `JobManager.revoke_key`."""
        return await _on_thread(self._manager.revoke_key, name, by=by)

    async def keys(self) -> list[ApiKey]:
        """Return the API keys; see `JobManager.keys`."""
        return await _on_thread(self._manager.keys)

    async def principal_of_key(self, secret: str) -> Principal | None:
        """Return the holder of an API key; see `JobManager.principal_of_key`."""
        return await _on_thread(self._manager.principal_of_key, secret)

    async def entries(self) -> list[RawEntry]:
        """Return the entries of the outside system; see `JobManager.entries`."""
        return await _on_thread(self._manager.entries)

    async def set_entry_active(self, name: str, active: bool, *, by: str | None = None) -> bool:  # noqa: FBT001
        """Pause an entry, or let it go on; see `JobManager.set_entry_active`."""
        return await _on_thread(self._manager.set_entry_active, name, active, by=by)

    async def unschedule_entry(self, name: str, *, by: str | None = None) -> None:
        """Remove an entry; see `JobManager.unschedule_entry`."""
        await _on_thread(self._manager.unschedule_entry, name, by=by)

    async def purge_orphans(self, *, dry_run: bool = False, by: str | None = None) -> PurgedEntries:
        """Remove the entries that no job needs; see `JobManager.purge_orphans`."""
        return await _on_thread(self._manager.purge_orphans, dry_run=dry_run, by=by)

    async def rotate_secret(self, *, again: bool = False, by: str | None = None) -> str:
        """Make a new secret that signs; see `JobManager.rotate_secret`."""
        return await _on_thread(self._manager.rotate_secret, again=again, by=by)

    async def retire_secrets(self, *, by: str | None = None) -> int:
        """Let only the newest secret sign; see `JobManager.retire_secrets`."""
        return await _on_thread(self._manager.retire_secrets, by=by)

    async def storage(self) -> StoreFacts | None:
        """Return what the database is; see `JobManager.storage`."""
        return await _on_thread(self._manager.storage)

    async def purge(
        self,
        *,
        older_than: Seconds | None = None,
        job: str | None = None,
        dry_run: bool = False,
        by: str | None = None,
    ) -> int:
        """Delete old runs; see `JobManager.purge`."""
        purge = self._manager.purge
        return await _on_thread(purge, older_than=older_than, job=job, dry_run=dry_run, by=by)

    # ---------------------------------------------------------------- webhooks

    async def webhooks(self) -> list[WebhookInfo]:
        """Return the webhooks; see `JobManager.webhooks`."""
        return await _on_thread(self._manager.webhooks)

    async def create_webhook(
        self, key: str, *, url: str, by: str | None = None, **options: Any
    ) -> WebhookInfo:
        """Make a stored webhook; see `JobManager.create_webhook`."""
        return await _on_thread(self._manager.create_webhook, key, url=url, by=by, **options)

    async def update_webhook(self, key: str, *, by: str | None = None, **options: Any) -> WebhookInfo:
        """Edit a stored webhook; see `JobManager.update_webhook`."""
        return await _on_thread(self._manager.update_webhook, key, by=by, **options)

    async def delete_webhook(self, key: str, *, by: str | None = None) -> None:
        """Delete a stored webhook; see `JobManager.delete_webhook`."""
        await _on_thread(self._manager.delete_webhook, key, by=by)

    async def test_webhook(self, key: str, *, by: str | None = None) -> WebhookTest:
        """Send a ping to a receiver; see `JobManager.test_webhook`."""
        return await _on_thread(self._manager.test_webhook, key, by=by)

    async def rotate_webhooks(self, *, by: str | None = None) -> int:
        """Encrypt the stored secrets anew; see `JobManager.rotate_webhooks`."""
        return await _on_thread(self._manager.rotate_webhooks, by=by)

    # ---------------------------------------------------------------- what there is

    async def list_jobs(self, *, ids: Collection[str] | None = None) -> list[JobView]:
        """Return every job, or these; see `JobManager.list_jobs`."""
        return await _on_thread(self._manager.list_jobs, ids=ids)

    async def standings(
        self,
        *,
        ids: Collection[str] | None = None,
        runs: bool = True,
        after: str | None = None,
        limit: int | None = None,
    ) -> list[Standing]:
        """Return how each job, or these, stand; see `JobManager.standings`."""
        return await _on_thread(self._manager.standings, ids=ids, runs=runs, after=after, limit=limit)

    async def totals(self, job_ids: Collection[str], period: Period = "7d") -> dict[str, JobTotals]:
        """Return per job what its runs of a period came to; see `JobManager.totals`."""
        return await _on_thread(self._manager.totals, job_ids, period=period)

    async def get_job(self, job_id: str) -> JobView:
        """Return one job; see `JobManager.get_job`."""
        return await _on_thread(self._manager.get_job, job_id)

    async def search_runs(
        self, wanted: RunFilter | None = None, *, before: str | None = None, limit: int = 50
    ) -> FoundRuns:
        """Return a page of the runs that a filter wants; see `JobManager.search_runs`."""
        return await _on_thread(self._manager.search_runs, wanted, before=before, limit=limit)

    async def count_runs(self, wanted: RunFilter | None = None) -> RunCounts:
        """Count the newest runs by kind; see `JobManager.count_runs`."""
        return await _on_thread(self._manager.count_runs, wanted)

    async def dead_letters_by_error(
        self, wanted: RunFilter | None = None, *, limit: int = 1000
    ) -> list[DeadLetters]:
        """Return the dead letters by their error; see `JobManager.dead_letters_by_error`."""
        return await _on_thread(self._manager.dead_letters_by_error, wanted, limit=limit)

    async def runs_by_id(self, run_ids: Collection[str]) -> dict[str, Run]:
        """Return the runs with these ids; see `JobManager.runs_by_id`."""
        return await _on_thread(self._manager.runs_by_id, run_ids)

    async def runs_beside(self, run_id: str) -> tuple[Run | None, Run | None]:
        """Return the rows before and after a run; see `JobManager.runs_beside`."""
        return await _on_thread(self._manager.runs_beside, run_id)

    async def due_instants(
        self, job_ids: Collection[str], *, limit: int = 30, since: datetime | None = None
    ) -> dict[str, list[DueInstant]]:
        """Return what became of the newest instants of jobs; see `JobManager.due_instants`."""
        return await _on_thread(self._manager.due_instants, job_ids, limit=limit, since=since)

    async def run_for(self, job_id: str, instant: datetime) -> Run | None:
        """Return the row of an instant; see `JobManager.run_for`."""
        return await _on_thread(self._manager.run_for, job_id, instant)

    async def instances(self) -> list[Instance]:
        """Return the living processes; see `JobManager.instances`."""
        return await _on_thread(self._manager.instances)

    async def get_job_status(self, job_id: str) -> JobStatus | None:
        """Return the status of a job; see `JobManager.get_job_status`."""
        return await _on_thread(self._manager.get_job_status, job_id)

    async def get_all_job_statuses(self) -> list[JobStatus]:
        """Return the status of every job; see `JobManager.get_all_job_statuses`."""
        return await _on_thread(self._manager.get_all_job_statuses)

    async def get_job_metrics(self) -> JobMetrics:
        """Return counts over all runs; see `JobManager.get_job_metrics`."""
        return await _on_thread(self._manager.get_job_metrics)

    async def health(
        self,
        *,
        late: timedelta | None = None,
        thorough: bool = False,
        within: float = REPLY_WITHIN,
        told: Callable[[datetime], str] | None = None,
    ) -> HealthReport:
        """Return what stands still although it should move; see `JobManager.health`."""
        return await _on_thread(self._manager.health, late=late, thorough=thorough, within=within, told=told)

    async def stats(self, job: str | None = None, period: Period = "24h") -> Statistics:
        """Return what runs came to over a period; see `JobManager.stats`."""
        return await _on_thread(self._manager.stats, job, period)

    async def events(
        self, after: str | None = None, run: str | None = None, job: str | None = None
    ) -> Events:
        """Return the changes of runs and jobs, for `async for`; see `JobManager.events`. No thread is held while nothing changes."""
        return await _on_thread(self._manager.events, after, run, job)

    async def simulate(self, start: datetime, end: datetime) -> list[Planned]:
        """Compute what would fire; see `JobManager.simulate`."""
        return await _on_thread(self._manager.simulate, start, end)

    async def sync(self, plan: bool = False, *, by: str | None = None) -> list[Change]:  # noqa: FBT001, FBT002 - equal to JobManager.sync
        """Carry declarations over to store and backend; see `JobManager.sync`."""
        return await _on_thread(self._manager.sync, plan, by=by)


async def _on_thread(method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call the method on a thread; its errors about arguments name the line that awaits it."""
    try:
        return await asyncio.to_thread(method, *args, **kwargs)
    except MISTAKES as error:
        add_place(error, awaited=True)
        raise
