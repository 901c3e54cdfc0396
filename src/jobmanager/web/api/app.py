"""The API as an application of its own below `/api/v1`, with its OpenAPI document."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

import jobmanager
from jobmanager.errors import JobManagerError
from jobmanager.validation.printable import get_logger
from jobmanager.web.api import (
    actions,
    audit,
    engine,
    events,
    flows,
    handlers,
    jobs,
    keys,
    notifications,
    runs,
    starts,
    stats,
    webhooks,
)
from jobmanager.web.api.models import ProblemModel
from jobmanager.web.api.routing import invalid_fields
from jobmanager.web.problems import Problem, ProblemError, problem_of
from jobmanager.web.site import Site

logger = get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
DESCRIPTION = """The pages of the dashboard, for programs.

Times are RFC 3339 in UTC, lengths seconds. Lists are read page by page: give `next` of a page as `cursor` of the next request. What goes wrong
is a problem of RFC 9457 with a stable `type`. Fields that a request does not know are refused."""
# The first of them that has a path decides: `/jobs/run` stands before `/jobs/{job_id}`.
ROUTERS = (
    starts.router,
    jobs.router,
    actions.router,
    runs.router,
    flows.router,
    handlers.router,
    webhooks.router,
    engine.router,
    stats.router,
    events.router,
    audit.router,
    notifications.router,
    keys.router,
)


def make_api(site: Site) -> FastAPI:
    """Return the API of a dashboard."""
    api = FastAPI(
        title=f"{site.title}: jobs",
        version=jobmanager.__version__,
        description=DESCRIPTION,
        docs_url=None,  # those pages load scripts from elsewhere
        redoc_url=None,
    )
    api.state.site = site
    for router in ROUTERS:
        api.include_router(router)
    api.add_exception_handler(JobManagerError, _on_error)
    api.add_exception_handler(ProblemError, _on_problem)
    api.add_exception_handler(RequestValidationError, _on_invalid)
    api.add_exception_handler(HTTPException, _on_http)
    api.add_exception_handler(Exception, _on_anything)
    api.openapi = lambda: _document(api)  # type: ignore[method-assign]  # as FastAPI says to extend it
    return api


def _document(api: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document: FastAPI's, with our problems in the place of its own."""
    if api.openapi_schema is None:
        made = get_openapi(
            title=api.title,
            version=api.version,
            description=api.description,
            routes=api.routes,
            servers=api.servers,
        )
        schemas = made["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        schemas[ProblemModel.__name__] = ProblemModel.model_json_schema()
        made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"key": []}]
        api.openapi_schema = made
    return api.openapi_schema


def _on_error(request: Request, error: Any) -> JSONResponse:
    return problem_response(request, problem_of(error))


def _on_problem(request: Request, error: Any) -> JSONResponse:
    return problem_response(request, error.problem)


def _on_invalid(request: Request, error: Any) -> JSONResponse:
    fields = [
        {"field": ".".join(map(str, found["loc"])), "message": found["msg"]} for found in error.errors()
    ]
    return problem_response(request, invalid_fields(fields))


def _on_http(request: Request, error: Any) -> JSONResponse:
    kind = {404: "not-found", 405: "method"}.get(error.status_code, "http")
    return problem_response(
        request,
        Problem(status=error.status_code, kind=kind, title=str(error.detail), headers=error.headers or {}),
    )


def _on_anything(request: Request, error: Any) -> JSONResponse:
    logger.error("request=%s failed", request.state.request_id, exc_info=error)
    return problem_response(
        request,
        Problem(status=500, kind="failed", title="It failed", hint="The log of the server says why."),
    )


def problem_response(request: Request, problem: Problem) -> JSONResponse:
    """Return the problem as the response to a request."""
    return JSONResponse(
        problem.document(request.state.request_id),
        problem.status,
        headers=dict(problem.headers),
        media_type=MEDIA_TYPE,
    )
