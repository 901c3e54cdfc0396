"""Jobs over the API."""

from __future__ import annotations

from typing import Any

from fastapi import Request

from jobmanager.access.principal import READ
from jobmanager.present.jobs import job_record
from jobmanager.web.api.routing import Routes
from jobmanager.web.site import site_of

router = Routes(tags=["jobs"])


def list_jobs(request: Request) -> dict[str, Any]:
    """List the jobs that the principal sees, by id."""
    return {"items": [job_record(view) for view in site_of(request).jobs.list_jobs()]}


def get_job(request: Request, job_id: str) -> dict[str, Any]:
    """Get one job."""
    return job_record(site_of(request).jobs.get_job(job_id))


router.add("GET", "/jobs", READ, list_jobs)
router.add("GET", "/jobs/{job_id}", READ, get_job, responses=[404])
