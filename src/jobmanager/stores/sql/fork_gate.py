"""A gate that is closed while the process forks."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class ForkUnderWayError(Exception):
    """The gate stayed closed for too long."""


class Gate:
    """Lets any number of threads in, and can be closed for a moment in which nobody is inside."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside: Counter[int] = Counter()
        self._closed: Counter[int] = Counter()

    @contextmanager
    def inside(self, patience: float) -> Iterator[None]:
        """Hold it open; wait so many seconds while it is closed, unless this thread is inside. ForkUnderWayError after them."""
        me = threading.get_ident()
        if not self._changed.acquire(timeout=patience):
            raise ForkUnderWayError
        try:
            if not self._changed.wait_for(
                lambda: not self._closed or me in self._inside or me in self._closed, patience
            ):
                raise ForkUnderWayError
            self._inside[me] += 1
        finally:
            self._changed.release()
        try:
            yield
        finally:
            with self._changed:
                self._inside[me] -= 1
                if not self._inside[me]:
                    del self._inside[me]
                self._changed.notify_all()

    def close(self, patience: float) -> None:
        """Let no other thread in from now on, and wait so many seconds for those inside to leave. As many `open` must follow.

        The condition's lock stays with this thread: held by another one at the fork, the child would wait for it for ever. A
        gate that stays busy for longer than the patience is left as it is.
        """
        me = threading.get_ident()
        if self._changed.acquire(timeout=patience):
            self._closed[me] += 1
            self._changed.wait_for(lambda: not self._inside.keys() - {me}, patience)

    def open(self) -> None:
        """Take back one `close` of this thread; with the last one the others are let in again."""
        me = threading.get_ident()
        if self._closed[me]:
            self._closed[me] -= 1
            if not self._closed[me]:
                del self._closed[me]
            self._changed.notify_all()
            self._changed.release()
