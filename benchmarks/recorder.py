"""The recorder alone: a durable start row and a durable end row per run through group commit, beside the bare driver.

Every run is a tick of its own job, with all guards on. A client keeps 1, 10, 100 or 1,000 runs in flight: the end is written when
the start is durable, the next run is opened when the end is. `--store postgres`: the same on a server of its own.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from floor import OurTable, PostgresTable, TenColumns
from measure import Case, Report, interleaved, options, rate, scratch
from postgres import fresh_databases

from jobmanager.clock import SystemClock
from jobmanager.ledger.group_commit import GroupCommit
from jobmanager.ledger.recorder import Recorder
from jobmanager.ledger.redaction import Redactor
from jobmanager.process.heartbeat import Heartbeat
from jobmanager.run import RUNNING, SUCCEEDED, Ending, Run, new_id
from jobmanager.stores.base import RunStore
from jobmanager.stores.sql.postgres import PostgresStore
from jobmanager.stores.sql.sqlite import SqliteStore
from jobmanager.stores.values import JobRow

GRACE = timedelta(seconds=60)
IN_FLIGHT = (1, 10, 100, 1000)
BARS = {"sqlite": {1: 0.75, 10: 3, 100: 8}, "postgres": {1: 0.75, 10: 3, 100: 12}}


class Client:
    """Keeps `in_flight` runs between opened and ended; every job has one of them."""

    def __init__(self, store: RunStore, in_flight: int) -> None:
        clock = SystemClock()
        self._store = store
        self._store.install()
        self._jobs = [f"job-{number}" for number in range(in_flight)]
        self._store.jobs.add([_row(job_id, clock.now()) for job_id in self._jobs])
        self._lease = Heartbeat(self._store, clock, namespace="default", length=timedelta(hours=1))
        self._lease.beat()
        self._commits = GroupCommit(self._store, clock, threaded=True)
        self._recorder = Recorder(self._store, self._commits, grace=GRACE, redactor=Redactor(()))
        self._recorder.report_ends_to(self)
        self._events: queue.SimpleQueue[Run | str] = queue.SimpleQueue()
        self._alone = in_flight == 1

    def ended(self, ending: Ending, status: object) -> None:
        """Note that a run may be opened in place of the one that ended."""
        assert status is SUCCEEDED
        self._events.put(ending.run.job_id)

    def end_lost(self, ending: Ending) -> None:
        raise AssertionError(f"an end that the store did not keep: {ending}")

    def measure(self, seconds: float) -> float:
        events = self._events

        def opened(runs: list[Run], refused: Sequence[Run], _written: object) -> None:
            assert not refused
            for run in runs:
                events.put(run)

        def open_run(job_id: str) -> None:
            self._recorder.open([self.run(job_id)], opened, write_inline=self._alone)

        for job_id in self._jobs:
            open_run(job_id)
        done, started, deadline = 0, time.perf_counter(), time.perf_counter() + seconds
        running = len(self._jobs)
        while running:
            event = events.get(timeout=10)
            if isinstance(event, Run):
                ending = Ending(
                    run=event, status=SUCCEEDED, started_at=event.opened_at, finished_at=datetime.now(UTC)
                )
                self._recorder.end(ending, write_inline=self._alone)
                continue
            done += 1
            if time.perf_counter() < deadline:
                open_run(event)
            else:
                running -= 1
        return done / (time.perf_counter() - started)

    def run(self, job_id: str) -> Run:
        """Make the next run of a job, as a tick of this moment would."""
        now = datetime.now(UTC)
        return Run(
            id=new_id(now),
            job_id=job_id,
            status=RUNNING,
            schedule_rev=1,
            scheduled_for=now,
            due_at=now,
            attempt=1,
            owner=self._lease.id,
            concurrency_key=job_id,
            turn="holds",
            opened_at=now,
            accepted_at=now,
            started_at=now,
        )


def _row(job_id: str, now: datetime) -> JobRow:
    before = now - timedelta(seconds=1)
    return JobRow(
        id=job_id,
        namespace="default",
        declared="{}",
        schedule="every 1s",
        accounted_until=before,
        next_due_at=None,
        history_from=before,
    )


def sqlite_store(path: Path, synchronous: str) -> SqliteStore:
    store = SqliteStore(path, clock=SystemClock(), grace=GRACE)
    if synchronous == "OFF":
        store.install()
        with store.database.writing() as connection:
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA synchronous = OFF")
            connection.exec_driver_sql("BEGIN")
    return store


def main() -> None:
    chosen = options(__doc__, store="sqlite", synchronous="FULL", seconds=0.0)
    seconds = chosen.seconds or (0.05 if chosen.quick else 1.0)
    suffix = "-postgres" * (chosen.store == "postgres") + "-off" * (chosen.synchronous == "OFF")
    report = Report(f"recorder{suffix}", "runs/s", quick=chosen.quick)
    cases: dict[str, Case] = {}
    with ExitStack() as stack:
        if chosen.store == "postgres":
            make = stack.enter_context(fresh_databases(synchronous=chosen.synchronous))
            floors = {"our table": PostgresTable(make()).run}
            stores: list[RunStore] = [PostgresStore(make(), grace=GRACE) for _ in IN_FLIGHT]
        else:
            folder = stack.enter_context(scratch())
            floors = {
                "our table": OurTable(folder / "ours.db", chosen.synchronous).run,
                "ten columns": TenColumns(folder / "ten.db", chosen.synchronous).run,
            }
            stores = [sqlite_store(folder / f"{n}.db", chosen.synchronous) for n in IN_FLIGHT]
        for table, run in floors.items():
            cases[f"the bare driver, two commits, {table}"] = partial(rate, run, seconds)
        for n, store in zip(IN_FLIGHT, stores, strict=True):
            cases[f"recorder, {n:,} in flight"] = partial(Client(store, n).measure, seconds)
        samples = interleaved(cases, chosen.repeats)
        for store in stores:
            store.close()
    report.samples(samples)
    for table in floors:
        for n in IN_FLIGHT:
            report.ratio(
                f"{n:,} in flight, against {table}",
                samples[f"recorder, {n:,} in flight"],
                samples[f"the bare driver, two commits, {table}"],
                least=BARS[chosen.store].get(n) if table == "our table" else None,
            )
    report.finish()


if __name__ == "__main__":
    main()
