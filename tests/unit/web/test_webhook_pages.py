"""Webhooks on the pages: made, edited, tested and deleted by forms, and no secret comes back."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.unit.web.visitor import Visitor

from jobmanager import JobManager, Principal, Settings
from jobmanager.web import dashboard

KEY = base64.b64encode(b"k" * 32).decode()
TOKEN = "top-secret-token"
NEW = {
    "key": "crm",
    "url": "http://127.0.0.1:9/hook",
    "auth": "bearer",
    "auth_secret": TOKEN,
    "signing": "new",
    "headers": "X-Shop: one\nX-More: two",
}


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobManager]:
    settings = Settings(
        database_url=f"sqlite:///{tmp_path}/jobs.db",
        backend="noop",
        encryption_key=KEY,
        webhook_allow="127.0.0.1",
    )
    with JobManager(settings) as jobs:
        yield jobs


@pytest.fixture
def ana(jobs: JobManager) -> Visitor:
    person = Principal("ana", ["admin"], authenticated_at=datetime.now(UTC))
    found = Visitor(dashboard(jobs, authorize=lambda request: person))
    found.get("/handlers")
    return found


def test_a_webhook_is_made_and_its_secret_shown_once(jobs: JobManager, ana: Visitor) -> None:
    made = ana.send("/handlers/new-webhook", **NEW)
    [info] = jobs.webhooks()
    assert made.status_code == 201
    assert "whsec_" in made.text
    assert (info.auth, info.signed, info.changed_by) == ({"kind": "bearer"}, True, "ana")
    assert info.headers == {"X-Shop": "one", "X-More": "two"}
    for page in ("/handlers", "/handlers/webhooks/crm", "/audit"):
        text = ana.get(page).text
        assert TOKEN not in text
        assert 'aria-label="Secret"' not in text


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("key", "Not A Slug", "slug"),
        ("url", "ftp://crm.example", "http"),
        ("timeout", "soon", "timeout is no number"),
        ("expect", "300", "redirects"),
        ("headers", "no colon", "Name: value"),
        ("headers", "Authorization: x", "secret"),
        ("auth", "magic", "auth"),
    ],
)
def test_what_cannot_be_meant_is_said_and_what_was_typed_stays(
    jobs: JobManager, ana: Visitor, field: str, value: str, told: str
) -> None:
    response = ana.send("/handlers/new-webhook", **{**NEW, field: value})
    assert response.status_code == 422
    assert told in response.text
    assert "X-More: two" in response.text or field == "headers"
    assert TOKEN not in response.text
    assert jobs.webhooks() == []


def test_an_edit_keeps_the_secrets_that_it_does_not_name(jobs: JobManager, ana: Visitor) -> None:
    ana.send("/handlers/new-webhook", **NEW)
    kept = {"url": NEW["url"], "auth": "keep", "signing": "keep", "timeout": "3"}
    assert ana.send("/handlers/webhooks/crm", **kept).status_code == 303
    [info] = jobs.webhooks()
    assert (info.timeout, info.auth, info.signed) == (3, {"kind": "bearer"}, True)

    elsewhere = ana.send("/handlers/webhooks/crm", **{**kept, "url": "http://127.0.0.1:10/hook"})
    assert elsewhere.status_code == 422
    assert "sent nowhere else" in elsewhere.text


def test_a_ping_says_what_went_wrong_and_records_no_run(jobs: JobManager, ana: Visitor) -> None:
    ana.send("/handlers/new-webhook", **NEW)
    response = ana.send("/handlers/webhooks/crm/test")
    assert response.status_code == 200
    assert "Not accepted" in response.text
    assert jobs.runs() == []


def test_a_webhook_in_use_stays_and_another_is_deleted_after_a_question(
    jobs: JobManager, ana: Visitor
) -> None:
    ana.send("/handlers/new-webhook", **NEW)
    jobs.create_job("sync", handler="crm", by="ana")
    assert "Delete webhook crm?" in ana.send("/handlers/webhooks/crm/delete").text
    assert ana.send("/handlers/webhooks/crm/delete/apply").status_code == 422
    jobs.delete_job("sync", by="ana")
    assert ana.send("/handlers/webhooks/crm/delete/apply").headers["location"] == "/handlers"
    assert ana.get("/handlers/webhooks/crm").status_code == 404
