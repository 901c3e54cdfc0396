"""What can be checked where some processes bring ticks and others execute: that there are both, and that they share one store."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from jobmanager.doctor.finding import Finding
from jobmanager.explain import Told
from jobmanager.ledger.queries import effective
from jobmanager.manager.manager import JobManager
from jobmanager.process.heartbeat import living
from jobmanager.stores.values import Instance

ON_ITS_WAY = timedelta(seconds=5)


def roles(jobs: JobManager, told: Told) -> Iterator[Finding]:
    """Check that one process brings ticks and one executes. That no process lives at all is another check's finding."""
    if not _apart(jobs) or not (alive := living(jobs.store, jobs.settings)):
        return
    workers = [item for item in alive if item.executes]
    beats = [item for item in alive if item.last_tick_at is not None]
    maybe = [item for item in alive if not item.executes and item.last_tick_at is None]
    if not workers:
        yield Finding(
            check="processes",
            level="failing",
            text="No living process executes: runs are opened and stay pending.",
            fix="Start `jobmanager worker`.",
        )
    silent = None if beats else _not_brought(jobs, maybe)
    if not beats and (not maybe or silent is not None):
        nobody = f" None came at {told(silent)}." if silent else ""
        yield Finding(
            check="processes",
            level="failing",
            text=f"No living process brings ticks: nothing fires by itself.{nobody}",
            fix="Start `jobmanager beat`, best two on different hosts.",
        )
    elif workers:
        rang = (
            f"{len(beats)} of them brought ticks" if beats else "nothing was due yet that would show a beat"
        )
        text = f"{len(workers)} of them execute; {rang}"
        yield Finding(check="processes", level="ok", text=text)
    if len(beats) == 1:
        yield Finding(
            check="processes",
            level="note",
            text="one beat alone brings ticks; a second one on another host goes on when that dies",
        )


def hosts(jobs: JobManager, _told: Told) -> Iterator[Finding]:
    """Check that an SQLite file is used by one host only."""
    if not _apart(jobs) or jobs.settings.database_path is None:
        return
    names = sorted({item.host for item in living(jobs.store, jobs.settings)})
    if len(names) > 1:
        yield Finding(
            check="store",
            level="failing",
            text=f"Processes on {', '.join(names)} share one SQLite file. Its locks do not hold between hosts: runs will be lost or start twice.",
            fix="Set JOBMANAGER_DATABASE_URL to PostgreSQL in all of them. Containers of one host with one volume may share the file.",
        )


def _apart(jobs: JobManager) -> bool:
    """Return True where the processes of the outside system, and not those that call `start()`, do the work."""
    able = jobs.backend.capabilities
    return able.keeps_time and not able.executes_in_process


def _not_brought(jobs: JobManager, maybe: list[Instance]) -> datetime | None:
    """Return an instant that fell due while all of these lived, and that none of them brought; None if there was none yet."""
    if not maybe:
        return None
    since, now = max(item.started_at for item in maybe), jobs.store.now()
    for row in jobs.store.jobs.rows():
        schedule = effective(None, row) if row.open and row.namespace == jobs.settings.namespace else None
        due = None if schedule is None else schedule.next_after(since)
        if due is not None and due < now - ON_ITS_WAY:
            return due
    return None
