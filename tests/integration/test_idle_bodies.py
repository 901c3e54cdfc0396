"""Callers that announce a body and send none keep no thread of a real server, whether or not they look like our database."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.calls import SECRET, body_of, signed
from tests.faults.conftest import until
from tests.servers import free_port

pytestmark = pytest.mark.slow

APPLICATION = """
from jobmanager import JobManager, Settings
from jobmanager.web import asgi, wsgi

jobs = JobManager(Settings(secret=%(secret)r, backend="external"))
application, asgi_application = wsgi(jobs), asgi(jobs)
"""
FAMILIES = {"nobody": {}, "one that looks like ours": signed(b"another body")}
QUICK = 2.0
"""Seconds for an answer while idle callers hold on: less than the deadline of the first of them."""


@contextmanager
def serving(folder: Path, *command: str) -> Iterator[int]:
    port = free_port()
    (folder / "shop.py").write_text(APPLICATION % {"secret": SECRET})
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", *(part.format(port=port) for part in command)],
            cwd=folder, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        until(lambda: answers(port))
        yield port
    finally:
        process.terminate()
        process.wait(30)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def idle(port: int, headers: dict[str, str], length: int = 500) -> Iterator[socket.socket]:
    """A caller whose body never comes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        lines = [
            "POST /jobs/run HTTP/1.1", "Host: shop", f"Content-Length: {length}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]  # fmt: skip
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        yield connection


def status_of(connection: socket.socket) -> int:
    return int(connection.makefile("rb").readline().split()[1])


def called(port: int, within: float) -> int:
    """The status of a call of ours."""
    body = body_of()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=within)
    try:
        connection.request("POST", "/jobs/run", body, signed(body))
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.fixture(params=["gthread", "uvicorn"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    if request.param == "gthread":
        pytest.importorskip("gunicorn")
        command = [
            "gunicorn",
            "-k",
            "gthread",
            "--threads",
            "4",
            "-b",
            "127.0.0.1:{port}",
            "shop:application",
        ]
    else:
        pytest.importorskip("uvicorn")
        command = ["uvicorn", "--port", "{port}", "shop:asgi_application"]
    with serving(tmp_path, *command) as port:
        yield port


@pytest.mark.parametrize("family", FAMILIES)
def test_four_idle_callers_stop_no_server(server: int, family: str) -> None:
    called(server, 20)  # the first call starts the manager
    with ExitStack() as stack:
        waiting = [stack.enter_context(idle(server, FAMILIES[family])) for _ in range(4)]
        began = time.monotonic()
        assert called(server, QUICK) in {202, 503}
        assert time.monotonic() - began < QUICK
        refused = {status_of(connection) for connection in waiting}

    assert refused <= {401, 408}


def test_what_is_declared_too_large_is_refused_before_it_comes(server: int) -> None:
    with idle(server, signed(b"another body"), length=70_000) as connection:
        connection.settimeout(QUICK)
        assert status_of(connection) == 413
