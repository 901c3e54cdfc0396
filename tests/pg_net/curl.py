"""HTTP as libcurl speaks it for pg_net: redirects, kept connections, one deadline for all of it, and libcurl's words for what went wrong."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from urllib.parse import SplitResult, urljoin, urlsplit

USER_AGENT = "pg_net/0.20.4"
MOST_REDIRECTS = 30
CREDENTIALS = ("authorization", "cookie")
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
    content_type: bytes | None = None
    headers: dict[str, str] | None = None
    content: bytes | None = None
    timed_out: bool = False
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Step:
    """What is asked of one server on the way; a redirect makes another one."""

    where: SplitResult
    method: str
    headers: dict[str, str]
    body: bytes | None

    @property
    def origin(self) -> tuple[str, str]:
        """What a connection can be kept for, and a credential."""
        return self.where.scheme, self.where.netloc

    def redirected(self, status: int, location: str) -> Step:
        """The step that follows an answer with this status."""
        again = status not in (301, 302, 303)
        there = replace(
            self,
            where=urlsplit(urljoin(self.where.geturl(), location)),
            method=self.method if again else "GET",
            body=self.body if again else None,
        )
        if there.origin == self.origin:
            return there
        return replace(there, headers={n: v for n, v in self.headers.items() if n.lower() not in CREDENTIALS})

    def path(self) -> str:
        """As the request line has it."""
        return (self.where.path or "/") + (f"?{self.where.query}" if self.where.query else "")

    def lines(self) -> dict[str, str]:
        """The caller's headers, and libcurl's own where he gave none."""
        own = {"Accept": "*/*"}
        if self.method == "POST" or self.body is not None:
            length = str(len(self.body or b""))
            own |= {"Content-Length": length, "Content-Type": "application/x-www-form-urlencoded"}
        given = {name.lower() for name in self.headers}
        own = {name: value for name, value in own.items() if name.lower() not in given}
        return own | self.headers | {"User-Agent": USER_AGENT}


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
        step = Step(
            where=urlsplit(request.url),
            method=request.method.upper(),
            headers=request.headers,
            body=request.body,
        )
        first: dict[str, str] | None = None
        for _ in range(MOST_REDIRECTS + 1):
            status, headers, content = self._exchange(step, timing)
            # pg_net keeps the headers of the first answer, and the content type of the last.
            first = first or headers
            lower = {name.lower(): value for name, value in headers.items()}
            if not (300 <= status < 400 and "location" in lower):
                kind = lower.get("content-type")
                return Answer(
                    status=status,
                    content_type=None if kind is None else kind.encode("latin-1"),
                    headers=first,
                    content=content.partition(b"\0")[0] or None,  # as a string of C
                )
            step = step.redirected(status, lower["location"])
        return Answer(error="Number of redirects hit maximum amount")

    def _exchange(self, step: Step, timing: Timing) -> tuple[int, dict[str, str], bytes]:
        """One request and its answer, over a kept connection if there is one that lives."""
        with self._lock:
            kept = self._idle[step.origin]
            idle = kept.pop() if kept else None
        if idle is not None:
            timing.connected = True
            try:
                return self._over(idle, step, timing)
            except ConnectionError:
                pass  # it died while it was idle; libcurl asks once more, too
        return self._over(_connect(step.where, timing), step, timing)

    def _over(
        self, connection: http.client.HTTPConnection, step: Step, timing: Timing
    ) -> tuple[int, dict[str, str], bytes]:
        wire = connection.sock
        try:
            wire.settimeout(timing.left())
            connection.putrequest(step.method, step.path(), skip_accept_encoding=True)
            for name, value in step.lines().items():
                connection.putheader(name.encode(), value.encode())
            connection.endheaders(step.body)
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
                self._idle[step.origin].append(connection)
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
