"""Inngest: its own package declares the functions, checks signatures and repeats; a signed call runs the job."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import inngest
import pytest
from fastapi import FastAPI
from flask import Flask
from inngest._internal.net import sign_request
from starlette.testclient import TestClient

from jobmanager import JobManager, Settings
from jobmanager.backends.tickers.remote import Planned
from jobmanager.contrib.inngest import function_of, serve
from jobmanager.errors import ConfigurationError
from jobmanager.testing import FakeClock
from jobmanager.web.response import UNAVAILABLE, early, no_such_job

KEY = "signkey-prod-" + "0123456789abcdef" * 4


@pytest.fixture
def jobs() -> Iterator[JobManager]:
    jobs = JobManager(
        Settings(backend="inngest", database_url="memory://", wait=True, inngest_app_id="shop"),
        clock=FakeClock(datetime(2026, 3, 10, 12, 0, 1, tzinfo=UTC)),
    )
    jobs.add_job("minutes", lambda: {"done": True}, every=60)
    jobs.add_job("nightly", lambda: None, cron="0 12 * * *", timezone="Europe/Berlin")
    jobs.add_job("by-hand", lambda: None)
    yield jobs
    jobs.stop()


def client() -> inngest.Inngest:
    return inngest.Inngest(app_id="shop", signing_key=KEY, is_production=True)


def call(web: TestClient, function: str, *, key: str | None = KEY) -> Any:
    """Call a function as Inngest's server does."""
    body = json.dumps(
        {
            "ctx": {
                "attempt": 0,
                "disable_immediate_execution": True,
                "run_id": "r",
                "stack": {"stack": []},
                "use_api": False,
            },
            "event": {
                "name": "inngest/scheduled.timer",
                "data": {},
                "id": "e",
                "ts": int(time.time() * 1000),
            },
            "events": [{"name": "inngest/scheduled.timer", "data": {}, "id": "e", "ts": 0}],
            "steps": {},
            "use_api": False,
        }
    ).encode()
    headers = {"content-type": "application/json", "x-inngest-server-kind": "cloud"}
    if key is not None:
        headers["x-inngest-signature"] = str(sign_request(body, key))
    return web.post(f"/api/inngest?fnId=shop-{function}&stepId=step", content=body, headers=headers)


def test_a_signed_call_runs_the_job_and_no_other_does(jobs: JobManager) -> None:
    app = FastAPI()
    functions = serve(app, jobs, client=client())
    assert [function.id for function in functions] == ["shop-jm-minutes", "shop-jm-nightly"]
    with TestClient(app) as web:
        assert call(web, "jm-minutes", key=None).status_code == 401
        assert call(web, "jm-minutes", key="signkey-prod-" + "f" * 64).status_code == 401
        assert jobs.runs("minutes") == []
        call(web, "jm-minutes")  # the job is known from here on: what was due before is none of it
        jobs._clock.step(60)  # type: ignore[attr-defined]
        answer = call(web, "jm-minutes")
        assert answer.status_code == 200, answer.text
        assert answer.json()["finding"] == "opened"
        assert answer.json()["outcomes"] == {"succeeded": 1}
    assert [run.status for run in jobs.runs("minutes")] == ["succeeded"]


def test_a_sync_of_inngest_learns_the_functions_with_their_zones(jobs: JobManager) -> None:
    app = FastAPI()
    serve(app, jobs, client=client())
    body = json.dumps({"url": "https://shop.example.org/api/inngest"}).encode()
    headers = {
        "x-inngest-sync-kind": "in_band",
        "x-inngest-server-kind": "cloud",
        "content-type": "application/json",
        "x-inngest-signature": str(sign_request(body, KEY)),
    }
    with TestClient(app) as web:
        answer = web.put("/api/inngest", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    crons = {one["id"]: one["triggers"][0]["cron"] for one in answer.json()["functions"]}
    assert crons == {"shop-jm-minutes": "* * * * *", "shop-jm-nightly": "TZ=Europe/Berlin 0 12 * * *"}


def test_what_appears_later_is_told_with_what_to_do(jobs: JobManager) -> None:
    serve(FastAPI(), jobs, client=client())
    with jobs:
        assert [entry.drift for entry in jobs.entries()] == ["", ""]
        jobs.add_job("late", lambda: None, cron="5 5 * * *")
        jobs.sync()
        assert [entry.drift for entry in jobs.entries() if entry.drift] == ["not in Inngest"]
        [found] = [one for one in jobs.backend.findings([]) if one.level == "warning"]
        assert "curl -X PUT" in found.fix


@pytest.mark.parametrize(
    ("response", "finding"),
    [(early({"finding": "early"}, 12.5), 13), (UNAVAILABLE, 5), (no_such_job("gone"), "unknown_job")],
)
def test_inngest_comes_again_where_the_endpoint_says_so(response: Any, finding: Any) -> None:
    planned = Planned(key="jm-gone", text="* * * * *", zone="UTC", target="", job_id="gone")
    function = function_of(client(), planned, lambda _job: response)
    handler: Any = function._handler
    if isinstance(finding, str):
        assert handler(None) == {"job": "gone", "finding": finding}
        return
    before = datetime.now(UTC)
    with pytest.raises(inngest.RetryAfterError) as again:
        handler(None)
    wait = again.value.retry_after.astimezone(UTC) - before
    assert timedelta(seconds=finding - 1) <= wait <= timedelta(seconds=finding + 5)


def test_flask_is_served_and_what_has_no_adapter_is_refused(jobs: JobManager) -> None:
    app = Flask("shop")
    serve(app, jobs, client=client())
    assert app.test_client().post("/api/inngest?fnId=shop-jm-minutes&stepId=step", json={}).status_code == 401
    with pytest.raises(ConfigurationError, match="fastapi, flask, tornado"):
        serve(object(), jobs, client=client())
    with pytest.raises(ConfigurationError, match="JOBMANAGER_BACKEND=inngest"):
        serve(FastAPI(), JobManager(Settings(backend="local", database_url="memory://")), client=client())
