"""What Celery tests stand on: an application in a folder, its beats and workers as processes, and what its handlers noted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.forked import Forked

from jobmanager import JobManager, Settings
from jobmanager.backends.celery import CeleryBackend
from jobmanager.backends.celery.application import make_app

# Read by every process: quick, so that tests need not wait, and with a log of effects that only grows.
HEAD = """
import os, sys, time
from datetime import timedelta
import jobmanager.manager.assembly, jobmanager.stores.sql.runs
from jobmanager import JobManager, Retry, RunContext
from jobmanager.backends.celery import CeleryBackend

jobmanager.manager.assembly.POLL = timedelta(seconds=0.5)
jobmanager.stores.sql.runs.LOST_AFTER = timedelta(seconds=3)
_effects = os.open("effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

def note(*words):
    os.write(_effects, (" ".join(str(word) for word in words) + "\\n").encode())
"""
OWN_APP = "jobs = JobManager()\ncelery = jobs.backend.app\n"


def until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """What the condition answers, once it is true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return answer


class Process:
    """A beat, a worker or another command of the application; what it says is in a file."""

    def __init__(self, words: list[str], folder: Path, env: dict[str, str]) -> None:
        self._log = folder / f"log-{time.monotonic_ns()}"
        # A pool that forks is started as users start it: forked itself, one in ten left a child that did not end.
        start = _started if "prefork" in words else _forked
        self._process = start(words, folder, env, self._log)
        self.pid = self._process.pid

    def says(self, words: str, seconds: float = 30) -> Process:
        """Wait until its log has these words."""
        until(lambda: words in self.log() or self._process.poll() is not None, seconds)
        assert words in self.log(), self.log()
        return self

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self, number: int = signal.SIGTERM, seconds: float = 30) -> int:
        """Its exit code after this signal."""
        self.send(number)
        return self._process.wait(seconds)

    def wait(self, seconds: float = 30) -> int:
        return self._process.wait(seconds)

    def kill(self) -> None:
        """Kill -9, with its children."""
        if self._process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(10)


def _forked(words: list[str], folder: Path, env: dict[str, str], log: Path) -> Forked:
    return Forked(words, folder=folder, env=env, out=log)


def _started(words: list[str], folder: Path, env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


class Application:
    """One application in a folder, on one broker and one store."""

    def __init__(
        self, folder: Path, broker: str, store: str, source: str, *, head: str = OWN_APP, **settings: Any
    ) -> None:
        self.folder = folder
        (folder / "shop.py").write_text(HEAD + head + source)
        given: dict[str, Any] = {
            "backend": "celery",
            "celery_broker_url": broker,
            "database_url": store,
            "lease_seconds": 2,
            "sweep_seconds": 0.5,
            "drain_seconds": 5,
            **settings,
        }
        self.settings = Settings(**given)
        self._env = {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "ignore",
            "BROKER": broker,
            **{f"JOBMANAGER_{name.upper()}": str(value) for name, value in given.items()},
        }
        self.processes: list[Process] = []
        self._managers: list[JobManager] = []

    def command(self, *words: str) -> Process:
        """`python -m ...` in the application's folder."""
        process = Process(list(words), self.folder, self._env)
        self.processes.append(process)
        return process

    def beat(self, *words: str) -> Process:
        """`jobmanager beat`, once it keeps the time."""
        return self.command("jobmanager", "--app", "shop:jobs", "beat", *words).says("store=")

    def worker(self, *words: str, pool: str = "threads", concurrency: int = 2) -> Process:
        """`jobmanager worker`, once it takes messages."""
        options = ("--pool", pool, "--concurrency", str(concurrency), *words)
        return self.command("jobmanager", "--app", "shop:jobs", "worker", *options).says(" ready.")

    def manager(self) -> JobManager:
        """A manager of this process on the same store and broker, not started; its jobs are those of the store."""
        broker = self.settings.celery_broker_url or ""
        manager = JobManager(self.settings, backend=CeleryBackend(make_app(broker)))
        self._managers.append(manager)
        return manager

    def effects(self, first: str = "") -> list[list[str]]:
        """What handlers noted, in order: the words of each line, of those that begin with `first`."""
        path = self.folder / "effects"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [words for words in lines if not first or words[0] == first]

    def close(self) -> None:
        """Kill what is left."""
        for process in self.processes:
            process.kill()
        for manager in self._managers:
            manager.stop(0)
            manager.backend.stop(self.settings.drain)
            manager.store.close()
