"""`python -m ...` without most of its CPU time: forked from a process that has loaded what such programs load."""

from __future__ import annotations

import atexit
import io
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

FORKSERVER = multiprocessing.get_context("forkserver")
# The worker first: it takes guards away before anything else of the library is loaded. A module that is not installed is left out.
FORKSERVER.set_forkserver_preload([
    "tests.faults.worker", "jobmanager.cli.app", "jobmanager.cli.output.lists", "jobmanager.stores.sql.sqlite", "jobmanager.stores.sql.postgres",
    "jobmanager.doctor", "psycopg", "jobmanager.backends.celery.backend", "celery.bin.worker", "celery.worker.worker",
    "celery.concurrency.thread", "kombu.transport.redis", "kombu.transport.pyamqp",
])  # fmt: skip


class Forked:
    """A process of its own session that does what `python -m WORDS` does; what it says is written into files, or to a terminal."""

    def __init__(
        self,
        words: list[str],
        *,
        folder: Path,
        env: Mapping[str, str],
        out: str | Path,
        errors: str | Path | None = None,
        reads: str | Path = os.devnull,
    ) -> None:
        self.words = words
        streams = (str(reads), str(out), str(errors or out))
        for name in streams[1:]:
            Path(name).touch()
        self._process = FORKSERVER.Process(target=_do, args=(words, str(folder), dict(env), streams))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """The exit code, or minus the signal that ended it; None while it lives."""
        return self._process.exitcode

    def wait(self, seconds: float = 60) -> int:
        """The exit code once it has ended; raises TimeoutExpired."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.words, seconds)
        return self._process.exitcode

    def kill(self) -> None:
        """Kill -9, with its children, where it lives; and take its exit code."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has just ended, or is none yet of its own session
                os.killpg(self.pid, signal.SIGKILL)
            self._process.kill()
        self._process.join(10)


def _do(words: list[str], folder: str, env: dict[str, str], streams: tuple[str, str, str]) -> None:
    os.setsid()
    multiprocessing.current_process().name = "MainProcess"  # as logs have it
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    _open(*streams)
    sys.path[:0] = ["", *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = words
    if "PYTHONWARNINGS" in env:
        warnings.simplefilter(env["PYTHONWARNINGS"])  # type: ignore[arg-type]
    code = _code(words[0])
    # As at the end of Python; multiprocessing leaves out what the program has registered.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _open(reads: str, out: str, errors: str) -> None:
    for number, name in enumerate((reads, out, errors)):
        opened = os.open(name, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # type: ignore[misc] # noqa: SIM115
    sys.stdout = sys.__stdout__ = _text(1, "strict")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _text(2, "backslashreplace")  # type: ignore[misc]


def _text(number: int, errors: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.FileIO(number, "wb", closefd=False), "utf-8", errors, write_through=True, line_buffering=True
    )


def _code(module: str) -> int:
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def ran(
    words: list[str], *, folder: Path, env: Mapping[str, str], seconds: float = 60
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` of `python -m WORDS`, with what it said as text."""
    with tempfile.TemporaryDirectory() as kept:
        out, errors = Path(kept, "out"), Path(kept, "errors")
        process = Forked(words, folder=folder, env=env, out=out, errors=errors)
        try:
            code = process.wait(seconds)
        finally:
            process.kill()
        return subprocess.CompletedProcess(
            words, code, out.read_text(encoding="utf-8"), errors.read_text(encoding="utf-8")
        )
