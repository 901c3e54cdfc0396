"""The process of the fault tests: a manager, and a hand on it by expressions that come through a pipe.

Crash points are named after what comes next: `before_claim` and `after_claim` around the transaction that opens runs,
`before_handler`, `mid_handler`, `before_finish` and `after_finish` around the one that ends them. They are put around the
library's calls from here, so the library carries no code for tests.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import time
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.faults import mutations  # noqa: F401 - before anything else of the library

# Named one by one, so that the process all others are forked from has loaded them.
import jobmanager.backends.local
import jobmanager.stores.sql.memory  # noqa: F401
from jobmanager import JobManager, Settings
from jobmanager.execution import supervisor as watch


class Hand:
    """What the test's own lines may use."""

    def __init__(self, url: str, effects: Path, crash_at: str, settings: dict[str, Any]) -> None:
        skew = settings.pop("skew", 0.0)
        if "timeout_grace" in settings:
            watch.TIMEOUT_GRACE = timedelta(seconds=settings.pop("timeout_grace"))
        self._crash_at = crash_at
        self._effects = os.open(effects, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._travels: list[Any] = []
        if skew:
            self.skew_by(skew)
        self.jobs = JobManager(Settings(database_url=url, **settings))
        self.names = {
            "jobs": self.jobs,
            "note": self.note,
            "crash_point": self.crash_point,
            "skew_by": self.skew_by,
            "os": os,
            "time": time,
        }

    def note(self, *words: object) -> None:
        """One line in the effects log."""
        os.write(self._effects, (" ".join(str(word) for word in words) + "\n").encode())

    def crash_point(self, name: str) -> None:
        """Die here, if that is what the test is about."""
        if self._crash_at == name:
            os.kill(os.getpid(), signal.SIGKILL)

    def skew_by(self, seconds: float) -> None:
        """Set this process's wall clock, as a host's would be: everybody who asks for the time is told so."""
        import time_machine

        self._travels.append(time_machine.travel(time.time() + seconds, tick=True))
        self._travels[-1].start()

    def install_crash_points(self) -> None:
        store: Any = self.jobs.store
        executor: Any = self.jobs._assembly.executor
        write, call = store.runs.write, executor._invoke

        def crashing_write(opens: Any, endings: Any) -> Any:
            if opens:
                self.crash_point("before_claim")
            if endings:
                self.crash_point("before_finish")
            written = write(opens, endings)
            if opens:
                self.crash_point("after_claim")
            if endings:
                self.crash_point("after_finish")
            return written

        def crashing_call(attempt: Any) -> Any:
            self.crash_point("before_handler")
            return call(attempt)

        store.runs.write, executor._invoke = crashing_write, crashing_call


def main(
    pipe: Connection,
    url: str,
    effects: Path,
    errors: Path,
    source: str,
    crash_at: str,
    settings: dict[str, Any],
) -> None:
    """Declare the test's jobs, start, then do what is asked until nobody asks any more."""
    file = os.open(errors, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO, force=True)
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    hand = Hand(url, effects, crash_at, settings)
    exec(source, hand.names)  # noqa: S102 - the test's own jobs
    if crash_at:
        hand.install_crash_points()
    if hand.names.get("start", True):
        hand.jobs.start()
    pipe.send((True, "up"))
    while True:
        try:
            expression = pipe.recv()
        except EOFError:
            os._exit(0)
        try:
            pipe.send((True, eval(expression, hand.names)))  # noqa: S307 - the test's own words
        except Exception as error:
            pipe.send((False, repr(error)))
