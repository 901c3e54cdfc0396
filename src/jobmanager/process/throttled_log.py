"""One log line per five seconds about one trouble, however often it happens."""

from __future__ import annotations

import logging
import time

INTERVAL = 5.0
MOST_TROUBLES = 1_000
LONGEST_NAME = 300


class ThrottledLogs:
    """A `ThrottledLogger` for each trouble, by a text that names it; of very many all are forgotten. Any thread."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._of: dict[str, ThrottledLogger] = {}

    def of(self, trouble: str) -> ThrottledLogger:
        """Return the log of this trouble."""
        if len(self._of) >= MOST_TROUBLES:
            self._of.clear()
        return self._of.setdefault(trouble[:LONGEST_NAME], ThrottledLogger(self._logger))


class ThrottledLogger:
    """Says that something is wrong now and then, and once that it is over. Any thread; share one about one trouble."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._spoken_at = float("-inf")
        self._troubled = False

    def warning(self, message: str, *args: object) -> None:
        """Log it, unless something was said less than five seconds ago."""
        self._say(logging.WARNING, message, args)

    def error(self, message: str, *args: object, exc_info: bool = False) -> None:
        """Log it as an error, unless something was said less than five seconds ago."""
        self._say(logging.ERROR, message, args, exc_info=exc_info)

    def _say(self, level: int, message: str, args: tuple[object, ...], *, exc_info: bool = False) -> None:
        now = time.monotonic()
        if now - self._spoken_at >= INTERVAL:
            self._spoken_at = now
            self._troubled = True
            self._logger.log(level, message, *args, exc_info=exc_info)

    def over(self, message: str) -> None:
        """Log that the trouble has ended, if it was mentioned."""
        if self._troubled:
            self._troubled = False
            self._logger.info(message)
