"""The dashboard: pages and JSON API of one manager, as one ASGI application."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount

from jobmanager.clock import SystemClock
from jobmanager.errors import JobManagerError
from jobmanager.manager.manager import JobManager
from jobmanager.present.records import hide
from jobmanager.web.api.app import make_api, problem_response
from jobmanager.web.cached import Cached
from jobmanager.web.guard import Application, Guard, Hook, Receive, Scope, Send, send_problem
from jobmanager.web.limit import Limits
from jobmanager.web.pages.app import ROUTES
from jobmanager.web.pages.login import OPEN_PATHS, to_login
from jobmanager.web.pages.rendering import inner_path, problem_page, zone_named
from jobmanager.web.problems import Problem, ProblemError, problem_of
from jobmanager.web.sessions import Sessions, either
from jobmanager.web.site import Site, starts_of

API = "/api/v1"


def make(
    jobs: JobManager,
    hook: Hook,
    *,
    title: str | None,
    timezone: str,
    login_url: str | None,
    sign_in: Sessions | None,
    read_only: bool,
    limits: Limits | None,
) -> Application:
    """Return the application; see `jobmanager.web.dashboard`."""
    clock = SystemClock()
    hide(jobs.settings.secret_values())
    site = Site(
        jobs=jobs,
        title=title or jobs.settings.namespace,
        zone=zone_named(timezone),
        read_only=read_only,
        login_url=login_url,
        sign_in=sign_in,
        clock=clock,
        cached=Cached(clock),
        starts=starts_of(limits or Limits(), clock),
    )
    pages = Starlette(
        routes=[Mount(API, make_api(site)), *ROUTES],
        exception_handlers={
            HTTPException: _on_http,
            ProblemError: _on_problem,
            JobManagerError: _on_error,
        },
    )
    pages.state.site = site

    async def refuse(scope: Scope, receive: Receive, send: Send, problem: Problem) -> None:
        request = Request(scope)
        if inner_path(request).startswith(API):
            await send_problem(scope, send, problem)
            return
        scope["app"] = pages
        asked_by_person = "authorization" not in request.headers and "hx-request" not in request.headers
        if problem.status == 401 and sign_in is not None and asked_by_person:
            response: Response = to_login(request)
        else:
            response = problem_page(request, problem)
        await response(scope, receive, send)

    return Guard(
        pages,
        hook if sign_in is None else either(sign_in, hook),
        jobs.settings,
        clock,
        refuse=refuse,
        limits=limits,
        open_paths=() if sign_in is None else OPEN_PATHS,
    )


def _on_http(request: Request, error: Any) -> Response:
    kinds = {
        404: (
            "not-found",
            "No such page",
            "Nothing is at this address. The search finds jobs by their names.",
        ),
        405: ("method", "Not with this method", ""),
    }
    kind, title, hint = kinds.get(error.status_code, ("http", str(error.detail), ""))
    problem = Problem(status=error.status_code, kind=kind, title=title, hint=hint)
    if inner_path(request).startswith(API):  # a path with a line break in it comes to no mount
        return problem_response(request, problem)
    return problem_page(request, problem)


def _on_problem(request: Request, error: Any) -> Response:
    return problem_page(request, error.problem)


def _on_error(request: Request, error: Any) -> Response:
    return problem_page(request, problem_of(error))
