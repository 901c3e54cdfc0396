"""The project of `examples/django` behind real servers: who starts, how often, and that it ends; and on PostgreSQL."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.servers import free_port
from tests.waiting import until

from jobmanager import JobManager, Settings

pytestmark = [pytest.mark.slow]
ROOT = Path(__file__).parents[2]
Manage = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the project, with its tables."""
    shutil.copytree(ROOT / "examples" / "django", tmp_path / "site")
    manage(tmp_path, "migrate", "--verbosity", "0")
    return tmp_path


def environment(folder: Path) -> dict[str, str]:
    return {
        "BAKERY_DIR": str(folder),
        "PATH": os.environ["PATH"],
        "JOBMANAGER_LEASE_SECONDS": "5",
        "PYTHONPYCACHEPREFIX": os.environ.get("PYTHONPYCACHEPREFIX", ""),
    }


def manage(folder: Path, *words: str) -> str:
    ended = subprocess.run(
        [sys.executable, "manage.py", *words],
        cwd=folder / "site", env=environment(folder), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@contextmanager
def serving(folder: Path, *words: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start a server of the project, and yield its address once it answers."""
    port = free_port()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *(word.replace("PORT", str(port)) for word in words)],
            cwd=folder / "site", env=environment(folder), stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        until(lambda: answers(f"http://127.0.0.1:{port}/admin/login/") or dead(process, folder))
        yield f"http://127.0.0.1:{port}", process
    except BaseException:
        print((folder / "log").read_text()[-4000:])  # pytest shows it with the failure
        raise
    finally:
        os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
        process.wait(10)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=20).status_code == 200
    except httpx.TransportError:
        return False


def dead(process: subprocess.Popen[bytes], folder: Path) -> bool:
    assert process.poll() is None, (folder / "log").read_text()
    return False


def record(folder: Path) -> JobManager:
    return JobManager(Settings(database_url=f"sqlite:///{folder}/jobmanager.db"))


SERVERS = {
    "runserver": (["manage.py", "runserver", "127.0.0.1:PORT"], 1, signal.SIGINT),
    "runserver --noreload": (["manage.py", "runserver", "--noreload", "127.0.0.1:PORT"], 1, signal.SIGINT),
    "gunicorn": (["-m", "gunicorn", "--workers", "2", "--bind", "127.0.0.1:PORT", "bakery.wsgi"], 2, signal.SIGTERM),
    "uvicorn": (["-m", "uvicorn", "--port", "PORT", "bakery.asgi:application"], 1, signal.SIGTERM),
}  # fmt: skip


@pytest.mark.parametrize("server", SERVERS)
def test_each_serving_process_starts_once_and_a_view_starts_a_run(folder: Path, server: str) -> None:
    """Fails if the reloader's parent starts, too, or a server ends without ending its jobs."""
    command, processes, stop = SERVERS[server]
    with serving(folder, *command) as (address, process):
        jobs = record(folder)
        until(lambda: len(jobs.instances()) == processes, within=30)

        told = httpx.get(f"{address}/order/ana/", timeout=20).json()

        ended = jobs.wait(until(lambda: jobs.runs("confirm-order"), within=20)[0].id, 20)
        assert (ended.output, ended.idempotency_key) == ("ana", told["key"])
        assert len(jobs.instances()) == processes
        if server == "runserver":
            os.killpg(process.pid, stop)
        else:
            process.send_signal(stop)
        process.wait(40)
        if server != "gunicorn":  # each of the others leaves by itself
            until(lambda: not jobs.instances(), within=20)
        jobs.store.close()


def test_an_edit_reloads_into_one_process_and_loses_no_run(folder: Path) -> None:
    """Fails if the child that the reloader ends leaves its run, or its place among the living processes, behind."""
    file = folder / "site" / "bakery" / "orders" / "jobs.py"
    text = file.read_text()
    slow = text.replace(
        "    Order.objects.filter(id=order)",
        "    __import__('time').sleep(2)\n    Order.objects.filter(id=order)",
    )
    assert slow != text
    file.write_text(slow)
    with serving(folder, *SERVERS["runserver"][0]) as (address, process):
        jobs = record(folder)
        (before,) = until(jobs.instances, within=30)
        httpx.get(f"{address}/order/ana/", timeout=20)
        run = until(lambda: jobs.runs("confirm-order", status="running"), within=20)[0]

        file.write_text(text)
        polls = count(1)

        def is_another() -> bool:
            if next(polls) % 250 == 0:
                os.utime(
                    file
                )  # an edit that came before Django's first look, which a busy machine delays, is none to it
            return any(each.id != before.id for each in jobs.instances())

        until(is_another, within=60)
        assert jobs.wait(run.id, 30).output == "ana"
        until(lambda: len(jobs.instances()) == 1, within=30)
        jobs.store.close()
        os.killpg(process.pid, signal.SIGINT)
        process.wait(30)


def test_a_preloading_master_of_gunicorn_starts_nothing(folder: Path) -> None:
    command = SERVERS["gunicorn"][0]
    with serving(folder, *command, "--preload") as (address, process):
        jobs = record(folder)
        for _ in range(20):  # each of the workers starts with its first request
            httpx.get(f"{address}/admin/login/", timeout=20)
        found = until(jobs.instances, within=20)
        jobs.store.close()
        assert str(process.pid) not in {str(each.pid) for each in found}


def test_no_command_starts_jobs(folder: Path) -> None:
    """Fails if ready() starts: it is called for migrate, check, shell and test, too."""
    manage(folder, "check")
    manage(folder, "shell", "-c", "from jobmanager.contrib.django import jobs; assert not jobs.started")

    jobs = record(folder)
    assert jobs.instances() == []
    jobs.store.close()


@pytest.mark.servers
@pytest.mark.parametrize(("age", "checks"), [("60", "checks"), ("none", "unchecked")])
def test_on_postgresql_the_row_follows_the_transaction_and_a_cut_connection_costs_one_run_at_most(
    folder: Path, postgres_url: str, age: str, checks: str
) -> None:
    """Fails if a lost connection fails every later run of its thread, as without anything around the handler."""
    ended = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "django_on_postgres.py"), postgres_url, age, checks],
        cwd=folder / "site", env=environment(folder), capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    told: dict[str, Any] = json.loads(ended.stdout)

    assert told["rolled back"] == []
    assert told["committed"] == ["succeeded"]
    assert told["found by id"]
    assert (told["runs"], told["cut"] > 0) == (200, True)
    assert told["failed"] <= (0 if checks == "checks" else told["cut"]), told
    assert told["connections left of abandoned threads"] == 0
