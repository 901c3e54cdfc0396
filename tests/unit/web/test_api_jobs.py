"""Jobs over the API: lists, edits that cannot overwrite each other, states, previews, and starts by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.api import Api, problem

from jobmanager import JobManager
from jobmanager.run import new_id
from jobmanager.web import Limits


@pytest.mark.parametrize("query", ["stat=paused", "state=asleep", "limit=0", "limit=201", "limit=x"])
def test_a_filter_that_is_misspelt_is_refused_with_its_name(api: Api, query: str) -> None:
    """Fails if a wrong filter shows everything."""
    response = api("GET", f"/jobs?{query}")
    assert problem(response) == (422, "invalid-request")
    assert response.json()["fields"][0]["field"] == f"query.{query.partition('=')[0]}"


def test_a_job_is_made_edited_and_deleted(api: Api, jobs: JobManager) -> None:
    made = api(
        "POST", "/jobs", json={"id": "made", "handler": "greet", "every": "5m", "config": {"name": "bob"}}
    )
    assert (made.status_code, made.headers["etag"]) == (201, '"1"')
    assert made.headers["location"] == "/api/v1/jobs/made"
    assert (made.json()["definition"]["every"], made.json()["config"]) == (300.0, {"name": "bob"})

    edited = api("PATCH", "/jobs/made", json={"cron": "0 4 * * *"}, headers={"if-match": '"1"'})
    assert (edited.status_code, edited.headers["etag"]) == (200, '"2"')
    assert edited.json()["schedule_in_words"] == "at 04:00 every day"
    late = api("PATCH", "/jobs/made", json={"cron": "0 5 * * *"}, headers={"if-match": '"1"'})
    assert problem(late) == (412, "edit-conflict")
    assert problem(api("PATCH", "/jobs/made", json={}, headers={"if-match": "W/x"})) == (412, "edit-conflict")
    assert api("GET", "/jobs/made").json()["schedule_in_words"] == "at 04:00 every day"
    assert api("PATCH", "/jobs/made", json={"cron": None}).json()["schedule"] is None

    assert problem(api("POST", "/jobs", json={"id": "made", "handler": "greet"})) == (409, "duplicate-job")
    assert api("DELETE", "/jobs/made").status_code == 204
    assert api("GET", "/jobs/made").json()["state"] == "deleted"
    assert [entry.action for entry in jobs.history("made")] == ["delete", "edit", "edit", "create"]
    assert {entry.by for entry in jobs.history("made")} == {"admin"}


def test_the_policy_for_clock_changes_is_an_object_that_is_kept_and_previewed(api: Api) -> None:
    given = {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "dst": {"gap": "shift", "fold": "both"}}
    made = api("POST", "/jobs", json={"id": "made", "handler": "greet", **given})
    assert made.json()["schedule"] == "cron 30 2 * * * in Europe/Berlin dst shift,both"
    assert made.json()["definition"]["dst"] == "shift,both"

    moved = api("POST", "/jobs/made/preview", json={"cron": "45 2 * * *"}).json()
    assert moved["dst"] == {"gap": "shift", "fold": "both"}
    assert [change["note"] for change in moved["clock_changes"] if change["direction"] == "forward"] == [
        "02:45 is not on the clock that day: it runs at 03:45."
    ]
    edited = api("PATCH", "/jobs/made", json={"dst": {"gap": "skip"}})
    assert edited.json()["schedule"] == "cron 30 2 * * * in Europe/Berlin dst skip,first"
    assert (
        api("PATCH", "/jobs/made", json={"dst": None}).json()["schedule"]
        == "cron 30 2 * * * in Europe/Berlin"
    )
    assert problem(api("PATCH", "/jobs/made", json={"dst": {"gap": "late"}})) == (422, "invalid-request")


def test_an_edit_of_a_declared_job_is_an_override_and_reset_gives_it_back(api: Api) -> None:
    edited = api("PATCH", "/jobs/greet", json={"cron": "0 5 * * *", "max_attempts": 3, "timeout": "2m"})
    assert edited.json()["override"] == {"cron": "0 5 * * *", "max_attempts": 3, "timeout": 120.0}
    assert (edited.json()["source"], edited.json()["override_by"]) == ("code", "admin")
    assert api("POST", "/jobs/greet/reset").json()["override"] is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"cron": "99 5 * * *"}, "cron"),
        ({"crn": "* * * * *"}, "body.crn"),
        ({"priority": "high"}, "body.priority"),
        ({"priority": 2**20}, "body.priority"),
        ({"timeout": "soon"}, "timeout"),
        ({"overlap": "maybe"}, "body.overlap"),
        ({"every": 5, "cron": "* * * * *"}, None),
        ({"name": "\0"}, "body"),
    ],
    ids=lambda given: str(given).encode("unicode_escape").decode(),
)
def test_a_value_that_does_not_fit_is_refused_with_its_field(
    api: Api, body: dict[str, Any], field: str | None
) -> None:
    response = api("PATCH", "/jobs/greet", json=body)
    assert response.status_code == 422, response.text
    named = [each["field"] for each in response.json().get("fields", [])]
    assert field is None or named[0].startswith(field)


def test_a_handler_that_is_nowhere_is_a_field_that_does_not_fit(api: Api) -> None:
    response = api("POST", "/jobs", json={"id": "made", "handler": "nope"})
    assert problem(response) == (422, "invalid-request")
    assert response.json()["fields"][0]["field"] == "body.handler"


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"id": NaN}', b'{"id": 1, "id": 2}', b"\xff", b"[" * 100_000]
)
def test_a_body_that_is_no_strict_json_is_refused(api: Api, body: bytes) -> None:
    response = api("POST", "/jobs", content=body, headers={"content-type": "application/json"})
    assert problem(response) == (422, "invalid-request")


def test_a_body_that_is_too_large_is_refused(api: Api) -> None:
    assert problem(api("POST", "/jobs", content=b" " * (1024 * 1024 + 1))) == (413, "too-large")


def test_states_change_and_may_be_asked_for_twice(api: Api) -> None:
    for action, state in (
        ("pause", "paused"),
        ("resume", "active"),
        ("disable", "disabled"),
        ("enable", "active"),
    ):
        for _ in range(2):
            assert api("POST", f"/jobs/greet/{action}").json()["state"] == state
    paused = api("POST", "/jobs/greet/pause", json={"reason": "the warehouse moves"}).json()
    assert (paused["state_reason"], paused["state_by"], paused["next_run"]) == (
        "the warehouse moves",
        "admin",
        None,
    )
    api("POST", "/jobs/greet/disable")
    assert problem(api("POST", "/jobs/greet/pause")) == (409, "job-disabled")
    assert problem(api("POST", "/jobs/nope/pause")) == (404, "job-not-found")


def test_a_preview_says_what_a_schedule_means_and_writes_nothing(api: Api, jobs: JobManager) -> None:
    before = jobs.get_job("greet")
    told = api("POST", "/jobs/greet/preview", json={"cron": "30 2 * * *", "number": 3}).json()
    assert told["schedule_in_words"] == "at 02:30 every day, Europe/Berlin"
    assert (len(told["next"]), len(told["clock_changes"])) == (3, 2)
    assert any("runs at 03:00" in change["note"] for change in told["clock_changes"])
    assert told["settles"] == {
        "instants": 0,
        "first": None,
        "last": None,
        "note": "Nothing is left to settle.",
    }
    moved = api("POST", "/jobs/greet/preview", json={"timezone": "UTC"}).json()
    assert (moved["schedule"], moved["timezone"], moved["clock_changes"]) == ("30 2 * * *", "UTC", [])
    assert api("POST", "/jobs/greet/preview", json={}).json()["timezone"] == "Europe/Berlin"
    assert api("POST", "/jobs/bad/preview", json={}).json()["schedule_in_words"] == "by hand"
    assert problem(api("POST", "/jobs/greet/preview", json={"cron": "soon"})) == (422, "cron")
    assert jobs.get_job("greet") == before
    assert jobs.audit() == []


def test_a_preview_counts_the_instants_that_an_edit_would_settle(api: Api, jobs: JobManager) -> None:
    jobs.create_job("often", handler="greet", every="1h")
    since = datetime.now(UTC) - timedelta(hours=5)
    with jobs.store.jobs.lock("often") as txn:
        from dataclasses import replace

        txn.save(replace(txn.job, accounted_until=since))
    told = api("POST", "/jobs/often/preview", json={"every": "2h"}).json()["settles"]
    assert told["instants"] == 5
    assert told["note"].startswith("5 instants up to now, by the present schedule")
    assert told["first"] < told["last"]


def test_backfill_and_explain(api: Api) -> None:
    stretch = {"start": "2026-03-01T00:00:00Z", "end": "2026-03-03T00:00:00+01:00"}
    dry = api("POST", "/jobs/greet/backfill", json={**stretch, "dry_run": True}).json()
    assert (dry["dry_run"], dry["opened"], [item["action"] for item in dry["items"]]) == (
        True,
        2,
        ["open", "open"],
    )
    done = api("POST", "/jobs/greet/backfill", json=stretch).json()
    assert (done["opened"], None in [item["run_id"] for item in done["items"]]) == (2, False)
    assert api("POST", "/jobs/greet/backfill", json=stretch).json()["opened"] == 0
    told = api("GET", "/jobs/greet/explain?at=2026-03-01T01:30:00Z").json()["items"]
    assert [(item["verdict"], item["cause"]) for item in told] == [("ran", "succeeded")]
    assert len(api("GET", "/jobs/greet/explain").json()["items"]) == 2
    for wrong in ("2026-03-01T01:30:00", "1772328600", "2026-13-01T00:00:00Z", "tomorrow"):
        response = api("GET", "/jobs/greet/explain", params={"at": wrong})
        assert problem(response) == (422, "invalid-request")


# ---------------------------------------------------------------- starts by hand


def test_jobs_run_takes_the_body_of_the_endpoint_with_a_key(api: Api, jobs: JobManager) -> None:
    """As its curl line has it: a bearer key, a job by id or name, and for whom."""
    secret = jobs.create_key("crm")
    bearer = {"authorization": f"Bearer {secret}", "content-type": "application/json"}
    for job in ("greet", "Say hello"):
        body = f'{{ "job_id": "{job}", "triggered_by": "crm-7" }}'
        started = api("POST", "/jobs/run", by="", headers=bearer, content=body)
        assert started.status_code == 202, started.text
        assert (started.json()["job"], started.json()["requested_by"]) == ("greet", "crm-7")
    assert jobs.audit(action="trigger")[0].by == "key:crm"
    assert problem(api("POST", "/jobs/run", by="", headers=bearer, json={"job_id": "nope"})) == (
        404,
        "job-not-found",
    )
    assert problem(api("POST", "/jobs/run", by="", headers=bearer, json={"job": "greet"}))[0] == 422
    jobs.disable_job("greet")
    assert problem(api("POST", "/jobs/run", by="", headers=bearer, json={"job_id": "greet"})) == (
        409,
        "job-disabled",
    )
    jobs.revoke_key("crm")
    assert problem(api("POST", "/jobs/run", by="", headers=bearer, json={"job_id": "greet"})) == (
        401,
        "unauthenticated",
    )


def test_a_project_job_is_started_with_a_scope_of_the_principal(api: Api) -> None:
    assert api("POST", "/jobs/shared/run", by="acme", json={"scope": "acme"}).status_code == 202
    for body in ({"scope": "beta"}, {}):
        assert problem(api("POST", "/jobs/shared/run", by="acme", json=body)) == (403, "permission-denied")


def test_each_principal_starts_a_few_runs_a_minute(jobs: JobManager) -> None:
    api = Api(jobs, limits=Limits(starts_per_minute=2))
    assert [api("POST", "/jobs/greet/run").status_code for _ in range(3)] == [202, 202, 429]
    refused = api("POST", "/jobs/run", json={"job_id": "greet"})
    assert problem(refused) == (429, "too-many-starts")
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert api("POST", "/jobs/greet/run", by="operator").status_code == 202
    assert Limits().starts_per_minute == 5


def test_a_run_id_of_no_run_is_not_found(api: Api) -> None:
    for run_id in (new_id(datetime.now(UTC)), "nope", "%00", "x" * 300):
        assert problem(api("GET", f"/runs/{run_id}")) == (404, "run-not-found")
