"""Starts by hand: of the job in the path, or by `/jobs/run`, which takes the body of the endpoint of the same name."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Header, Request, Response
from pydantic import Field

from jobmanager.access.principal import WRITE
from jobmanager.errors import JobNotFoundError
from jobmanager.present.records import run_record
from jobmanager.run import Run
from jobmanager.web.api.jobs import location
from jobmanager.web.api.models import Given, JsonObject, Length, Moment, Name
from jobmanager.web.api.routing import Routes, invalid
from jobmanager.web.api.run_models import RunModel
from jobmanager.web.problems import ProblemError
from jobmanager.web.site import site_of
from jobmanager.web.starts import take_start

router = Routes(tags=["starts"])
# Every route that changes something describes it. The run has it, too: of one job a key starts one run, also after 24 hours.
IdempotencyKey = Annotated[str | None, Header(include_in_schema=False)]


class StartOptions(Given):
    """How one run is started: `delay` or `at`, and what holds for it in place of the job's options."""

    payload: JsonObject | None = Field(
        default=None, description="Arguments of the handler; they win over the job's config."
    )
    delay: Length | None = None
    at: Moment | None = None
    priority: Annotated[int, Field(ge=-32_768, le=32_767)] | None = None
    max_attempts: Annotated[int, Field(ge=1, le=1_000)] | None = None
    key: Name | None = Field(default=None, description="As the header `Idempotency-Key`.")
    scope: Name | None = None
    notify: bool = Field(default=False, description="Send an e-mail when the run has ended.")


class Start(StartOptions):
    """A start that names its job."""

    job_id: Name = Field(description="The id of the job, or its name.", examples=["send-welcome"])
    triggered_by: Name | None = Field(
        default=None, description="For whom it is started; without it the principal.", examples=["crm"]
    )


def run_job(
    request: Request,
    response: Response,
    job_id: str,
    given: StartOptions | None = None,
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Start a run of the job. `Location` is where its record is; it may not have begun yet."""
    words = (given or StartOptions()).model_dump(exclude_none=True)
    return _start(request, response, job_id, words, idempotency_key)


def start_run(
    request: Request, response: Response, given: Start, idempotency_key: IdempotencyKey = None
) -> dict[str, Any]:
    """Start a run of a job by its id or its name."""
    words = given.model_dump(exclude_none=True)
    words["requested_by"] = words.pop("triggered_by", None)
    return _start(request, response, words.pop("job_id"), words, idempotency_key)


def _start(
    request: Request, response: Response, job: str, words: dict[str, Any], idempotency_key: str | None
) -> dict[str, Any]:
    if idempotency_key is not None and words.setdefault("key", idempotency_key) != idempotency_key:
        raise ProblemError(invalid("body.key", "differs from the header Idempotency-Key; give one of them"))
    take_start(request)
    run = _started(request, job, words)
    response.headers["location"] = location(request, f"/runs/{run.id}")
    return run_record(run)


def _started(request: Request, job: str, words: dict[str, Any]) -> Run:
    """Start the job of this id, or the one job of this name."""
    manager = site_of(request).jobs
    try:
        return manager.trigger_job(job, **words)
    except JobNotFoundError:
        named = [status.id for status in manager.get_all_job_statuses() if status.name == job]
        if len(named) != 1:
            raise
        return manager.trigger_job(named[0], **words)


LOCATION = {
    202: {
        "description": "The run was accepted",
        "headers": {"Location": {"description": "Where its record is", "schema": {"type": "string"}}},
    }
}
for _path, _do in (("/jobs/run", start_run), ("/jobs/{job_id}/run", run_job)):
    router.add(
        "POST",
        _path,
        WRITE,
        _do,
        responses=[409],
        also=LOCATION,  # type: ignore[arg-type]  # as OpenAPI has it
        status_code=202,
        response_model=RunModel,
    )
