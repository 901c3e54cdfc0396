"""The endpoint mounted in FastAPI, Starlette, Litestar, Flask and Django, each really called; and alone under uvicorn, with PostgreSQL."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from tests import bakery
from tests.calls import OTHER_SECRET, RUNS, SECRET, Replied, ask, ask_wsgi, bearer, body_of, signed
from tests.servers import free_port

from jobmanager import JobManager, Settings
from jobmanager.cli.commands.export_targets import TARGETS, external_job
from jobmanager.run import new_id
from jobmanager.schedule import At
from jobmanager.web import asgi, wsgi

Caller = Callable[..., Replied]
Mount = Callable[[JobManager], tuple[str, Caller]]


def asgi_caller(app: Any) -> Caller:
    """Each request has a loop of its own, on a thread of its own: this thread's loop is pytest's."""

    def call(*request: Any, **more: Any) -> Replied:
        with ThreadPoolExecutor(1) as elsewhere:
            return elsewhere.submit(asyncio.run, ask(app, *request, **more)).result(30)

    return call


def wsgi_caller(app: Any) -> Caller:
    return lambda *request, **more: ask_wsgi(app, *request, **more)


# ---------------------------------------------------------------- where it is mounted: (prefix of its paths, how to call)


def starlette_at_jobs(jobs: JobManager) -> tuple[str, Caller]:
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Mount, Route

    routes = [Route("/hello", lambda request: PlainTextResponse("hello")), Mount("/jobs", asgi(jobs))]
    return "", asgi_caller(Starlette(routes=routes))


def starlette_at_a_prefix(jobs: JobManager) -> tuple[str, Caller]:
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Mount, Route

    inner = Starlette(routes=[Mount("/v1", asgi(jobs))])
    routes = [Route("/hello", lambda request: PlainTextResponse("hello")), Mount("/api", inner)]
    return "/api/v1", asgi_caller(Starlette(routes=routes))


def starlette_with_middleware(jobs: JobManager) -> tuple[str, Caller]:
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.responses import PlainTextResponse
    from starlette.routing import Mount, Route

    async def pass_on(request, call_next):
        return await call_next(request)

    return "", asgi_caller(
        Starlette(
            routes=[Route("/hello", lambda request: PlainTextResponse("hello")), Mount("/", asgi(jobs))],
            middleware=[Middleware(BaseHTTPMiddleware, dispatch=pass_on)],
        )
    )


def fastapi_at_jobs(jobs: JobManager) -> tuple[str, Caller]:
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/hello")
    def hello() -> str:
        return "hello"

    app.mount("/jobs", asgi(jobs))
    return "", asgi_caller(app)


def fastapi_behind(jobs: JobManager) -> tuple[str, Caller]:
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/hello")
    def hello() -> str:
        return "hello"

    return "", asgi_caller(asgi(jobs, otherwise=app))


def litestar_at_jobs(jobs: JobManager) -> tuple[str, Caller]:
    from litestar import Litestar, get
    from litestar import asgi as mount

    @get("/hello", sync_to_thread=False)
    def hello() -> str:
        return "hello"

    mounted = mount("/jobs", is_mount=True, copy_scope=True)(asgi(jobs))
    return "", asgi_caller(Litestar(route_handlers=[hello, mounted]))


def litestar_at_a_prefix(jobs: JobManager) -> tuple[str, Caller]:
    from litestar import Litestar, get
    from litestar import asgi as mount

    @get("/hello", sync_to_thread=False)
    def hello() -> str:
        return "hello"

    mounted = mount("/api", is_mount=True, copy_scope=True)(asgi(jobs))
    return "/api", asgi_caller(Litestar(route_handlers=[hello, mounted]))


def flask_at_jobs(jobs: JobManager) -> tuple[str, Caller]:
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    return "", wsgi_caller(DispatcherMiddleware(flask_application(), {"/jobs": wsgi(jobs)}))


def flask_at_a_prefix(jobs: JobManager) -> tuple[str, Caller]:
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    return "/api", wsgi_caller(DispatcherMiddleware(flask_application(), {"/api": wsgi(jobs)}))


def flask_behind(jobs: JobManager) -> tuple[str, Caller]:
    app = flask_application()
    app.wsgi_app = wsgi(jobs, otherwise=app.wsgi_app)
    return "", wsgi_caller(app)


def flask_application() -> Any:
    from flask import Flask

    app = Flask("shop")
    app.add_url_rule("/hello", view_func=lambda: "hello", endpoint="hello")
    return app


def django_over_wsgi(jobs: JobManager) -> tuple[str, Caller]:
    from django.core.wsgi import get_wsgi_application

    return "", wsgi_caller(wsgi(jobs, otherwise=get_wsgi_application()))


def django_over_asgi(jobs: JobManager) -> tuple[str, Caller]:
    from django.core.asgi import get_asgi_application

    return "", asgi_caller(asgi(jobs, otherwise=get_asgi_application()))


@contextmanager
def django_with_one_page() -> Iterator[None]:
    """The settings of the bakery, for a process has one Django, without its addresses and its middleware while this lasts."""
    bakery.set_up()
    from django.http import HttpResponse
    from django.test import override_settings
    from django.urls import path

    urls = ModuleType("urls")
    urls.urlpatterns = [path("hello", lambda request: HttpResponse("hello"))]  # type: ignore[attr-defined]
    with override_settings(ROOT_URLCONF=urls, MIDDLEWARE=[]):
        yield


MOUNTS = [
    starlette_at_jobs,
    starlette_at_a_prefix,
    starlette_with_middleware,
    fastapi_at_jobs,
    fastapi_behind,
    litestar_at_jobs,
    litestar_at_a_prefix,
    flask_at_jobs,
    flask_at_a_prefix,
    flask_behind,
    django_over_wsgi,
    django_over_asgi,
]


@pytest.fixture(params=MOUNTS, ids=lambda mount: mount.__name__)
def mount(request: pytest.FixtureRequest) -> Iterator[Mount]:
    """One of the ways to mount the endpoint in a framework."""
    with django_with_one_page() if request.param in {django_over_wsgi, django_over_asgi} else nullcontext():
        yield request.param


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobManager]:
    """A real manager with a job that is due in a few seconds, and that nobody but the endpoint starts."""
    manager = JobManager(
        Settings(database_url=f"sqlite:///{tmp_path}/jobs.db", backend="external", secret=SECRET)
    )
    due = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=3)
    manager.add_job("beat", lambda: "done", at=due)
    yield manager
    manager.stop(5)
    manager.store.close()


def test_mounted_in_a_framework_it_answers_on_its_paths_and_on_no_other(mount, jobs):
    prefix, call = mount(jobs)
    body = body_of(call=1, runs=RUNS[:2])

    for path in ("/jobs/run", "/jobs/run/"):
        answer = call(body, signed(body), path=prefix + path)
        assert (answer.status, answer.said) == (202, {"call": 1, "accepted": 0, "known": 0})
    assert jobs.started

    assert call(body, signed(body, OTHER_SECRET), path=f"{prefix}/jobs/run").status == 401
    assert call(body, signed(body + b" "), path=f"{prefix}/jobs/run").status == 401
    assert call(b"", {}, path=f"{prefix}/jobs/run", method="GET").status == 405
    large = b" " * 70_000
    assert call(large, signed(large), path=f"{prefix}/jobs/run").status == 413
    hello = call(b"", {"host": "localhost"}, path="/hello", method="GET")
    assert (hello.status, hello.body.strip(b'"')) == (200, b"hello")


def test_mounted_in_a_framework_it_takes_the_ticks_of_others(mount, jobs):
    prefix, call = mount(jobs)
    path = f"{prefix}/jobs/tick/beat"
    assert call(b"", bearer(OTHER_SECRET), path=path, method="GET").status == 401
    assert call(b"", bearer(), path=f"{prefix}/jobs/tick/unknown", method="GET").status == 404

    answer = call(b"", bearer(), path=path, method="GET")  # early: it is held until then
    assert (answer.status, answer.said["finding"]) == (202, "opened")
    run = jobs.wait(answer.said["run"], 20)
    assert (str(run.status), run.output) == ("succeeded", "done")
    assert run.scheduled_for == datetime.fromisoformat(answer.said["scheduled_for"])


# ---------------------------------------------------------------- over real sockets


@contextmanager
def under_uvicorn(app: Any) -> Iterator[int]:
    """The application on a port, as long as the block lasts."""
    import uvicorn

    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", ws="none", lifespan="on")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive(), "uvicorn did not come up"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield port
    finally:
        server.should_exit = True
        thread.join(30)


@contextmanager
def under_wsgiref(app: Any) -> Iterator[int]:
    """A server that closes the connection after each answer, and reads nothing itself."""

    class Silent(WSGIRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with make_server("127.0.0.1", 0, app, handler_class=Silent) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(10)


def post(
    port: int, body: Any, headers: dict[str, str], path: str = "/jobs/run", method: str = "POST"
) -> Replied:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return Replied(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


ANNOUNCE = """
INSERT INTO jobmanager.runs (id, job_id, schedule_rev, scheduled_for, ticks, status, trigger, notify, due_at,
    attempt, max_attempts, retry_on_crash, concurrency_key, priority, opened_at)
