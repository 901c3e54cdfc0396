"""The extension of Flask: configuration, applications of one process, the application context, the commands and the endpoint."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from flask import Flask, current_app, g, has_app_context
from tests.waiting import until

from jobmanager import JobManager, RunStatus, Settings
from jobmanager.contrib.flask import InApplicationContext, Jobs
from jobmanager.contrib.starting import StartsOnceAProcess
from jobmanager.errors import ConfigurationError, SettingsError

INLINE = {"JOBMANAGER_BACKEND": "noop", "JOBMANAGER_DATABASE_URL": "memory://"}


def made(jobs: Jobs, name: str = "shop", **config: Any) -> Flask:
    app = Flask(name)
    app.config.from_mapping(INLINE)
    app.config.from_mapping(config)
    jobs.init_app(app)
    return app


def manager_of(app: Flask) -> JobManager:
    found: JobManager = app.extensions["jobmanager"]
    return found


def test_the_configuration_of_the_application_is_that_of_its_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBMANAGER_LOCALE", "de")
    settings = manager_of(made(Jobs(), JOBMANAGER_WORKERS=3, JOBMANAGER_LOCALE="fr")).settings

    assert (settings.workers, settings.locale) == (3, "de")
    with pytest.raises(SettingsError, match=r"worker is not a setting\. Did you mean"):
        made(Jobs(), JOBMANAGER_WORKER=3)


def test_each_application_has_a_manager_of_its_own_with_all_declarations() -> None:
    jobs = Jobs()
    jobs.add_job("early", lambda: current_app.name)
    one, two = made(jobs, "one"), made(jobs, "two")
    jobs.job("late")(lambda: current_app.name)

    for app in (one, two):
        with app.app_context():
            assert jobs.trigger_job("early").output == app.name
            assert jobs.trigger_job("late").output == app.name
            assert len(jobs.runs()) == 2
    with pytest.raises(ConfigurationError, match="2 applications have these jobs"):
        jobs.trigger_job("early")
    with pytest.raises(ConfigurationError, match="has jobs already"):
        jobs.init_app(one)


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_handlers_are_inside_the_application_context_which_is_torn_down(kind: str) -> None:
    """Fails if `g` of one run is that of another, or what it holds is never released."""
    jobs, torn = Jobs(), []
    app = made(jobs)
    app.teardown_appcontext(lambda error: torn.append((g.opened, type(error))))

    def work(opened: int) -> int:
        assert "opened" not in g
        g.opened = opened
        if opened == 2:
            raise ValueError("by hand")
        return opened

    async def coroutine(opened: int) -> int:
        return work(opened)

    jobs.add_job("work", work if kind == "plain" else coroutine)

    runs = [jobs.trigger_job("work", {"opened": n}) for n in (1, 2)]

    assert [run.status for run in runs] == [RunStatus.SUCCEEDED, RunStatus.FAILED]
    assert torn == [(1, type(None)), (2, ValueError)]
    assert not has_app_context()


def test_further_context_managers_are_inside_the_application_context() -> None:
    seen: list[str] = []

    @contextlib.contextmanager
    def around(context: Any) -> Iterator[None]:
        seen.append(current_app.name)
        yield

    jobs = Jobs(around=[around])
    made(jobs)
    jobs.add_job("work", lambda: None)
    jobs.trigger_job("work")

    assert seen == ["shop"]


def test_a_child_process_finds_an_application_of_module_level_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    app = made(Jobs(), __name__)
    with pytest.raises(pickle.PicklingError, match="make it a variable of module"):
        pickle.dumps(InApplicationContext(app))
    monkeypatch.setattr(sys.modules[__name__], "found_app", app, raising=False)

    assert pickle.loads(pickle.dumps(InApplicationContext(app)))._app is app


def test_the_endpoint_is_there_with_a_secret() -> None:
    secret = secrets.token_urlsafe(40)
    open_app, locked = made(Jobs(), JOBMANAGER_SECRET=secret), made(Jobs())

    assert open_app.test_client().get("/jobs/healthz").status_code in (200, 503)
    assert open_app.test_client().post("/jobs/run").status_code == 401
    assert locked.test_client().post("/jobs/run").status_code == 404


def test_the_command_line_of_the_library_is_a_command_of_the_application(
    capsys: pytest.CaptureFixture[str],
) -> None:
    jobs = Jobs()
    app = made(jobs)
    jobs.add_job("work", lambda: None, cron="0 3 * * *")

    found = app.test_cli_runner().invoke(args=["jobs", "jobs", "list", "--json"])
    assert found.exit_code == 0, found.output
    assert [job["id"] for job in json.loads(found.output)] == ["work"]
    assert app.test_cli_runner().invoke(args=["jobs", "nonsense"]).exit_code == 2


def test_nothing_starts_before_the_first_request() -> None:
    app = made(Jobs(), JOBMANAGER_BACKEND="local", JOBMANAGER_AUTOSTART=True)
    manager = manager_of(app)
    with app.app_context():
        assert not manager.started

    app.test_client().get("/")
    until(lambda: manager.started, within=10)
    manager.stop(drain=0)
    until(lambda: not starting(), within=10)
    app.test_client().get("/")
    assert not starting()
    assert not manager.started


def test_a_start_that_raised_is_tried_again_with_a_later_request(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Fails if a process whose first start raised does no work for as long as it lives, or each request tries."""
    tries: list[str] = []

    class Fails:
        def start(self) -> None:
            tries.append("start")
            if len(tries) == 1:
                raise ImportError("of a half imported module")

        def stop(self) -> None:
            tries.append("stop")

    begins = StartsOnceAProcess(cast(Any, Fails))
    begins.begin()
    until(lambda: tries and not starting(), within=10)
    begins.begin()
    assert not starting(), "the pause between two tries is not over"
    assert "a request after 10 s tries again" in caplog.text

    monkeypatch.setattr("jobmanager.contrib.starting.AGAIN_AFTER", 0.0)
    begins = StartsOnceAProcess(cast(Any, Fails))
    tries.clear()
    for _ in range(4):
        begins.begin()
        until(lambda: not starting(), within=10)
    begins.stop()

    assert tries == ["start", "start", "stop"]


