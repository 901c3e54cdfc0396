"""Who may do what over the API: every route of the table, for everybody that may ask. A new route is in it at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from fastapi.routing import APIRoute
from tests.api import PRINCIPALS, Api, declare, problem

from jobmanager import JobManager, Settings
from jobmanager.access.principal import ADMIN, PERMISSIONS, READ, WRITE
from jobmanager.web.api.app import ROUTERS
from jobmanager.web.api.routing import PERMISSION, GuardedRoute

SECRET = "planted-payload-of-acme"
TRACE = "planted-trace-of-the-system"
CROSS_SITE = {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}
# What cannot be brought back. A route that destroys something belongs here and calls check_recent.
NEEDS_RECENT_LOGIN = {
    ("DELETE", "/jobs/{job_id}"),
    ("DELETE", "/webhooks/{key}"),
    ("POST", "/webhooks/rotate"),
    ("DELETE", "/engine/entries/{name}"),
    ("POST", "/engine/entries/purge"),
    ("POST", "/keys"),
    ("DELETE", "/keys/{name}"),
}
BODIES: dict[tuple[str, str], Any] = {("POST", "/keys"): {"name": "made-by-the-matrix"}}
# A stream has no end to wait for: of one from a place that is none there is only the problem.
QUERIES = {("GET", "/events"): "?after=nowhere"}


class Row(NamedTuple):
    """One route of the table."""

    method: str
    path: str
    permission: str

    def fill(self, **ids: str) -> str:
        return self.path.format(**ids) + QUERIES.get((self.method, self.path), "")


def rows() -> list[Row]:
    found = []
    for router in ROUTERS:
        for route in router.routes:
            assert isinstance(route, GuardedRoute), f"{route} is served without a look at who asks"
            [method] = route.methods
            found.append(Row(method, route.path, (route.openapi_extra or {})[PERMISSION]))
    return found


ROWS = rows()


class World(NamedTuple):
    """A manager in which something of everybody is planted, its API, and ids of these things."""

    jobs: JobManager
    api: Api
    ids: dict[str, str]
    hidden: dict[str, str]
    foreign: dict[str, str]
    keys: dict[str, str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("access")
    jobs = JobManager(Settings(database_url=f"sqlite:///{folder}/jobs.db", backend="noop"))
    declare(jobs)
    hidden = jobs.trigger_job("hidden", requested_by=TRACE)
    acme = jobs.trigger_job("shared", scope="acme", requested_by=SECRET)
    plain = jobs.trigger_job("greet")
    keys = {
        "key that reads": jobs.create_key("reads", permissions=[READ]),
        "key": jobs.create_key("writes"),
        "dangerous key": jobs.create_key("may-destroy", permissions=PERMISSIONS),
        "revoked key": jobs.create_key("revoked"),
    }
    jobs.revoke_key("revoked")
    common = {"key": "nothing", "name": "nothing", "notification_id": "nothing"}
    yield World(
        jobs,
        Api(jobs),
        {**common, "job_id": "greet", "run_id": plain.id},
        {**common, "job_id": "hidden", "run_id": hidden.id},
        {**common, "job_id": "shared", "run_id": acme.id},
        keys,
    )
    jobs.stop()
    jobs.store.close()


def ask(world: World, row: Row, who: str, ids: dict[str, str] | None = None, **more: Any) -> Any:
    """Make the request of a row for somebody; it may be wrong in all but that."""
    headers = more.pop("headers", {})
    by = who if who in PRINCIPALS else ""
    if who in world.keys:
        headers = {**headers, "authorization": f"Bearer {world.keys[who]}"}
    body = BODIES.get((row.method, row.path))
    given = {} if body is None else {"json": body}
    return world.api(row.method, row.fill(**(ids or world.ids)), by=by, headers=headers, **given, **more)


def kind_of(response: Any) -> str:
    return problem(response)[1] if response.status_code >= 400 else "done"


MAY = {
    "viewer": {READ},
    "operator": {READ, WRITE},
    "admin": {READ, WRITE, ADMIN},
    "stale": {READ, WRITE, ADMIN},
    "key that reads": {READ},
    "key": {READ, WRITE},
    "dangerous key": {READ, WRITE, ADMIN},
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.method} {row.path}")
def test_each_route_serves_those_with_its_permission_and_nobody_else(world: World, row: Row) -> None:
    """Fails if one route answers without its declared permission, to nobody, or to a key that was revoked."""
    for who in ("", "revoked key"):
        assert kind_of(ask(world, row, who)) == "unauthenticated"
    told = {who: kind_of(ask(world, row, who)) for who in MAY}
    refused = {who for who, kind in told.items() if kind == "permission-denied"}
    assert refused == {who for who, may in MAY.items() if row.permission not in may}
    served = set(told.values()) - {"permission-denied"}
    assert not served & {"unauthenticated", "failed", "http", "method", "not-found"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.method} {row.path}")
def test_what_destroys_needs_a_recent_login_or_a_dangerous_key(world: World, row: Row) -> None:
    asked = kind_of(ask(world, row, "stale"))
    assert (asked == "recent-login") == ((row.method, row.path) in NEEDS_RECENT_LOGIN)
    for who in ("admin", "dangerous key"):
        assert kind_of(ask(world, row, who)) != "recent-login"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.method} {row.path}")
def test_a_page_of_another_site_changes_nothing(world: World, row: Row) -> None:
    """A browser adds no bearer key by itself: such a request was meant."""
    asked = kind_of(ask(world, row, "admin", headers=CROSS_SITE))
    assert (asked == "cross-site") == (row.method != "GET")
    assert kind_of(ask(world, row, "dangerous key", headers=CROSS_SITE)) != "cross-site"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.method} {row.path}")
def test_what_is_hidden_is_not_there(world: World, row: Row) -> None:
    """Fails if a route shows a system job, or a run of another scope, or tells it from one that does not exist."""
    hidden = ask(world, row, "operator", world.hidden)
    assert TRACE not in hidden.text
    if "{" in row.path and row.permission != ADMIN and ("{job_id}" in row.path or "{run_id}" in row.path):
        assert hidden.status_code in (404, 422), hidden.text
    foreign = ask(world, row, "beta", world.foreign)
    assert SECRET not in foreign.text
    if "{run_id}" in row.path:
        assert foreign.status_code == 404


def test_bulk_tells_hidden_runs_from_no_others(world: World) -> None:
    body = {"action": "cancel", "ids": [world.hidden["run_id"], "0" * 36], "dry_run": True}
    told = world.api("POST", "/runs/bulk", by="operator", json=body).json()
    assert {each["why"] for each in told["refused"]} == {"there is no such run"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.method} {row.path}")
def test_a_read_only_dashboard_changes_nothing(world: World, row: Row) -> None:
    api = Api(world.jobs, read_only=True)
    asked = kind_of(ask(world._replace(api=api), row, "admin"))
    assert (asked == "read-only") == (row.permission != READ and row.method != "GET")


def test_the_document_names_every_route_and_its_permission(world: World) -> None:
    document = world.api("GET", "/openapi.json", by="viewer").json()
    told = {
        (method.upper(), path): operation[PERMISSION]
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert told == {(row.method, row.path): row.permission for row in ROWS}
    assert problem(world.api("GET", "/openapi.json", by="")) == (401, "unauthenticated")


def test_a_body_is_not_read_for_those_who_may_not(world: World) -> None:
    """Fails if somebody without the permission gets to the parser."""
    response = world.api(
        "POST", "/jobs", by="operator", content=b"{", headers={"content-type": "application/json"}
    )
    assert problem(response) == (403, "permission-denied")


def test_a_route_that_is_added_without_its_permission_is_no_route() -> None:
    """Fails if FastAPI's own way to add a route works on our routers without a permission."""
    from jobmanager.web.api.routing import Routes

    router = Routes()
    with pytest.raises(KeyError, match=PERMISSION):
        router.add_api_route("/open", rows, methods=["GET"])
    assert APIRoute not in {type(route) for route in router.routes}
