"""Runs, handlers, webhooks, engine, statistics, audit, notifications and keys over the API."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.api import Api, declare, problem

from jobmanager import JobManager, Principal, RunContext, Settings, acting

KEY = "yTBQbXRrYmFzZTY0IG9mIDMyIHJhbmRvbSBieXRlcyE="


def items(response: Any) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    return list(response.json()["items"])


# ---------------------------------------------------------------- runs


def test_runs_are_found_by_what_the_filter_says(api: Api, jobs: JobManager) -> None:
    good = jobs.trigger_job("greet", {"name": "ana"}, requested_by="crm")
    bad = jobs.trigger_job("bad", max_attempts=2)
    scoped = jobs.trigger_job("shared", scope="acme")

    def found(query: str) -> set[str]:
        return {item["id"] for item in items(api("GET", f"/runs?{query}"))}

    assert found("") == {good.id, bad.id, scoped.id}
    for query, wanted in {
        "job=greet": good,
        "status=failed": bad,
        "kind=exception": bad,
        "text=NO%20disk": bad,
        "requested_by=crm": good,
        "scope=acme": scoped,
        "retried=true": bad,
        "dead=true": bad,
    }.items():
        assert found(query) == {wanted.id}, query
    assert found("status=failed&status=succeeded&trigger=manual") == {good.id, bad.id, scoped.id}
    assert found("until=2020-01-01T00:00:00Z") == set()
    assert found("since=2020-01-01T00:00:00%2B01:00&reason=paused") == set()
    assert found("longer_than=3600") == found("late=true") == set()


def test_runs_are_read_page_by_page_to_the_last_one(api: Api, jobs: JobManager) -> None:
    made = [jobs.trigger_job("greet").id for _ in range(5)]
    read, cursor = [], ""
    while True:
        page = api("GET", f"/runs?limit=2{cursor}").json()
        assert len(page["items"]) <= 2
        read += [item["id"] for item in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert read == made[::-1]
    assert problem(api("GET", "/runs?cursor=nowhere"))[0] == 422


def test_a_run_with_its_steps_and_children_and_an_event_that_lets_it_go_on(
    api: Api, jobs: JobManager
) -> None:
    jobs.add_job("small", small)
    jobs.add_job("flow", flow)
    run = jobs.trigger_job("flow")
    waiting = items(api("GET", f"/runs/{run.id}/steps"))
    assert [(step["name"], step["kind"], step["status"]) for step in waiting] == [
        ("small", "start", "succeeded"),
        ("load", "step", "succeeded"),
        ("paid", "wait_for", "waiting"),
    ]
    assert waiting[1]["output"] == {"password": "[redacted]"}
    assert waiting[2]["awaits"] == {"name": "paid", "key": "7"}
    [child] = items(api("GET", f"/runs/{run.id[-8:]}/children?limit=1"))
    assert (child["job"], child["parent_id"]) == ("small", run.id)

    body = {"name": "paid", "key": "7", "data": [1], "id": "stripe-1"}
    sent = api("POST", "/events", json=body, by="operator")
    assert (sent.status_code, sent.json()["id"]) == (201, "stripe-1")
    assert api("POST", "/events", json={**body, "data": [2]}, by="admin").json() == sent.json()
    assert [entry.by for entry in jobs.audit(target="event")] == ["admin", "operator"]
    assert jobs.run(run.id).due_at <= jobs.store.now() < run.due_at


def test_sent_events_and_waits_are_listed_without_data(api: Api, jobs: JobManager) -> None:
    jobs.add_job("hears", small, on="paid")
    jobs.sync()
    jobs.send_event("paid", key="7", data={"card": "4711"}, id="stripe-1")
    jobs.send_event("refunded", id="stripe-2")
    [started] = jobs.runs("hears")

    first = api("GET", "/events/sent?limit=1").json()
    assert [event["id"] for event in first["items"]] == ["stripe-2"]
    [event] = items(api("GET", f"/events/sent?cursor={first['next']}"))
    assert (event["id"], event["name"], event["key"]) == ("stripe-1", "paid", "7")
    assert event["runs"] == [{"run_id": started.id, "job_id": "hears", "status": started.status.value}]
    assert "4711" not in api("GET", "/events/sent").text
    assert items(api("GET", "/events/waits?name=nothing")) == []
    for wrong in ("sent?name=", "sent?cursor=", "sent?limit=0", "waits?name=", f"waits?name={'x' * 201}"):
        assert api("GET", f"/events/{wrong}").status_code == 422, wrong
    with acting(Principal("clerk", ["operator"], scopes=["acme"])):
        assert jobs.sent_events() == []


def test_an_event_that_does_not_fit_or_is_not_allowed_is_refused(api: Api) -> None:
    assert api("POST", "/events", json={"name": "paid"}, by="viewer").status_code == 403
    for body in (
        {},
        {"name": ""},
        {"name": "paid", "key": None},
        {"name": "paid", "data": "x" * 70_000},
        {"name": "paid", "of": 1},
    ):
        assert api("POST", "/events", json=body).status_code == 422, body
    assert problem(api("GET", "/runs/nowhere/steps"))[0] == 404
    assert problem(api("GET", "/runs/nowhere/children"))[0] == 404


def small() -> None:
    pass


def flow(context: RunContext) -> None:
    context.start("small", "small")
    context.step("load", dict, password="planted")
    context.wait_for("paid", key="7")


def test_a_run_with_its_attempts_and_log(api: Api, jobs: JobManager) -> None:
    jobs.add_job("talks", talks)
    run = jobs.trigger_job("talks", {"password": "planted"})
    shown = api("GET", f"/runs/{run.id}").json()
    assert (shown["status"], shown["error"]["type"], shown["payload"]) == (
        "failed",
        "OSError",
        {"password": "[redacted]"},
    )
    assert shown["opened_at"].endswith("Z")
    assert api("GET", f"/runs/{run.id[-8:]}").json()["id"] == run.id
    first = api("GET", f"/runs/{run.id}/logs?limit=2").json()
    assert [(line["text"], line["attempt"]) for line in first["items"]] == [("line 0", 1), ("line 1", 1)]
    rest = api("GET", f"/runs/{run.id}/logs?cursor={first['next']}").json()
    assert ([line["text"] for line in rest["items"]], rest["next"]) == (["line 2"], None)
    last = rest["items"][-1]["cursor"]
    assert items(api("GET", f"/runs/{run.id}/logs?cursor={last}")) == []
    redriven = api("POST", f"/runs/{run.id}/redrive").json()
    assert {line["attempt"] for line in items(api("GET", f"/runs/{run.id}/logs?cursor={last}"))} == {2}
    assert redriven["attempt"] == 2
    assert [item["outcome"] for item in items(api("GET", f"/runs/{run.id}/attempts"))] == ["failed"]


def talks(context: Any, password: str) -> None:
    for number in range(3):
        context.log.info("line %d", number)
    raise OSError("no disk")


def test_a_run_is_cancelled_discarded_and_not_redriven_twice(api: Api, jobs: JobManager) -> None:
    waiting, failed, good = (
        jobs.trigger_job("greet", delay=60),
        jobs.trigger_job("bad"),
        jobs.trigger_job("greet"),
    )
    for _ in range(2):
        assert api("POST", f"/runs/{waiting.id}/cancel").json()["status"] == "cancelled"
        assert api("POST", f"/runs/{failed.id}/discard").json()["status"] == "failed"
    assert items(api("GET", "/runs?dead=true")) == []
    assert problem(api("POST", f"/runs/{good.id}/redrive")) == (409, "transition")
    assert {entry.action for entry in jobs.audit(actor="admin")} == {"cancel", "discard", "redrive"}


def test_many_runs_are_changed_at_once_after_a_dry_run(api: Api, jobs: JobManager) -> None:
    failed, good = jobs.trigger_job("bad"), jobs.trigger_job("greet")
    body = {"action": "redrive", "ids": [failed.id, good.id]}
    dry = api("POST", "/runs/bulk", json={**body, "dry_run": True}).json()
    assert (dry["eligible"], dry["batch_id"]) == ([failed.id], None)
    assert dry["refused"] == [{"id": good.id, "why": "it succeeded"}]
    assert jobs.run(failed.id).attempt == 1
    done = api("POST", "/runs/bulk", json=body).json()
    assert (done["eligible"], jobs.run(failed.id).attempt) == ([failed.id], 2)
    assert [entry.batch_id for entry in jobs.audit(action="redrive")] == [done["batch_id"]]
    assert problem(api("POST", "/runs/bulk", json={**body, "ids": ["x"] * 1001}))[0] == 422
    assert problem(api("POST", "/runs/bulk", json={**body, "action": "purge"}))[0] == 422


# ---------------------------------------------------------------- what stands around them


def test_handlers_tell_the_schema_of_their_arguments(api: Api) -> None:
    assert {"bad", "greet", "shared", "hidden"} < {item["key"] for item in items(api("GET", "/handlers"))}
    assert list(api("GET", "/handlers/greet").json()["arguments"]["properties"]) == ["name"]
    assert problem(api("GET", "/handlers/nope")) == (404, "handler-not-found")
    assert problem(api("GET", "/handlers/hidden", by="viewer")) == (404, "handler-not-found")


@pytest.fixture
def with_vault(tmp_path: Path) -> Iterator[Api]:
    """The API of a manager that may keep secrets."""
    jobs = JobManager(
        Settings(database_url=f"sqlite:///{tmp_path}/jobs.db", backend="noop", encryption_key=KEY)
    )
    declare(jobs)
    yield Api(jobs)
    jobs.stop()
    jobs.store.close()


def test_a_webhook_is_made_edited_and_deleted_and_shows_no_secret(with_vault: Api) -> None:
    api = with_vault
    given = {
        "key": "crm",
        "url": "https://crm.example/hook",
        "auth": {"kind": "basic", "username": "us", "secret": "planted-password"},
        "secret": True,
    }
    made = api("POST", "/webhooks", json=given)
    assert (made.status_code, made.headers["location"]) == (201, "/api/v1/webhooks/crm")
    assert made.json()["secret"].startswith("whsec_")
    assert made.json()["auth"] == {"kind": "basic", "username": "us"}
    edited = api("PATCH", "/webhooks/crm", json={"timeout": 5, "method": "PUT"}).json()
    assert (edited["timeout"], edited["method"], edited["secret"], edited["signed"]) == (
        5.0,
        "PUT",
        None,
        True,
    )
    shown = api("GET", "/webhooks/crm").text + api("GET", "/webhooks").text + api("GET", "/audit").text
    assert "planted-password" not in shown
    assert "whsec_" not in shown
    assert api("PATCH", "/webhooks/crm", json={"auth": None}).json()["auth"] is None
    assert api("PATCH", "/webhooks/crm", json={"secret": False}).json()["signed"] is False
    assert problem(api("POST", "/webhooks", json=given)) == (409, "duplicate-job")
    assert api("POST", "/webhooks/rotate").json() == {"rotated": 0}
    assert api("DELETE", "/webhooks/crm").status_code == 204
    assert problem(api("GET", "/webhooks/crm")) == (404, "handler-not-found")


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "ftp://crm.example/"},
        {"url": "http://169.254.169.254/latest"},
        {"auth": {"kind": "bearer", "env": "HOME"}},
        {"auth": {"kind": "basic", "secret": "x"}},
        {"auth": {"kind": "header", "secret": "x", "header": "Host"}},
        {"headers": {"X-Api-Key": "x"}},
        {"expect": "300"},
        {"timeout": -1},
    ],
    ids=str,
)
def test_a_webhook_that_cannot_be_meant_is_refused(with_vault: Api, wrong: dict[str, Any]) -> None:
    given = {"key": "crm", "url": "https://crm.example/hook", **wrong}
    assert with_vault("POST", "/webhooks", json=given).status_code == 422


def test_the_engine_says_who_keeps_time_and_what_is_amiss(api: Api, jobs: JobManager) -> None:
    engine = api("GET", "/engine", by="viewer").json()
    assert (engine["backend"], engine["reason"]) == ("noop", "JOBMANAGER_BACKEND=noop")
    assert {each["backend"] for each in engine["rejected"]} >= {"local", "celery", "pg_cron", "external"}
    jobs.trigger_job("greet")
    [process] = items(api("GET", "/engine/instances", by="viewer"))
    assert (process["backend"], process["executes"]) == ("noop", False)
    assert "backend" in {each["check"] for each in items(api("GET", "/engine/findings?level=warning"))}
    assert problem(api("GET", "/engine/entries")) == (422, "unsupported")


def test_a_plan_is_shown_and_applied(api: Api, jobs: JobManager) -> None:
    jobs.add_job("newcomer", lambda: 1)
    planned = api("GET", "/engine/plan").json()
    assert planned == {
        "applied": False,
        "changes": [{"job_id": "newcomer", "action": "create", "detail": "none"}],
    }
    assert api("POST", "/engine/plan").json() == {**planned, "applied": True}
    assert api("GET", "/engine/plan").json()["changes"] == []


def test_statistics_count_by_period(api: Api, jobs: JobManager) -> None:
    jobs.trigger_job("greet")
    jobs.trigger_job("bad")
    told = api("GET", "/stats?period=1h").json()
    assert (told["counts"], told["success_rate"]) == ({"succeeded": 1, "failed": 1}, 0.5)
    assert api("GET", "/stats?job=bad&period=1h").json()["counts"] == {"failed": 1}
    assert problem(api("GET", "/stats?period=1y"))[0] == 422
    assert problem(api("GET", "/stats?job=nope")) == (404, "job-not-found")


def test_the_audit_is_read_page_by_page_with_filters(api: Api) -> None:
    for action in ("pause", "resume", "pause"):
        api("POST", f"/jobs/greet/{action}", headers={"user-agent": "curl/8"})
    api("POST", "/jobs/greet/pause", by="viewer")
    first = api("GET", "/audit?limit=3").json()
    assert [(each["action"], each["outcome"]) for each in first["items"]] == [
        ("pause", "done"), ("resume", "done"), ("pause", "done"),
    ]  # fmt: skip
    assert first["next"] is None
    assert {each["user_agent"] for each in first["items"]} == {"curl/8"}
    second = api("GET", "/audit?limit=2").json()
    assert [each["action"] for each in items(api("GET", f"/audit?limit=2&cursor={second['next']}"))] == [
        "pause"
    ]
    assert (
        len(items(api("GET", "/audit?action=resume&actor=admin&job=greet&target=job&target_id=greet"))) == 1
    )
    assert items(api("GET", "/audit?until=2020-01-01T00:00:00Z")) == []


def test_notifications_are_listed_sent_again_and_dropped(tmp_path: Path) -> None:
    settings = Settings(
        database_url=f"sqlite:///{tmp_path}/jobs.db", backend="noop",
        smtp_url="smtp://127.0.0.1:1", alerts_email="ops@example.com",
    )  # fmt: skip
    jobs = JobManager(settings)
    declare(jobs)
    jobs.notify_admins("the disk is full")
    api = Api(jobs)
    [told] = items(api("GET", "/notifications"))
    assert (told["state"], told["channel"]) == ("waiting", "email")
    assert api("POST", f"/notifications/{told['id']}/drop").json()["state"] == "dropped"
    assert items(api("GET", "/notifications?state=waiting")) == []
    assert api("POST", f"/notifications/{told['id']}/resend").json()["state"] == "waiting"
    assert api("GET", f"/notifications/{told['id']}").json()["id"] == told["id"]
    assert problem(api("GET", "/notifications/nope")) == (404, "notification-not-found")
    jobs.stop()
    jobs.store.close()


def test_a_key_is_made_shown_once_used_and_revoked(api: Api) -> None:
    made = api("POST", "/keys", json={"name": "ci", "permissions": ["jobs:read"], "scopes": ["acme"]})
    secret = made.json()["secret"]
    assert (made.status_code, made.json()["key"]["hint"]) == (201, secret[:8])
    bearer = {"authorization": f"Bearer {secret}"}
    assert api("GET", "/jobs", by="", headers=bearer).status_code == 200
    assert problem(api("POST", "/jobs/greet/run", by="", headers=bearer)) == (403, "permission-denied")
    assert secret not in api("GET", "/keys").text + api("GET", "/audit").text
    assert api("DELETE", "/keys/ci").json()["revoked_by"] == "admin"
    assert problem(api("GET", "/jobs", by="", headers=bearer)) == (401, "unauthenticated")
    assert problem(api("DELETE", "/keys/ci")) == (404, "key-not-found")
    assert problem(api("POST", "/keys", json={"name": "x", "permissions": ["root"]}))[0] == 422


def test_an_error_of_ours_is_a_problem_without_its_text(
    api: Api, jobs: JobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if a mistake of ours shows a traceback, or a page of HTML, to whoever asked."""

    def fail() -> None:
        raise ZeroDivisionError("planted-text")

    monkeypatch.setattr(jobs, "webhooks", fail)
    response = api("GET", "/webhooks")
    assert problem(response) == (500, "failed")
    assert "planted-text" not in response.text


def test_a_path_that_no_route_has_is_a_problem_whatever_is_in_it(api: Api) -> None:
    for path in ("/nothing", "/jobs/a%0Ab", "/jobs/a/b", "/jobs/%F0%9F%92%A5"):
        assert problem(api("GET", path))[0] == 404
    assert problem(api("DELETE", "/runs")) == (405, "method")


def test_a_record_has_every_field_that_its_model_names(api: Api, jobs: JobManager) -> None:
    """The models refuse fields that they do not name, so a record that grows makes the API say so here."""
    run = replace(jobs.trigger_job("greet"))
    assert api("GET", f"/runs/{run.id}").status_code == 200
    assert (
        "additionalProperties" not in api("GET", "/openapi.json").json()["components"]["schemas"]["RunModel"]
    )
