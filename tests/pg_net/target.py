"""An HTTP server for tests: answers as told, and remembers every request as it came."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import pytest


@dataclass(frozen=True, kw_only=True)
class Received:
    """One request; `connection` is the number of the connection it came over."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    connection: int
    at: float = field(default_factory=time.time)

    def header(self, name: str) -> str | None:
        """Its value, in whatever case the name came."""
        return next((value for given, value in self.headers if given.lower() == name.lower()), None)

    def json(self) -> Any:
        """What the body says."""
        return json.loads(self.body)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a request gets: `delay` seconds first; `hang_up` is nothing at all, and over a kept connection clients may ask again; `chunked` is the body in pieces of one byte."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    delay: float = 0
    hang_up: bool = False
    chunked: bool = False


def redirect(location: str, status: int = 302) -> Reply:
    """A reply that sends elsewhere."""
    return Reply(status=status, body=b"elsewhere", headers={"Location": location})


class Target:
    """A server on a port of its own; it may be stopped and started again there. A path without a reply of its own gets `reply`."""

    def __init__(self) -> None:
        self.reply: Reply | Callable[[Received], Reply] = Reply()
        self.replies: dict[str, Reply | Callable[[Received], Reply]] = {}
        self.received: list[Received] = []
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Without a path."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Listen; again on the same port after `stop`."""
        self._stopped.clear()
        self._server = _Server(self, self.port)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="target")
        self._thread.start()
        return self

    def stop(self) -> None:
        """Refuse connections from now on, cut the open ones, and end every delay. Twice is safe."""
        self._stopped.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.cut()
            self._server.server_close()
            self._server = None
            self._thread.join(10)

    def forget(self) -> None:
        """Nothing was received, and every request gets 200 again."""
        self.received, self.replies, self.reply = [], {}, Reply()

    def wait(self, count: int = 1, *, seconds: float = 15) -> list[Received]:
        """What came, once it is `count` requests."""
        with self._changed:
            came = self._changed.wait_for(lambda: len(self.received) >= count, seconds)
            assert came, f"{len(self.received)} requests of {count} came"
            return list(self.received)

    def _take(self, request: Received) -> Reply:
        with self._changed:
            self.received.append(request)
            self._changed.notify_all()
        reply = self.replies.get(request.path.partition("?")[0], self.reply)
        reply = reply(request) if callable(reply) else reply
        self._stopped.wait(reply.delay)
        return reply


class _Server(ThreadingHTTPServer):
    request_queue_size = 512
    daemon_threads = False  # server_close waits for them

    def __init__(self, target: Target, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.target = target
        self.count = 0
        self._open: set[socket.socket] = set()

    def get_request(self):
        connection, address = super().get_request()
        self.count += 1
        self._open.add(connection)
        return connection, (*address, self.count)

    def shutdown_request(self, request):
        self._open.discard(request)
        super().shutdown_request(request)

    def cut(self):
        for connection in list(self._open):
            with suppress(OSError):  # the other side was quicker
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, client_address):
        """Who goes before his answer is no error here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _any(self):
        target = self.server.target
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        reply = target._take(
            Received(
                method=self.command,
                path=self.path,
                headers=list(self.headers.items()),
                body=body,
                connection=self.client_address[2],
            )
        )
        if reply.hang_up:
            self.close_connection = True
            return
        self.send_response_only(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header(
            *(("Transfer-Encoding", "chunked") if reply.chunked else ("Content-Length", str(len(reply.body))))
        )
        self.end_headers()
        if reply.chunked:
            self.wfile.writelines([b"1\r\n%c\r\n" % byte for byte in reply.body])
        self.wfile.write(b"0\r\n\r\n" if reply.chunked else reply.body)

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self._any
        raise AttributeError(name)

    def log_message(self, *_):
        pass


@pytest.fixture
def http_target() -> Iterator[Target]:
    """A running server that answers 200 to everything until told otherwise."""
    target = Target().start()
    try:
        yield target
    finally:
        target.stop()
