"""HTTP as libcurl speaks it for pg_net: redirects, kept connections, one deadline for all of it, and libcurl's words for what went wrong."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urljoin, urlsplit

USER_AGENT = "pg_net/0.20.4"
MOST_REDIRECTS = 30
CONNECTIONS = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}

# The first that fits.
ERRORS = [
    (socket.gaierror, "Couldn't resolve host name"),
    (ssl.SSLCertVerificationError, "SSL peer certificate or SSH remote key was not OK"),
    (ssl.SSLError, "SSL connect error"),
    (http.client.RemoteDisconnected, "Server returned nothing (no headers, no data)"),
    (http.client.IncompleteRead, "Transferred a partial file"),
    (http.client.UnknownProtocol, "Unsupported protocol"),
    (http.client.InvalidURL, "URL using bad/illegal format or missing URL"),
    (ValueError, "URL using bad/illegal format or missing URL"),
    (http.client.BadStatusLine, "Unsupported protocol"),
    (http.client.HTTPException, "Weird server reply"),
    (BrokenPipeError, "Failed sending data to the peer"),
    (ConnectionResetError, "Failure when receiving data from the peer"),
    (OSError, "Couldn't connect to server"),
]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A row of the queue."""

    id: int
    method: str
    url: str
    headers: dict[str, str]
    body: bytes | None
    timeout_milliseconds: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a row of answers says."""

    status: int | None = None
    content_type: str | None = None
    headers: dict[str, str] | None = None
    content: str | None = None
    timed_out: bool = False
    error: str | None = None


@dataclass(kw_only=True)
class Timing:
    """How long the steps of a request took, in seconds; the deadline is one for all of them."""

    limit: float
    started: float = field(default_factory=time.monotonic)
    dns: float = 0
    handshake: float = 0
    connected: bool = False

    def left(self) -> float:
        """The seconds before the deadline; raises TimeoutError at it."""
        left = self.started + self.limit - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def __str__(self) -> str:
        total = time.monotonic() - self.started
        handshake = self.handshake if self.connected else total - self.dns
        response = total - self.dns - handshake
        return (
            f"Timeout of {self.limit * 1000:.0f} ms reached. Total time: {total * 1000:f} ms"
            f" (DNS time: {self.dns * 1000:f} ms, TCP/SSL handshake time: {handshake * 1000:f} ms,"
            f" HTTP Request/Response time: {response * 1000:f} ms)"
        )


class Curl:
    """Sends requests, from any number of threads."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, str], list[http.client.HTTPConnection]] = defaultdict(list)
        self._lock = threading.Lock()

    def send(self, request: Request) -> Answer:
        """The answer, or what stands in its place; raises nothing."""
        timing = Timing(limit=request.timeout_milliseconds / 1000)
        try:
            return self._follow(request, timing)
        except TimeoutError:
            return Answer(timed_out=True, error=str(timing))
        except (OSError, ValueError, http.client.HTTPException) as error:
            return Answer(error=next(text for kind, text in ERRORS if isinstance(error, kind)))

    def close(self) -> None:
        """Close what is kept."""
        with self._lock:
            for kept in self._idle.values():
                while kept:
                    kept.pop().close()

    def _follow(self, request: Request, timing: Timing) -> Answer:
        url, method, body, headers = request.url, request.method.upper(), request.body, dict(request.headers)
        first: dict[str, str] | None = None
        for _ in range(MOST_REDIRECTS + 1):
            where = urlsplit(url)
            status, answered, content = self._exchange(where, method, headers, body, timing)
            # pg_net keeps the headers of the first answer, and the content type of the last.
            first = first or answered
            location = {name.lower(): value for name, value in answered.items()}.get("location")
            if not (300 <= status < 400 and location):
                return _answer(status, first, answered, content)
            url = urljoin(url, location)
            if status in (301, 302, 303):
                method, body = "GET", None
            if _origin(urlsplit(url)) != _origin(where):
                headers = {
                    name: value
                    for name, value in headers.items()
                    if name.lower() not in ("authorization", "cookie")
                }
        return Answer(error="Number of redirects hit maximum amount")

    def _exchange(
        self, where: SplitResult, method: str, headers: dict[str, str], body: bytes | None, timing: Timing
    ) -> tuple[int, dict[str, str], bytes]:
        """One request and its answer, over a kept connection if there is one that lives."""
        with self._lock:
            kept = self._idle[_origin(where)]
            idle = kept.pop() if kept else None
        if idle is not None:
            timing.connected = True
            try:
                return self._over(idle, where, method, headers, body, timing)
            except ConnectionError:
                pass  # it died while it was idle
        return self._over(_connect(where, timing), where, method, headers, body, timing)

    def _over(
        self,
        connection: http.client.HTTPConnection,
        where: SplitResult,
        method: str,
        headers: dict[str, str],
        body: bytes | None,
        timing: Timing,
    ) -> tuple[int, dict[str, str], bytes]:
        wire = connection.sock
        try:
            wire.settimeout(timing.left())
            path = (where.path or "/") + (f"?{where.query}" if where.query else "")
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in _on_the_wire(method, headers, body).items():
                connection.putheader(name.encode(), value.encode())
            connection.endheaders(body)
            with connection.getresponse() as response:
                content = b""
                while piece := response.read1():
                    content += piece
                    wire.settimeout(timing.left())
                if response.length:
                    raise http.client.IncompleteRead(content, response.length)
        except BaseException:
            connection.close()
            raise
        if response.will_close:
            connection.close()
        else:
            with self._lock:
                self._idle[_origin(where)].append(connection)
        return response.status, dict(response.headers.items()), content


def _connect(where: SplitResult, timing: Timing) -> http.client.HTTPConnection:
    started = time.monotonic()
    host, port = where.hostname, where.port
    if where.scheme not in CONNECTIONS:
        raise http.client.UnknownProtocol(where.scheme)
    if not host:
        raise http.client.InvalidURL
    socket.getaddrinfo(host, port)  # apart, for a time of its own
    timing.dns = time.monotonic() - started
    connection = CONNECTIONS[where.scheme](host, port, timeout=timing.left())
    try:
        connection.connect()
    except BaseException:
        connection.close()
        raise
    timing.handshake = time.monotonic() - started - timing.dns
    timing.connected = True
    return connection


def _on_the_wire(method: str, headers: dict[str, str], body: bytes | None) -> dict[str, str]:
    """The caller's headers, and libcurl's own where he gave none."""
    own = {"Accept": "*/*"}
    if method == "POST":
        length = str(len(body or b""))
        own |= {"Content-Length": length, "Content-Type": "application/x-www-form-urlencoded"}
    given = {name.lower() for name in headers}
    return (
        {name: value for name, value in own.items() if name.lower() not in given}
        | headers
        | {"User-Agent": USER_AGENT}
    )


def _origin(where: SplitResult) -> tuple[str, str]:
    return where.scheme, where.netloc


def _answer(status: int, first: dict[str, str], last: dict[str, str], content: bytes) -> Answer:
    kind = next((value for name, value in last.items() if name.lower() == "content-type"), None)
    text = content.partition(b"\0")[0].decode(errors="replace")
    return Answer(status=status, content_type=kind, headers=first, content=text or None)
