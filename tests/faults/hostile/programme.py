"""Run hostile handlers one after the other in this process, and say of each what became of its run and of the process.

`python -m tests.faults.hostile MODE URL REPORT [CASE...]` writes one line of JSON per case. The process ends early, with the line
written, where a case left it unable to go on: whoever called starts another one with the cases that are left.
"""

from __future__ import annotations

import contextlib
import gc
import json
import locale
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO

import psutil
from tests.faults.hostile import handlers
from tests.faults.hostile.handlers import CASES, Case

from jobmanager import JobManager, Run, RunContext, Settings
from jobmanager.execution import supervisor

MODES = {"thread": "t", "coroutine": "c", "isolated": "i"}
WORKERS = 3
# A busy machine needs it; where most cases fail a tenth is long enough.
PATIENCE = float(os.environ.get("HOSTILE_PATIENCE", "1"))
LONGEST = 15.0 * PATIENCE  # seconds that a case may take, its timeout included
SOON = 5.0 * PATIENCE


def cases_of(mode: str) -> list[Case]:
    """The cases that make sense in this mode."""
    return [case for case in CASES.values() if MODES[mode] in case.modes]


class Programme:
    """A manager with every case of a mode as a job, beside two plain ones."""

    def __init__(self, mode: str, url: str, cases: Sequence[Case]) -> None:
        supervisor.TIMEOUT_GRACE = timedelta(seconds=0.5)
        supervisor.LOOP_GIVEN_UP_AFTER = 1.5
        self.mode = mode
        self.jobs = JobManager(
            Settings(
                backend="local",
                database_url=url,
                workers=WORKERS,
                lease_seconds=30,
                sweep_seconds=5,
                drain_seconds=1,
            )
        )
        for case in cases:
            self._add(case)
        self._meeting = threading.Barrier(WORKERS)
        self.jobs.add_job("plain", lambda: "well", overlap="allow")
        self.jobs.add_job("plain-coroutine", _well, overlap="allow")
        self.jobs.add_job("meets", lambda: self._meeting.wait(SOON), overlap="allow")

    def _add(self, case: Case) -> None:
        target: Any = case.function
        options: dict[str, Any] = {"timeout": case.timeout, "retry": case.retry, "overlap": "allow"}
        if self.mode == "isolated":
            target = f"{handlers.__name__}:{case.function.__name__}"
            options["isolation"] = "process"
        elif self.mode == "coroutine" and not _is_coroutine(case.function):
            target = _as_coroutine(case.function)
        self.jobs.add_job(case.name, target, **options)

    def run(self, cases: Sequence[Case]) -> list[dict[str, Any]]:
        """What became of them, all at once, and whether the process is as it was."""
        begun = time.monotonic()
        started = {case.name: self.jobs.trigger_job(case.name).id for case in cases}
        lines = []
        for name, run_id in started.items():
            run = self._end_of(run_id, LONGEST)
            lines.append({"name": name, **_record(run), "seconds": round(time.monotonic() - begun, 2)})
        state = self.state()
        return [{**line, **state} for line in lines]

    def state(self) -> dict[str, Any]:
        """Whether other work is still done: a thread's, a coroutine's, and as much at once as there are workers."""
        plain, coroutine = self._ended("plain", SOON), self._ended("plain-coroutine", SOON)
        return {
            "plain": _record(plain)["shape"],
            "plain_coroutine": _record(coroutine)["shape"],
            "capacity": self._all_workers_meet(),
            "in_flight": _settled(lambda: self.jobs._assembly.pool.in_flight),
            "children": _settled(_children),
        }

    def _ended(self, job_id: str, seconds: float) -> Run | None:
        with contextlib.suppress(Exception):
            return self._end_of(self.jobs.trigger_job(job_id).id, seconds)
        return None

    def _end_of(self, run_id: str, seconds: float) -> Run | None:
        with contextlib.suppress(Exception):
            return self.jobs.wait(run_id, timeout=seconds)
        return None

    def _all_workers_meet(self) -> bool:
        """Whether as many handlers run at once as there are workers: each waits for the others."""
        self._meeting.reset()
        try:
            ids = [self.jobs.trigger_job("meets").id for _ in range(WORKERS)]
            return all(str(self.jobs.wait(run_id, timeout=2 * SOON).status) == "succeeded" for run_id in ids)
        except Exception:
            return False


async def _well() -> str:
    return "well"


def _is_coroutine(function: Callable[..., Any]) -> bool:
    return bool(function.__code__.co_flags & 0x80)


def _as_coroutine(function: Callable[[RunContext], Any]) -> Callable[[RunContext], Any]:
    async def handler(context: RunContext) -> Any:
        return function(context)

    return handler


