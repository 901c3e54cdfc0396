"""One HTTP request of a webhook: bounded in time and in what it reads, without redirects, proxies or the environment."""

from __future__ import annotations

import logging
import ssl
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobmanager.clock import SystemClock
from jobmanager.context import current_run
from jobmanager.errors import MissingExtraError, WebhookError
from jobmanager.webhooks.addresses import Reachable
from jobmanager.webhooks.url import Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MOST_READ = 64 * 1024

_sending: ContextVar[bool] = ContextVar("jobmanager_sending", default=False)
_network = SystemClock()  # receivers take real time, whatever clock a test moves


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookResponse:
    """The response of a receiver: the body as it came, and whether it is cut because there was more than is read."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    clipped: bool
    seconds: float


def check_installed() -> None:
    """Raise MissingExtraError where the packages that send webhooks are not installed."""
    try:
        import httpcore2  # noqa: F401, PLC0415 - loaded where webhooks are used, and only there
        import standardwebhooks  # noqa: F401, PLC0415
    except ImportError as error:
        raise MissingExtraError(
            "Webhooks need packages that are not installed: pip install 'jobmanager-backends[webhooks]'.",
            extra="webhooks",
        ) from error


def send(
    target: Target,
    method: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    reachable: Reachable,
    timeout: float,
) -> WebhookResponse:
    """Send the request and return what came back; blocks for at most `timeout` seconds.

    Raises WebhookRefusedError for a target that may not be reached, WebhookError for what went wrong on the way.
    """
    import httpcore2  # noqa: PLC0415 - as above

    from jobmanager.webhooks.connection import CheckedConnections, Deadline, tls  # noqa: PLC0415

    logging.getLogger("httpcore2.http11").addFilter(_is_not_ours)  # added once, however often it is asked for
    # A line of a run is kept when its record is made, which no filter of a logger sees.
    token, run = _sending.set(True), current_run.set(None)
    began = _network.monotonic()
    deadline = Deadline(_network, timeout)
    url = httpcore2.URL(
        scheme=target.scheme.encode(),
        host=target.host.encode(),
        port=target.port,
        target=target.path.encode(),
    )
    sent = [(b"Host", target.authority.encode()), *((n.encode(), v.encode()) for n, v in headers.items())]
    try:
        with (
            httpcore2.ConnectionPool(
                ssl_context=tls() if target.scheme == "https" else None,
                max_connections=1,
                network_backend=CheckedConnections(target, reachable, deadline),
            ) as pool,
            pool.stream(method, url, headers=sent, content=body) as response,
        ):
            read, clipped = _read(response.iter_stream())
            return WebhookResponse(
                status=response.status,
                headers={n.decode("latin-1").lower(): v.decode("latin-1") for n, v in response.headers},
                body=read,
                clipped=clipped,
                seconds=_network.monotonic() - began,
            )
    except httpcore2.TimeoutException as error:
        raise WebhookError(f"{target.origin} did not answer within {timeout:g} s.") from error
    except (httpcore2.NetworkError, httpcore2.ProtocolError, ssl.SSLError) as error:
        raise WebhookError(f"{target.origin} could not be called: {error}.") from error
    finally:
        _sending.reset(token)
        current_run.reset(run)


def _is_not_ours(record: logging.LogRecord) -> bool:  # noqa: ARG001 - called by logging
    """Keep what the library logs about our requests out of the log: a receiver may repeat a secret in its headers."""
    return not _sending.get()


def _read(chunks: Iterable[bytes]) -> tuple[bytes, bool]:
    """Return the beginning of the body, and whether there is more; what is compressed is never unpacked."""
    read = bytearray()
    for chunk in chunks:
        read += chunk
        if len(read) > MOST_READ:
            return bytes(read[:MOST_READ]), True
    return bytes(read), False
