"""The API of a clock: one bounded request at a time, and errors that name the clock and show no secret."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from logging import LogRecord, getLogger
from typing import Any

import httpx2

from jobmanager.context import current_run
from jobmanager.errors import TickerError
from jobmanager.settings import HIDDEN
from jobmanager.validation.printable import printable

WITHIN = 10.0
LARGEST = 8 * 1024 * 1024
MOST_TOLD = 200
LONGEST_PAUSE = 3_600.0

_calling: ContextVar[bool] = ContextVar("jobmanager_calls_a_clock", default=False)


class Api:
    """The API at `url`, called with `token` as bearer. Any thread; follows no redirect.

    `within`: the seconds that one request may take.
    """

    def __init__(self, clock: str, url: str, token: str, *, within: float = WITHIN) -> None:
        self.within = within
        self._clock = clock
        self._url = url.rstrip("/")
        self._token = token
        self._context: ssl.SSLContext | None = None
        self._client: httpx2.Client | None = None
        self._users = 0
        self.after_fork()

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        gone_is_fine: bool = False,
    ) -> Any:
        """Return what the reply's JSON says, None for an empty reply; with `gone_is_fine` also for 404.

        Raises TickerError for whatever else it is; its `status` is None where no reply came.
        """
        reply = self._reply(method, path, body, headers, params)
        if reply.status_code == 404 and gone_is_fine:
            return None
        if not reply.is_success:
            raise self._error(
                f"says {reply.status_code}{self._said(reply)}", reply.status_code, _pause(reply.headers)
            )
        if not reply.content:
            return None
        try:
            return json.loads(reply.content)
        except ValueError:
            raise self._error(f"does not reply with JSON to {method}", None) from None

    def rows_of(self, reply: Any, under: str = "") -> list[dict[str, Any]]:
        """Return the objects of a reply that is a list, or that has one under a name; TickerError for any other reply."""
        rows = reply.get(under) if under and isinstance(reply, dict) else reply
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self._error("does not reply with a list of entries", None)
        return rows

    @contextmanager
    def connected(self) -> Iterator[httpx2.Client]:
        """Keep connections for as long as any such block lasts; each request outside of one has its own."""
        with self._lock:
            client = self._client or httpx2.Client(follow_redirects=False, verify=self._tls())
            self._client, self._users = client, self._users + 1
        try:
            yield client
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._client = None
                    client.close()

    def after_fork(self) -> None:
        """Use no connection and no lock of the parent."""
        self._lock = threading.Lock()
        self._client = None
        self._users = 0

    def _tls(self) -> ssl.SSLContext | bool:
        """Return the certificates, which are read once; none are needed without TLS."""
        if self._url.startswith("https:") and self._context is None:
            self._context = httpx2.create_ssl_context()
        return self._context or False

    def _reply(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
        params: Mapping[str, str] | None,
    ) -> httpx2.Response:
        sent = {
            "authorization": f"Bearer {self._token}",
            "user-agent": "jobmanager",
            **(headers or {}),
        }
        until = time.monotonic() + self.within
        try:
            with (
                _unlogged(),
                self.connected() as client,
                client.stream(
                    method, self._url + path, headers=sent, json=body, params=params, timeout=self.within
                ) as reply,
            ):
                content = bytearray()
                for chunk in reply.iter_bytes():
                    content += chunk
                    if len(content) > LARGEST or time.monotonic() > until:
                        raise self._error("replies with more than is read, or too slowly", None)
                return httpx2.Response(
                    reply.status_code, headers=_plain(reply.headers), content=bytes(content)
                )
        except httpx2.TimeoutException:
            raise self._error(f"does not reply within {self.within:g} s", None) from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise self._error(f"cannot be reached: {type(error).__name__}: {error}", None) from None

    def _said(self, reply: httpx2.Response) -> str:
        """Return the sentence of a reply that refuses, if it has one."""
        with suppress(ValueError, AttributeError):
            said = json.loads(reply.content)
            text = said.get("error") or said.get("message") or ""
            if isinstance(text, dict):
                text = text.get("message") or ""
            return f": {text}"[:MOST_TOLD] if text else ""
        return ""

    def _error(self, text: str, status: int | None, retry_after: float | None = None) -> TickerError:
        told = printable(f"{self._clock}'s API at {self._url} {text}.")
        return TickerError(told.replace(self._token, HIDDEN), status=status, retry_after=retry_after)


def _plain(headers: httpx2.Headers) -> dict[str, str]:
    """Return the headers but those about a coding that is undone by now."""
    return {
        name: value
        for name, value in headers.items()
        if name not in ("content-encoding", "content-length", "transfer-encoding")
    }


def _pause(headers: httpx2.Headers) -> float | None:
    try:
        return min(max(0.0, float(headers.get("retry-after", ""))), LONGEST_PAUSE)
    except ValueError:
        return None


@contextmanager
def _unlogged() -> Iterator[None]:
    """Keep the client's own log of each request to itself, and out of the lines of a run: health and doctor say what is wrong."""
    getLogger("httpx2").addFilter(_is_not_ours)  # added once, however often it is asked for
    token, run = _calling.set(True), current_run.set(None)
    try:
        yield
    finally:
        _calling.reset(token)
        current_run.reset(run)


def _is_not_ours(_record: LogRecord) -> bool:
    return not _calling.get()
