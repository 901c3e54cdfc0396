"""`jobmanager beat` and `jobmanager worker`, given what cannot work: one sentence that says what to do, and exit code 2."""

import os
import signal
import socket
import subprocess
import sys

import pytest
from tests.faults.conftest import until
from tests.forked import Forked, ran
from tests.servers import free_port

from jobmanager import JobManager, Settings

pytestmark = pytest.mark.slow

JOBS = """
from jobmanager import JobManager
jobs = JobManager()

@jobs.job("often", every=1)
def often(): pass
"""
WITHOUT_CELERY = "import sys; sys.modules['celery'] = None; from jobmanager.cli import main; sys.exit(main())"


@pytest.fixture
def said(tmp_path):
    """The exit code and the lines of standard error, of a command in a process of its own."""
    (tmp_path / "shop.py").write_text(JOBS)

    def call(*words, without_celery=False, backend="celery", **more):
        words = ["--app", "shop:jobs", *words]
        env = environment(JOBMANAGER_BACKEND=backend, **more)
        if without_celery:
            program = [sys.executable, "-c", WITHOUT_CELERY, *words]
            ended = subprocess.run(
                program, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
            )
        else:
            ended = ran(["jobmanager", *words], folder=tmp_path, env=env)
        assert "Traceback" not in ended.stderr
        return ended.returncode, ended.stderr

    return call


def environment(**more):
    return {**os.environ, "COLUMNS": "500", "PYTHONWARNINGS": "ignore", **more}


def broker(url):
    return {"JOBMANAGER_CELERY_BROKER_URL": url}


@pytest.mark.parametrize("verb", ["beat", "worker"])
def test_without_a_broker(said, verb):
    code, error = said(verb)
    assert code == 2
    assert error.splitlines() == [
        "error: JOBMANAGER_BACKEND=celery needs JOBMANAGER_CELERY_BROKER_URL.",
        "   do: `jobmanager doctor` looks at every setting.",
    ]


@pytest.mark.parametrize("verb", ["beat", "worker"])
def test_a_scheme_that_is_no_broker_s(said, verb):
    code, error = said(verb, **broker("http://ana:hunter2@broker"))
    assert code == 2
    assert (
        "JOBMANAGER_CELERY_BROKER_URL=http://... is of no kind that Celery knows. Use redis://host:6379/0"
        in error
    )
    assert "hunter2" not in error


def test_what_is_no_url(said):
    assert "give a broker's URL, such as redis://host:6379/0" in said("beat", **broker("localhost:6379"))[1]


def test_a_transport_whose_package_is_missing(said):
    code, error = said("worker", **broker("sqs://"))
    assert code == 2
    assert "which is not installed." in error
    assert "Install it, or name redis://host:6379/0" in error


@pytest.mark.parametrize("verb", ["beat", "worker", "run"])
def test_without_the_package(said, verb):
    code, error = said(verb, without_celery=True, **broker("redis://localhost"))
    assert code == 2
    assert "Backend 'celery' needs the package celery. Install jobmanager-backends[celery]." in error


def test_runs_that_only_one_process_could_see(said):
    code, error = said("beat", JOBMANAGER_DATABASE_URL="memory://", **broker("redis://localhost"))
    assert code == 2
    assert "cannot keep runs in memory://" in error
    assert "Set JOBMANAGER_DATABASE_URL to PostgreSQL" in error


def test_run_belongs_to_others(said):
    code, error = said("run", **broker("redis://localhost"))
    assert code == 2
    assert "Start `jobmanager beat` and `jobmanager worker`, or set JOBMANAGER_BACKEND=local." in error


@pytest.mark.parametrize("verb", ["beat", "worker"])
def test_under_another_backend(said, verb):
    code, error = said(verb, backend="local")
    assert code == 2
    assert f"`jobmanager {verb}` belongs to the backend celery; chosen is local" in error
    assert "or use `jobmanager run`" in error


@pytest.mark.parametrize("pool", ["gevent", "eventlet", "unheard-of"])
def test_a_pool_without_threads(said, pool):
    code, error = said("worker", "--pool", pool, **broker("redis://localhost"))
    assert code == 2
    assert "prefork" in error
    assert "threads" in error


@pytest.mark.parametrize("how", ["refuses", "hangs"])
def test_a_broker_that_is_out_of_reach_is_told_and_ends_no_beat(tmp_path, how):
    (tmp_path / "shop.py").write_text(JOBS)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if how == "hangs" else free_port()
        beat = Forked(
            ["jobmanager", "--app", "shop:jobs", "beat"],
            folder=tmp_path,
            env=environment(JOBMANAGER_BACKEND="celery", **broker(f"redis://:hunter2@127.0.0.1:{port}/0")),
            out=tmp_path / "log",
        )
        try:
            until(lambda: "broker away" in (tmp_path / "log").read_text() or beat.poll() is not None)
            assert beat.poll() is None, (tmp_path / "log").read_text()
            os.kill(beat.pid, signal.SIGTERM)
            assert beat.wait(30) == 0
        finally:
            beat.kill()
    told = (tmp_path / "log").read_text()
    assert "runs wait to be sent" in told
    assert "hunter2" not in told
    assert "Traceback" not in told


@pytest.mark.parametrize("verb", ["beat", "worker", "run"])
def test_an_application_without_a_job_of_its_own_is_started_for_those_that_operators_make(tmp_path, verb):
    """Fails if it is refused, or if a stored job of a handler of the package is left to others."""
    (tmp_path / "shop.py").write_text("from jobmanager import JobManager\njobs = JobManager()\n")
    url = f"sqlite:///{tmp_path}/jobs.db"
    chosen = (
        {"JOBMANAGER_BACKEND": "local"}
        if verb == "run"
        else {"JOBMANAGER_BACKEND": "celery", **broker(f"redis://127.0.0.1:{free_port()}/0")}
    )
    process = Forked(
        ["jobmanager", "--app", "shop:jobs", verb],
        folder=tmp_path,
        env=environment(JOBMANAGER_DATABASE_URL=url, **chosen),
        out=tmp_path / "log",
    )
    jobs = JobManager(Settings(database_url=url, backend="noop"))
    try:
        until(lambda: "note: the application declares no job" in (tmp_path / "log").read_text())
        until(lambda: jobs.store.exists() and jobs.store.processes.living())
        if verb == "run":
            jobs.create_job("made", handler="test-job", every=1)
            until(lambda: jobs.runs("made", status="succeeded"))
        assert process.poll() is None
    finally:
        process.kill()
        jobs.store.close()
