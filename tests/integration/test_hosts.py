"""Inside other programs: after a fork, on an application's event loop, under somebody else's signal handlers."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.faults.conftest import until
from tests.servers import free_port

from jobmanager import JobManager, RunStatus, Settings


def run_python(code: str, *arguments: object, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


FORKING = """
    import os, sys, time
    from jobmanager import JobManager, Settings

    jobs = JobManager(Settings(database_url="sqlite:///" + sys.argv[1]))

    @jobs.job("second", every=1, overlap="allow")  # none is skipped where a busy machine is late
    def second(): ...

    jobs.start()
    jobs.wait(jobs.trigger_job("second").id)
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            assert not jobs.started
            jobs.start()
            mine = jobs._assembly.heartbeat.id
            # By hand, under a key of its own: which process wins a tick is a lottery.
            run = jobs.trigger_job("second", scope=str(os.getpid()))
            assert jobs.wait(run.id).owner == mine, "this child executed nothing"
            time.sleep(2)
            jobs.stop()
            os._exit(0)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    jobs.stop()
    instants = [run.scheduled_for for run in jobs.runs("second", limit=500) if run.scheduled_for]
    assert len(instants) == len(set(instants))
    assert {str(run.status) for run in jobs.runs("second", limit=500)} == {"succeeded"}, jobs.runs("second")
    print(codes)
"""


def test_forked_children_inherit_neither_threads_nor_connections(tmp_path: Path) -> None:
    ran = run_python(FORKING, tmp_path / "jobs.db", timeout=120)

    assert (ran.returncode, ran.stdout) == (0, "[0, 0, 0]\n"), ran.stderr


SERVING = """
    import sys, time
    from jobmanager import JobManager, Settings

    jobs = JobManager(Settings(database_url="sqlite:///" + sys.argv[1], drain_seconds=float(sys.argv[2])))

    @jobs.job("long")
    def long():
        time.sleep(float(sys.argv[3]))

    jobs.start()
    print(jobs.trigger_job("long").id, flush=True)
    {wait}
"""


def serve(tmp_path: Path, wait: str, *, drain: float, handler: float) -> subprocess.Popen[str]:
    code = textwrap.dedent(SERVING).format(wait=wait)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "jobs.db"), str(drain), str(handler)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.run_id = process.stdout.readline().strip()  # type: ignore[attr-defined]
    jobs = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db"))
    deadline = time.monotonic() + 60
    while jobs.run(process.run_id).status is RunStatus.PENDING:  # type: ignore[attr-defined]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.mark.parametrize(
    "wait", ["time.sleep(60)", "jobs.run_forever()", "import threading; threading.Event().wait()"]
)
def test_sigterm_lets_what_runs_end_and_exits_with_code_0(tmp_path: Path, wait: str) -> None:
    process = serve(tmp_path, wait, drain=30, handler=2)
    process.terminate()
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 0, errors
    run = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db")).run(process.run_id)  # type: ignore[attr-defined]
    assert run.status is RunStatus.SUCCEEDED


def test_sigterm_records_what_outlives_the_drain(tmp_path: Path) -> None:
    process = serve(tmp_path, "time.sleep(60)", drain=0.3, handler=60)
    process.terminate()
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 0, errors
    run = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db")).run(process.run_id)  # type: ignore[attr-defined]
    assert (run.status, run.error.kind if run.error else None) == (RunStatus.FAILED, "shutdown")


def test_sigint_ends_in_keyboard_interrupt_and_a_second_sigterm_leaves_at_once(tmp_path: Path) -> None:
    process = serve(tmp_path, "time.sleep(60)", drain=5, handler=0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert process.returncode not in (0, None)

    (tmp_path / "second").mkdir()
    process = serve(tmp_path / "second", "time.sleep(60)", drain=30, handler=60)
    process.terminate()
    assert process.stderr is not None
    assert any("draining" in line for line in process.stderr)
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM


def test_ctrl_c_ends_run_forever_quietly(tmp_path: Path) -> None:
    process = serve(
        tmp_path, "jobs.run_forever(); print('after', flush=True); time.sleep(1)", drain=10, handler=0.5
    )
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)

    assert (process.returncode, out) == (0, "after\n"), errors
    assert "Traceback" not in errors


def test_handlers_of_the_host_stay(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def hosts_own(*_: object) -> None: ...

    signal.signal(signal.SIGTERM, hosts_own)
    try:
        with JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db")):
            assert signal.getsignal(signal.SIGTERM) is hosts_own
    finally:
        signal.signal(signal.SIGTERM, before)


def test_coroutine_handlers_run_on_the_loop_that_entered_lifespan(tmp_path: Path) -> None:
    jobs = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db"))

    @jobs.job("where")
    async def where() -> int:
        return threading.get_ident()

    async def application() -> object:
        async with jobs.lifespan():
            run = await jobs.aio.trigger_job("where")
            return (await jobs.aio.wait(run.id)).output

    assert asyncio.run(application()) == threading.get_ident()
    assert not jobs.started


def test_start_does_nothing_where_a_tool_merely_imports_the_application(tmp_path: Path) -> None:
    from jobmanager.manager.manager import inert

    jobs = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db"))
    with inert():
        assert jobs.start() is jobs
    assert not jobs.started
    assert not (tmp_path / "jobs.db").exists()


# ---------------------------------------------------------------- the line at start

SHOP = """
    from jobmanager import JobManager
    from jobmanager.web import asgi, wsgi
    from starlette.applications import Starlette
    from starlette.routing import Mount

    jobs = JobManager()
    jobs.add_job("report", lambda: None, cron="0 2 * * *")
    application = wsgi(jobs)
    asgi_application = Starlette(lifespan=jobs.lifespan, routes=[Mount("/jobs", asgi(jobs))])
