"""FakeApi: the API of a clock on a port of this machine, with its entries in memory, and with every trouble that an API has.

A fake of a service says in `respond` what the service would. `TickerContract` plays on it: it changes entries as people do in a
console, takes places away, and lets requests fail.
"""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from jobmanager.schedule import Cron

LONGEST_SILENCE = 5.0
TROUBLES = ("401", "403", "404", "422", "429", "500", "timeout", "garbage", "html", "redirect")
"""The faults that an API may have."""


@dataclass(kw_only=True)
class FakeEntry:
    """An entry of the service. `facts` is whatever the service keeps beside."""

    key: str
    text: str
    zone: str = "UTC"
    target: str = ""
    paused: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    def wakes_at(self, instant: datetime) -> bool:
        """Return whether the service calls for it in the minute that begins at this instant."""
        before = instant - timedelta(seconds=1)
        return not self.paused and Cron(self.text, self.zone).next_after(before) == instant


@dataclass(frozen=True)
class Request:
    """A request that came. Header names are in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> Any:
        """The JSON of the body; None for an empty one."""
        return json.loads(self.body) if self.body else None


@dataclass(frozen=True)
class Reply:
    """A reply of the service; a `body` that is no bytes is sent as JSON."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return b"" if self.body is None else json.dumps(self.body).encode()


class FakeApi(ABC):
    """Serves from `open` to `close`. `token` is the key it takes; `places`, if not None, how many entries there may be.

    `trouble`: one of `TROUBLES`, or '' where all is well; `requests` is what came, also while there is trouble.
    """

    def __init__(self, token: str = "key-of-the-fake-0123456789") -> None:  # noqa: S107 - made up
        self.token = token
        self.places: int | None = None
        self.trouble = ""
        self.entries: dict[str, FakeEntry] = {}
        self.requests: list[Request] = []
        self._lock = threading.RLock()
        self._let_go = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @abstractmethod
    def respond(self, request: Request) -> Reply:
        """Return what the service replies; one call at a time."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def writes(self) -> list[Request]:
        """The requests that were to change something."""
        return [request for request in self.requests if request.method != "GET"]

    def open(self) -> None:
        """Serve from now on."""
        self._thread.start()

    def close(self) -> None:
        """End, with what hangs on purpose."""
        self._let_go.set()
        self._server.shutdown()
        self._server.server_close()

    def add(self, entry: FakeEntry) -> None:
        """Add an entry, as an operator does in the service's console."""
        self.entries[entry.key] = entry

    def is_full(self, key: str) -> bool:
        """Return whether there is no place for an entry of that key."""
        return self.places is not None and key not in self.entries and len(self.entries) >= self.places

    def reply(self, request: Request) -> Reply:
        """Return the reply to a request: the trouble, if there is one, else what the service says."""
        with self._lock:
            self.requests.append(request)
        if self.trouble:
            return self._troubled(request)
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return Reply(401, {"error": "Unauthorized"})
        with self._lock:
            return self.respond(request)

    def _troubled(self, request: Request) -> Reply:
        sent = request.headers.get("authorization", "")
        match self.trouble:
            case "timeout":
                self._let_go.wait(LONGEST_SILENCE)
                return Reply(200, [])
            case "garbage":
                return Reply(200, b'[{"cron": ')
            case "html":
                return Reply(200, b"<html><body>Bad gateway</body></html>")
            case "redirect":
                return Reply(302, None, {"location": "https://login.example.org/"})
            case "429":
                return Reply(429, {"error": "slow down"}, {"retry-after": "90"})
            case status:  # a service may repeat what it was sent
                return Reply(int(status), {"error": f"no {request.method} with {sent}"})


def _handler(api: FakeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = (
            -1
        )  # head and body in one packet: else the second waits for an acknowledgement of the first

        def _do(self) -> None:
            parts = urlsplit(self.path)
            reply = api.reply(
                Request(
                    method=self.command,
                    path=unquote(parts.path),
                    query={name: values[-1] for name, values in parse_qs(parts.query).items()},
                    headers={name.lower(): value for name, value in self.headers.items()},
                    body=self.rfile.read(int(self.headers.get("content-length") or 0)),
                )
            )
            self.send_response(reply.status)
            for name, value in {**reply.headers, "content-length": str(len(reply.content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _do  # noqa: N815 - as the library calls them

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the library calls it
            pass

    return Handler
