"""Prometheus (extra `prometheus`): what this process did, counted as it happens, and what the store says, read when asked.

Counters of `Prometheus` grow with every attempt and never read the store. `LedgerCollector` speaks for all processes; it reads the runs
of its window only, by index, and keeps the result for some seconds. It gives no totals over the whole history: retention
deletes runs, and a counter that goes down would be taken for a restart.
"""

from __future__ import annotations

import threading
import time
from collections import Counter as Counted
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from jobmanager.context import RunContext
from jobmanager.errors import CronError, MissingExtraError, StoreError
from jobmanager.observe import lateness_of
from jobmanager.process.bounded import BoundedCall
from jobmanager.process.health import KINDS, HealthReport
from jobmanager.process.heartbeat import living
from jobmanager.process.ledger_facts import overdue_jobs
from jobmanager.run import FAILED, Ending, Run, RunStatus
from jobmanager.schedule import parse
from jobmanager.settings import Settings
from jobmanager.step import Step
from jobmanager.stores.base import RunStore
from jobmanager.stores.values import JobRow

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, make_asgi_app
    from prometheus_client import write_to_textfile as _write_to_textfile
    from prometheus_client.core import GaugeMetricFamily, Metric
except ImportError as error:
    raise MissingExtraError(
        "jobmanager.observe.prometheus needs the package prometheus-client. Install jobmanager-backends[prometheus].",
        extra="prometheus",
    ) from error

WINDOW = timedelta(hours=1)
REMEMBERED = timedelta(seconds=10)
REPLY_WITHIN = 5.0  # seconds; Prometheus itself gives up after ten
DURATIONS = (0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400)
DELAYS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300)


class Ledger(Protocol):
    """The JobManager that is read, as far as this module knows it."""

    @property
    def settings(self) -> Settings: ...

    @property
    def store(self) -> RunStore: ...

    def health(self) -> HealthReport: ...


class Prometheus:
    """An observer that counts the attempts of this process: `JobManager(observers=[Prometheus()])`.

    `registry` is its own by default; `asgi` and `text` put what the store says beside it.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()

        def made(kind: Any, name: str, told: str, *labels: str, **more: Any) -> Any:
            return kind(f"jobmanager_{name}", told, labels, registry=self.registry, **more)

        self._runs = made(Counter, "runs", "Runs that ended in this process.", "job", "status")
        self._failed = made(
            Counter, "failed_attempts", "Attempts that failed in this process.", "job", "kind"
        )
        self._active = made(Gauge, "active_attempts", "Handlers inside this process now.", "job")
        self._duration = made(
            Histogram, "run_duration_seconds", "How long attempts took.", "job", buckets=DURATIONS
        )
        self._queue_delay = made(
            Histogram, "run_queue_delay_seconds", "From due to the first start.", "job", buckets=DELAYS
        )
        self._lateness = made(
            Histogram, "run_lateness_seconds", "From a tick's instant to its start.", "job", buckets=DELAYS
        )
        self._stalls = made(
            Counter, "watchdog_stalls", "Times that something in this process stood still.", "kind"
        )
        self._steps = made(
            Counter, "steps", "Steps of runs that were over in this process.", "job", "kind", "status"
        )
        self._step_duration = made(
            Histogram,
            "step_duration_seconds",
            "From a step's last try to its end; of a rest, how long it was.",
            "job",
            "kind",
            buckets=DURATIONS,
        )
        for kind in KINDS:
            self._stalls.labels(kind)  # from zero on: an increase is seen only of what was there before
        self._inside: set[tuple[str, int]] = set()

    def started(self, context: RunContext) -> None:
        """Count the handler as inside."""
        self._inside.add((context.run_id, context.attempt))
        self._active.labels(context.job.id).inc()

    def ended(self, ending: Ending, status: RunStatus | None) -> None:
        """Count the end and the times."""
        run, job = ending.run, ending.run.job_id
        if (run.id, run.attempt) in self._inside:
            self._inside.discard((run.id, run.attempt))
            self._active.labels(job).dec()
        if status is None:
            return
        if status.closed:
            self._runs.labels(job, status.value).inc()
        if ending.status is FAILED and ending.error is not None:
            self._failed.labels(job, ending.error.kind).inc()
        self._duration.labels(job).observe((ending.finished_at - ending.started_at).total_seconds())
        if run.attempt == 1:
            self._queue_delay.labels(job).observe((ending.started_at - run.due_at).total_seconds())
            late = lateness_of(run.scheduled_for, ending.started_at)
            if late is not None:
                self._lateness.labels(job).observe(late)

    def step_ended(self, run: Run, step: Step) -> None:
        """Count the step and its time."""
        self._steps.labels(run.job_id, step.kind, step.status).inc()
        took = (step.ended_at or step.started_at) - step.started_at
        self._step_duration.labels(run.job_id, step.kind).observe(took.total_seconds())

    def stalled(self, kind: str) -> None:
        """Count what the watchdog found to stand still."""
        self._stalls.labels(kind).inc()

    def asgi(self, jobs: Ledger, *, window: timedelta = WINDOW) -> Callable[..., Any]:
        """Return an ASGI application to mount as `/metrics`: what this process counted, and what the store says of all of them."""
        registry = _registry_of(jobs, window)
        registry.register(self.registry)
        return make_asgi_app(registry)


def text_of(jobs: Ledger, *, window: timedelta = WINDOW) -> str:
    """Return what the store says, in Prometheus' text format."""
    return generate_latest(_registry_of(jobs, window)).decode()


