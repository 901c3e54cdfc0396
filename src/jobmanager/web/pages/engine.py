"""The page of the engine: who keeps the time and why, what the outside system has of ours, what a sync would change, and who lives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobmanager.access.principal import ADMIN
from jobmanager.errors import JobManagerError, UnsupportedError
from jobmanager.ledger.job_sync import Change
from jobmanager.present.phrases import count
from jobmanager.process.health import HealthReport
from jobmanager.run import Run, RunStatus
from jobmanager.search import RunFilter
from jobmanager.web.pages.board import FRESH, seen_by
from jobmanager.web.pages.rendering import back_to, check_page, confirmation, form_of, page
from jobmanager.web.recent import check_recent
from jobmanager.web.site import Site, site_of

MOST_RUNNING, MOST_LISTED = 200, 100
LAGS_AFTER = timedelta(seconds=10)
KEEPERS = {
    "local": "This process",
    "noop": "Nothing",
    "external": "An outside clock",
    "qstash": "QStash",
    "trigger_dev": "Trigger.dev",
    "vercel": "Vercel",
    "inngest": "Inngest",
}
ABSENT = "not in "  # how the drift of an entry begins that should be there
MARKS = {"create": "+", "undeclared": "-"}
SAID = {
    "undeclared": "not declared here; disabled once no living process declares it",
    "active": "enabled again",
    "disabled": "disabled by its gate",
    "create": "new",
}


class Living(Protocol):
    """A living process, as `JobManager.health` names it."""

    @property
    def id(self) -> str: ...
    @property
    def seen_at(self) -> datetime: ...


class Planned(Protocol):
    """An entry of the outside system, as `JobManager.entries` returns it."""

    @property
    def name(self) -> str: ...
    @property
    def orphan(self) -> bool: ...
    @property
    def drift(self) -> str: ...


@dataclass(frozen=True)
class Process:
    """A living process on the page, with the runs that it has."""

    instance: Living
    lags: bool
    runs: Sequence[Run]


@dataclass(frozen=True)
class Outside:
    """What the outside system has of ours; `error` says why it cannot be told."""

    entries: Sequence[Planned] = ()
    error: str = ""

    @property
    def orphans(self) -> list[Planned]:
        return [entry for entry in self.entries if entry.orphan]

    @property
    def drifted(self) -> list[Planned]:
        return [entry for entry in self.entries if entry.drift not in ("", "paused") and not entry.orphan]


def engine(request: Request) -> Response:
    """Show the engine."""
    site = site_of(request)
    jobs = site.jobs
    report: HealthReport = site.cached.get(("health", seen_by()), FRESH, jobs.health)
    is_admin = request.state.principal.may(ADMIN)
    outside = _outside(site) if is_admin else None
    plan = _plan(site, outside) if is_admin and not jobs.settings.disabled else []
    return page(
        request,
        "engine.html",
        heading=_heading(site, report),
        resolution=jobs.resolution,
        able=jobs.backend.capabilities,
        settings=jobs.settings.shown(),
        store=jobs.store.url,
        failing=[symptom for symptom in report.symptoms if symptom.failing],
        symptoms=report.symptoms,
        outside=outside,
        absent=ABSENT,
        most_listed=MOST_LISTED,
        plan=plan,
        applicable=len(_applicable(plan)),
        processes=_processes(site, report),
        stats=site.cached.get(("day", seen_by()), FRESH, lambda: jobs.stats(period="24h")),
    )


def _heading(site: Site, report: HealthReport) -> str:
    backend = site.jobs.resolution.backend
    if site.jobs.settings.disabled:
        return "Jobs are switched off"
    if not report.ok:
        return "Time is not kept"
    return f"{KEEPERS.get(backend, backend)} keeps the time"


def _outside(site: Site) -> Outside | None:
    try:
        return Outside(entries=site.jobs.entries())
    except UnsupportedError:
        return None
    except JobManagerError as error:
        return Outside(error=str(error))


def _processes(site: Site, report: HealthReport) -> list[Process]:
    if report.facts is None:
        return []
    now, beat = report.facts.now, site.jobs.settings.lease / 3
    owned: dict[str, list[Run]] = {}
    for run in site.jobs.search_runs(RunFilter(statuses=[RunStatus.RUNNING]), limit=MOST_RUNNING).runs:
        owned.setdefault(run.owner or "", []).append(run)
    return [
        Process(item, now - item.seen_at > max(beat, LAGS_AFTER), owned.get(item.id, ()))
        for item in report.facts.processes
    ]


def _plan(site: Site, outside: Outside | None) -> list[Mapping[str, str]]:
    """Return what a sync would do: to the store, and to the entries of the outside system."""
    changes = [_in_words(change) for change in site.jobs.sync(plan=True)]
    drifted, orphans = (outside.drifted, outside.orphans) if outside else ([], [])
    return [
        *changes,
        *(
            {"mark": "+" if one.drift.startswith(ABSENT) else "~", "job": one.name, "told": one.drift}
            for one in drifted
        ),
        *({"mark": "-", "job": one.name, "told": "no job needs it"} for one in orphans),
    ]


def _applicable(plan: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Return what applying the plan does; a job that is not declared here is left to the processes, of which one may declare it."""
    return [line for line in plan if line["told"] != SAID["undeclared"]]


