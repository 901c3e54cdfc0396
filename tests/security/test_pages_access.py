"""Who may do what on the pages: every route of the table, for everybody that may ask. A new route is missed in the table at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from starlette.routing import Route
from starlette.testclient import TestClient
from tests.api import PRINCIPALS, Api, declare

from jobmanager import JobManager, RunContext, Settings
from jobmanager.access.passwords import hashed
from jobmanager.access.principal import ADMIN, PERMISSIONS, READ, WRITE
from jobmanager.run import FAILED, PENDING, RUNNING, Ending, Failure, LogLine, Run, new_id
from jobmanager.step import Awaited, Step
from jobmanager.stores.outbox import Notice
from jobmanager.stores.steps import StepWrite
from jobmanager.testing import FakeClock
from jobmanager.web import password_login
from jobmanager.web.origin import COOKIE
from jobmanager.web.pages.app import ROUTES

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
TRACE = "planted-trace-of-the-system"
SECRET = "planted-secret-of-acme"
TOKEN = "the-token-of-this-browser"
CROSS_SITE = {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}
STRETCH = {"start": "2026-11-24 00:00", "end": "2026-11-24 12:00"}
SURE = {"sure": "yes"}
WITHOUT_SIGN_IN = {"GET /login", "POST /login", "POST /logout"}


class Access(NamedTuple):
    """What a route needs, and the forms that are sent to it."""

    permission: str
    recent: bool = False
    forms: tuple[Mapping[str, str], ...] = ({},)


ASKED = ({}, SURE)
ACCESS: Mapping[str, Access] = {
    "GET /": Access(READ),
    "GET /jobs": Access(READ),
    "GET /jobs/new": Access(ADMIN),
    "POST /jobs/new": Access(ADMIN, forms=({"id": "made", "handler": "greet"}, {"preview": "1"}, {"every": "soon", "kind": "every"})),
    "GET /jobs/{job_id}": Access(READ),
    "GET /jobs/{job_id}/edit": Access(WRITE),
    "POST /jobs/{job_id}/edit": Access(WRITE, forms=({"overlap": "queue"}, {"preview": "1"}, {"overlap": "never"})),
    "POST /jobs/{job_id}/run": Access(WRITE, forms=({}, {"scope": "blue"})),
    "POST /jobs/{job_id}/pause": Access(WRITE),
    "POST /jobs/{job_id}/resume": Access(WRITE),
    "POST /jobs/{job_id}/enable": Access(WRITE),
    "POST /jobs/{job_id}/disable": Access(WRITE, forms=ASKED),
    "POST /jobs/{job_id}/reset": Access(WRITE, forms=ASKED),
    "POST /jobs/{job_id}/delete": Access(ADMIN, True, ASKED),
    "GET /jobs/{job_id}/backfill": Access(WRITE),
    "POST /jobs/{job_id}/backfill": Access(WRITE, forms=({}, STRETCH, {**STRETCH, **SURE})),
    "GET /runs": Access(READ),
    "GET /runs/newer": Access(READ),
    "POST /runs/bulk": Access(WRITE, forms=tuple({"do": do, "id": "{run_id}", **more} for do in ("cancel", "redrive", "discard") for more in ASKED)),
    "GET /runs/{run_id}": Access(READ),
    "GET /runs/{run_id}/log": Access(READ),
    "POST /runs/{run_id}/redrive": Access(WRITE),
    "POST /runs/{run_id}/discard": Access(WRITE),
    "POST /runs/{run_id}/cancel": Access(WRITE, forms=ASKED),
    "GET /events": Access(READ),
    "POST /events": Access(WRITE, forms=({"name": "paid"}, {"name": ""}, {"name": "paid", "data": "["})),
    "GET /engine": Access(READ),
    "POST /engine/entries/{name}": Access(ADMIN),
    "POST /engine/entries/{name}/unschedule": Access(ADMIN, True),
    "POST /engine/entries/{name}/unschedule/apply": Access(ADMIN, True),
    "POST /engine/purge": Access(ADMIN, True),
    "POST /engine/purge/apply": Access(ADMIN, True),
    "POST /engine/apply": Access(ADMIN),
    "POST /engine/apply/apply": Access(ADMIN),
    "GET /handlers": Access(READ),
    "GET /handlers/new-webhook": Access(ADMIN),
    "POST /handlers/new-webhook": Access(ADMIN, forms=({"key": "made", "url": "https://made.example"}, {})),
    "GET /handlers/webhooks/{key}": Access(READ),
    "POST /handlers/webhooks/{key}": Access(ADMIN, forms=({"url": "http://127.0.0.1:9/b", "auth": "keep"}, {"timeout": "soon"})),
    "POST /handlers/webhooks/{key}/test": Access(WRITE),
    "POST /handlers/webhooks/{key}/delete": Access(ADMIN, True),
    "POST /handlers/webhooks/{key}/delete/apply": Access(ADMIN, True),
    "GET /system": Access(ADMIN),
    "GET /audit": Access(READ),
    "GET /notifications": Access(READ),
    "POST /notifications/{id}/resend": Access(WRITE),
    "POST /notifications/{id}/drop": Access(WRITE),
    "GET /keys": Access(ADMIN),
    "POST /keys": Access(ADMIN, True, ({"name": "made", "permission": "jobs:read"}, {})),
    "POST /keys/{key}/revoke": Access(ADMIN, True),
    "POST /keys/{key}/revoke/apply": Access(ADMIN, True),
    "POST /theme": Access(READ),
}  # fmt: skip
KINDS = {
    "Sign in first": "unauthenticated",
    "No permission": "permission-denied",
    "Sign in to go on": "recent-login",
    "The request came from another site": "cross-site",
    "The form is too old": "stale-form",
    "Read only": "read-only",
}


class Row(NamedTuple):
    """One route of the table."""

    method: str
    path: str

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def access(self) -> Access:
        return ACCESS[self.name]

    @property
    def changes(self) -> bool:
        return self.method != "GET" and self.path != "/theme"


def routes() -> list[Row]:
    found = []
    for route in ROUTES:
        if not isinstance(route, Route):
            assert route.name == "static", f"{route} is none of the pages"  # type: ignore[attr-defined]
            continue
        found += [Row(method, route.path) for method in sorted((route.methods or set()) - {"HEAD"})]
    return found


ROWS = [row for row in routes() if row.name in ACCESS]
LISTS = [
    row.path for row in ROWS if row.method == "GET" and "{" not in row.path and row.access.permission == READ
]
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


def test_every_route_is_in_the_table_and_nothing_else() -> None:
    assert {row.name for row in routes()} == {*ACCESS, *WITHOUT_SIGN_IN}


# ---------------------------------------------------------------- a world in which something of everybody is planted


class World:
    """A manager with records of everybody, and a dashboard that each request asks as its own principal.

    `planted` adds a system job and what acme did in a project job: with neither, all else is the same, at the same instants.
    """

    def __init__(self, folder: Path, *, planted: bool = True) -> None:
        self.clock = FakeClock(NOON)
        self.jobs = JobManager(
            Settings(database_url=f"sqlite:///{folder}/jobs.db", backend="noop", webhook_allow="127.0.0.1"),
            clock=self.clock,
        )
        declare(self.jobs)
        self.jobs.create_webhook("crm", url="http://127.0.0.1:9/hook", by="ana")
        self.jobs.create_job("uses", handler="crm", by="ana")
        self.keys = {
            "key that reads": self.jobs.create_key("reads", permissions=[READ]),
            "key": self.jobs.create_key("writes"),
            "dangerous key": self.jobs.create_key("may-destroy", permissions=PERMISSIONS),
            "revoked key": self.jobs.create_key("revoked"),
        }
        self.jobs.revoke_key("revoked")
        self.visible: list[str] = []
        ids = {"name": "nothing", "key": "crm"}
        self.ids = ids | self._told("greet", "nothing to hide")
        self.hidden = ids | {"job_id": "planted", "run_id": "", "id": ""}
        self.foreign = ids | {"job_id": "shared", "run_id": "", "id": ""}
        if planted:
            self.jobs.add_job("planted", _secret_work, cron="*/5 * * * *", visibility="system", name=TRACE)
            self.jobs.sync()
            self.hidden |= self._told("planted", TRACE)
            self.jobs.trigger_job("planted", by=TRACE, notify=False)
            self.foreign |= self._told("shared", SECRET, scope="acme")
            self.jobs.trigger_job("shared", scope="acme", by=SECRET)
            self._wait("planted", TRACE)
            self._wait("shared", SECRET, key="shared:acme")
            self.jobs.add_job("hears", _secret_work, on="greeted", visibility="system", name=TRACE)
            self.jobs.sync()
        self.jobs.send_event("greeted", id="the same in both worlds")
        self.clock.advance(seconds=3600 - (self.clock.now() - NOON).total_seconds())
        self.app = Api(self.jobs).app

    def _told(self, job_id: str, text: str, *, scope: str = "") -> dict[str, str]:
        """Make runs, a notification and entries of the audit of a job that say this text; return the ids of a run and of the notification."""
        key = f"{job_id}:{scope}" if scope else job_id
        made = []
        for status in (PENDING, PENDING, FAILED):
            self.clock.advance(seconds=1)
            now = self.clock.now()
            closed: dict[str, Any] = {"started_at": now, "finished_at": now, "starts": 1, "attempt": 1}
            failed = {
                **closed,
                "error": Failure(kind="exception", type="OSError", message=text, traceback=text),
            }
            run = Run(
                id=new_id(now), job_id=job_id, status=status, opened_at=now, due_at=now, accepted_at=now, concurrency_key=key,
                trigger="manual", requested_by=text, payload={"key": text}, **(failed if status is FAILED else {}),
            )  # fmt: skip
            with self.jobs.store.jobs.lock(job_id) as txn:
                assert txn.insert(run)
            self.jobs.store.runs.add_lines(run.id, 1, [LogLine(now, "INFO", text)])
            made.append(run)
        if not scope:
            self.jobs.override_job(job_id, priority=3, by=text)
        self.jobs.cancel(made[0].id, by=text)
        notice = Notice(
            namespace="default", event="failed", subject=made[-1].id, channel="email", address=f"{text}@example.org".replace(" ", "-"), job_id=job_id
        )  # fmt: skip
        assert self.jobs.store.outbox.add([notice]) == 1
        [notification] = self.jobs.notifications(job=job_id)
        if job_id == "greet":
            self.visible += [*(run.id for run in made), notification.id]
        return {"job_id": job_id, "run_id": made[-1].id, "id": notification.id}

    def _wait(self, job_id: str, event: str, *, key: str = "") -> None:
        """Make a run of the job that rests until the event comes."""
        now = self.clock.now()
        run = Run(
            id=new_id(now), job_id=job_id, status=RUNNING, opened_at=now, due_at=now,
            concurrency_key=key or job_id, trigger="manual", owner="gone", starts=1, attempt=1, started_at=now,
        )  # fmt: skip
        with self.jobs.store.jobs.lock(job_id) as txn:
            assert txn.insert(run)
        step = Step(
            run_id=run.id, name="wait", occurrence=0, kind="wait_for", status="waiting", started_at=now,
            wakes_at=now + timedelta(days=9), awaits=Awaited(event, "", now),
        )  # fmt: skip
        assert self.jobs.store.steps.record([StepWrite(run, step)]) == [True]
        rest = Ending(
            run=run, status=FAILED, started_at=now, finished_at=now, reason="waiting", retry_at=now + timedelta(days=9)
        )  # fmt: skip
        assert self.jobs.store.runs.write([], [rest]).ended[run.id] is PENDING

    def close(self) -> None:
        self.jobs.stop()
        self.jobs.store.close()


def _secret_work(context: RunContext) -> str:
    context.log.info(TRACE)
    raise OSError(TRACE)


class Visitors:
    """Requests to a world's dashboard, each by a principal or key, with the cookie and form token of one browser."""

    def __init__(self, world: World, client: TestClient) -> None:
        self.world = world
        self._client = client

    def ask(
        self, row: Row, who: str, form: Mapping[str, str] | None = None, *, ids: Mapping[str, str] | None = None,
        token: str | None = TOKEN, headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:  # fmt: skip
        ids = self.world.ids if ids is None else ids
        path = row.path.format(**ids)
        form = row.access.forms[0] if form is None else form
        data = {name: value.format(**ids) for name, value in form.items()} | (
            {"token": token} if token else {}
        )
        return self.request(
            row.method, path, who, headers=headers, data=data if row.method == "POST" else None
        )

    def request(
        self, method: str, path: str, who: str, *, headers: Mapping[str, str] | None = None, **how: Any
    ) -> httpx.Response:
        by = {"x-test-principal": who} if who in PRINCIPALS else {}
        if who in self.world.keys:
            by = {"authorization": f"Bearer {self.world.keys[who]}"}
        return self._client.request(
            method, path, headers={**by, **(headers or {})}, follow_redirects=False, **how
        )


def _visit(world: World, app: Any) -> Iterator[Visitors]:
    with TestClient(app, cookies={COOKIE: TOKEN}, raise_server_exceptions=False) as client:
        yield Visitors(world, client)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("pages"))
    yield world
    world.close()


