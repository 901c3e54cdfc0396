"""Pings: short calls to a service that watches from outside, by the protocol of Healthchecks. Fire and forget.

A URL is called when a run starts (`/start`), succeeds, and fails (`/fail`, with the error as body); `rid` is the run's id. One that code
or the environment names is called as it is; one that an operator gave to a stored job leads where webhooks may go, and nowhere else.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass

from jobmanager.errors import WebhookRefusedError
from jobmanager.job import Job
from jobmanager.process.throttled_log import ThrottledLogs
from jobmanager.run import FAILED, PENDING, Ending, Run, RunStatus
from jobmanager.settings import shown_url
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

WITHIN = 5.0
"""Seconds that a call may take."""
MOST_WAITING = 1000
LONGEST_BODY = 10_000
IDLE = 5.0
"""Seconds without a ping after which the thread ends."""


@dataclass(frozen=True, slots=True)
class _Ping:
    url: str
    body: bytes
    checked: bool


Checked = Callable[[str, float], Sequence[str]]
"""Returns the addresses of a URL, looked up within so many seconds, if each of them may be reached; raises otherwise."""


class Pinger:
    """Calls URLs on a thread of its own, one after the other; what comes while too much waits is dropped and counted. Any thread."""

    def __init__(
        self, *, threaded: bool = True, within: float = WITHIN, addresses_of: Checked = lambda *_: ()
    ) -> None:
        self._addresses_of = addresses_of
        self._threaded = threaded
        self._within = within
        self._waiting: queue.Queue[_Ping] = queue.Queue(MOST_WAITING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._troubles = ThrottledLogs(logger)
        self.dropped = 0

    def ping(
        self, url: str, signal: str = "", *, rid: str | None = None, body: str = "", checked: bool = False
    ) -> None:
        """Call the URL soon, with `/signal` after its path; with `checked` only where webhooks may go. Never raises and never waits."""
        ping = _Ping(_signalled(url, signal, rid), body.encode("utf-8", "replace")[:LONGEST_BODY], checked)
        if not self._threaded:
            self._call(ping)
            return
        with self._lock:
            try:
                self._waiting.put_nowait(ping)
            except queue.Full:
                self.dropped += 1
                self._troubles.of("full").warning(
                    "%d pings were dropped: %s does not keep up", self.dropped, _host(url)
                )
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="jobmanager-pinger", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while True:
            try:
                ping = self._waiting.get(timeout=IDLE)
            except queue.Empty:
                with self._lock:
                    if self._waiting.empty():
                        self._thread = None
                        return
                continue
            self._call(ping)

    def _call(self, ping: _Ping) -> None:
        from jobmanager.notify.http import post  # noqa: PLC0415 - what most processes do not need

        try:
            addresses = self._addresses_of(ping.url, self._within) if ping.checked else ()
            post(ping.url, ping.body, within=self._within, addresses=addresses)
        except (OSError, ValueError, WebhookRefusedError) as error:
            self._troubles.of(_host(ping.url)).warning("ping of %s failed: %s", _host(ping.url), error)


class JobPings:
    """Pings the `ping_url` of each job that has one; where this process does not declare the job, a checked one. Any thread; never waits."""

    def __init__(
        self, pinger: Pinger, jobs: Callable[[], Mapping[str, Job]], declared: Container[str]
    ) -> None:
        self._pinger = pinger
        self._jobs = jobs
        self._declared = declared

    def started(self, url: str, run: Run) -> None:
        """Ping that the handler is about to be called."""
        self._pinger.ping(url, "start", rid=run.id, checked=run.job_id not in self._declared)

    def ended(self, ending: Ending, status: RunStatus | None) -> None:
        """Ping how the run ended, and nothing for an attempt that is followed by another, or for a job without URL."""
        job = self._jobs().get(ending.run.job_id)
        url = None if job is None else job.ping_url
        if url is None or status is None or status is PENDING:
            return
        error = ending.error.message if ending.error is not None else ""
        signal = "fail" if status is FAILED else ""
        checked = ending.run.job_id not in self._declared
        self._pinger.ping(url, signal, rid=ending.run.id, body=error, checked=checked)


def _signalled(url: str, signal: str, rid: str | None) -> str:
    path, mark, query = url.partition("?")
    if signal:
        path = f"{path.rstrip('/')}/{signal}"
    if rid is not None:
        query, mark = f"{query}&rid={rid}" if query else f"rid={rid}", "?"
    return f"{path}{mark}{query}"


def _host(url: str) -> str:
    """Return the URL's scheme and host: its path is the secret of such services."""
    with contextlib.suppress(ValueError):
        return "/".join(shown_url(url).split("/", 3)[:3])
    return "a URL"