"""
HOOKS = """
    def post_worker_init(worker):
        from shop import jobs
        jobs.start()

    def worker_exit(server, worker):
        from shop import jobs
        jobs.stop()
"""
SERVERS = {
    "uvicorn": ("uvicorn", "--port", "{port}", "shop:asgi_application"),
    "gunicorn": ("gunicorn", "--workers", "2", "-b", "127.0.0.1:{port}", "shop:application"),
}


@pytest.mark.parametrize("server", SERVERS)
def test_a_plain_server_says_once_per_process_that_jobs_run_and_where(
    tmp_path: Path, postgres_url: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if nothing is said where the server sets up no logging for us, if it is said twice, or with the password."""
    pytest.importorskip(server)
    password = "swordfish-in-the-url"
    parts = urlsplit(postgres_url)
    url = parts._replace(netloc=f"{parts.username}:{password}@{parts.hostname}:{parts.port}").geturl()
    monkeypatch.setenv("JOBMANAGER_DATABASE_URL", url)
    (tmp_path / "shop.py").write_text(textwrap.dedent(SHOP))
    (tmp_path / "gunicorn.conf.py").write_text(textwrap.dedent(HOOKS))
    log, port = tmp_path / "log", free_port()
    command = [part.format(port=port) for part in SERVERS[server]]
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", *command], cwd=tmp_path, stdout=out, stderr=out)
    workers = 2 if server == "gunicorn" else 1
    try:
        until(lambda: log.read_text().count("jobs run in") >= workers)
    finally:
        process.terminate()
        process.wait(60)

    lines = [line for line in log.read_text().splitlines() if "jobs run" in line]
    assert len(lines) == workers, log.read_text()
    for line in lines:
        assert line.startswith(
            'jobs run in this process: backend=local reason="JOBMANAGER_BACKEND unset" store=postgresql://'
        )
        assert f"{parts.port}{parts.path} jobs=1 pid=" in line
    assert len({line.rpartition("pid=")[2] for line in lines}) == workers
    assert password not in log.read_text()


@pytest.mark.parametrize(
    ("set_up", "said"),
    [
        ("", True),
        ("import logging; logging.getLogger('jobmanager').addHandler(logging.NullHandler())", False),
        ("import logging; logging.getLogger('jobmanager').setLevel(logging.WARNING)", False),
        ("import logging; logging.lastResort = None", False),
        ("import logging; logging.basicConfig()", False),
    ],
)
def test_the_line_at_start_leaves_an_application_s_own_logging_alone(set_up: str, said: bool) -> None:
    code = f"{set_up}\nfrom jobmanager import JobManager, Settings\nwith JobManager(Settings(database_url='memory://')): pass"
    ran = run_python(code)

    assert ran.returncode == 0, ran.stderr
    assert ("jobs run in this process" in ran.stderr) is said