@pytest.fixture(scope="module")
def visitors(world: World) -> Iterator[Visitors]:
    yield from _visit(world, world.app)


@pytest.fixture(scope="module")
def read_only(world: World) -> Iterator[Visitors]:
    yield from _visit(world, Api(world.jobs, read_only=True).app)


@pytest.fixture(scope="module")
def with_sign_in(world: World) -> Iterator[Visitors]:
    users = Settings(dashboard_users=f"ana:admin:{hashed('correct horse battery')}")
    yield from _visit(world, Api(world.jobs, sign_in=password_login(users)).app)


def kind_of(response: httpx.Response) -> str:
    """Return the kind of the problem that a page says; its status as a text for another one."""
    assert response.status_code != 500, response.text
    if response.status_code < 400:
        return "done"
    title = re.search(r"<h1[^>]*>([^<]*)", response.text)
    return KINDS.get(title[1].strip() if title else "", str(response.status_code))


def everything(jobs: JobManager) -> Any:
    """Return what a page could have changed."""
    keys = jobs.keys()
    return (
        [(job.id, job.row) for job in jobs.list_jobs()],
        jobs.runs(limit=500),
        jobs.webhooks(),
        [(key.name, key.revoked_at) for key in keys],
        jobs.notifications(limit=500),
        [event.id for event in jobs.sent_events()],
        [entry for entry in jobs.audit(limit=500) if entry.outcome != "refused"],
    )