def write_textfile(path: Path, jobs: Ledger, *, window: timedelta = WINDOW) -> None:
    """Write the same to a file for node_exporter's textfile collector, replaced as a whole."""
    _write_to_textfile(str(path), _registry_of(jobs, window))


def _registry_of(jobs: Ledger, window: timedelta) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(LedgerCollector(jobs, window=window))
    return registry


class LedgerCollector:
    """A collector of what the store says: register it in a registry of yours. Any thread.

    Runs count if they were opened within `window`; what it read is given again for `remembered`. An unreachable store
    makes `jobmanager_store_up` 0 and leaves out the rest.
    """

    def __init__(
        self, jobs: Ledger, *, window: timedelta = WINDOW, remembered: timedelta = REMEMBERED
    ) -> None:
        self._jobs = jobs
        self._window = window
        self._remembered = remembered.total_seconds()
        self._lock = threading.Lock()
        self._bounded = BoundedCall(self._families)
        self._found: list[Metric] = []
        self._found_at = float("-inf")

    def describe(self) -> list[Metric]:
        """Return nothing: registering reads no store."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return the families, as just read or as remembered."""
        with self._lock:
            if time.monotonic() - self._found_at >= self._remembered:
                self._found = self._read()
                self._found_at = time.monotonic()
            return iter(self._found)

    def _read(self) -> list[Metric]:
        begun = time.perf_counter()
        report = self._jobs.health()
        up = _gauge("store_up", "1 if the store could be read.")
        families: list[Metric] = []
        try:
            if report.facts is not None:
                families = self._bounded.ask(REPLY_WITHIN)
            up.add_metric([], report.facts is not None)
        except StoreError:
            up.add_metric([], 0)
        cost = _gauge("scrape_seconds", "How long reading the store took.")
        cost.add_metric([], time.perf_counter() - begun)
        return [up, *_health(report), *families, cost]

    def _families(self) -> list[Metric]:
        if not self._jobs.store.exists():
            return []
        now = self._jobs.store.now()
        return [*self._runs(now), *self._processes(now), *self._plans(now)]

    def _runs(self, now: datetime) -> list[Metric]:
        within = f"opened in the last {self._window.total_seconds():g} s"
        runs = _gauge(
            "recent_runs",
            f"Ended ticks and starts {within}; a stretch of missed ticks counts each.",
            "job",
            "status",
        )
        open_runs = _gauge("open_runs", "Runs that wait or run now, in all processes.", "job", "status")
        averages = {
            "duration": _gauge(
                "recent_duration_seconds", f"Mean duration of runs {within}.", "job", "status"
            ),
            "queue_delay": _gauge(
                "recent_queue_delay_seconds", "Mean time from due to start.", "job", "status"
            ),
            "lateness": _gauge(
                "recent_lateness_seconds", "Mean time from a tick to its start.", "job", "status"
            ),
        }
        for tally in self._jobs.store.history.tally(now - self._window):
            labels = [tally.job_id, tally.status.value]
            if not tally.status.closed:
                open_runs.add_metric(labels, tally.count)
                continue
            runs.add_metric(labels, tally.count)
            for name, family in averages.items():
                seconds = getattr(tally, name)
                if seconds is not None:
                    family.add_metric(labels, seconds)
        return [runs, open_runs, *averages.values()]

    def _processes(self, now: datetime) -> list[Metric]:
        alive = living(self._jobs.store, self._jobs.settings)
        up = _gauge("scheduler_up", "1 if a living process executes jobs.")
        up.add_metric([], any(instance.executes for instance in alive))
        processes = _gauge("processes", "Processes that beat within the lease.")
        processes.add_metric([], len(alive))
        beat = _gauge("last_beat_age_seconds", "Since the latest heartbeat of any process.")
        if alive:
            beat.add_metric([], (now - max(instance.seen_at for instance in alive)).total_seconds())
        tick = _gauge("last_tick_age_seconds", "Since the latest tick that came to any living process.")
        lag = _gauge("tick_lag_seconds", "How late the last ticks came to that process.")
        ticked = [(i.last_tick_at, i.lag_seconds) for i in alive if i.last_tick_at is not None]
        if ticked:
            at, late = max(ticked)
            tick.add_metric([], (now - at).total_seconds())
            if late is not None:
                lag.add_metric([], late)
        return [up, processes, beat, tick, lag]

    def _plans(self, now: datetime) -> list[Metric]:
        due = _gauge("next_due_timestamp_seconds", "When the job is due next.", "job")
        behind = _gauge(
            "account_behind_seconds",
            "Since the oldest due instant not settled yet; grace and a sweep, 90 s, are normal.",
        )
        overdue = _gauge(
            "next_due_overdue_seconds",
            "By how much the oldest due instant is later than grace, jitter and one sweep explain; 0 is normal.",
        )
        state = _gauge("jobs", "Jobs on record, by state.", "state")
        rows = self._jobs.store.jobs.rows()
        for name, count in Counted(row.state for row in rows).items():
            state.add_metric([name], count)
        oldest = now
        for row in rows:
            if row.state == "active" and row.next_due_at is not None:
                oldest = min(oldest, row.next_due_at)
                next_due = _next_due(row, now)
                if next_due is not None:
                    due.add_metric([row.id], next_due.timestamp())
        behind.add_metric([], (now - oldest).total_seconds())
        late = [item.by.total_seconds() for item in overdue_jobs(rows, self._jobs.settings, now)]
        overdue.add_metric([], max(late, default=0.0))
        return [due, behind, overdue, state]


def _health(report: HealthReport) -> list[Metric]:
    """Return what stands still: in this process, if it was started, and by the store in all of them."""
    healthy = _gauge("healthy", "1 if nothing that should move stands still.")
    healthy.add_metric([], report.ok)
    symptoms = _gauge("symptom", "1 for each kind of thing that stands still.", "kind")
    found = {symptom.kind for symptom in report.symptoms if symptom.failing}
    for kind in KINDS:
        symptoms.add_metric([kind], kind in found)
    return [healthy, symptoms]


def _next_due(row: JobRow, now: datetime) -> datetime | None:
    try:
        return parse(row.schedule).next_run_after(now)
    except CronError:  # of a newer version: its own processes know
        return None


def _gauge(name: str, told: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"jobmanager_{name}", told, labels=labels)
