"""Actions on a job from the pages: start, pause, enable, reset, delete, backfill. An action that cannot be undone asks first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobmanager.access.principal import ADMIN, WRITE
from jobmanager.errors import ConfigurationError, PayloadError, UnsupportedError
from jobmanager.ledger.backfill import MadeUp
from jobmanager.present.arguments import fields_of, payload_of
from jobmanager.web.pages.job import job_page, moment_of, schema_of
from jobmanager.web.pages.rendering import back_to, check_page, form_of, local_path, page
from jobmanager.web.pages.times import Times
from jobmanager.web.recent import check_recent
from jobmanager.web.site import site_of
from jobmanager.web.starts import take_start

SURE = "sure"
LISTED = 50


def path_of(job_id: str) -> str:
    """Return the path of a job's page below the mount."""
    return f"/jobs/{quote(job_id, safe='')}"


# ---------------------------------------------------------------- starts by hand


async def run_now(request: Request) -> Response:
    """Start a run of the job with the arguments of the form, and show it; the job's page again if they do not fit."""
    form = await form_of(request)
    return await run_in_threadpool(_run_now, request, {name: str(form[name]) for name in form})


def _run_now(request: Request, typed: Mapping[str, str]) -> Response:
    site, job_id = site_of(request), request.path_params["job_id"]
    view = site.jobs.get_job(job_id)
    schema = schema_of(site, view.handler)
    payload, errors = payload_of(schema, typed)
    refused = "Some arguments cannot be read." if errors else ""
    if not errors:
        # What is as the job's config has it needs no payload.
        config = view.job.config if view.job else {}
        payload = {
            name: value for name, value in payload.items() if name not in config or config[name] != value
        }
        take_start(request)
        try:
            run = site.jobs.trigger_job(
                job_id, payload or None, scope=typed.get("scope") or None, notify=bool(typed.get("notify"))
            )
        except (PayloadError, UnsupportedError) as error:
            refused = str(error)
        else:
            return back_to(request, f"/runs/{run.id}")
    check_page(request, WRITE)
    fields = fields_of(schema, {}, typed, errors)
    return job_page(request, job_id, 422, fields=fields, refused=refused, typed=typed)


# ---------------------------------------------------------------- states


def _changing(act: Callable[[Any, str, Mapping[str, str]], object]) -> Callable[[Request], Any]:
    """Return the handler of a form that changes a job and goes back to where the form was."""

    async def change(request: Request) -> Response:
        form = await form_of(request)
        fields = {name: str(form[name]) for name in form}
        job_id = request.path_params["job_id"]
        await run_in_threadpool(act, site_of(request).jobs, job_id, fields)
        return back_to(request, local_path(fields.get("back", path_of(job_id))))

    return change


pause = _changing(
    lambda jobs, job_id, form: jobs.stop_job(job_id, reason=form.get("reason", "").strip() or None)
)
resume = _changing(lambda jobs, job_id, _: jobs.resume_job(job_id))
enable = _changing(lambda jobs, job_id, _: jobs.enable_job(job_id))


def _asking(
    act: Callable[[Any, str], object],
    *,
    question: str,
    told: str,
    verb: str,
    keep: str,
    to: str | None = None,
    permission: str = WRITE,
    needs_recent: bool = False,
) -> Callable[[Request], Any]:
    """Return the handler of a form that asks first, and changes the job when the form of that page comes."""

    async def change(request: Request) -> Response:
        form = await form_of(request)
        job_id = request.path_params["job_id"]
        if needs_recent:
            check_recent(request, permission)
        if form.get(SURE):
            await run_in_threadpool(act, site_of(request).jobs, job_id)
            return back_to(request, to or path_of(job_id))
        check_page(request, permission)
        await run_in_threadpool(site_of(request).jobs.get_job, job_id)
        return page(
            request,
            "confirm.html",
            question=question.format(job_id),
            told=told,
            lines=[],
            remark="",
            apply=request.url.path.removeprefix(request.scope.get("root_path", "")),
            fields={SURE: "1"},
            verb=verb,
            danger=needs_recent,
            back=path_of(job_id),
            keep=keep,
        )

    return change