# ---------------------------------------------------------------- the matrix

MAY = {
    "viewer": {READ},
    "key that reads": {READ},
    "operator": {READ, WRITE},
    "key": {READ, WRITE},
    "admin": {READ, WRITE, ADMIN},
    "dangerous key": {READ, WRITE, ADMIN},
}


@each_row
def test_each_route_serves_those_with_its_permission_and_nobody_else(visitors: Visitors, row: Row) -> None:
    """Fails if a page is shown, a question asked or a form taken without the permission, by nobody, or with a key that was revoked."""
    before = everything(visitors.world.jobs)
    for form in row.access.forms:
        for who in ("", "revoked key"):
            assert kind_of(visitors.ask(row, who, form)) == "unauthenticated"
        for who in [who for who, may in MAY.items() if row.access.permission not in may]:
            assert (who, kind_of(visitors.ask(row, who, form))) == (who, "permission-denied")
    assert everything(visitors.world.jobs) == before
    for form in row.access.forms:
        for who in [who for who, may in MAY.items() if row.access.permission in may]:
            told = kind_of(visitors.ask(row, who, form))
            assert told == "done" or told in ("400", "404", "409", "422"), (who, told)
            assert told == "done" or row.method == "POST"


@each_row
def test_what_destroys_needs_a_recent_login(visitors: Visitors, row: Row) -> None:
    before = everything(visitors.world.jobs)
    told = {kind_of(visitors.ask(row, "stale", form)) for form in row.access.forms}
    if row.access.recent:
        assert told == {"recent-login"}
        assert everything(visitors.world.jobs) == before
    else:
        assert "recent-login" not in told


