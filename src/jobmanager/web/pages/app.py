"""The routes of all pages."""

from __future__ import annotations

from importlib.resources import files

from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from jobmanager.web.pages import (
    audit,
    engine,
    events,
    handlers,
    job,
    job_actions,
    job_forms,
    jobs,
    keys,
    login,
    notifications,
    overview,
    run,
    runs,
    system,
    theme,
)

ROUTES: list[BaseRoute] = [
    *overview.ROUTES,
    *jobs.ROUTES,
    *job_forms.ROUTES,
    *job_actions.ROUTES,
    *job.ROUTES,
    *runs.ROUTES,
    *run.ROUTES,
    *engine.ROUTES,
    *events.ROUTES,
    *handlers.ROUTES,
    *system.ROUTES,
    *audit.ROUTES,
    *notifications.ROUTES,
    *keys.ROUTES,
    *theme.ROUTES,
    *login.ROUTES,
    Mount("/static", StaticFiles(directory=str(files("jobmanager.web.pages") / "static")), name="static"),
]
