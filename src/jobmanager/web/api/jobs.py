"""Jobs over the API: the list, one of them, and making, editing and deleting those that operators make."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import Header, Query, Request, Response
from pydantic import Field

from jobmanager.access.principal import ADMIN, READ, WRITE
from jobmanager.errors import HandlerNotFoundError
from jobmanager.ledger.job_view import JobView
from jobmanager.ledger.standing import Standing
from jobmanager.manager.manager import JobManager
from jobmanager.present.condition import Word, condition_at_a_glance, condition_of
from jobmanager.present.jobs import fires, job_record, policies, shown_config
from jobmanager.present.phrases import iso
from jobmanager.present.records import shown_payload
from jobmanager.web.api.models import MOST_ON_A_PAGE, Instant, JsonObject, Page, Shown, page_of
from jobmanager.web.api.options import Edit, NewJob, words_of
from jobmanager.web.api.routing import Routes, invalid
from jobmanager.web.api.run_models import RunModel
from jobmanager.web.problems import Problem, ProblemError
from jobmanager.web.recent import check_recent
from jobmanager.web.site import Site, site_of

INSTANTS = 5
FIRES = 5
_TAG = re.compile(r'"(\d{1,9})"')
router = Routes(tags=["jobs"])
State = Literal["active", "paused", "disabled", "deleted"]


class JobModel(Shown):
    """A job in a list. `rev` is the number of its last edit, `health` its condition in one word, `ended` whether its `until` has passed."""

    id: str = Field(examples=["nightly-report"])
    name: str
    handler: str
    source: Literal["code", "stored"]
    declared_here: bool
    schedule: str | None = Field(examples=["0 3 * * *"])
    schedule_in_words: str = Field(examples=["at 03:00 every day"])
    ended: bool
    on: str | None = Field(description="The event that starts it.", examples=["user/created"])
    stored: bool
    state: State
    state_reason: str | None
    state_by: str | None
    state_since: Instant | None
    override_by: str | None
    override_since: Instant | None
    rev: int | None
    next_run: Instant | None
    last_status: str | None
    last_run: RunModel | None
    health: Word


class WholeJob(JobModel):
    """A job with its options. No secret is shown."""

    config: JsonObject
    policies: JsonObject
    override: JsonObject | None
    definition: JsonObject | None
    next_fires: list[Instant]


def list_jobs(
    request: Request,
    state: Annotated[State | None, Query()] = None,
    handler: Annotated[str | None, Query(max_length=128)] = None,
    source: Annotated[Literal["code", "stored"] | None, Query()] = None,
    health: Annotated[Word | None, Query(description="The condition of the job in one word.")] = None,
    text: Annotated[str | None, Query(max_length=200, description="A part of the id or the name.")] = None,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_ON_A_PAGE)] = 50,
) -> dict[str, Any]:
    """List the jobs that the principal sees, by id."""
    jobs = site_of(request).jobs
    wanted = state, handler, source, health, text
    if not any(wanted):  # of a page of all jobs no others are read
        found = jobs.standings(after=cursor, limit=limit + 1)
        return _page(jobs, found, limit, {standing.id: standing for standing in found})
    found = [
        standing
        for standing in jobs.standings(runs=health is not None)
        if (cursor is None or standing.id > cursor)
        and state in (None, standing.state)
        and handler in (None, standing.handler)
        and source in (None, standing.source)
        and (text is None or text.lower() in f"{standing.id}\n{standing.name}".lower())
        and (health is None or health == condition_at_a_glance(standing).word)
    ]
    shown = [standing.id for standing in found[:limit]]
    return _page(jobs, found, limit, {standing.id: standing for standing in jobs.standings(ids=shown)})


def _page(
    jobs: JobManager, found: Sequence[Standing], limit: int, standings: Mapping[str, Standing]
) -> dict[str, Any]:
    page = page_of(found, limit, lambda standing: standing.id)
    ids = [standing.id for standing in page["items"]]
    views = [view for view in jobs.list_jobs(ids=ids) if view.id in standings]
    items = [job_document(view, condition_at_a_glance(standings[view.id]).word) for view in views]
    return page | {"items": items}


def get_job(request: Request, response: Response, job_id: str) -> dict[str, Any]:
    """Get one job, with its options. `ETag` is its revision, for `If-Match` of an edit."""
    return shown_job(request, response, job_id)


def create_job(request: Request, response: Response, given: NewJob) -> dict[str, Any]:
    """Make a job of a registered handler. Its first instant is the next one from now."""
    words = words_of(given)
    job_id, handler = words.pop("id"), words.pop("handler")
    try:
        site_of(request).jobs.create_job(job_id, handler=handler, **words)
    except HandlerNotFoundError as error:
        raise ProblemError(invalid("body.handler", str(error))) from None
    response.headers["location"] = location(request, f"/jobs/{job_id}")
    return shown_job(request, response, job_id)


def update_job(
    request: Request,
    response: Response,
    job_id: str,
    given: Edit,
    if_match: Annotated[str | None, Header(description="The `ETag` of the job that was edited.")] = None,
) -> dict[str, Any]:
    """Edit a job: the definition of a stored one, the override of one that code declares. Nothing fires by it, unless `on_change` says so."""
    words = words_of(given)
    try:
        site_of(request).jobs.update_job(job_id, if_rev=_rev(if_match), **words)
    except HandlerNotFoundError as error:
        raise ProblemError(invalid("body.handler", str(error))) from None
    return shown_job(request, response, job_id)


def delete_job(request: Request, job_id: str) -> Response:
    """Delete a stored job. Its history stays. Needs a recent login."""
    check_recent(request)
    site_of(request).jobs.delete_job(job_id)
    return Response(status_code=204)


# ---------------------------------------------------------------- documents


def shown_job(request: Request, response: Response, job_id: str) -> dict[str, Any]:
    """Return the document of one job as it is now, and set its `ETag`."""
    site = site_of(request)
    view = site.jobs.get_job(job_id)
    row = view.row
    response.headers["etag"] = f'"{row.definition_rev if row else 0}"'
    return {
        **job_document(view, _health_of(site, view)),
        "config": shown_config(site.jobs, view),
        "policies": policies(view),
        "override": None if row is None else shown_payload(row.override),
        "definition": None if row is None else shown_payload(row.definition),
        "next_fires": [iso(fire) for fire in fires(view, site.now(), FIRES)],
    }


def job_document(view: JobView, health: Word) -> dict[str, Any]:
    """Return the document of a job in a list."""
    return {
        **job_record(view),
        "handler": view.handler,
        "rev": None if view.row is None else view.row.definition_rev,
        "health": health,
    }


def _health_of(site: Site, view: JobView) -> Word:
    """Return the condition of a job in one word."""
    due = site.jobs.due_instants([view.id], limit=INSTANTS)
    return condition_of(view, due.get(view.id, ()), missing=()).word


def location(request: Request, path: str) -> str:
    """Return where a thing of the API is found, below the prefix at which it is mounted."""
    return f"{request.scope.get('root_path', '')}{path}"


def _rev(if_match: str | None) -> int | None:
    """Return the revision of `If-Match`; None without one, or for `*`."""
    if if_match is None or if_match.strip() == "*":
        return None
    found = _TAG.fullmatch(if_match.strip())
    if found is None:
        raise ProblemError(
            Problem(
                status=412,
                kind="edit-conflict",
                title="Another edit came first",
                detail="If-Match holds no ETag of a job.",
                hint="Send the ETag of GET as it came.",
            )
        )
    return int(found[1])


router.add("GET", "/jobs", READ, list_jobs, response_model=Page[JobModel])
router.add("POST", "/jobs", ADMIN, create_job, responses=[409], status_code=201, response_model=WholeJob)
router.add("GET", "/jobs/{job_id}", READ, get_job, response_model=WholeJob)
router.add("PATCH", "/jobs/{job_id}", WRITE, update_job, responses=[409, 412], response_model=WholeJob)
router.add("DELETE", "/jobs/{job_id}", ADMIN, delete_job, responses=[409], status_code=204)
