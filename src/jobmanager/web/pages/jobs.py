"""The page of all jobs, and what is done to a job from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobmanager.ledger.job_view import JobView
from jobmanager.present.condition import ORDER, Condition, Instant, condition_of
from jobmanager.web.pages.rendering import back_to, form_of, page
from jobmanager.web.pages.strip import CELLS
from jobmanager.web.site import site_of


@dataclass(frozen=True)
class Row:
    """A job on the page."""

    view: JobView
    instants: Sequence[Instant]
    condition: Condition


def jobs(request: Request) -> Response:
    """Show every job, those in trouble first."""
    manager = site_of(request).jobs
    views = manager.list_jobs()
    due = manager.due_instants([view.id for view in views], limit=CELLS)
    rows = [
        Row(view, due.get(view.id, ()), condition_of(view, due.get(view.id, ()), missing=()))
        for view in views
    ]
    rows.sort(key=lambda row: (ORDER.index(row.condition.word), row.view.id))
    return page(request, "jobs.html", rows=rows, total=len(rows))


async def run_now(request: Request) -> Response:
    """Start a run of the job, and show it."""
    await form_of(request)
    run = await run_in_threadpool(site_of(request).jobs.trigger_job, request.path_params["job_id"])
    return back_to(request, f"/runs/{run.id}")


ROUTES = [Route("/jobs", jobs), Route("/jobs/{job_id}/run", run_now, methods=["POST"])]