@each_row
def test_a_page_of_another_site_and_a_form_without_its_token_change_nothing(
    visitors: Visitors, row: Row
) -> None:
    before = everything(visitors.world.jobs)
    for form in row.access.forms:
        asked = visitors.ask(row, "admin", form, headers=CROSS_SITE)
        assert (kind_of(asked) == "cross-site") == (row.method == "POST")
        for token in (None, "of-another-browser") if row.method == "POST" else ():
            for who in ("admin", "dangerous key"):
                assert kind_of(visitors.ask(row, who, form, token=token)) == "stale-form"
    assert everything(visitors.world.jobs) == before


@each_row
def test_a_read_only_dashboard_changes_nothing(read_only: Visitors, row: Row) -> None:
    before = everything(read_only.world.jobs)
    for form in row.access.forms:
        assert (kind_of(read_only.ask(row, "admin", form)) == "read-only") == row.changes
    assert everything(read_only.world.jobs) == before


@each_row
def test_what_is_hidden_is_not_there(visitors: Visitors, row: Row) -> None:
    """Fails if a page shows a system job, or a run of another scope, or tells it from one that does not exist."""
    world = visitors.world
    is_of = {name for name in ("job_id", "run_id", "id") if f"{{{name}}}" in row.path}
    for who in ("viewer", "operator"):
        hidden = visitors.ask(row, who, ids=world.hidden)
        assert TRACE not in hidden.text
        if is_of and row.access.permission in MAY[who]:
            assert hidden.status_code == 404
        if not is_of:
            assert "/jobs/planted" not in hidden.text
    for who in ("stranger", "beta"):
        foreign = visitors.ask(row, who, ids=world.foreign)
        assert SECRET not in foreign.text
        if is_of & {"run_id", "id"}:
            assert foreign.status_code == 404


