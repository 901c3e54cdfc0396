"""Whole runs, one process: a tick is accepted, its handler runs, start and end are on disk; beside the bare driver and APScheduler.

Closed loop: 1, 10 or 100 no-op runs in flight, each of a job of its own; the next tick of a job is delivered when the end of its
run is durable, all that ended in one commit together. APScheduler does as many no-op jobs, queued first and then released;
its stores keep jobs, not history.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from floor import OurTable
from measure import Report, interleaved, options, rate, scratch

from jobmanager import JobManager, Settings
from jobmanager.run import Ending, Run, Tick
from jobmanager.stores.base import Written
from jobmanager.stores.sql.sqlite import SqliteStore


class ToldStore(SqliteStore):
    """The SQLite store, which tells the client what has ended for good."""

    ended: queue.SimpleQueue[list[str]]

    def write(self, opens: Sequence[Run], endings: Sequence[Ending]) -> Written:
        written = super().write(opens, endings)
        if endings:
            self.ended.put([ending.run.job_id for ending in endings])
        return written


class Loop:
    """A started manager with as many jobs as runs are to be in flight."""

    def __init__(self, path: Path, in_flight: int, synchronous: str, handler: Callable[[], Any]) -> None:
        self._store = ToldStore(path)
        self._store.ended = queue.SimpleQueue()
        self._manager = JobManager(Settings(database_url=f"sqlite:///{path}"), store=self._store)
        self._jobs = [f"job-{number}" for number in range(in_flight)]
        for job_id in self._jobs:
            self._manager.add_job(job_id, handler, cron="0 0 1 1 *")
        self._manager.start()
        if synchronous == "OFF":
            with self._store.writing() as connection:
                connection.exec_driver_sql("COMMIT")
                connection.exec_driver_sql("PRAGMA synchronous = OFF")
                connection.exec_driver_sql("BEGIN")
        self._deliver = self._manager._assembly.runner.deliver

    def measure(self, seconds: float) -> float:
        self._tick(self._jobs)
        done, started, deadline = 0, time.perf_counter(), time.perf_counter() + seconds
        running = len(self._jobs)
        while running:
            ended = self._store.ended.get(timeout=10)
            done += len(ended)
            if time.perf_counter() < deadline:
                self._tick(ended)
            else:
                running -= len(ended)
        return done / (time.perf_counter() - started)

    def _tick(self, job_ids: Sequence[str]) -> None:
        now = datetime.now(UTC)
        self._deliver([Tick(job_id=job_id, scheduled_for=now, revision=1) for job_id in job_ids])

    def stop(self) -> None:
        self._manager.stop()


def no_op() -> None:
    """What every run does."""


def apscheduler(store: Any, jobs: int) -> float:
    """Jobs a second, from the first handler's start to the last one's."""
    from apscheduler.schedulers.background import BackgroundScheduler

    scheduler = BackgroundScheduler(
        jobstores={"default": store}, timezone=UTC, job_defaults={"misfire_grace_time": None}
    )
    _starts.clear()
    _all_started.clear()
    _wanted[0] = jobs
    scheduler.start(paused=True)
    for number in range(jobs):
        scheduler.add_job(note_start, id=f"job-{number}")
    scheduler.resume()
    assert _all_started.wait(120)
    scheduler.shutdown()
    return (jobs - 1) / (max(_starts) - min(_starts))


_starts: list[float] = []
_wanted = [0]
_all_started = threading.Event()


def note_start() -> None:
    """APScheduler's handler: a store needs an importable function."""
    _starts.append(time.perf_counter())
    if len(_starts) >= _wanted[0]:
        _all_started.set()


def main() -> None:
    from apscheduler.jobstores.memory import MemoryJobStore
    from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore

    chosen = options(__doc__, synchronous="FULL", seconds=0.0)
    seconds = chosen.seconds or (0.05 if chosen.quick else 1.0)
    report = Report("runs" if chosen.synchronous == "FULL" else "runs-off", "runs/s", quick=chosen.quick)
    memory_jobs, stored_jobs = (20, 5) if chosen.quick else (2000, 300)
    with scratch() as folder:
        floor = OurTable(folder / "floor.db", chosen.synchronous)
        loops = {n: Loop(folder / f"{n}.db", n, chosen.synchronous, no_op) for n in (1, 10, 100)}
        for loop in loops.values():
            loop.measure(seconds / 10)
        aps_url = f"sqlite:///{folder / 'aps.db'}"
        samples = interleaved(
            {
                "bare sqlite3, two commits, our table": lambda: rate(floor.run, seconds),
                **{f"whole runs, {n} in flight": partial(loop.measure, seconds) for n, loop in loops.items()},
                "APScheduler, memory store, no history": lambda: apscheduler(MemoryJobStore(), memory_jobs),
                "APScheduler, SQLite store, no history": lambda: apscheduler(
                    SQLAlchemyJobStore(aps_url), stored_jobs
                ),
            },
            chosen.repeats,
        )
        for loop in loops.values():
            loop.stop()
    report.samples(samples)
    base = samples["bare sqlite3, two commits, our table"]
    for n, least in ((1, 0.5), (10, 2.5), (100, 8)):
        report.ratio(
            f"{n} in flight, against the bare driver",
            samples[f"whole runs, {n} in flight"],
            base,
            least=least,
        )
    hundred = report.figures["whole runs, 100 in flight"]["median"]
    report.bar("100 in flight", hundred, unit="runs/s", least=10_000)
    for store in ("memory", "SQLite"):
        theirs = samples[f"APScheduler, {store} store, no history"]
        report.ratio(
            f"100 in flight, against APScheduler's {store} store",
            samples["whole runs, 100 in flight"],
            theirs,
        )
    report.finish()


if __name__ == "__main__":
    main()
