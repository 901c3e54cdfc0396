"""The pages of the engine, handlers, system, audit, notifications and keys, without a browser: who may see them, and what they tell."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.unit.web.visitor import Visitor

from jobmanager import JobManager, Principal, RunContext, Settings
from jobmanager.web import dashboard

KEY = base64.b64encode(b"k" * 32).decode()
PAGES = (
    "/events",
    "/engine",
    "/handlers",
    "/handlers/new-webhook",
    "/system",
    "/audit",
    "/notifications",
    "/keys",
)
FOR_ADMINS = {"/handlers/new-webhook", "/system", "/keys"}
ROLES = ("viewer", "operator", "admin")


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobManager]:
    """A manager that keeps no time, with one job and one webhook."""
    settings = Settings(database_url=f"sqlite:///{tmp_path}/jobs.db", backend="noop", encryption_key=KEY)
    jobs = JobManager(settings)

    @jobs.job("greet", cron="0 3 * * *")
    def greet(name: str = "world") -> str:
        return f"hello {name}"

    with jobs:
        jobs.create_webhook("crm", url="https://crm.example/hook", by="ana")
        yield jobs


def visitor(
    jobs: JobManager, role: str = "admin", *, recent: bool = True, read_only: bool = False
) -> Visitor:
    """A visitor with this role, who signed in just now or long ago."""
    at = datetime.now(UTC) if recent else datetime(2020, 1, 1, tzinfo=UTC)
    person = Principal("ana", [role], authenticated_at=at)
    found = Visitor(dashboard(jobs, authorize=lambda request: person, read_only=read_only))
    found.get("/audit")
    return found


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("path", [*PAGES, "/handlers/webhooks/crm"])
def test_a_page_is_shown_to_those_who_may_use_it_and_linked_for_them_alone(
    jobs: JobManager, role: str, path: str
) -> None:
    seen = visitor(jobs, role).get(path)
    allowed = role == "admin" or path not in FOR_ADMINS
    assert seen.status_code == (200 if allowed else 403)
    assert ('href="/keys"' in seen.text) == (role == "admin")
    assert ('href="/system"' in seen.text) == (role == "admin")
    if not allowed:
        assert "needs jobs:admin" in seen.text


def test_the_page_of_events_shows_what_waits_and_what_was_sent_and_sends_one(jobs: JobManager) -> None:
    def greets(context: RunContext) -> object:
        return context.wait_for("user/confirmed", key="<b>", timeout="7d")

    jobs.add_job("welcome", greets, on="user/created")
    jobs.sync()
    jobs.send_event("user/created", data={"card": "4711"}, id="signup-1")
    [run] = jobs.runs("welcome")
    ana = visitor(jobs, "operator")

    shown = ana.get("/events").text
    assert shown.count(f'href="/runs/{run.id}"') == 2  # what waits, and what the event started
    assert "/events?send-name=user%2Fconfirmed&amp;send-key=%3Cb%3E#send" in shown
    assert "signup-1" in shown
    assert "4711" not in shown
    assert "signup-1" not in ana.get("/events?name=user/confirmed").text
    assert 'value="user/confirmed" required' in ana.get("/events?send-name=user/confirmed").text

    wrong = ana.send("/events", name="user/confirmed", key="<b>", data="{")
    assert (wrong.status_code, "The data is not JSON" in wrong.text, 'value="&lt;b&gt;"' in wrong.text) == (
        422,
        True,
        True,
    )
    assert ana.send("/events", name="").status_code == 422
    sent = ana.send("/events", name="user/confirmed", key="<b>", data="7", id="")
    assert (sent.status_code, sent.headers["location"]) == (303, "/events?name=user%2Fconfirmed")
    assert jobs.run(run.id).due_at <= jobs.store.now()
    assert [event.name for event in jobs.sent_events()] == ["user/confirmed", "user/created"]
    assert jobs.audit(target="event")[0].by == "ana"

    assert "Send event" not in visitor(jobs, "viewer").get("/events").text
    assert visitor(jobs, "viewer").send("/events", name="paid").status_code == 403
    assert visitor(jobs, read_only=True).send("/events", name="paid").status_code == 403


POSTS: Mapping[str, Mapping[str, str]] = {
    "/engine/apply": {},
    "/engine/apply/apply": {},
    "/engine/purge": {},
    "/engine/purge/apply": {},
    "/engine/entries/jm": {"active": "no"},
    "/engine/entries/jm/unschedule": {},
    "/engine/entries/jm/unschedule/apply": {},
    "/handlers/new-webhook": {"key": "b", "url": "https://b.example"},
    "/handlers/webhooks/crm": {"url": "https://c.example", "auth": "keep"},
    "/handlers/webhooks/crm/delete": {},
    "/handlers/webhooks/crm/delete/apply": {},
    "/keys": {"name": "ci", "permission": "jobs:read"},
    "/keys/ci/revoke": {},
    "/keys/ci/revoke/apply": {},
}
DANGEROUS = {
    "/engine/purge/apply",
    "/engine/entries/jm/unschedule/apply",
    "/handlers/webhooks/crm/delete",
    "/handlers/webhooks/crm/delete/apply",
    "/keys",
    "/keys/ci/revoke",
    "/keys/ci/revoke/apply",
}


@pytest.mark.parametrize("path", sorted(POSTS))
def test_an_operator_changes_nothing_that_needs_an_administrator(jobs: JobManager, path: str) -> None:
    assert visitor(jobs, "operator").send(path, **POSTS[path]).status_code == 403
    assert [info.url for info in jobs.webhooks()] == ["https://crm.example/hook"]
    assert jobs.keys() == []


@pytest.mark.parametrize("path", sorted(POSTS))
def test_a_read_only_dashboard_changes_nothing(jobs: JobManager, path: str) -> None:
    response = visitor(jobs, read_only=True).send(path, **POSTS[path])
    assert response.status_code == 403
    assert "changes nothing" in response.text


@pytest.mark.parametrize("path", sorted(POSTS))
def test_a_form_without_its_token_changes_nothing(jobs: JobManager, path: str) -> None:
    response = visitor(jobs).post(path, data=POSTS[path])
    assert response.status_code == 403
    assert "too old" in response.text


@pytest.mark.parametrize("path", sorted(DANGEROUS))
def test_what_cannot_be_undone_asks_for_a_recent_sign_in(jobs: JobManager, path: str) -> None:
    response = visitor(jobs, recent=False).send(path, **POSTS[path])
    assert response.status_code == 403
    assert "sign-in of the last 15 min" in response.text
    assert jobs.keys() == []
    assert len(jobs.webhooks()) == 1


def test_a_key_is_shown_once_and_revoked_after_a_question(jobs: JobManager) -> None:
    ana = visitor(jobs)
    made = ana.send("/keys", name="ci", permission="jobs:read", ends="30", scopes="red blue")
    secret = made.text.split('aria-label="Secret">', 1)[1].split("<", 1)[0]
    [key] = jobs.keys()
    assert made.status_code == 201
    assert (key.permissions, key.scopes, key.created_by) == (("jobs:read",), ("blue", "red"), "ana")
    assert jobs.principal_of_key(secret) is not None
    assert secret not in ana.get("/keys").text

    assert "Revoke key ci?" in ana.send("/keys/ci/revoke").text
    assert jobs.principal_of_key(secret) is not None
    assert ana.send("/keys/ci/revoke/apply").headers["location"] == "/keys"
    assert jobs.principal_of_key(secret) is None
    assert "Revoked" in ana.get("/keys").text


def test_a_key_that_cannot_be_made_keeps_what_was_typed(jobs: JobManager) -> None:
    ana = visitor(jobs)
    ana.send("/keys", name="ci", permission="jobs:read")
    again = ana.send("/keys", name="ci", permission="jobs:write", scopes="red")
    assert again.status_code == 422
    assert "exists" in again.text
    assert 'value="red"' in again.text


def test_settings_say_where_they_came_from_and_secrets_only_that_they_are_set(jobs: JobManager) -> None:
    text = visitor(jobs).get("/system").text
    assert KEY not in text
    row = text.split("JOBMANAGER_ENCRYPTION_KEY", 1)[1].split("</tr>", 1)[0]
    assert ">set<" in row
    assert "code" in row
    assert "SQLite" in text


def test_the_audit_is_filtered_and_paged_by_its_address(jobs: JobManager) -> None:
    for number in range(60):
        jobs.stop_job("greet", reason=f"reason {number}", by=f"person {number % 2}")
        jobs.resume_job("greet", by="somebody")
    ana = visitor(jobs)
    text = ana.get("/audit?actor=somebody").text
    assert text.count('class="st succeeded"><svg') == 50
    assert "person 1" not in text
    older = text.split("Older", 1)[0].rsplit('href="', 1)[1].split('"', 1)[0].replace("&amp;", "&")
    assert ana.get(older).text.count("resume job") == 10


@pytest.mark.parametrize(
    "query", ["since=x&until=9999-99-99", "outcome=x&target=%00", "before=%F0%9F%92%A9", "job=" + "x" * 5000]
)
def test_an_address_that_makes_no_sense_finds_nothing_or_everything(jobs: JobManager, query: str) -> None:
    assert visitor(jobs).get(f"/audit?{query}").status_code == 200
    assert visitor(jobs).get(f"/notifications?{query}").status_code == 200