def _in_words(change: Change) -> Mapping[str, str]:
    return {
        "mark": MARKS.get(change.action, "~"),
        "job": change.job_id,
        "told": SAID.get(change.action, f"{change.action} {change.detail}".strip()),
    }


# ---------------------------------------------------------------- what is done from it


async def toggle(request: Request) -> Response:
    """Pause an entry, or let it go on."""
    form = await form_of(request)
    name, active = request.path_params["name"], form.get("active") == "yes"
    await run_in_threadpool(site_of(request).jobs.set_entry_active, name, active)
    return back_to(request, "/engine")


async def ask_unschedule(request: Request) -> Response:
    """Ask whether an entry is to be removed."""
    await form_of(request)
    name = request.path_params["name"]
    return await run_in_threadpool(
        _ask,
        request,
        question=f"Unschedule {name}?",
        told="It fires no more from now on. The next start of the application adds it again if a job needs it; no run is touched.",
        apply=f"/engine/entries/{quote(name, safe='')}/unschedule/apply",
        verb="Unschedule 1 entry",
        keep="Keep it",
    )


async def unschedule(request: Request) -> Response:
    """Remove an entry."""
    await form_of(request)
    check_recent(request, ADMIN)
    await run_in_threadpool(site_of(request).jobs.unschedule_entry, request.path_params["name"])
    return back_to(request, "/engine")


async def ask_purge(request: Request) -> Response:
    """Ask whether the orphans are to be removed, and name them."""
    await form_of(request)
    return await run_in_threadpool(_ask_purge, request)


def _ask_purge(request: Request) -> Response:
    check_recent(request, ADMIN)
    found = site_of(request).jobs.purge_orphans(dry_run=True)
    number = len(found.removed)
    return _ask(
        request,
        question=f"Purge {count(number, 'orphan')}?" if number else "No orphan is left",
        told="They are ours by their names, and no job needs them. Entries of others are left alone.",
        lines=found.removed,
        apply="/engine/purge/apply",
        verb=f"Purge {count(number, 'orphan')}" if number else "",
        keep="Keep them" if number else "Back",
    )


async def purge(request: Request) -> Response:
    """Remove the orphans."""
    await form_of(request)
    check_recent(request, ADMIN)
    await run_in_threadpool(site_of(request).jobs.purge_orphans)
    return back_to(request, "/engine")


async def ask_apply(request: Request) -> Response:
    """Ask whether the plan is to be carried out, and name its changes."""
    await form_of(request)
    return await run_in_threadpool(_ask_apply, request)


def _ask_apply(request: Request) -> Response:
    site = site_of(request)
    check_page(request, ADMIN)
    changes = _applicable(_plan(site, _outside(site)))
    number = len(changes)
    return _ask(
        request,
        question=f"Apply {count(number, 'change')}?" if number else "Nothing to apply",
        told="The store and the outside system become what the code of this process declares. Nothing is fired by that.",
        lines=[f"{line['mark']} {line['job']}   {line['told']}" for line in changes[:MOST_LISTED]],
        apply="/engine/apply/apply",
        verb=f"Apply {count(number, 'change')}" if number else "",
        keep="Leave it",
        danger=False,
    )


async def apply(request: Request) -> Response:
    """Carry out the plan."""
    await form_of(request)
    await run_in_threadpool(site_of(request).jobs.sync)
    return back_to(request, "/engine")


def _ask(request: Request, *, danger: bool = True, lines: Sequence[str] = (), **words: Any) -> Response:
    check_page(request, ADMIN)
    if danger:
        check_recent(request)
    return confirmation(request, danger=danger, lines=lines, back="/engine", **words)


ROUTES = [
    Route("/engine", engine),
    Route("/engine/entries/{name}", toggle, methods=["POST"]),
    Route("/engine/entries/{name}/unschedule", ask_unschedule, methods=["POST"]),
    Route("/engine/entries/{name}/unschedule/apply", unschedule, methods=["POST"]),
    Route("/engine/purge", ask_purge, methods=["POST"]),
    Route("/engine/purge/apply", purge, methods=["POST"]),
    Route("/engine/apply", ask_apply, methods=["POST"]),
    Route("/engine/apply/apply", apply, methods=["POST"]),
]
