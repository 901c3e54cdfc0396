"""`jobmanager dashboard`, as people start it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.servers import free_port
from tests.waiting import until

from jobmanager.cli import main

APPLICATION = """
from jobmanager import JobManager
jobs = JobManager()

@jobs.job("{job}", every=1)
def work() -> int:
    return 1
"""


@contextmanager
def command(folder: Path, *arguments: str, **environment: str) -> Iterator[str]:
    """Start the command in a folder, and yield its address once it serves."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "jobmanager", "--json", "dashboard", "--port", str(port), *arguments],
        cwd=folder,
        env={
            "PATH": "/usr/bin:/bin",
            "JOBMANAGER_DATABASE_URL": f"sqlite:///{folder}/jobs.db",
            **environment,
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        address = json.loads(process.stdout.readline())["address"]
        assert address == f"http://127.0.0.1:{port}/"
        until(lambda: process.poll() is not None or serves(address), within=60)
        yield address
    finally:
        process.stdout.close()
        process.terminate()
        assert process.wait(20) in (0, -15)


def serves(address: str) -> bool:
    try:
        return httpx.get(f"{address}static/style.css").status_code == 200
    except httpx.TransportError:
        return False


def test_one_command_keeps_time_and_shows_it(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APPLICATION.format(job="work"))
    with command(tmp_path, "--run") as address:
        job = f"{address}api/v1/jobs/work"
        until(lambda: httpx.get(job).json()["last_status"] == "succeeded", within=30)


def test_a_changed_file_starts_it_anew(tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    file.write_text(APPLICATION.format(job="work"))
    with command(tmp_path, "--run", "--reload") as address:
        until(lambda: httpx.get(f"{address}api/v1/jobs/work").status_code == 200, within=30)
        file.write_text(APPLICATION.format(job="other"))

        def has_other() -> bool:
            try:
                return httpx.get(f"{address}api/v1/jobs/other").status_code == 200
            except httpx.TransportError:
                return False

        until(has_other, within=60)


def test_a_database_alone_is_shown_and_may_not_be_reached_from_elsewhere(tmp_path: Path, capsys) -> None:
    (tmp_path / "app.py").write_text(APPLICATION.format(job="work"))
    (tmp_path / "empty").mkdir()
    with command(tmp_path, "--run") as address:
        until(lambda: httpx.get(f"{address}api/v1/jobs/work").json()["last_status"] is not None, within=30)
    database = {"JOBMANAGER_DATABASE_URL": f"sqlite:///{tmp_path}/jobs.db"}
    with command(tmp_path / "empty", "--read-only", **database) as address:
        assert httpx.get(f"{address}api/v1/jobs/work").json()["declared_here"] is False
        assert httpx.get(f"{address}jobs").status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::"])  # noqa: S104 - refused
def test_an_open_address_needs_users(host: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOBMANAGER_DATABASE_URL", f"sqlite:///{tmp_path}/jobs.db")
    assert main(["dashboard", "--host", host]) == 2
    told = capsys.readouterr().err
    assert "JOBMANAGER_DASHBOARD_USERS is not set" in told
    assert "jobmanager dashboard-user NAME" in told
