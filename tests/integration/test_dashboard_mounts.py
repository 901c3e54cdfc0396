"""The dashboard mounted in real applications of each framework, as the files of `examples/mounts` do it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from tests.servers import free_port

EXAMPLES = Path(__file__).parents[2] / "examples" / "mounts"
MOUNTS = {
    "fastapi": "uvicorn fastapi_app:app",
    "starlette": "uvicorn starlette_app:app",
    "litestar": "uvicorn litestar_app:app",
    "django asgi": "uvicorn django_app:asgi_application",
    "flask": "gunicorn --threads 4 flask_app:app",
    "django wsgi": "gunicorn --threads 4 django_app:wsgi_application",
}


@contextmanager
def application(command: str, folder: Path) -> Iterator[str]:
    """Start the server of an example, and yield the address of its dashboard."""
    server, *rest = command.split()
    port = free_port()
    where = ["--port", str(port)] if server == "uvicorn" else ["--bind", f"127.0.0.1:{port}"]
    environment = {"JOBMANAGER_DATABASE_URL": f"sqlite:///{folder}/jobs.db", "PATH": "/usr/bin:/bin"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", server, *where, *rest],
            cwd=EXAMPLES, env=environment, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}/admin/jobs"
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"{address}/static/style.css")
                break
            except httpx.TransportError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize("command", MOUNTS.values(), ids=list(MOUNTS))
def test_every_link_is_below_the_mount_and_a_job_is_started(command: str, tmp_path: Path) -> None:
    with application(command, tmp_path) as address, closing(httpx.Client(timeout=30)) as client:
        shown = client.get(f"{address}/jobs")
        assert shown.status_code == 200, (tmp_path / "log").read_text()
        links = re.findall(r'(?:href|src|action)="([^"#]+)"', shown.text)
        assert links
        assert [link for link in links if not link.startswith(("/admin/jobs/", "?"))] == []  # or of this page
        for link in {link for link in links if "/static/" in link}:
            assert client.get(address.removesuffix("/admin/jobs") + link).status_code == 200
        assert client.get(f"{address}/api/v1/jobs").json()["items"][0]["id"] == "greet"
        token = re.search(r'name="token" value="([^"]+)"', shown.text)
        assert token is not None
        started = client.post(
            f"{address}/jobs/greet/run", data={"token": token[1]}, headers={"sec-fetch-site": "same-origin"}
        )
        assert started.status_code == 303, started.text
        assert started.headers["location"].startswith("/admin/jobs/runs/")
        foreign = client.post(
            f"{address}/jobs/greet/run", data={"token": token[1]}, headers={"sec-fetch-site": "cross-site"}
        )
        assert foreign.status_code == 403
        elsewhere = client.get(f"{address}/jobs", headers={"x-forwarded-for": "203.0.113.9"})
        assert elsewhere.status_code == 401
