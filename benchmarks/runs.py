"""Whole runs, one process: a tick is accepted, its handler runs, start and end are on disk; beside the bare driver and APScheduler.

Closed loop: 1, 10, 100 or 1,000 no-op runs in flight, each of a job of its own; the next tick of a job is delivered when the end
of its run is durable, all that ended in one commit together. APScheduler does as many no-op jobs, queued first and then released;
its stores keep jobs, not history. `--store postgres`: the same on a server of its own, beside pgqueuer if that is installed.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import peer_pgqueuer
from floor import OurTable, PostgresTable
from measure import Case, Report, interleaved, options, rate, scratch
from postgres import fresh_databases
from recorder import sqlite_store

from jobmanager import JobManager, Settings
from jobmanager.run import Ending, Run, Tick
from jobmanager.stores.sql.postgres import PostgresStore
from jobmanager.stores.values import Written

IN_FLIGHT = (1, 10, 100, 1000)
BARS = {"sqlite": {1: 0.5, 10: 2.5, 100: 8}, "postgres": {1: 0.5, 10: 2.5, 100: 6}}
PGQUEUER = "pgqueuer, batch 100, drained"


class Loop:
    """A started manager with as many jobs as runs are to be in flight."""

    def __init__(self, store: Any, in_flight: int, handler: Callable[[], Any]) -> None:
        self._manager = JobManager(Settings(database_url="memory://"), store=store)
        self._ended: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        self._jobs = [f"job-{number}" for number in range(in_flight)]
        for job_id in self._jobs:
            self._manager.add_job(job_id, handler, cron="0 0 1 1 *")
        self._manager.start()
        write, store.runs.write = store.runs.write, self._write
        self._to_store = write
        self._deliver = self._manager._assembly.runner.deliver

    def _write(self, opens: Sequence[Run], endings: Sequence[Ending]) -> Written:
        """Tell the client what has ended for good."""
        written: Written = self._to_store(opens, endings)
        if endings:
            self._ended.put([ending.run.job_id for ending in endings])
        return written

    def store_writes(self, write: Callable[[Sequence[Run], Sequence[Ending]], Written]) -> None:
        """Have this write from now on, instead of the store."""
        self._to_store = write

    def measure(self, seconds: float) -> float:
        self._tick(self._jobs)
        done, started, deadline = 0, time.perf_counter(), time.perf_counter() + seconds
        running = len(self._jobs)
        while running:
            ended = self._ended.get(timeout=10)
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
        self._manager.store.close()


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
    # Its thread is still taking out what it handed on, and meets a closed store otherwise.
    while scheduler.get_jobs():
        time.sleep(0.01)
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


def peers_on_sqlite(folder: Path, *, quick: bool) -> dict[str, Case]:
    from apscheduler.jobstores.memory import MemoryJobStore
    from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore

    memory_jobs, stored_jobs = (20, 5) if quick else (2000, 300)
    url = f"sqlite:///{folder / 'aps.db'}"
    return {
        "APScheduler, memory store, no history": lambda: apscheduler(MemoryJobStore(), memory_jobs),
        "APScheduler, SQLite store, no history": lambda: apscheduler(SQLAlchemyJobStore(url), stored_jobs),
    }


def peers_on_postgres(make: Callable[[], str], *, quick: bool) -> dict[str, Case]:
    if not peer_pgqueuer.installed():
        print("pgqueuer is not installed, so it is not beside us: pip install pgqueuer asyncpg")
        return {}
    return {PGQUEUER: lambda: peer_pgqueuer.drained(make(), 50 if quick else 5000)}


def main() -> None:
    chosen = options(__doc__, store="sqlite", synchronous="FULL", seconds=0.0)
    seconds = chosen.seconds or (0.05 if chosen.quick else 1.0)
    suffix = "-postgres" * (chosen.store == "postgres") + "-off" * (chosen.synchronous == "OFF")
    report = Report(f"runs{suffix}", "runs/s", quick=chosen.quick)
    with ExitStack() as stack:
        if chosen.store == "postgres":
            make = stack.enter_context(fresh_databases(synchronous=chosen.synchronous))
            floor, peers = PostgresTable(make()), peers_on_postgres(make, quick=chosen.quick)
            stores: list[Any] = [PostgresStore(make()) for _ in IN_FLIGHT]
        else:
            folder = stack.enter_context(scratch())
            floor, peers = (
                OurTable(folder / "floor.db", chosen.synchronous),
                peers_on_sqlite(folder, quick=chosen.quick),
            )
            stores = [sqlite_store(folder / f"{n}.db", chosen.synchronous) for n in IN_FLIGHT]
        loops = {n: Loop(store, n, no_op) for n, store in zip(IN_FLIGHT, stores, strict=True)}
        for loop in loops.values():
            loop.measure(seconds / 10)
        base = "the bare driver, two commits, our table"
        samples = interleaved(
            {
                base: lambda: rate(floor.run, seconds),
                **{
                    f"whole runs, {n:,} in flight": partial(loop.measure, seconds)
                    for n, loop in loops.items()
                },
                **peers,
            },
            chosen.repeats,
        )
        for loop in loops.values():
            loop.stop()
    report.samples(samples)
    bars = BARS[chosen.store]
    for n in IN_FLIGHT:
        ours = samples[f"whole runs, {n:,} in flight"]
        report.ratio(f"{n:,} in flight, against the bare driver", ours, samples[base], least=bars.get(n))
    fast, least = (100, 10_000) if chosen.store == "sqlite" else (1000, 10_000)
    median = report.figures[f"whole runs, {fast:,} in flight"]["median"]
    report.bar(f"{fast:,} in flight", median, unit="runs/s", least=least)
    for peer in peers:
        wanted = 1 if peer == PGQUEUER else None
        ours = samples[f"whole runs, {fast:,} in flight"]
        report.ratio(f"{fast:,} in flight, against {peer}", ours, samples[peer], least=wanted)
    report.finish()


if __name__ == "__main__":
    main()
