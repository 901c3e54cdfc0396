"""Moments at the ends of the calendar, in addresses: an answer, and no error of the server."""

from __future__ import annotations

import pytest
from tests.api import Api, declare

from jobmanager import JobManager, Settings

MOMENTS = ("0001-01-01T00:00:00Z", "1960-01-01T00:00:00Z", "9999-12-31T23:59:59Z")


@pytest.fixture(scope="module")
def api() -> Api:
    jobs = JobManager(Settings(database_url="memory://", backend="noop"))
    declare(jobs)
    jobs.trigger_job("greet")
    return Api(jobs)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(
    "path",
    [
        "/runs?since={}",
        "/runs?until={}",
        "/runs?job=greet&since={0}&until={0}",
        "/jobs/greet/explain?at={}",
        "/audit?since={}",
        "/audit?until={}",
    ],
)
def test_the_api_answers_about_moments_in_which_nothing_was(api: Api, path: str, moment: str) -> None:
    response = api("GET", path.format(moment))
    assert response.status_code in (200, 400, 422), response.text
