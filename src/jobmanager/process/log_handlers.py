"""Log handlers that nobody writes to while the process forks.

`logging` makes its own locks anew in a forked child, and leaves the lock of the stream behind a handler as it was (Python's
bpo-6721): where another thread was writing a line at the fork, the first line that the child logs waits for ever.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

PATIENCE = 5.0
"""Seconds to wait for one handler. One that hangs for longer stays as it is: a fork is not worth a process that stops."""

_forking = threading.local()


def hold() -> None:
    """Wait until no thread is inside a log handler, and let none in. `release` must follow in the parent, on the same thread."""
    _forking.held = [
        handler for handler in _handlers() if handler.lock and handler.lock.acquire(timeout=PATIENCE)
    ]


def release() -> None:
    """Let the other threads log again. In the child there is nothing to release: `logging` has made the locks anew."""
    for handler in reversed(getattr(_forking, "held", ())):
        handler.release()
    _forking.held = []


def _handlers() -> Iterator[logging.Handler]:
    """Yield every handler that is attached to a logger, once."""
    loggers = [logging.getLogger(), *logging.getLogger().manager.loggerDict.copy().values()]
    yield from {
        handler: None
        for logger in loggers
        if isinstance(logger, logging.Logger)
        for handler in logger.handlers
    }
