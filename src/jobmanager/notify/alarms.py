"""Alarms: what no run reports by itself, found by looking.

Instants that were missed, runs that are late or last too long, queues that grow, time that nobody keeps, a store that was away. Every living
process looks; the key of a notification folds what they find.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from jobmanager.clock import Clock
from jobmanager.errors import StoreUnavailableError
from jobmanager.job import Job
from jobmanager.notify.alerts import Alerts
from jobmanager.process.health import Symptom
from jobmanager.run import MISSED, RUNNING, Notice, Run
from jobmanager.settings import Settings
from jobmanager.stores.base import RunStore

FIRST_LOOK = timedelta(days=1)
"""The period that the first look covers, and the first one after an outage."""
LOOK_BACK = timedelta(hours=1)
MOST = 500
"""Runs of a kind that one look takes up."""
BY_THE_HOUR = "%Y-%m-%dT%H"
OF_TIME = frozenset({"overdue", "not_brought", "late_ticks", "not_taken"})
"""The symptoms of a ledger that nobody keeps the time of."""


class Alarms:
    """Looks around once. One thread at a time."""

    def __init__(
        self,
        settings: Settings,
        store: Callable[[], RunStore],
        clock: Clock,
        alerts: Alerts,
        *,
        jobs: Callable[[], Mapping[str, Job]],
        symptoms: Callable[[], Sequence[Symptom]],
        tell_directly: Callable[[Sequence[Notice]], None],
    ) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._alerts = alerts
        self._jobs = jobs
        self._symptoms = symptoms
        self._tell_directly = tell_directly
        self._back = FIRST_LOOK
        self._away_since: datetime | None = None
        self._told_away = False

    def look(self) -> list[Symptom]:
        """Write what is found into the outbox, and return what stands still; StoreUnavailableError while the store is away."""
        try:
            symptoms = list(self._symptoms())
            notices = [*self._of_runs(), *self._of_queues(), *self._of_time(symptoms), *self._of_the_store()]
            if notices:
                self._store().outbox.add(notices)
        except StoreUnavailableError as error:
            self._back = FIRST_LOOK
            self._note_away(error)
            raise
        self._back = LOOK_BACK
        self._away_since, self._told_away = None, False
        return symptoms

    # ---------------------------------------------------------------- runs

    def _of_runs(self) -> Iterator[Notice]:
        missed = [job.id for job in self._jobs().values() if "missed" in job.alert_on]
        slow = [
            job.id
            for job in self._jobs().values()
            if job.alert_late is not None or job.alert_running is not None
        ]
        if not missed and not slow:
            return
        now = self._store().now()
        lookout = self._store().lookout
        found = lookout.missed(missed, now - self._back, MOST) if missed else []
        if slow:
            found += lookout.running(slow, MOST)
            found += lookout.not_started(slow, now - self._shortest(), MOST)
        for run in found:
            job = self._jobs().get(run.job_id)
            if job is not None:
                yield from self._of_run(job, run, now)

    def _shortest(self) -> timedelta:
        return min(
            (job.alert_late for job in self._jobs().values() if job.alert_late is not None),
            default=FIRST_LOOK,
        )

    def _of_run(self, job: Job, run: Run, now: datetime) -> Iterator[Notice]:
        if run.status is MISSED:
            details = {
                "instant": run.instant.isoformat(),
                "reason": run.reason,
                "error": None if run.error is None else run.error.message,
                "run": run.id,
            }
            yield from self._alerts.of_job(job, "missed", run.id, details)
            return
        yield from self._alerts.late(job, run, run.started_at or now)
        if run.status is RUNNING and run.started_at is not None:
            yield from self._alerts.running_long(job, run, now - run.started_at)

    # ---------------------------------------------------------------- queues

    def _of_queues(self) -> Iterator[Notice]:
        """Once an hour, while a limit is passed."""
        lookout = self._store().lookout
        for event, limit, count in (
            ("backlog", self._settings.alerts_backlog, lookout.backlog),
            ("dead_letters", self._settings.alerts_dead_letters, lookout.dead_letters),
        ):
            if limit is None or not self._alerts.admins:
                continue
            if count(self._settings.namespace, limit + 1) > limit:
                hour = self._store().now().strftime(BY_THE_HOUR)
                details = {"number": f"more than {limit:,}", "limit": f"{limit:,}"}
                yield from self._alerts.of_system(event, hour, details)

    # ---------------------------------------------------------------- time and store

    def _of_time(self, symptoms: Sequence[Symptom]) -> Iterator[Notice]:
        for symptom in symptoms:
            if symptom.kind in OF_TIME and symptom.failing:
                since = symptom.since or self._store().now().replace(minute=0, second=0, microsecond=0)
                details = {
                    "error": symptom.text,
                    "fix": symptom.fix,
                    "instant": since.isoformat(),
                    "kind": symptom.kind,
                }
                yield from self._alerts.of_system(
                    "no_time_kept", f"{symptom.kind} {since.isoformat()}", details
                )

    def _note_away(self, error: StoreUnavailableError) -> None:
        """Tell that the store is away, once it has been for longer than the grace: past the outbox, which is away too."""
        now = self._clock.now()
        self._away_since = self._away_since or now
        if self._told_away or abs(now - self._away_since) < self._settings.grace:
            return
        self._told_away = True
        details = {**self._place(), "instant": self._away_since.isoformat(), "error": str(error)}
        self._tell_directly(self._alerts.of_system("store_away", self._away_since.isoformat(), details))

    def _of_the_store(self) -> Iterator[Notice]:
        """Tell that the store was away for longer than the grace, and is back."""
        if self._away_since is None or not self._told_away:
            return
        seconds = (self._clock.now() - self._away_since).total_seconds()
        details = {**self._place(), "instant": self._away_since.isoformat(), "seconds": seconds}
        yield from self._alerts.of_system(
            "store_back", f"{self._away_since.isoformat()} {self._place()['host']} {os.getpid()}", details
        )

    def _place(self) -> dict[str, object]:
        return {"host": socket.gethostname(), "pid": os.getpid(), "store": self._store().url}