# ---------------------------------------------------------------- a dashboard with a page to sign in


@each_row
def test_nobody_is_led_to_the_sign_in_from_everywhere(with_sign_in: Visitors, row: Row) -> None:
    before = everything(with_sign_in.world.jobs)
    asked = with_sign_in.ask(row, "")
    assert asked.status_code == 303
    assert re.fullmatch(r"/login(\?next=[^:]*)?", asked.headers["location"])
    assert asked.text == ""
    assert everything(with_sign_in.world.jobs) == before


def test_where_there_is_no_sign_in_its_pages_are_not_there(visitors: Visitors) -> None:
    for name in WITHOUT_SIGN_IN:
        method, path = name.split()
        data = {"token": TOKEN} if method == "POST" else None
        assert visitors.request(method, path, "admin", data=data).status_code == 404
        assert visitors.request(method, path, "", data=data).status_code == 401


# ---------------------------------------------------------------- counts

QUERIES = (
    "/runs?text=planted", "/runs?job=planted", "/runs?status=failed", "/runs?job=shared", "/jobs?q=planted", "/audit?job=planted",
    "/audit?outcome=done", "/notifications?job=planted", "/notifications?job=shared", "/jobs/shared",
)  # fmt: skip


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Visitors, Visitors]]:
    """Two worlds that are the same but for what a stranger may not see."""
    full = World(tmp_path_factory.mktemp("full"))
    bare = World(tmp_path_factory.mktemp("bare"), planted=False)
    of_full, of_bare = _visit(full, full.app), _visit(bare, bare.app)
    yield next(of_full), next(of_bare)
    for visit, world in ((of_full, full), (of_bare, bare)):
        next(visit, None)
        world.close()


@pytest.mark.parametrize("path", [*LISTS, *QUERIES])
def test_a_page_is_the_same_as_where_the_hidden_does_not_exist(
    twins: tuple[Visitors, Visitors], path: str
) -> None:
    """Fails if a count, a chart, a facet or a filter tells of a system job, or of runs of another scope."""
    for visitors in twins:
        visitors.request("POST", "/theme", "admin", data={"token": TOKEN})  # what is kept is forgotten
    # The administrator comes first: nothing of what is kept for it may be shown to others.
    of_admin = [_lines(visitors, path, "admin", part="<main") for visitors in twins]
    assert of_admin[0] != of_admin[1], "nothing that is hidden is on it, so that this test could not fail"
    assert _lines(twins[0], path, "stranger") == _lines(twins[1], path, "stranger")


def test_an_administrator_of_scopes_is_not_told_what_becomes_of_runs(visitors: Visitors) -> None:
    """Fails if what was kept for an administrator of all scopes is shown to another one."""
    waits = "run of &#39;shared&#39; waiting"
    for _ in range(2):
        assert waits in visitors.request("GET", "/system", "admin").text
        told = visitors.request("GET", "/system", "beta").text
        assert waits not in told
        assert "You see the runs of some scopes" in told


def _lines(visitors: Visitors, path: str, who: str, *, part: str = "") -> list[str]:
    """Return the lines of a page from this part on, with ids and the path of the store replaced."""
    text = visitors.request("GET", path, who).text.replace(visitors.world.jobs.store.url, "the-store")
    for number, run_id in enumerate(visitors.world.visible):
        text = text.replace(run_id, f"id-{number}").replace(run_id[-8:], f"tail-{number}")
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "id", text[max(text.find(part), 0) :]).splitlines()
