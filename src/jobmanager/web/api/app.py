"""The API as an application of its own below `/api/v1`, with its OpenAPI document."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

import jobmanager
from jobmanager.errors import JobManagerError
from jobmanager.web.api import jobs
from jobmanager.web.problems import Problem, ProblemError, problem_of
from jobmanager.web.site import Site

MEDIA_TYPE = "application/problem+json"


def make_api(site: Site) -> FastAPI:
    """Return the API of a dashboard."""
    api = FastAPI(
        title=f"{site.title}: jobs",
        version=jobmanager.__version__,
        docs_url=None,  # those pages load scripts from elsewhere
        redoc_url=None,
    )
    api.state.site = site
    api.include_router(jobs.router)
    api.add_exception_handler(JobManagerError, _on_error)
    api.add_exception_handler(ProblemError, _on_problem)
    api.add_exception_handler(RequestValidationError, _on_invalid)
    api.add_exception_handler(HTTPException, _on_http)
    return api


def _on_error(request: Request, error: Any) -> JSONResponse:
    return problem_response(request, problem_of(error))


def _on_problem(request: Request, error: Any) -> JSONResponse:
    return problem_response(request, error.problem)


def _on_invalid(request: Request, error: Any) -> JSONResponse:
    fields = [
        {"field": ".".join(map(str, found["loc"])), "message": found["msg"]} for found in error.errors()
    ]
    return problem_response(
        request,
        Problem(
            status=422,
            kind="invalid-request",
            title="The request does not fit",
            detail="; ".join(f"{item['field']}: {item['message']}" for item in fields),
            facts={"fields": fields},
        ),
    )


def _on_http(request: Request, error: Any) -> JSONResponse:
    kind = {404: "not-found", 405: "method"}.get(error.status_code, "http")
    return problem_response(
        request,
        Problem(status=error.status_code, kind=kind, title=str(error.detail), headers=error.headers or {}),
    )


def problem_response(request: Request, problem: Problem) -> JSONResponse:
    """Return the problem as the response to a request."""
    return JSONResponse(
        problem.document(request.state.request_id),
        problem.status,
        headers=dict(problem.headers),
        media_type=MEDIA_TYPE,
    )