disable = _asking(
    lambda jobs, job_id: jobs.disable_job(job_id),
    question="Disable {}?",
    told="Nothing starts it any more, not even a start by hand. Its pending runs are closed; one that runs goes on. A deployment does not "
    "enable it again.",
    verb="Disable the job",
    keep="Keep it as it is",
)
reset = _asking(
    lambda jobs, job_id: jobs.reset_job(job_id),
    question="Give {} back to the code?",
    told="Every override is removed: the declaration in the code holds again, from the next instant on. Nothing fires by it.",
    verb="Remove the override",
    keep="Keep the override",
)
delete = _asking(
    lambda jobs, job_id: jobs.delete_job(job_id),
    question="Delete {}?",
    told="It fires no more, and its pending runs are cancelled; one that runs goes on. Its runs stay on record.",
    verb="Delete the job",
    keep="Keep it",
    to="/jobs",
    permission=ADMIN,
    needs_recent=True,
)


# ---------------------------------------------------------------- backfill


def ask_backfill(request: Request) -> Response:
    """Show the form for a stretch of the past."""
    check_page(request, WRITE)
    view = site_of(request).jobs.get_job(request.path_params["job_id"])
    return page(
        request, "backfill.html", view=view, start="", end="", refused="", planned=None, counts={}, opens=0
    )


async def backfill(request: Request) -> Response:
    """Show what a backfill would open, and open it when that page is confirmed."""
    form = await form_of(request)
    return await run_in_threadpool(_backfill, request, {name: str(form[name]) for name in form})


def _backfill(request: Request, form: Mapping[str, str]) -> Response:
    site, job_id = site_of(request), request.path_params["job_id"]
    t = Times(site.now(), site.zone)
    start, end = moment_of(form.get("start", "").strip(), t), moment_of(form.get("end", "").strip(), t)
    planned: list[MadeUp] | None = None
    refused = ""
    if start is None or end is None:
        refused = "Not an instant. Write both as 2026-11-25 01:00."
    else:
        try:
            planned = site.jobs.backfill(job_id, start, end, dry_run=not form.get(SURE))
        except (ConfigurationError, PayloadError) as error:
            refused = str(error)
    if planned is not None and form.get(SURE):
        return back_to(request, path_of(job_id))
    check_page(request, WRITE)
    counts = Counter(each.action for each in planned or ())
    return page(
        request,
        "backfill.html",
        422 if refused else 200,
        view=site.jobs.get_job(job_id),
        start=_written(start, form.get("start", ""), t),
        end=_written(end, form.get("end", ""), t),
        refused=refused,
        planned=None if planned is None else planned[:LISTED],
        counts=counts,
        opens=counts["open"] + counts["redrive"],
    )


def _written(moment: datetime | None, typed: str, t: Times) -> str:
    return typed if moment is None else f"{moment.astimezone(t.zone):%Y-%m-%d %H:%M:%S}"


_JOB = "/jobs/{job_id}"
ROUTES = [
    Route(f"{_JOB}/run", run_now, methods=["POST"]),
    Route(f"{_JOB}/pause", pause, methods=["POST"]),
    Route(f"{_JOB}/resume", resume, methods=["POST"]),
    Route(f"{_JOB}/enable", enable, methods=["POST"]),
    Route(f"{_JOB}/disable", disable, methods=["POST"]),
    Route(f"{_JOB}/reset", reset, methods=["POST"]),
    Route(f"{_JOB}/delete", delete, methods=["POST"]),
    Route(f"{_JOB}/backfill", ask_backfill),
    Route(f"{_JOB}/backfill", backfill, methods=["POST"]),
]
