"""`/healthz` and `/readyz`: one bit for the probes of a host, without login and without details."""

from __future__ import annotations

import threading
from typing import Protocol

from jobmanager.clock import Clock
from jobmanager.process.throttled_log import ThrottledLogger
from jobmanager.validation.printable import get_logger
from jobmanager.web.endpoint import Probe
from jobmanager.web.response import Response, json_response

REMEMBERED_SECONDS = 2.0
"""Anybody may ask, so the store is asked that seldom."""

logger = get_logger(__name__)


class Symptom(Protocol):
    """One thing that stands still."""

    @property
    def failing(self) -> bool: ...

    @property
    def text(self) -> str: ...


class Report(Protocol):
    """What the manager found."""

    @property
    def ok(self) -> bool: ...

    @property
    def ready(self) -> bool: ...

    @property
    def symptoms(self) -> tuple[Symptom, ...]: ...


class Manager(Protocol):
    """The JobManager, as far as the probes know it."""

    def health(self) -> Report: ...


class HealthProbes:
    """The responses to the host's probes. Blocks for as long as the manager's bound at most. Any thread."""

    def __init__(self, jobs: Manager, clock: Clock) -> None:
        self._jobs = jobs
        self._clock = clock
        self._lock = threading.Lock()  # one asks, the others wait for the same report
        self._report: Report | None = None
        self._asked_at = float("-inf")
        self._trouble = ThrottledLogger(logger)

    def respond(self, probe: Probe) -> Response:
        """Return 200 with `{"ok": true}`, or 503; the log says why."""
        report = self._current()
        ok = report.ok if probe == "healthz" else report.ready
        if ok:
            return json_response(200, {"ok": True})
        found = [symptom.text for symptom in report.symptoms if symptom.failing]
        self._trouble.warning(
            "%s is 503: %s", probe, " ".join(found) or "this process is not started, or it drains"
        )
        return json_response(503, {"ok": False})

    def _current(self) -> Report:
        with self._lock:
            now = self._clock.monotonic()
            if self._report is None or now - self._asked_at >= REMEMBERED_SECONDS:
                self._report = self._jobs.health()
                self._asked_at = self._clock.monotonic()
            return self._report
