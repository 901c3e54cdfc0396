"""Sentry check-ins: one monitor for each job, where the application has initialised `sentry_sdk`. Only an application that uses it imports this."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from jobmanager.context import RunContext
from jobmanager.run import FAILED, PENDING, SUCCEEDED, Ending, RunStatus


class SentryCheckIns:
    """An observer that checks in with Sentry: `JobManager(observers=[SentryCheckIns()])`.

    The monitor of a job has its id as slug. Nothing is sent while `sentry_sdk` is not imported, or has no client. Do not use it for
    jobs that Sentry's own integration watches already, such as those of `celery beat` with `monitor_beat_tasks`.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._begun: dict[str, str] = {}

    def started(self, context: RunContext) -> None:
        """Check in as in progress."""
        check_in = self._check_in(context.job.id, "in_progress")
        if check_in is not None:
            self._begun[context.run_id] = check_in

    def ended(self, ending: Ending, status: RunStatus | None) -> None:
        """Check in as ok or error; nothing for an attempt that is followed by another, or a run that was cancelled."""
        begun = self._begun.pop(ending.run.id, None)
        if status in (SUCCEEDED, FAILED):
            took = (ending.finished_at - ending.started_at).total_seconds()
            self._check_in(
                ending.run.job_id, "ok" if status is SUCCEEDED else "error", check_in_id=begun, duration=took
            )
        elif begun is not None and status is PENDING:
            self._check_in(ending.run.job_id, "error", check_in_id=begun)

    def _check_in(self, job_id: str, status: str, **more: Any) -> str | None:
        sdk: Any = sys.modules.get("sentry_sdk")
        if sdk is None or not sdk.is_initialized():
            return None
        crons: Any = import_module("sentry_sdk.crons")
        check_in: str | None = crons.capture_checkin(
            monitor_slug=f"{self._prefix}{job_id}", status=status, **more
        )
        return check_in
