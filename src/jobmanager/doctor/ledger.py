"""What can be checked of the store: that it works, that its account is kept, and who keeps it."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from datetime import datetime

from jobmanager.clock import SystemClock
from jobmanager.doctor.finding import Finding, counted
from jobmanager.errors import CronError
from jobmanager.explain import Told, start_one
from jobmanager.ledger.missing_instants import schedule_of
from jobmanager.ledger.queries import effective, next_run
from jobmanager.manager.assembly import CLOCKS_AGREE
from jobmanager.manager.manager import JobManager
from jobmanager.process.heartbeat import living
from jobmanager.run import PENDING, RUNNING
from jobmanager.schedule import Schedule
from jobmanager.stores.values import Instance

FEW_BYTES = 64 * 1024 * 1024
LISTED = 5


def store(jobs: JobManager) -> Iterator[Finding]:
    """Check that the store exists, can be read and written, and has our schema."""
    store, path = jobs.store, jobs.settings.database_path
    folder = None if path is None else path.parent
    if not store.exists():
        if folder is not None and not folder.is_dir():
            yield Finding(
                check="store",
                level="failing",
                text=f"The folder of {store.url} does not exist.",
                fix=f"mkdir -p {folder}",
            )
        elif folder is not None and not os.access(folder, os.W_OK | os.X_OK):
            yield Finding(
                check="store",
                level="failing",
                text=f"The folder of {store.url} cannot be written by this user.",
                fix=f"Make {folder} writable, or set JOBMANAGER_DATABASE_URL.",
            )
        else:
            yield Finding(
                check="store", level="note", text=f"{store.url} does not exist yet; the first start makes it"
            )
        return
    store.install()  # of what is there it changes nothing; a wrong schema shows
    for row in store.jobs.summaries(changed_since=-1, limit=1):
        with store.jobs.lock(row.id):  # nor does this; a lock that does not go away and a read-only file show
            pass
    yield Finding(
        check="store", level="ok", text=f"{store.url} can be read and written, and its schema is ours"
    )
    if folder is not None and shutil.disk_usage(folder).free < FEW_BYTES:
        yield Finding(
            check="store",
            level="warning",
            text=f"Only {shutil.disk_usage(folder).free // 1024:,} KiB are free beside {path}.",
            fix="Free some space: when the disk is full, nothing can be recorded and nothing starts.",
        )


def clock(jobs: JobManager, told: Told) -> Iterator[Finding]:
    """Check that the clocks agree, and that none was ever ahead."""
    skew = jobs.store.now() - SystemClock().now()
    if abs(skew) > CLOCKS_AGREE:
        yield Finding(
            check="clock",
            level="warning",
            text=f"The store's clock is {skew.total_seconds():+,.1f} s off this host's; the store's decides what is due.",
            fix="Let both hosts follow NTP.",
        )
    now = jobs.store.now()
    ahead = [row for row in jobs.store.jobs.rows() if row.accounted_until > now + jobs.settings.grace]
    for row in ahead[:LISTED]:
        yield Finding(
            check="clock",
            level="failing",
            text=f"The account of {row.id!r} is closed up to {told(row.accounted_until)}: the clock was ahead once.",
            fix="Correct the clock if it is slow now; otherwise the job is silent until then, and is triggered by hand.",
        )
    if abs(skew) <= CLOCKS_AGREE and not ahead:
        yield Finding(check="clock", level="ok", text="the store's clock and this host's agree")


def differences(jobs: JobManager, _told: Told) -> Iterator[Finding]:
    """Yield what the code says and the store does not, and the other way round."""
    rows = {row.id: row for row in jobs.store.jobs.rows()}
    for change in jobs.sync(plan=True):
        match change.action:
            case "create":
                yield _to_come(
                    f"Job {change.job_id!r} is declared but not stored; no process has started with it."
                )
            case "update":
                yield _to_come(f"Job {change.job_id!r} differs from what is stored ({change.detail}).")
            case "active" | "disabled":
                yield _to_come(
                    f"The gate of job {change.job_id!r} makes it {change.action}; stored is {rows[change.job_id].state}."
                )
            case "undeclared" if jobs.registry.jobs and rows[change.job_id].open:
                yield Finding(
                    check="jobs",
                    level="warning",
                    text=f"Job {change.job_id!r} is stored and open, but not declared in this process.",
                    fix="Declare it, import the module that does, or leave it to the application that has it.",
                )
    for row in rows.values():
        if row.id in jobs.registry.jobs and row.namespace != jobs.settings.namespace:
            yield Finding(
                check="jobs",
                level="warning",
                text=f"Job {row.id!r} is declared here and in namespace {row.namespace!r}; the last to start takes it over.",
                fix="Give one of them another id, or the same JOBMANAGER_NAMESPACE.",
            )


def _to_come(text: str) -> Finding:
    return Finding(check="jobs", level="note", text=f"{text} The next start carries that over.")


def states(jobs: JobManager, told: Told) -> Iterator[Finding]:
    """Yield the jobs that are paused, disabled or unreadable."""
    for job_id, why in jobs.store.jobs.unreadable().items():
        yield Finding(
            check="jobs",
            level="failing",
            text=f"The stored row of job {job_id!r} cannot be read, so the job is left out: {why}.",
            fix="Correct that column in the table of jobs, or delete the row: the next start makes it anew.",
        )
    for run_id, why in jobs.store.history.unreadable().items():
        yield Finding(
            check="runs",
            level="warning",
            text=f"The stored row of run {run_id!r} cannot be read, so the run is left out of lists and never executed: {why}.",
            fix="Correct that column in the table of runs, or delete the row.",
        )
    rows = [row for row in jobs.store.jobs.rows() if row.namespace == jobs.settings.namespace]
    for row in rows:
        since = f" since {told(row.state_at)}" if row.state_at else ""
        by = f" by {row.state_by}" if row.state_by else ""
        if row.state == "paused":
            why = f": {row.state_reason.rstrip('.')}" if row.state_reason else ""
            yield Finding(
                check="jobs",
                level="warning",
                text=f"Job {row.id!r} is paused{since}{by}{why}.",
                fix=f"jobmanager jobs resume {row.id}",
            )
        elif (
            row.state == "disabled" and row.state_reason == "undeclared" and row.id not in jobs.registry.jobs
        ):
            yield Finding(
                check="jobs",
                level="note",
                text=f"Job {row.id!r} is disabled{since}: no process declared it any more.",
            )
        try:
            schedule_of(row)
        except CronError as error:
            yield Finding(
                check="jobs",
                level="failing",
                text=f"The stored schedule of {row.id!r} cannot be read: {error}",
                fix="Start a process that declares it.",
            )


def not_started(jobs: JobManager) -> Iterator[Finding]:
    """Say of a store that no process has made yet that nothing fires."""
    now = SystemClock().now()
    if jobs.backend.capabilities.keeps_time and any(
        next_run(job, None, now) for job in jobs.registry.jobs.values()
    ):
        yield Finding(
            check="processes",
            level="note",
            text="no process has been started yet: nothing fires",
            fix=start_one(jobs),
        )


def processes(jobs: JobManager, told: Told) -> Iterator[Finding]:
    """Check which processes live, and which have fallen silent."""
    alive = living(jobs.store, jobs.settings)
    now = jobs.store.now()
    if alive:
        yield Finding(
            check="processes",
            level="ok",
            text=f"{len(alive)} living: {'; '.join(_process(item, now) for item in alive[:LISTED])}",
        )
    elif jobs.settings.wait:
        yield Finding(
            check="processes",
            level="note",
            text="no process lives; with JOBMANAGER_WAIT the next call starts one",
        )
    elif jobs.backend.capabilities.keeps_time and any(
        _waiting(effective(None, row)) for row in jobs.store.jobs.rows() if row.open
    ):
        seen = max((item.seen_at for item in jobs.store.processes.living()), default=None)
        yield Finding(
            check="processes",
            level="failing",
            text="No process lives: nothing fires."
            + (f" The last sign of one was at {told(seen)}." if seen else ""),
            fix=start_one(jobs),
        )
    ids = {item.id for item in alive}
    for item in jobs.store.processes.living():
        if item.id in ids or item.namespace != jobs.settings.namespace:
            continue
        orphans = [
            run for run in jobs.store.history.runs(statuses=[RUNNING], limit=1000) if run.owner == item.id
        ]
        if orphans or _exists(item):
            yield _silent(item, [f"{run.job_id} ({run.id[-8:]})" for run in orphans[:LISTED]], told)


def _silent(item: Instance, orphans: list[str], told: Told) -> Finding:
    """Return the finding about a process without a heartbeat that still matters."""
    who = f"Process {item.pid} on {item.host} has not been heard of since {told(item.seen_at)}"
    if _exists(item):
        fix = f"See why it hangs (a locked store, a stopped process), then restart it: kill {item.pid}"
    else:
        fix = (
            "It is gone. A living process takes over what it left within its lease; if none does, start one."
        )
    left = f"; running for it are {', '.join(orphans)}" if orphans else ""
    return Finding(
        check="processes", level="failing" if orphans else "warning", text=f"{who}{left}.", fix=fix
    )


def _exists(item: Instance) -> bool:
    """Return True if a process of that number exists on this very host."""
    if item.host != socket.gethostname() or item.pid == os.getpid():
        return False
    try:
        os.kill(item.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def pending(jobs: JobManager, told: Told) -> Iterator[Finding]:
    """Yield the runs that wait longer than they should."""
    limit = jobs.store.now() - jobs.settings.grace
    stuck = [run for run in jobs.store.history.runs(statuses=[PENDING], limit=1000) if run.due_at < limit]
    executes = stuck and any(item.executes for item in living(jobs.store, jobs.settings))
    executed = jobs.store.processes.declared_by_living(jobs.settings.namespace) if executes else ()
    for job_id in sorted({run.job_id for run in stuck}):
        runs = [run for run in stuck if run.job_id == job_id]
        oldest = min(run.due_at for run in runs)
        told_runs = f"{counted(len(runs), 'run')} of {job_id!r} waiting since {told(oldest)}"
        if job_id in executed:
            yield Finding(
                check="runs",
                level="warning",
                text=f"{told_runs} for a free worker.",
                fix="If they are all busy, raise JOBMANAGER_WORKERS or start another process."
                if jobs.backend.capabilities.executes_in_process
                else "If they are all busy, start more workers, or with a higher --concurrency.",
            )
        else:
            yield Finding(
                check="runs",
                level="failing",
                text=f"{told_runs}, and no living process executes that job.",
                fix=f"{start_one(jobs)} Or end it: `jobmanager cancel {runs[0].id[-8:]}`",
            )


def _process(item: Instance, now: datetime) -> str:
    return f"{item.host} pid {item.pid}, last beat {max(0.0, (now - item.seen_at).total_seconds()):.0f} s ago"


def _waiting(schedule: Schedule | None) -> bool:
    return schedule is not None and schedule.next_after(SystemClock().now()) is not None
