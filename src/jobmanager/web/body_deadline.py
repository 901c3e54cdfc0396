"""A deadline for bodies over WSGI, whose read has none: a caller that sends nothing must not keep a server's thread."""

from __future__ import annotations

import itertools
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

LONGEST = 3.0
"""Seconds for a whole body of at most 64 KiB, over ASGI as well."""

SHORTEST = 0.5
"""Seconds for a body while many are read at once: idle callers then share the wait instead of multiplying it."""

SOCKETS = ("gunicorn.socket", "werkzeug.socket")
"""Where servers put the connection; others bound the read themselves, or read the body before they call."""


class BodyDeadlines:
    """Ends the reading half of connections whose body is not there in time; what waits for the body sees its end. Any thread.

    A forked child has a watch of its own: the parent's thread stayed behind, its lock may be held, and a server that patches
    threads in its workers would find a lock from before.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._watches: dict[int, _Watch] = {}

    @contextmanager
    def bounding(self, environ: Mapping[str, Any]) -> Iterator[None]:
        """Bound the reading of this request's body that happens inside."""
        connection = _connection(environ)
        if connection is None:
            yield
            return
        process = os.getpid()
        watch = self._watches.get(process) or self._watches.setdefault(process, _Watch(self._monotonic))
        number = watch.add(connection)
        try:
            yield
        finally:
            watch.remove(number)


class _Watch:
    """The connections of one process whose bodies are awaited, and the thread that ends what is late."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._numbers = itertools.count()
        self._open: dict[int, tuple[float, socket.socket]] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, connection: socket.socket) -> int:
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="jobmanager-bodies", daemon=True)
                self._thread.start()
            patience = max(SHORTEST, LONGEST / (1 + len(self._open)))
            if not self._open:
                self._changed.notify()
            number = next(self._numbers)
            self._open[number] = (self._monotonic() + patience, connection)
            return number

    def remove(self, number: int) -> None:
        with self._changed:
            self._open.pop(number, None)

    def _watch(self) -> None:
        while True:
            with self._changed:
                while not self._open:
                    self._changed.wait()
                now = self._monotonic()
                for number, (deadline, connection) in list(self._open.items()):
                    if deadline <= now:
                        del self._open[number]
                        _read_no_more(connection)
                self._changed.wait(SHORTEST / 2)


def give_up_body(environ: Mapping[str, Any]) -> None:
    """Let the server find the end of a body that nobody will read: it would wait for the rest before it is done with the request."""
    connection = _connection(environ)
    if connection is not None and (
        environ.get("CONTENT_LENGTH") not in {None, "", "0"} or environ.get("HTTP_TRANSFER_ENCODING")
    ):
        _read_no_more(connection)


def _connection(environ: Mapping[str, Any]) -> socket.socket | None:
    found = next((environ[name] for name in SOCKETS if environ.get(name) is not None), None)
    return found if isinstance(found, socket.socket) else None


def _read_no_more(connection: socket.socket) -> None:
    with suppress(OSError):  # the caller has gone
        socket.socket.shutdown(
            connection, socket.SHUT_RD
        )  # past TLS, which would speak to a caller that is silent
