"""The page of one run."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobmanager.web.pages.rendering import page
from jobmanager.web.site import site_of


def run(request: Request) -> Response:
    """Show a run: its status, attempts, log, payload and result."""
    return page(request, "run.html", run=site_of(request).jobs.run(request.path_params["run_id"]))


ROUTES = [Route("/runs/{run_id}", run)]
