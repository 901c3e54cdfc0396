"""Receivers of webhooks on loopback: one that records what comes, and those that misbehave on purpose."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field

Talk = Callable[["Connection"], None]


@dataclass(frozen=True)
class Received:
    """One request as it came."""

    line: str
    headers: dict[str, str]
    body: bytes


class Connection:
    """The receiver's side of one connection."""

    def __init__(self, sock: socket.socket, over: threading.Event) -> None:
        self.sock = sock
        self.over = over

    def request(self) -> Received:
        """Read one request."""
        read = b""
        while b"\r\n\r\n" not in read:
            piece = self.sock.recv(65_536)
            if not piece:
                raise ConnectionError("no request came")
            read += piece
        head, _, body = read.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            body += self.sock.recv(65_536)
        return Received(line, headers, body)

    def send(self, *pieces: bytes | str) -> None:
        for piece in pieces:
            self.sock.sendall(piece.encode() if isinstance(piece, str) else piece)

    def drip(self, text: bytes, every: float = 0.05) -> None:
        """Send byte by byte, until the other side has had enough."""
        for byte in text:
            if self.over.wait(every):
                return
            self.send(bytes([byte]))


def answering(body: bytes = b'{"ok": true}', status: str = "200 OK", **headers: str) -> Talk:
    """Answer every request so."""

    def talk(here: Connection) -> None:
        more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        here.send(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n", body)

    return talk


@dataclass
class Receiver:
    """A server that reads a request and then does what `talk` says. `connections` counts what was accepted, whatever came of it."""

    talk: Talk = field(default_factory=answering)
    host: str = "127.0.0.1"
    tls: ssl.SSLContext | None = None
    reads: bool = True
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}/hook"

    @property
    def last(self) -> Received:
        return self.received[-1]

    @contextmanager
    def listening(self) -> Iterator[Receiver]:
        over = threading.Event()
        with closing(socket.create_server((self.host, self.port))) as server:
            self.port = server.getsockname()[1]
            thread = threading.Thread(target=self._serve, args=(server, over), daemon=True)
            thread.start()
            try:
                yield self
            finally:
                over.set()
                with suppress(OSError):
                    server.shutdown(socket.SHUT_RDWR)
                thread.join(5)

    def _serve(self, server: socket.socket, over: threading.Event) -> None:
        while True:
            try:
                sock, _ = server.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._talk, args=(sock, over), daemon=True).start()

    def _talk(self, sock: socket.socket, over: threading.Event) -> None:
        with closing(sock), suppress(OSError):
            sock.settimeout(30)
            if self.tls is None:
                self._talk_on(sock, over)
                return
            with self.tls.wrap_socket(sock, server_side=True) as secured:
                self._talk_on(secured, over)

    def _talk_on(self, sock: socket.socket, over: threading.Event) -> None:
        here = Connection(sock, over)
        if self.reads:
            self.received.append(here.request())
        self.talk(here)
