"""Where gevent or eventlet has replaced threads or sockets nothing is started, and the reason says what to use instead (L14)."""

from __future__ import annotations

import http.client
import importlib.util
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.faults.conftest import until
from tests.servers import free_port

from jobmanager.process.real_threads import check_real_threads, patched_by

TOKEN = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "gevent's threads": "from gevent import monkey; monkey.patch_thread()",
    "gevent's sockets": "from gevent import monkey; monkey.patch_socket()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
    "eventlet's threads": "import eventlet; eventlet.monkey_patch(socket=False)",
    "eventlet's sockets": "import eventlet; eventlet.monkey_patch(thread=False)",
}

APPLICATION = """
import os, sys
from jobmanager import JobManager, Settings
from jobmanager.web import wsgi

jobs = JobManager(Settings(database_url="sqlite:///jobs.db", secret="%(token)s", auth="bearer"))

@jobs.job("work", cron="* * * * *")
def work(): ...

application = wsgi(jobs)
"""

REFUSED = """
from jobmanager.errors import ConfigurationError

try:
    jobs.start()
except ConfigurationError as error:
    print(error)
assert not jobs.started

environ = {
    "REQUEST_METHOD": "POST", "PATH_INFO": "/jobs/tick/work", "HTTP_AUTHORIZATION": "Bearer %(token)s", "CONTENT_LENGTH": "0",
    "REMOTE_ADDR": "127.0.0.1", "SERVER_NAME": "here", "SERVER_PORT": "80", "wsgi.url_scheme": "http", "QUERY_STRING": "",
    "wsgi.input": __import__("io").BytesIO(b""),
}
answered = []
b"".join(application(environ, lambda status, headers, *_: answered.append(status)))
print(answered, flush=True)
assert not jobs.started
os._exit(0)  # eventlet's own hooks at the end of a process are not what this is about
"""


def need(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"needs {library}, which the test group has")


@pytest.mark.parametrize("name", PATCHES)
@pytest.mark.parametrize("early", [True, False])
def test_start_and_the_first_call_are_refused(tmp_path: Path, name: str, *, early: bool) -> None:
    """Also where the application was imported before, as with gunicorn's --preload."""
    library = name.partition("'")[0]
    need(library)
    parts = [PATCHES[name], APPLICATION] if early else [APPLICATION, PATCHES[name]]
    code = "\n".join([*parts, REFUSED]).replace("%(token)s", TOKEN)
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    sentence, answered = ran.stdout.splitlines()
    assert sentence.startswith(
        f"jobmanager does not run where {library} has replaced threads or sockets: its heartbeat needs real"
    )
    assert "gthread" in sentence
    assert answered == "['503 Service Unavailable']"
    assert "its heartbeat needs real threads" in ran.stderr, "the log says why the call is answered with 503"


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_a_library_that_is_only_imported_is_no_reason(library: str) -> None:
    need(library)
    code = f"import {library}\nfrom jobmanager.process.real_threads import check_real_threads\ncheck_real_threads()"

    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)


def test_a_socket_that_somebody_else_replaced_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """As plugins of pytest do, to forbid connections."""

    class Guarded(socket.socket): ...

    monkeypatch.setattr(socket, "socket", Guarded)

    check_real_threads()
    assert patched_by() is None


# ---------------------------------------------------------------- a real server


@contextmanager
def gunicorn(folder: Path, worker: str, *options: str) -> Iterator[tuple[int, Path]]:
    """The port of the application under this worker class, and its log."""
    (folder / "shop.py").write_text(APPLICATION.replace("%(token)s", TOKEN))
    log = folder / "log"
    port = free_port()
    with log.open("wb") as out:
        command = [
            sys.executable, "-W", "ignore", "-m", "gunicorn", "-k", worker, "-b", f"127.0.0.1:{port}", *options, "shop:application",
        ]  # fmt: skip
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out)
    try:
        until(lambda: "Booting worker" in log.read_text())
        yield port, log
    finally:
        process.terminate()
        process.wait(30)


def called(port: int) -> int:
    """The status that a call for the job gets, once the server takes calls."""
    statuses: list[int] = []

    def call() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("POST", "/jobs/tick/work", headers={"Authorization": f"Bearer {TOKEN}"})
            statuses.append(connection.getresponse().status)
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return True

    until(call)
    return statuses[0]


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--preload",)])
def test_under_gunicorn_s_gevent_workers_every_call_is_refused(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    need("gunicorn")
    need("gevent")
    with gunicorn(tmp_path, "gevent", *options) as (port, log):
        assert called(port) == 503
        assert "gevent has replaced threads or sockets: its heartbeat needs real threads" in log.read_text()


@pytest.mark.slow
def test_under_gunicorn_s_threads_calls_are_taken(tmp_path: Path) -> None:
    need("gunicorn")
    with gunicorn(tmp_path, "gthread") as (port, _):
        assert called(port) in {202, 425}, "425 within seconds of the next instant"