def starting() -> bool:
    return any(thread.name == "jobmanager-start" for thread in threading.enumerate())


EXAMPLE = Path(__file__).parents[2] / "examples" / "flask"
SERVERS = {
    "flask --debug run": (["-m", "flask", "--app", "shop", "--debug", "run", "--port"], 1),
    "gunicorn": (["-m", "gunicorn", "--workers", "4", "shop:create_app()", "--bind"], 4),
}


@pytest.mark.slow
@pytest.mark.parametrize("server", SERVERS)
def test_each_serving_process_of_the_example_starts_once(server: str, tmp_path: Path) -> None:
    """Fails if the reloader's parent starts, too, or one instant fires once per worker."""
    import signal

    import httpx
    from tests.servers import free_port

    command, most = SERVERS[server]
    port = free_port()
    url = f"sqlite:///{tmp_path}/jobs.db"
    environment = {
        "PATH": os.environ["PATH"],
        "JOBMANAGER_DATABASE_URL": url,
        "FLASK_RUN_FROM_CLI": "false",
        "PYTHONPATH": str(EXAMPLE),
        "PYTHONPYCACHEPREFIX": os.environ.get("PYTHONPYCACHEPREFIX", ""),
    }
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *command, str(port) if most == 1 else f"127.0.0.1:{port}"],
            cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"

    def run_id() -> str | None:
        assert process.poll() is None, (tmp_path / "log").read_text()
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.post(f"{address}/cart/ana", timeout=20)
            assert answer.status_code == 200, (tmp_path / "log").read_text()
            return str(answer.json()["run"])
        return None

    jobs = JobManager(Settings(database_url=url))
    try:
        ended = jobs.wait(until(run_id), 30)
        assert ended.output == "to ana", ended.error
        for _ in range(12):
            run_id()
        assert 1 <= len(until(jobs.instances, within=20)) <= most
    finally:
        os.killpg(process.pid, signal.SIGINT if most == 1 else signal.SIGTERM)
        process.wait(40)
        jobs.store.close()
