"""What a dangerous action asks of a sign-in, over HTTP as the dashboard serves it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import httpx
import pytest
from starlette.requests import Request
from tests.unit.web.visitor import Visitor

from jobmanager import JobManager, Settings
from jobmanager.access.acting import acting
from jobmanager.access.passwords import hashed
from jobmanager.access.principal import Principal
from jobmanager.testing import FakeClock
from jobmanager.web import dashboard, password_login
from jobmanager.web.problems import ProblemError
from jobmanager.web.recent import check_recent
from jobmanager.web.site import Site

NOW = datetime(2026, 11, 25, 13, 30, tzinfo=UTC)
PASSWORD = "correct horse battery"


def request(login_url: str | None = None) -> Request:
    """A request to a dashboard below `/ops`."""
    site = Site(
        jobs=JobManager(Settings(database_url="memory://")),
        title="shop",
        zone=UTC,
        login_url=login_url,
        clock=FakeClock(NOW),
    )
    app = SimpleNamespace(state=SimpleNamespace(site=site))
    return Request({"type": "http", "headers": [], "app": app, "state": {"mount": "/ops"}})


def refused(principal: Principal, login_url: str | None = None) -> ProblemError | None:
    with acting(principal):
        try:
            check_recent(request(login_url))
        except ProblemError as error:
            return error
    return None


def test_a_sign_in_of_the_last_fifteen_minutes_is_recent() -> None:
    assert refused(Principal("ana", ["admin"], authenticated_at=NOW - timedelta(minutes=15))) is None


def test_a_key_that_may_do_dangerous_things_needs_none() -> None:
    assert refused(Principal("key:ci", ["admin", "jobs:dangerous"])) is None


@pytest.mark.parametrize(
    "age", [timedelta(minutes=15, seconds=1), timedelta(hours=-1)], ids=["too old", "of the future"]
)
def test_an_older_sign_in_is_refused_with_the_place_to_sign_in_again(age: timedelta) -> None:
    error = refused(Principal("ana", ["admin"], authenticated_at=NOW - age), "https://shop/login")
    assert error is not None
    document = error.problem.document("1")
    assert (document["status"], document["type"]) == (403, "urn:jobmanager:problem:recent-login")
    assert document["reauth"] == "https://shop/login"


def test_a_password_of_each_request_proves_no_recent_sign_in() -> None:
    error = refused(Principal("ana", ["admin"]))
    assert error is not None
    document = error.problem.document("1")
    assert "proves none" in document["detail"]
    assert "command line" in document["hint"]
    assert "reauth" not in document


# ---------------------------------------------------------------- the dashboard's own page


@pytest.fixture
def client() -> Visitor:
    jobs = JobManager(Settings(database_url="memory://"))
    users = Settings(dashboard_users=f"ana:admin:{hashed(PASSWORD)}")
    app = dashboard(jobs, authorize=lambda request: None, sign_in=password_login(users))
    return Visitor(app, "https://shop.example")


def sent(client: Visitor, path: str, **fields: str) -> httpx.Response:
    client.get("/login")
    return client.send(path, **fields)


def test_pages_lead_to_the_sign_in_and_programs_are_told(client: Visitor) -> None:
    response = client.get("/runs?status=failed")
    assert (response.status_code, response.headers["location"]) == (
        303,
        "/login?next=/runs%3Fstatus%3Dfailed",
    )
    response = client.get("/api/v1/jobs")
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    response = client.get("/jobs", headers={"authorization": "Basic eDp5"})
    assert response.status_code == 401


def test_the_cookie_is_out_of_reach_of_scripts_and_of_plain_http(client: Visitor) -> None:
    response = sent(client, "/login", name="ana", password=PASSWORD, next="/jobs")
    assert (response.status_code, response.headers["location"]) == (303, "/jobs")
    cookie = response.headers["set-cookie"].lower()
    assert {"httponly", "secure", "samesite=lax", "path=/"} <= {part.strip() for part in cookie.split(";")}
    assert client.get("/jobs").status_code == 200


@pytest.mark.parametrize(
    "there", ["//evil.example", "/\\evil.example", "https://evil.example", "/\tx", "jobs"]
)
def test_a_sign_in_leads_nowhere_else(client: Visitor, there: str) -> None:
    response = sent(client, "/login", name="ana", password=PASSWORD, next=there)
    assert (response.status_code, response.headers["location"]) == (303, "/")


def test_a_sign_in_without_the_token_of_the_form_is_refused(client: Visitor) -> None:
    response = client.post("/login", data={"name": "ana", "password": PASSWORD})
    assert response.status_code == 403
    assert "too old" in response.text


def test_a_sign_in_from_another_site_is_refused(client: Visitor) -> None:
    response = client.post("/login", headers={"origin": "https://evil.example"}, data={"name": "ana"})
    assert response.status_code == 403


def test_wrong_passwords_and_unknown_names_look_alike_and_end_in_a_wait(client: Visitor) -> None:
    known = sent(client, "/login", name="ana", password="x")
    unknown = sent(client, "/login", name="eve", password="x")
    assert known.status_code == unknown.status_code == 403
    told = [re.sub("data-now=[^>]*", "", response.text) for response in (known, unknown)]
    assert told[0].replace('"ana"', '"eve"') == told[1]
    codes = [sent(client, "/login", name="ana", password="x").status_code for _ in range(4)]
    assert codes == [403, 403, 403, 429]
    assert sent(client, "/login", name="ana", password=PASSWORD).status_code == 429


def test_signing_out_takes_the_cookie_away(client: Visitor) -> None:
    sent(client, "/login", name="ana", password=PASSWORD)
    assert sent(client, "/logout").headers["location"] == "/login"
    assert client.get("/jobs").status_code == 303


def test_where_there_is_no_sign_in_the_page_is_not_there() -> None:
    jobs = JobManager(Settings(database_url="memory://"))
    app = dashboard(jobs, authorize=lambda request: Principal("ana", ["admin"]))
    assert Visitor(app).get("/login").status_code == 404
