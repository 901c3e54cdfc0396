"""The start of a manager within a process that serves requests, beside those requests and not before them."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable

from jobmanager.manager.manager import JobManager
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

AGAIN_AFTER = 10.0
"""Seconds after a start that failed, before which no request tries again."""


class StartsOnceAProcess:
    """Starts a manager once in each process, and tries again where a start failed: such a process would do no work for ever."""

    def __init__(self, find: Callable[[], JobManager]) -> None:
        self._find = find
        self._lock = threading.Lock()
        self._tried_in: int | None = None
        self._again_at: float | None = None

    def begin(self) -> None:
        """Start on a thread, unless this process has started or begun to; cheap, and called with each request.

        A child that was forked since starts for itself. After a start that raised, a call tries again once AGAIN_AFTER is over.
        """
        if self._has_begun():
            return
        with self._lock:
            if self._has_begun():
                return
            self._tried_in, self._again_at = os.getpid(), None
        threading.Thread(target=self._start, name="jobmanager-start", daemon=True).start()

    def stop(self) -> None:
        """Stop the manager, if this process, and not the one that it was forked from, began to start it; twice is safe."""
        if self._tried_in == os.getpid():
            self._find().stop()

    def _has_begun(self) -> bool:
        failed = self._again_at is not None and time.monotonic() >= self._again_at
        return self._tried_in == os.getpid() and not failed

    def _start(self) -> None:
        try:
            self._find().start()
        except Exception:
            self._again_at = time.monotonic() + AGAIN_AFTER
            logger.exception(
                "the jobs of this process are not started; a request after %g s tries again", AGAIN_AFTER
            )
            return
        atexit.register(self.stop)
