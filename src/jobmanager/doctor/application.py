"""What can be checked of an application without its store: the backend, the zones, the handlers, the declarations."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import version
from zoneinfo import ZoneInfo

from jobmanager.backends import GO_ON
from jobmanager.backends.base import Found
from jobmanager.backends.resolver import load_backend_class
from jobmanager.clock import SystemClock
from jobmanager.doctor.finding import Finding, counted
from jobmanager.errors import HandlerNotFoundError, MissingExtraError, PayloadError
from jobmanager.explain import Told, utc
from jobmanager.manager.manager import JobManager
from jobmanager.schedule import At, Cron


def backend(jobs: JobManager) -> Iterator[Finding]:
    """Check which backend keeps the time, and which ones are configured and do not."""
    chosen = jobs.backend  # loads its class: a missing extra shows here
    told = f"{jobs.resolution.backend}, because {jobs.resolution.reason}"
    if chosen.capabilities.keeps_time:
        yield Finding(check="backend", level="ok", text=told)
    else:
        yield Finding(
            check="backend",
            level="warning",
            text=f"{told}: nothing fires by itself.",
            fix="Unset JOBMANAGER_DISABLED or JOBMANAGER_BACKEND where jobs should run.",
        )
    for left in _left_behind(jobs):
        yield Finding(check="backend", level=left.level, text=left.text, fix=left.fix)
    for rejected in jobs.resolution.rejected:
        if rejected.configured:
            yield Finding(
                check="backend",
                level="warning",
                text=f"{rejected.backend} is not active: {rejected.reason}.",
                fix=f"Complete its settings, set JOBMANAGER_BACKEND={rejected.backend}, or unset what is set for it.",
            )
        else:
            yield Finding(check="backend", level="note", text=f"not {rejected.backend}: {rejected.reason}")
    for found in chosen.findings(tuple(jobs.registry.jobs.values())):
        yield Finding(check="backend", level=found.level, text=found.text, fix=found.fix)


def _left_behind(jobs: JobManager) -> Iterator[Found]:
    """Yield what outside systems still do although their backend is not chosen any more."""
    for name in {rejected.backend for rejected in jobs.resolution.rejected}.intersection(GO_ON):
        try:
            yield from load_backend_class(name).left_behind(jobs.settings)
        except MissingExtraError:
            continue


def zones(jobs: JobManager) -> Iterator[Finding]:
    """Check that every zone can be loaded here; the declarations were checked where they were made, stored ones come from elsewhere."""
    zones = {job.schedule.timezone for job in jobs.registry.jobs.values() if isinstance(job.schedule, Cron)}
    for zone in sorted(zones | {"Europe/Berlin"}):
        ZoneInfo(zone)
    yield Finding(
        check="zones",
        level="ok",
        text=f"tzdata {version('tzdata')}; in use: {', '.join(sorted(zones)) or 'none'}",
    )


def handlers(jobs: JobManager) -> Iterator[Finding]:
    """Check that every handler can be imported, and that its config fits: of a scheduled job it has to be complete."""
    good = 0
    for job in jobs.registry.jobs.values():
        try:
            handler = jobs.registry.handler(job.handler)
            if job.schedule is None:
                handler.check_config(job.config)  # what is missing may come with a payload
            else:
                handler.arguments(job.config, {})
            good += 1
        except HandlerNotFoundError as error:
            yield Finding(
                check="handlers",
                level="failing",
                text=f"Job {job.id!r}: {error}",
                fix="Register it with @jobs.handler(...), correct the path, or install what it imports.",
            )
        except PayloadError as error:
            yield Finding(
                check="handlers",
                level="failing",
                text=f"Job {job.id!r}: {error}",
                fix="Make config fit the handler's parameters.",
            )
    if good:
        yield Finding(
            check="handlers", level="ok", text=f"{counted(good, 'handler')} can be called, and config fits"
        )


def declared(jobs: JobManager) -> Iterator[Finding]:
    """Yield the declarations that can never, or not here, fire."""
    declared = jobs.registry.jobs.values()
    if not declared:
        yield Finding(check="jobs", level="note", text="no job is declared in this process")
        return
    by_event = sum(job.on is not None for job in declared)
    by_hand = sum(job.schedule is None and job.on is None for job in declared)
    yield Finding(
        check="jobs",
        level="ok",
        text=f"{counted(len(declared), 'job')} declared"
        + (f", {by_event} of them started by events" if by_event else "")
        + (f", {by_hand} of them started by hand only" if by_hand else ""),
    )
    now = SystemClock().now()
    for job in declared:
        gate = job.enabled_when
        if not job.gate(os.environ):
            how = f"Set {gate}=true" if isinstance(gate, str) else "Make enabled_when return True"
            yield Finding(
                check="jobs",
                level="note",
                text=f"Job {job.id!r} is off by its gate. {how}, if it should run here.",
            )
        if isinstance(job.schedule, At) and job.schedule.next_after(now) is None:
            yield Finding(
                check="jobs",
                level="warning",
                text=f"Job {job.id!r} was due once, at {utc(job.schedule.moment)}; it will never be due again.",
                fix="Remove it, or give it a moment to come.",
            )


def seeds(jobs: JobManager, _told: Told) -> Iterator[Finding]:
    """Yield the jobs that this process seeds, whose gate is on, and that are not there: deleted, or off when they were seeded."""
    wanted = [job for job in jobs.registry.seeds.values() if job.gate(os.environ)]
    for job in wanted:
        row = jobs.store.jobs.get(job.id)
        if row is None:
            yield Finding(
                check="seeds",
                level="warning",
                text=f"Job {job.id!r} is seeded and its gate is on, but it was off when `seed` was called: nothing fires it.",
                fix=f"Call `seed` again, or run `jobmanager jobs create {job.id} --handler {job.handler}`.",
            )
        elif row.state == "deleted":
            yield Finding(
                check="seeds",
                level="note",
                text=f"Job {job.id!r} is seeded and its gate is on; an operator deleted it, and seeding leaves it so.",
            )
