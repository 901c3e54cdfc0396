"""The plugin of Litestar: lifespan, dependency, mounts and commands."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Annotated

import pytest
from click.testing import CliRunner
from litestar import Litestar, get
from litestar.cli.main import litestar_group
from litestar.testing import TestClient

from jobmanager import JobManager, Settings
from jobmanager.contrib.litestar import JobsPlugin
from jobmanager.web import Principal


@get("/start", sync_to_thread=True)
def start(jobs: Annotated[JobManager, "of the plugin"]) -> str:
    return jobs.wait(jobs.trigger_job("work").id, 20).id


def made(tmp_path: Path) -> JobManager:
    settings = Settings(
        database_url=f"sqlite:///{tmp_path}/jobs.db", secret=secrets.token_urlsafe(40), backend="local"
    )
    jobs = JobManager(settings)
    jobs.add_job("work", lambda: "done")
    return jobs


def test_one_plugin_starts_the_jobs_and_mounts_what_they_have(tmp_path: Path) -> None:
    jobs = made(tmp_path)
    plugin = JobsPlugin(jobs, authorize=lambda request: Principal("ana", ["viewer"]))
    app = Litestar(route_handlers=[start], plugins=[plugin])

    with TestClient(app) as client:
        assert jobs.started
        run = jobs.run(client.get("/start").text)
        page = client.get("/admin/jobs/jobs")
        healthy = client.get("/jobs/healthz")
        refused = client.post("/jobs/run")

    assert run.output == "done"
    assert (page.status_code, healthy.status_code, refused.status_code) == (200, 200, 401)
    assert 'href="/admin/jobs/' in page.text
    assert not jobs.started


def test_the_command_line_of_the_library_is_a_command_of_the_application(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop_of_litestar.py").write_text(
        "from jobmanager import JobManager, Settings\n"
        "from jobmanager.contrib.litestar import JobsPlugin\n"
        "from litestar import Litestar\n"
        f"jobs = JobManager(Settings(database_url='sqlite:///{tmp_path}/jobs.db'))\n"
        "jobs.add_job('work', print)\n"
        "app = Litestar(plugins=[JobsPlugin(jobs)])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    found = CliRunner().invoke(
        litestar_group, ["--app", "shop_of_litestar:app", "jobs", "jobs", "list", "--json"]
    )

    assert found.exit_code == 0, found.output
    assert [job["id"] for job in json.loads(found.output[found.output.index("[") :])] == ["work"]
