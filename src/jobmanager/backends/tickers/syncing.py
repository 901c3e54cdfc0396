"""When what a clock has planned is made equal to our jobs: soon after it is asked for, and again after a failure."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from jobmanager.clock import Clock
from jobmanager.errors import TickerError
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

PAUSES = (60.0, 300.0, 1_500.0)
"""Seconds after the first failure in a row, the second, and each further one."""

RED_AFTER = 3
"""So many failures in a row, and no entry can be trusted any more."""


class Syncing:
    """Does `act` on a thread of its own whenever it is asked for, once for all that ask meanwhile. Any thread.

    On a clock that is moved by hand it does it at once, on the caller's thread, and the clock repeats it. A TickerError of `act` is
    kept as `trouble`; nothing that `act` raises ends the application.
    """

    def __init__(self, act: Callable[[], None], clock: Clock, *, name: str) -> None:
        self._act = act
        self._clock = clock
        self._name = name
        self.after_fork()

    def after_fork(self) -> None:
        """In a forked child: the thread stayed with the parent."""
        self._changed = threading.Condition()
        self._acting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._asked = self._done = 0
        self._stopping = False
        self._retry_at: datetime | None = None
        self.failures = 0
        self.trouble: TickerError | None = None

    @property
    def done(self) -> bool:
        """True if it was done at least once, whatever came of it."""
        return self._done > 0

    def ask(self) -> None:
        """Get it done soon; returns at once, unless the clock is moved by hand."""
        with self._changed:
            self._stopping = False
            self._asked += 1
        if self._clock.drive(self._when_to_retry, self._once):
            self._once()
            return
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def settle(self, timeout: float) -> None:
        """Wait until all that was asked for is done, for at most so many seconds; raise the trouble there was."""
        with self._changed:
            asked = self._asked
            self._changed.wait_for(lambda: self._done >= asked or self._stopping, timeout)
        if self.trouble is not None:
            raise self.trouble

    def stop(self, timeout: float) -> None:
        """Let what is asked for be done, within so many seconds, and do nothing more until it is asked for again. Twice is safe."""
        self._clock.release(self._once)
        with self._changed:
            thread = self._thread
            if thread is not None and not self.failures:
                asked = self._asked
                self._changed.wait_for(lambda: self._done >= asked, timeout)
            self._stopping = True
            self._retry_at = None
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _when_to_retry(self) -> datetime | None:
        return self._retry_at

    def _work(self) -> None:
        while self._is_wanted():
            self._once()

    def _is_wanted(self) -> bool:
        """Wait for something to do; False, and the thread ends, where there is nothing left."""
        with self._changed:
            if self._done >= self._asked and self.trouble is not None and not self._stopping:
                self._changed.wait_for(lambda: self._stopping or self._asked > self._done, self._pause())
                self._asked += 1
            if self._stopping or self._done >= self._asked:
                self._thread = None
                return False
            return True

    def _once(self) -> None:
        with self._acting:
            asked = self._asked
            self._retry_at = None
            try:
                self._act()
            except TickerError as error:
                self._failed(error)
            except Exception as error:
                logger.exception("%s fails", self._name)
                self._failed(TickerError(f"{type(error).__name__}: {error}"))
            else:
                if self.trouble is not None:
                    logger.info("%s: in step again", self._name)
                self.failures, self.trouble = 0, None
        with self._changed:
            self._done = max(self._done, asked)
            self._changed.notify_all()

    def _failed(self, error: TickerError) -> None:
        is_new = self.trouble is None or str(self.trouble) != str(error)
        self.failures += 1
        self.trouble = error
        pause = timedelta(seconds=self._pause())
        self._retry_at = self._clock.now() + pause
        if is_new:
            logger.warning("%s: %s Again in %d s.", self._name, error, pause.total_seconds())

    def _pause(self) -> float:
        pause = PAUSES[min(self.failures, len(PAUSES)) - 1]
        after = self.trouble.retry_after if self.trouble is not None else None
        return max(pause, after or 0.0)
