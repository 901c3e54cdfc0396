"""Connections of webhooks: to an address that was checked after its name was looked up, and never longer than the time that is left.

A pool of httpcore2 asks this backend for its connections. The TLS handshake and the Host header keep the name of the URL, and the
name is looked up once: what it means a moment later has no effect.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from httpcore2 import (
    ConnectError,
    ConnectTimeout,
    NetworkBackend,
    NetworkStream,
    ReadTimeout,
    SyncBackend,
    WriteError,
    WriteTimeout,
    default_ssl_context,
)

from jobmanager.clock import Clock
from jobmanager.webhooks.addresses import Reachable
from jobmanager.webhooks.lookup import checked_addresses
from jobmanager.webhooks.url import Address, Target

SocketOptions = Iterable[Any]


class Deadline:
    """The moment at which a request has to be over, whatever it is waiting for."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._ends = clock.monotonic() + seconds

    def left(self, overdue: type[Exception] = ReadTimeout) -> float:
        """Return the seconds that are left; raise the given exception if there are none."""
        left = self._ends - self._clock.monotonic()
        if left <= 0:
            raise overdue("the time for the whole request is over")
        return left


class CheckedConnections(NetworkBackend):
    """Connects to the checked addresses of one target, and to nothing else."""

    def __init__(self, target: Target, reachable: Reachable, deadline: Deadline) -> None:
        self._target = target
        self._reachable = reachable
        self._deadline = deadline
        self._sockets = SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: SocketOptions | None = None,
    ) -> NetworkStream:
        """Connect to the first address that accepts. Raises WebhookRefusedError if a single one of them is denied."""
        addresses = self._addresses()
        failed: Exception = ConnectError("the name has no address")
        for number, address in enumerate(addresses):
            # One that swallows packets leaves the others their share of the time.
            share = self._deadline.left(ConnectTimeout) / (len(addresses) - number)
            try:
                stream = self._sockets.connect_tcp(
                    str(address), self._target.port, share, local_address, socket_options
                )
                return TimedStream(stream, self._deadline)
            except (ConnectError, ConnectTimeout) as error:
                failed = error
        raise failed

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: SocketOptions | None = None
    ) -> NetworkStream:
        """Refuse: no URL leads to one."""
        raise ConnectError("webhooks connect to no socket of this machine")

    def _addresses(self) -> list[Address]:
        try:
            return checked_addresses(self._target, self._reachable, self._deadline.left(ConnectTimeout))
        except TimeoutError as error:
            raise ConnectTimeout(str(error)) from error
        except OSError as error:
            raise ConnectError(f"the name cannot be looked up: {error}") from error


class TimedStream(NetworkStream):
    """A connection on which nothing takes longer than the deadline of the request, however little comes at a time."""

    def __init__(self, stream: NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        sock: socket.socket = self._stream.get_extra_info("socket")
        while buffer:
            sock.settimeout(self._deadline.left(WriteTimeout))
            try:
                buffer = buffer[sock.send(buffer) :]
            except TimeoutError as error:
                raise WriteTimeout(str(error)) from error
            except OSError as error:
                raise WriteError(str(error)) from error

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> NetworkStream:
        left = self._deadline.left(ConnectTimeout)
        return TimedStream(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


@lru_cache(maxsize=1)
def tls() -> ssl.SSLContext:
    """Return how certificates are verified: as the system does, or by SSL_CERT_FILE; made once, since that takes 20 ms."""
    return default_ssl_context()