def _record(run: Run | None) -> dict[str, Any]:
    if run is None:
        return {"shape": "no end", "type": "", "message": "", "traceback": ""}
    error = run.error
    return {
        "shape": f"{run.status}/{error.kind if error else run.reason}",
        "type": error.type if error else "",
        "message": error.message[:200] if error else "",
        "traceback": error.traceback[-200:] if error else "",
        "size": len(json.dumps(run.output)) + (len(error.message) + len(error.traceback) if error else 0),
    }


def _settled(count: Callable[[], int]) -> int:
    """Zero, or what the count still is some seconds later."""
    until = time.monotonic() + SOON
    while (found := count()) and time.monotonic() < until:
        time.sleep(0.02)
    return found


def _children() -> int:
    """Children that a handler left behind; multiprocessing's own helper stays for the life of a process."""
    left = 0
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            left += child.status() != psutil.STATUS_ZOMBIE and "resource_tracker" not in " ".join(
                child.cmdline()
            )
    return left


def is_well(line: dict[str, Any]) -> bool:
    """Whether the process can go on after this case."""
    well = "succeeded/None"
    return bool(
        line["shape"] != "no end"
        and (line["plain"], line["plain_coroutine"]) == (well, well)
        and line["capacity"]
        and not line["in_flight"]
        and not line["children"]
    )


@contextmanager
def repaired() -> Iterator[None]:
    """Put the process back as it was: each case meets a sound one. What follows a case at once does not."""
    folder, umask, limit = Path.cwd(), os.umask(0o22), sys.getrecursionlimit()
    os.umask(umask)
    kept = (
        dict(os.environ),
        sys.stdout,
        sys.stderr,
        time.time,
        logging.getLogRecordFactory(),
        warnings.filters[:],
    )
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    os.chdir(folder)
    os.umask(umask)
    sys.setrecursionlimit(limit)
    sys.set_int_max_str_digits(4300)
    environment, sys.stdout, sys.stderr, time.time, factory, warnings.filters[:] = kept
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    os.environ.clear()
    os.environ.update(environment)
    logging.setLogRecordFactory(factory)
    logging.disable(logging.NOTSET)
    logging.getLogger("jobmanager").handlers.clear()
    locale.setlocale(locale.LC_ALL, "C")
    gc.enable()
    threading.settrace(None)  # type: ignore[arg-type]
    sys.settrace(None)


def many(programme: Programme, cases: Sequence[Case], runs: int) -> dict[str, Any]:
    """Run the cases over and over, a hundred at once, and say what the process is like afterwards."""
    jobs, done, unended = programme.jobs, 0, 0
    jobs.start()
    with repaired():
        while done < runs and not unended:
            sys.stdout, sys.stderr = open_stream(), open_stream()
            batch = [jobs.trigger_job(cases[(done + number) % len(cases)].name).id for number in range(100)]
            done += len(batch)
            for run_id in batch:
                with contextlib.suppress(Exception):
                    if jobs.wait(run_id, timeout=60 * PATIENCE).status.closed:
                        continue
                unended += 1
    return {"runs": done, "unended": unended, **programme.state()}


def open_stream() -> TextIO:
    """A standard stream that a handler may close: others share none of it."""
    return Path(os.devnull).open("w")


def main(mode: str, url: str, report: str, *names: str) -> None:
    signal.alarm(600)  # never left behind, whatever became of the threads
    cases = [case for case in cases_of(mode) if not names or case.name in names]
    programme = Programme(mode, url, cases)
    if runs := int(os.environ.get("HOSTILE_RUNS", "0")):
        Path(report).write_text(json.dumps(many(programme, cases, runs)))
        os._exit(0)
    with Path(report).open("a") as lines:

        def say(line: dict[str, Any]) -> None:
            lines.write(json.dumps(line) + "\n")
            lines.flush()

        programme.jobs.start()
        # A child takes a second to come up; handlers in threads share the process that they spoil.
        at_once = WORKERS if mode == "isolated" else 1
        for batch in (cases[first : first + at_once] for first in range(0, len(cases), at_once)):
            for case in batch:
                say({"begun": case.name})
            sys.stdout, sys.stderr = open_stream(), open_stream()
            with repaired():
                ended = programme.run(batch)
            for line in ended:
                say(line)
            if not all(map(is_well, ended)):
                os._exit(1)
        begun = time.monotonic()
        programme.jobs.stop()
        say({"stopped": round(time.monotonic() - begun, 2)})
    os._exit(0)  # threads that handlers left behind would keep it
