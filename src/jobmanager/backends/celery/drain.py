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

    Without a `length` the drain lasts as long as Celery waits, which nobody here knows.
    """

    def __init__(self) -> None:
        self.length: timedelta | None = None
        # Shared with every child that is forked from now on; the monotonic clock is the same for all processes of a host.
        self._ends_at = mmap.mmap(-1, _MOMENT.size)

    def begin(self) -> None:
        """Note that the drain begins now, and end this worker for good when it is over. Twice is once."""
        if self.length is None or self.left() is not None:
            return
        seconds = self.length.total_seconds()
        self._ends_at[: _MOMENT.size] = _MOMENT.pack(time.monotonic() + seconds)
        timer = threading.Timer(seconds + RECORDED_WITHIN, self._end)
        timer.daemon = True
        timer.start()

    def left(self) -> float | None:
        """Return how many seconds of the drain are left, below 0 once it is over; None before it began."""
        [ends_at] = _MOMENT.unpack(self._ends_at[: _MOMENT.size])
        return ends_at - time.monotonic() if ends_at else None

    def _end(self) -> None:
        logger.warning("drained for %s: what still runs is cut", self.length)
        os.kill(os.getpid(), signal.SIGQUIT)  # Celery's cold shutdown
        time.sleep(LONGEST_END)
        os._exit(0)  # a thread of the pool that never returns would keep the process
