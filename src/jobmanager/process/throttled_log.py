"""One log line per five seconds about one trouble, however often it happens."""

from __future__ import annotations

import logging
import time

INTERVAL = 5.0


class ThrottledLogger:
    """Says that something is wrong now and then, and once that it is over. Any thread; share one about one trouble."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._spoken_at = float("-inf")
        self._troubled = False

    def warning(self, message: str, *args: object) -> None:
        """Log it, unless something was said less than five seconds ago."""
        now = time.monotonic()
        if now - self._spoken_at >= INTERVAL:
            self._spoken_at = now
            self._troubled = True
            self._logger.warning(message, *args)

    def over(self, message: str) -> None:
        """Log that the trouble has ended, if it was mentioned."""
        if self._troubled:
            self._troubled = False
            self._logger.info(message)
