"""The page of the system: doctor's findings, the settings and where they came from, the store, retention and versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import jobmanager
from jobmanager.access.principal import ADMIN
from jobmanager.doctor import Finding, examine, examine_environment
from jobmanager.present.phrases import both, size
from jobmanager.present.settings import shown_settings
from jobmanager.web.pages.board import seen_by
from jobmanager.web.pages.rendering import check_page, page
from jobmanager.web.site import Site, site_of

FRESH = 10.0  # seconds: a look at everything is not repeated for each reload
MARKS = {"failing": "failed", "warning": "warning", "ok": "succeeded", "note": "never"}
WORDS = {"failing": "Failing", "warning": "Warning", "ok": "Well", "note": "Note"}
PACKAGES = ("SQLAlchemy", "psycopg", "fastapi", "starlette", "celery", "APScheduler", "croniter")


def system(request: Request) -> Response:
    """Show how the installation is."""
    check_page(request, ADMIN)
    site = site_of(request)
    findings = site.cached.get(("findings", seen_by()), FRESH, lambda: _findings(site))
    by_level = {level: [one for one in findings if one.level == level] for level in MARKS}
    stored = site.jobs.storage()
    return page(
        request,
        "system.html",
        heading=_heading(by_level),
        by_level=by_level,
        marks=MARKS,
        words=WORDS,
        settings=shown_settings(site.jobs.settings, os.environ),
        stored=stored,
        stored_size=size(stored.size) if stored else "",
        kept=site.jobs.settings,
        versions=_versions(),
    )


def _findings(site: Site) -> list[Finding]:
    return [*examine_environment(), *examine(site.jobs, told=lambda moment: both(moment, site.zone))]


def _heading(by_level: dict[str, list[Finding]]) -> str:
    failing, warnings = len(by_level["failing"]), len(by_level["warning"])
    if failing:
        return f"{failing} {'thing keeps' if failing == 1 else 'things keep'} jobs from running"
    if warnings:
        return f"Jobs run; {warnings} {'warning' if warnings == 1 else 'warnings'}"
    return "Nothing to find fault with"


@cache
def _versions() -> Sequence[tuple[str, str]]:
    found = [("jobmanager", jobmanager.__version__), ("Python", platform.python_version())]
    for name in PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return found


ROUTES = [Route("/system", system)]
