"""SIGTERM and SIGINT: drain, then end; a second one leaves at once. Only where the host has no handler of its own."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

_FREE = (signal.SIG_DFL, signal.default_int_handler)


class SignalHandlers:
    """Calls `stop` in a helper thread on the first SIGTERM or SIGINT; then the process ends with code 0 (SIGINT: KeyboardInterrupt)."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._before: dict[int, Any] = {}
        self._draining = False
        self._drained = False

    @property
    def ending(self) -> bool:
        """True from the first signal on: the process is about to end, by an exception in the main thread."""
        return self._draining

    def install(self) -> None:
        """Take the signals that have no handler yet; in another thread than the main one nothing happens. Twice is once."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            if number not in self._before and signal.getsignal(number) in _FREE:
                self._before[number] = signal.signal(number, self._on_signal)

    def remove(self) -> None:
        """Give the signals back, where they are still ours and this is the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number, before in self._before.items():
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, before)
        self._before.clear()
        self._draining = self._drained = False

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._drained:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            raise SystemExit(0)
        if self._draining:
            logger.warning("second signal: leaving at once; other processes clean up")
            os._exit(128 + number)
        self._draining = True
        threading.Thread(target=self._drain, args=(number,), name="jobmanager-drain", daemon=True).start()

    def _drain(self, number: int) -> None:
        logger.warning("%s: draining; a second one leaves at once", signal.Signals(number).name)
        try:
            self._stop()
        finally:
            self._drained = True
            # Wakes the main thread wherever it waits: only there an exception can end the process.
            os.kill(os.getpid(), number)
