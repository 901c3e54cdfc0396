"""A start by hand over HTTP: what its body says, and the response to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobmanager.errors import JobDisabledError, JobNotFoundError, PayloadError, RunConflictError
from jobmanager.run import Run
from jobmanager.web.body import BodyError, strict_json
from jobmanager.web.response import Response, json_response, no_such_job, wrong

WORDS = ("payload", "priority", "delay", "max_attempts", "key", "scope")


@dataclass(frozen=True, slots=True)
class Start:
    """The job, by its id or its name, and words of `trigger_job`."""

    job: str
    words: Mapping[str, Any]


def read_start(body: bytes) -> Start:
    """Return the start in these bytes; BodyError. The values are checked where the run is opened."""
    said = strict_json(body)
    if type(said) is not dict or type(said.get("job_id")) is not str:
        raise BodyError("a start is an object with job_id, a text")
    unknown = said.keys() - {"job_id", "triggered_by", *WORDS}
    if unknown:
        raise BodyError(f"a start has the keys job_id, triggered_by, {', '.join(WORDS)}, and no other")
    words = {word: said[word] for word in WORDS if said.get(word) is not None}
    return Start(said["job_id"], {**words, "requested_by": said.get("triggered_by")})


def started_response(run: Run) -> Response:
    """Return the response to a start that has a run, this one or an earlier one of the same key."""
    return json_response(202, {"run_id": run.id, "job": run.job_id, "status": str(run.status)})


def refused_response(error: Exception) -> Response | None:
    """Return the response to a start that is refused; None for an error that is no refusal."""
    match error:
        case JobNotFoundError():
            return no_such_job(error.job_id)
        case RunConflictError():
            return json_response(409, {"error": str(error), "run_id": error.run_id})
        case JobDisabledError():
            return json_response(403, {"error": str(error)})
        case PayloadError():
            return wrong(str(error))
    return None
