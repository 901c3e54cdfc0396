"""The recorder alone: a durable start row and a durable end row per run through group commit, beside the bare driver.

Every run is a tick of its own job, with all guards on. A client keeps 1, 10 or 100 runs in flight: the end is written when
the start is durable, the next run is opened when the end is.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from floor import OurTable, TenColumns
from measure import Report, interleaved, options, rate, scratch

from jobmanager.clock import SystemClock
from jobmanager.group_commit import GroupCommit
from jobmanager.lease import Lease
from jobmanager.recorder import Recorder
from jobmanager.redact import Redactor
from jobmanager.run import RUNNING, SUCCEEDED, Ending, Run, new_id
from jobmanager.stores.base import JobRow
from jobmanager.stores.sql.sqlite import SqliteStore

GRACE = timedelta(seconds=60)


class Client:
    """Keeps `in_flight` runs between opened and ended; every job has one of them."""

    def __init__(self, path: Path, in_flight: int, synchronous: str) -> None:
        clock = SystemClock()
        self._store = SqliteStore(path, clock=clock, grace=GRACE)
        self._store.install()
        if synchronous == "OFF":
            with self._store.writing() as connection:
                connection.exec_driver_sql("COMMIT")
                connection.exec_driver_sql("PRAGMA synchronous = OFF")
                connection.exec_driver_sql("BEGIN")
        self._jobs = [f"job-{number}" for number in range(in_flight)]
        self._store.add_jobs([_row(job_id, clock.now()) for job_id in self._jobs])
        self._lease = Lease(self._store, clock, namespace="default", length=timedelta(hours=1))
        self._lease.beat()
        self._commits = GroupCommit(self._store, clock, threaded=True)
        self._recorder = Recorder(self._store, self._commits, grace=GRACE, redactor=Redactor(()))
        self._alone = in_flight == 1

    def measure(self, seconds: float) -> float:
        events: queue.SimpleQueue[Run | str] = queue.SimpleQueue()

        def opened(runs: list[Run], refused: Sequence[Run], _written: object) -> None:
            assert not refused
            for run in runs:
                events.put(run)

        def ended(ending: Ending, status: object) -> None:
            assert status is SUCCEEDED
            events.put(ending.run.job_id)

        def open_run(job_id: str) -> None:
            self._recorder.open([self._run(job_id)], opened, alone=self._alone)

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
                self._recorder.end(ending, ended, alone=self._alone)
                continue
            done += 1
            if time.perf_counter() < deadline:
                open_run(event)
            else:
                running -= 1
        return done / (time.perf_counter() - started)

    def _run(self, job_id: str) -> Run:
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


def main() -> None:
    chosen = options(__doc__, synchronous="FULL", seconds=0.0)
    seconds = chosen.seconds or (0.05 if chosen.quick else 1.0)
    report = Report(
        "recorder" if chosen.synchronous == "FULL" else "recorder-off", "runs/s", quick=chosen.quick
    )
    with scratch() as folder:
        ours = OurTable(folder / "ours.db", chosen.synchronous)
        ten = TenColumns(folder / "ten.db", chosen.synchronous)
        clients = {n: Client(folder / f"{n}.db", n, chosen.synchronous) for n in (1, 10, 100)}
        samples = interleaved(
            {
                "bare sqlite3, two commits, our table": lambda: rate(ours.run, seconds),
                "bare sqlite3, two commits, ten columns": lambda: rate(ten.run, seconds),
                **{
                    f"recorder, {n} in flight": partial(client.measure, seconds)
                    for n, client in clients.items()
                },
            },
            chosen.repeats,
        )
    report.samples(samples)
    floor = samples["bare sqlite3, two commits, our table"]
    plain = samples["bare sqlite3, two commits, ten columns"]
    for n, least in ((1, 0.75), (10, 3), (100, 8)):
        report.ratio(
            f"{n} in flight, against our table", samples[f"recorder, {n} in flight"], floor, least=least
        )
    for n in (1, 10, 100):
        report.ratio(f"{n} in flight, against ten columns", samples[f"recorder, {n} in flight"], plain)
    report.finish()


if __name__ == "__main__":
    main()
