"""The engine over the API: who keeps the time and why, entries, processes, findings, and the plan of a sync."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import Query, Request, Response
from pydantic import Field

from jobmanager.access.principal import ADMIN, READ
from jobmanager.doctor import examine
from jobmanager.present.account import engine_record, instance_record
from jobmanager.present.phrases import iso
from jobmanager.web.api.models import Given, Instant, Page, Shown
from jobmanager.web.api.routing import Routes
from jobmanager.web.recent import check_recent
from jobmanager.web.site import site_of

router = Routes(tags=["engine"])


class RejectedModel(Shown):
    """A backend that was not chosen, and why."""

    backend: str
    reason: str
    configured: bool


class SymptomModel(Shown):
    """Something that stands still although it should move, and what to do."""

    kind: str
    failing: bool
    text: str
    fix: str


class EngineModel(Shown):
    """The backend that keeps the time, why it was chosen, and what stands still."""

    backend: str = Field(examples=["local"])
    reason: str = Field(examples=["JOBMANAGER_BACKEND unset"])
    rejected: list[RejectedModel]
    namespace: str
    disabled: bool
    healthy: bool
    symptoms: list[SymptomModel]


class EntryModel(Shown):
    """An entry of the outside system that is ours, or should be there. Its command shows no secret."""

    name: str
    job_id: str | None
    schedule: str
    command: str
    active: bool
    orphan: bool
    drift: str
    next_due_at: Instant | None
    runs_24h: int
    succeeded_24h: int
    last_status: str | None
    last_error: str | None
    last_ended_at: Instant | None


class EntryState(Given):
    """Whether the entry fires."""

    active: bool


class ChangedModel(Shown):
    """Whether that changed anything."""

    name: str
    active: bool
    changed: bool


class Purge(Given):
    """Remove the entries that no job needs."""

    dry_run: bool = False


class PurgedModel(Shown):
    """The names of the orphans that were removed, or would be, and of those that could not be."""

    dry_run: bool
    removed: list[str]
    failed: list[str]


class InstanceModel(Shown):
    """A process that beats within the lease."""

    id: str
    host: str
    pid: int
    backend: str | None
    executes: bool
    started_at: Instant
    seen_at: Instant
    last_tick_at: Instant | None
    lag_seconds: float | None


class FindingModel(Shown):
    """One thing that was looked at."""

    check: str
    level: Literal["ok", "note", "warning", "failing"]
    text: str
    fix: str


class ChangeModel(Shown):
    """One difference between the code and the store."""

    job_id: str
    action: str
    detail: str


class PlanModel(Shown):
    """The changes that a sync makes, or made."""

    applied: bool
    changes: list[ChangeModel]


def get_engine(request: Request) -> dict[str, Any]:
    """Get which backend was chosen, why each other one was not, and what stands still."""
    return engine_record(site_of(request).jobs)


def list_entries(request: Request) -> dict[str, Any]:
    """List the entries of the outside system that are ours: of pg_cron, or of a clock that is synced."""
    found = [
        {**asdict(entry), "next_due_at": iso(entry.next_due_at), "last_ended_at": iso(entry.last_ended_at)}
        for entry in site_of(request).jobs.entries()
    ]
    return {"items": found, "next": None}


def set_entry(request: Request, name: str, given: EntryState) -> dict[str, Any]:
    """Pause an entry, by its name or the id of its job, or let it go on. Twice is safe."""
    changed = site_of(request).jobs.set_entry_active(name, given.active)
    return {"name": name, "active": given.active, "changed": changed}


def unschedule_entry(request: Request, name: str) -> Response:
    """Remove an entry; the next start of the application adds it again if a job needs it. Needs a recent login."""
    check_recent(request)
    site_of(request).jobs.unschedule_entry(name)
    return Response(status_code=204)


def purge_orphans(request: Request, given: Purge | None = None) -> dict[str, Any]:
    """Remove every entry of ours that no job needs. Without a dry run it needs a recent login. Twice is safe."""
    dry_run = bool(given and given.dry_run)
    if not dry_run:
        check_recent(request)
    purged = site_of(request).jobs.purge_orphans(dry_run=dry_run)
    return {"dry_run": dry_run, "removed": list(purged.removed), "failed": list(purged.failed)}


def list_instances(request: Request) -> dict[str, Any]:
    """List the living processes of this namespace, oldest first."""
    return {"items": [instance_record(each) for each in site_of(request).jobs.instances()], "next": None}


def list_findings(
    request: Request,
    level: Annotated[Literal["ok", "note", "warning", "failing"] | None, Query()] = None,
) -> dict[str, Any]:
    """List what `jobmanager doctor` finds."""
    found = [asdict(finding) for finding in examine(site_of(request).jobs) if level in (None, finding.level)]
    return {"items": found, "next": None}


def get_plan(request: Request) -> dict[str, Any]:
    """Get what a sync would carry over from the code to the store."""
    return {"applied": False, "changes": [asdict(each) for each in site_of(request).jobs.sync(plan=True)]}


def apply_plan(request: Request) -> dict[str, Any]:
    """Carry the declarations of the code over to the store and the backend. Twice is safe."""
    return {"applied": True, "changes": [asdict(each) for each in site_of(request).jobs.sync()]}


router.add("GET", "/engine", READ, get_engine, response_model=EngineModel)
router.add("GET", "/engine/entries", ADMIN, list_entries, response_model=Page[EntryModel])
router.add("POST", "/engine/entries/purge", ADMIN, purge_orphans, responses=[409], response_model=PurgedModel)
router.add("PATCH", "/engine/entries/{name}", ADMIN, set_entry, responses=[409], response_model=ChangedModel)
router.add("DELETE", "/engine/entries/{name}", ADMIN, unschedule_entry, responses=[409], status_code=204)
router.add("GET", "/engine/instances", READ, list_instances, response_model=Page[InstanceModel])
router.add("GET", "/engine/findings", ADMIN, list_findings, response_model=Page[FindingModel])
router.add("GET", "/engine/plan", ADMIN, get_plan, response_model=PlanModel)
router.add("POST", "/engine/plan", ADMIN, apply_plan, responses=[409], response_model=PlanModel)
