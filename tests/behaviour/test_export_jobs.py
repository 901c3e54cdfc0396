"""`jobmanager export jobs`: what operators made becomes code that declares equal jobs, and commands that make them elsewhere."""

from __future__ import annotations

import json
import runpy
import shlex
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from jobmanager import JobManager, Retry, Settings
from jobmanager.cli import main

pytestmark = pytest.mark.slow

SOURCE = """
from jobmanager import JobManager
jobs = JobManager()
jobs.handler("export")(lambda region="all", days=1, note="": None)
"""
MADE: dict[str, dict[str, Any]] = {
    "by-hand": {},
    "cron": {"cron": "0 3 * * 1-5", "timezone": "Europe/Berlin", "config": {"region": "eu", "days": 7, "note": "a 'b' \\ \"c\" ü"}},
    "every": {"every": "90s", "jitter": "10s", "catch_up": "all", "catch_up_window": "2h", "name": "It's a title"},
    "moment": {"at": datetime(2030, 1, 1, tzinfo=UTC), "priority": -3, "locale": "de", "keep_runs": 7},
    "retry": {"every": 60, "retry": Retry(max_attempts=4, delays=[1, 3.5], on_crash=False), "overlap": "queue", "timeout": 30},
    "retry-base": {"retry": Retry(max_attempts=3, base=10, factor=3), "retention": "7d", "queue": "slow"},
}  # fmt: skip


@pytest.fixture
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobManager:
    """One with every kind of stored job, one of another namespace and one that is deleted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    url = f"sqlite:///{tmp_path}/jobs.db"
    for namespace, wanted in (("default", MADE), ("other", {"elsewhere": {}})):
        jobs = JobManager(Settings(database_url=url, backend="local", namespace=namespace))
        jobs.handler("export")(
            lambda region="all", days=1, note="": None
        ) if namespace == "default" else jobs.handler("away")(print)
        for job_id, words in wanted.items():
            jobs.create_job(job_id, handler="export" if namespace == "default" else "away", **words)
        if namespace == "default":
            jobs.create_job("gone", handler="export")
            jobs.delete_job("gone")
            jobs.disable_job("every")
        jobs.store.close()
    (tmp_path / "exporting.py").write_text(SOURCE)
    monkeypatch.setenv("JOBMANAGER_DATABASE_URL", url)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    reading = JobManager(Settings(database_url=url, backend="local"))
    reading.handler("export")(lambda region="all", days=1, note="": None)
    reading.sync()
    return reading


def test_the_program_declares_equal_jobs(
    application: JobManager, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Fails if a word is lost, rounded or quoted in a way that Python reads otherwise."""
    assert main(["--app", "exporting:jobs", "export", "jobs"]) == 0
    program = capsys.readouterr().out
    declaring = JobManager(Settings(database_url="memory://"))
    declaring.handler("export")(lambda region="all", days=1, note="": None)
    (tmp_path / "program.py").write_text(program)
    runpy.run_path(str(tmp_path / "program.py"), {"jobs": declaring})
    assert {*declaring.registry.declared} == {*MADE, "export"}
    assert {name: declaring.registry.declared[name] for name in MADE} == {
        name: application.registry.jobs[name] for name in MADE
    }
    assert "# disabled: " in program
    application.store.close()


def test_the_commands_and_the_definitions_make_equal_jobs(
    application: JobManager,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert main(["--app", "exporting:jobs", "export", "jobs", "--json"]) == 0
    exported = json.loads(capsys.readouterr().out)["jobs"]
    assert [job["id"] for job in exported] == sorted(MADE)
    make: dict[str, Callable[[JobManager], object]] = {
        "commands": lambda _: [
            main(["--app", "exporting:jobs", *shlex.split(job["command"])[1:]]) for job in exported
        ],
        "definitions": lambda jobs: jobs.seed({job["id"]: job["definition"] for job in exported}),
    }
    for name, act in make.items():
        url = f"sqlite:///{tmp_path}/{name}.db"
        monkeypatch.setenv("JOBMANAGER_DATABASE_URL", url)
        sys.modules.pop("exporting", None)
        elsewhere = JobManager(Settings(database_url=url, backend="local"))
        elsewhere.handler("export")(lambda region="all", days=1, note="": None)
        elsewhere.sync()
        act(elsewhere)
        elsewhere.sync()
        assert {job: elsewhere.registry.jobs[job] for job in MADE} == {
            job: application.registry.jobs[job] for job in MADE
        }
        elsewhere.store.close()
    application.store.close()


def test_without_a_stored_job_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exporting.py").write_text(SOURCE)
    sys.modules.pop("exporting", None)
    monkeypatch.setenv("JOBMANAGER_DATABASE_URL", f"sqlite:///{tmp_path}/jobs.db")
    assert main(["--app", "exporting:jobs", "export", "jobs"]) == 0
    assert "Operators made no job" in capsys.readouterr().out
