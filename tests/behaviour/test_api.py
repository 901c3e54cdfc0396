"""The API on each store: what depends on queries, keys and cursors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.api import Api, declare, problem

from jobmanager import JobManager, Settings


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.servers)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/jobs.db"


@pytest.fixture(params=["noop"])
def jobs(request: pytest.FixtureRequest, url: str) -> Iterator[JobManager]:
    jobs = JobManager(Settings(database_url=url, backend=request.param))
    declare(jobs)
    yield jobs
    jobs.stop()
    jobs.store.close()


def ids(response: Any) -> list[str]:
    assert response.status_code == 200, response.text
    return [item["id"] for item in response.json()["items"]]


def test_jobs_are_listed_page_by_page_with_filters(jobs: JobManager) -> None:
    api = Api(jobs)
    assert ids(api("GET", "/jobs")) == ["bad", "greet", "hidden", "shared"]
    first = api("GET", "/jobs?limit=2")
    assert (ids(first), first.json()["next"]) == (["bad", "greet"], "greet")
    rest = api("GET", "/jobs?limit=2&cursor=greet")
    assert (ids(rest), rest.json()["next"]) == (["hidden", "shared"], None)
    jobs.stop_job("greet", reason="later")
    jobs.trigger_job("bad")
    assert ids(api("GET", "/jobs?state=paused")) == ["greet"]
    assert ids(api("GET", "/jobs?text=say%20HELLO")) == ["greet"]
    assert ids(api("GET", "/jobs?handler=bad")) == ["bad"]
    assert ids(api("GET", "/jobs?health=failed")) == ["bad"]
    assert ids(api("GET", "/jobs?source=stored")) == []
    assert ids(api("GET", "/jobs", by="viewer")) == ["bad", "greet", "shared"]
    assert problem(api("GET", "/jobs/hidden", by="viewer")) == (404, "job-not-found")


@pytest.mark.parametrize("jobs", ["local"], indirect=True)
def test_a_start_is_accepted_with_the_place_of_its_run(jobs: JobManager) -> None:
    api = Api(jobs, prefix="/ops")
    started = api("POST", "/jobs/greet/run", json={"payload": {"name": "ana"}, "priority": 3})
    run = started.json()
    assert started.status_code == 202
    assert started.headers["location"] == f"/ops/api/v1/runs/{run['id']}"
    assert (run["status"], run["payload"], run["priority"], run["requested_by"]) == (
        "pending",
        {"name": "ana"},
        3,
        "admin",
    )
    assert api("GET", f"/runs/{run['id']}").json() == run
    conflict = api("POST", "/jobs/greet/run")
    assert (problem(conflict), conflict.json()["active_run"]) == ((409, "run-conflict"), run["id"])


def test_the_same_idempotency_key_starts_one_run(jobs: JobManager) -> None:
    api = Api(jobs)
    keyed = {"idempotency-key": "monday"}
    first, again = (api("POST", "/jobs/greet/run", headers=keyed).json() for _ in range(2))
    assert first["id"] == again["id"]
    assert first["idempotency_key"] == "monday"
    assert api("POST", "/jobs/run", json={"job_id": "greet"}, headers=keyed).json()["id"] == first["id"]
    assert api("POST", "/jobs/greet/run", json={"key": "monday"}).json()["id"] == first["id"]
    assert api("POST", "/jobs/greet/run", headers=keyed, by="operator").json()["id"] == first["id"]
    assert api("POST", "/jobs/greet/run", headers={"idempotency-key": "tuesday"}).json()["id"] != first["id"]
    other = {"idempotency-key": "wednesday"}
    assert problem(api("POST", "/jobs/greet/run", json={"key": "a"}, headers=other)) == (
        422,
        "invalid-request",
    )
