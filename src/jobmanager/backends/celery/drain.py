"""The drain of a worker: begun by Celery's warm shutdown in its main process, and seen by the children that it forked."""

from __future__ import annotations

import mmap
import os
import signal
import struct
import threading
import time
from datetime import timedelta

from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

RECORDED_WITHIN = 2.0  # seconds that the children have to record what they cut
LONGEST_END = 10.0  # seconds
_MOMENT = struct.Struct("d")


class Drain:
    """How long the handlers of a worker may still take. Any thread and any forked child may ask.

    Celery's own command waits as long as handlers take: there a drain comes to its last moment and stays in it, so that handlers
    which look are told as everywhere, and the others are not cut.
    """

    def __init__(self) -> None:
        self.ends = False
        """Whether the end of the drain ends the worker, as in `jobmanager worker`."""
        # Shared with every child that is forked from now on; the monotonic clock is the same for all processes of a host.
        self._ends_at = mmap.mmap(-1, _MOMENT.size)

    def begin(self, length: timedelta) -> None:
        """Note that a drain of this length begins now; where it `ends`, end this worker for good when it is over. Twice is once."""
        if self.left() is not None:
            return
        seconds = length.total_seconds()
        self._ends_at[: _MOMENT.size] = _MOMENT.pack(time.monotonic() + seconds)
        if not self.ends:
            return
        timer = threading.Timer(seconds + RECORDED_WITHIN, self._end, [length])
        timer.daemon = True
        timer.start()

    def left(self) -> float | None:
        """Return how many seconds of the drain are left, below 0 once it is over, 0 where it does not end; None before it began."""
        [ends_at] = _MOMENT.unpack(self._ends_at[: _MOMENT.size])
        if not ends_at:
            return None
        left: float = ends_at - time.monotonic()
        return left if self.ends else max(left, 0.0)

    def _end(self, length: timedelta) -> None:
        logger.warning("drained for %s: what still runs is cut", length)
        os.kill(os.getpid(), signal.SIGQUIT)  # Celery's cold shutdown
        time.sleep(LONGEST_END)
        os._exit(0)  # a thread of the pool that never returns would keep the process