SELECT %(id)s, id, schedule_rev, %(instant)s, 1, 'pending', 'schedule', false, %(instant)s, 0, 1, false, id, 0, clock_timestamp()
FROM jobmanager.jobs WHERE id = 'report'
"""


def announce(url: str) -> str:
    """As the database does when a tick is due; the id of the run."""
    import psycopg

    instant = datetime.now(UTC).replace(second=0, microsecond=0)
    run_id = new_id(datetime.now(UTC))
    with psycopg.connect(url) as connection:
        assert connection.execute(ANNOUNCE, {"id": run_id, "instant": instant}).rowcount == 1
    return run_id


@pytest.mark.servers
@pytest.mark.parametrize("wait", [False, True], ids=["at once", "wait mode"])
def test_a_run_that_the_database_announced_is_executed_under_uvicorn(postgres_url, wait):
    jobs = JobManager(Settings(database_url=postgres_url, backend="external", secret=SECRET, wait=wait))
    jobs.add_job("report", lambda: "sent", cron="* * * * *")
    with under_uvicorn(asgi(jobs)) as port:
        jobs.sync()
        run_id = announce(postgres_url)
        body = body_of(call=5, runs=[run_id, RUNS[0]])
        answer = post(port, body, signed(body))
        expected: dict[str, Any] = {"call": 5, "accepted": 1, "known": 1}
        if wait:
            expected["outcomes"] = {"succeeded": 1}
        assert (answer.status, answer.said) == (200 if wait else 202, expected)
        run = jobs.wait(run_id, 20)
        assert (str(run.status), run.output, run.attempt) == ("succeeded", "sent", 1)
        assert post(port, body, signed(body)).body == answer.body  # the same call again
        other = body_of(call=6, runs=[run_id])
        assert post(port, other, signed(other)).said["accepted"] == 1  # another call for what is done already
        assert jobs.run(run_id).attempt == 1
    assert not jobs.started
    jobs.store.close()


def chunked(size: int) -> Iterator[bytes]:
    for _ in range(size // 1000):
        yield b" " * 1000


@pytest.mark.parametrize("server", ["uvicorn", "wsgiref"])
def test_over_a_socket_every_refusal_arrives(server, jobs):
    """Also of bodies that were not read: the answer must not go down with the connection."""
    serving = under_uvicorn(asgi(jobs)) if server == "uvicorn" else under_wsgiref(wsgi(jobs))
    body = body_of(call=1, runs=RUNS[:1600])
    with serving as port:
        for _ in range(20):
            assert post(port, body, {}).status == 401
            assert post(port, body, signed(body, OTHER_SECRET)).status == 401
            assert post(port, body, {}, path="/other").status == 404
            assert post(port, body, signed(body), method="PUT").status == 405
        assert post(port, body, signed(body)).status == 202
        assert post(port, b" " * 65_537, signed(b"")).status == 413
        if server == "uvicorn":
            assert post(port, chunked(1_000_000), signed(b"")).status == 413
            assert post(port, chunked(10_000), signed(b"")).status == 401


def test_a_caller_who_hangs_up_in_the_middle_of_a_body_hurts_nobody(jobs):
    body = body_of(call=1, runs=[])
    with under_uvicorn(asgi(jobs)) as port:
        head = "".join(f"{name}: {value}\r\n" for name, value in signed(body).items())
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", port)) as raw:
                raw.sendall(
                    f"POST /jobs/run HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n{head}\r\n".encode() + body
                )
        assert post(port, body, signed(body)).said == {"call": 1, "accepted": 0, "known": 0}
        assert (
            json.loads(post(port, b"", bearer(), path="/jobs/tick/beat", method="GET").body)["job"] == "beat"
        )


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
@pytest.mark.parametrize("server", ["uvicorn", "wsgiref"])
@pytest.mark.parametrize("wait", [True, False])
def test_an_exported_line_wakes_its_job_although_it_comes_early(tmp_path, server, wait):
    """Fails if the line of an outside clock, its call and the endpoint do not fit together."""
    url = f"sqlite:///{tmp_path}/jobs.db"
    jobs = JobManager(Settings(database_url=url, backend="external", secret=SECRET, wait=wait))
    due = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=4)
    jobs.add_job("beat", lambda: "done", at=due)
    with under_uvicorn(asgi(jobs)) if server == "uvicorn" else under_wsgiref(wsgi(jobs)) as port:
        jobs.sync()
        address = f"http://127.0.0.1:{port}/jobs/tick/beat"
        job = external_job("beat", At(due), "github", url=address, patience=60, now=datetime.now(UTC))
        (workflow,) = TARGETS["github"].renders([job]).values()
        [line] = re.findall(r"run: (\".*\")", workflow)
        called = subprocess.run(
            ["/bin/sh", "-c", json.loads(line)],
            env={"PATH": os.environ["PATH"], "JOBMANAGER_SECRET": SECRET},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (called.returncode, called.stderr) == (0, "")
        [run] = jobs.runs("beat")
        assert jobs.wait(run.id, 20).output == "done"
        assert run.scheduled_for == due
    jobs.stop(5)
    jobs.store.close()
