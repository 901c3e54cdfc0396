"""One bounded POST to an http or https URL: no redirect is followed and no proxy of the environment is used."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit


class _Connection(http.client.HTTPConnection):
    """Connects to the addresses that were checked, where there are any, and to what the name means otherwise."""

    addresses: Sequence[str] = ()

    def connect(self) -> None:
        failed: OSError | None = None
        for address in self.addresses or (self.host,):
            try:
                self.sock = socket.create_connection((address, self.port), self.timeout)
            except OSError as error:
                failed = error
            else:
                return
        raise failed or OSError("the name has no address")


class _TlsConnection(http.client.HTTPSConnection, _Connection):
    """The same with TLS: certificates are those of the name, not of the address."""


def post(url: str, body: bytes, *, within: float, addresses: Sequence[str] = ()) -> None:
    """Send the body and wait for the beginning of the reply, at most `within` seconds at a time. OSError for any other end.

    With `addresses` it connects to these alone, whatever the name of the URL means by now.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("only http and https are called")
    kind = _TlsConnection if parts.scheme == "https" else _Connection
    connection = kind(parts.hostname, parts.port, timeout=within)
    connection.addresses = addresses
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(
            "POST", path, body, {"Content-Type": "text/plain; charset=utf-8", "User-Agent": "jobmanager"}
        )
        reply = connection.getresponse()
        reply.read(1)
    except http.client.HTTPException as error:
        raise OSError(f"no reply of HTTP: {type(error).__name__}") from error
    finally:
        connection.close()
    if reply.status >= 300:
        raise OSError(f"HTTP {reply.status} {reply.reason}")
