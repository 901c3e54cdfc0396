"""Runs that sleep: what 10,000 of them cost a process that waits, and 1,000 that wake in one instant beside 1,000 ordinary runs.

A burst counts from the first start of a handler to the last end: ordinary runs that become due are claimed, executed and ended; those that wake
have a step to read and one to keep besides. `--store postgres`: the same on a server of its own.
"""

from __future__ import annotations

import gc
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial

import sqlalchemy as sa
from measure import Report, interleaved, options, resident_mb, scratch
from postgres import fresh_databases

from jobmanager import JobManager, RunContext, Settings
from jobmanager.run import PENDING, Run, new_id
from jobmanager.stores.sql.store import SqlStore

FAR = timedelta(days=30)


class Application:
    """A manager that executes flows and plain jobs."""

    def __init__(self, url: str) -> None:
        self.jobs = JobManager(Settings(database_url=url, backend="local"))
        self.jobs.add_job("flow", self.flow, overlap="allow")
        self.jobs.add_job("plain", self.plain, overlap="allow")
        self.jobs.start()
        assert isinstance(self.jobs.store, SqlStore)
        self._database = self.jobs.store.database
        self._runs, self._steps = self._database.tables.runs, self._database.tables.run_steps
        self._starts: list[float] = []

    def flow(self, context: RunContext) -> None:
        self._starts.append(time.perf_counter())
        context.sleep("rest", FAR)

    def plain(self, context: RunContext) -> None:
        self._starts.append(time.perf_counter())

    def asleep(self, count: int) -> None:
        """Have so many runs come to their sleep."""
        opened = self._opened("flow", count, datetime.now(UTC))
        self._until(opened, self._runs.c.reason == "sleeping")

    def burst(self, job_id: str, count: int) -> float:
        """Seconds from the first start to the last end of so many runs that become due in one instant."""
        due_at = datetime.now(UTC) + timedelta(seconds=1)
        if job_id == "plain":
            opened = self._opened(job_id, count, due_at)
        else:
            opened = self._opened(job_id, count, datetime.now(UTC))
            self._until(opened, self._runs.c.reason == "sleeping")
            with self._database.writing() as connection:
                ours = self._runs.c.id.in_(opened)
                steps = self._steps.c.run_id.in_(opened)
                connection.execute(sa.update(self._runs).where(ours).values(due_at=due_at))
                connection.execute(sa.update(self._steps).where(steps).values(wakes_at=due_at))
        self._starts.clear()
        self._until(opened, self._runs.c.status == "succeeded")
        assert len(self._starts) == count
        return time.perf_counter() - min(self._starts)

    def idle(self, seconds: float) -> float:
        """Milliseconds of CPU in a second in which nothing is due."""
        gc.collect()
        began, wall = time.process_time(), time.perf_counter()
        time.sleep(seconds)
        return (time.process_time() - began) * 1000 / (time.perf_counter() - wall)

    def _opened(self, job_id: str, count: int, due_at: datetime) -> list[str]:
        now = datetime.now(UTC)
        runs = [
            Run(
                id=new_id(now),
                job_id=job_id,
                status=PENDING,
                trigger="manual",
                due_at=due_at,
                concurrency_key=job_id,
                opened_at=now,
                accepted_at=now,
            )
            for _ in range(count)
        ]
        for first in range(0, count, 1000):
            some = runs[first : first + 1000]
            assert len(self.jobs.store.runs.write(some, ()).opened) == len(some)
        return [run.id for run in runs]

    def _until(self, run_ids: list[str], condition: sa.ColumnElement[bool]) -> None:
        these = sa.select(sa.func.count()).where(
            self._runs.c.id >= min(run_ids), self._runs.c.id <= max(run_ids), condition
        )
        while True:
            with self._database.reading() as connection:
                if connection.scalar(these) == len(run_ids):
                    return
            time.sleep(0.02 if self._starts else 0.1)


def main() -> None:
    chosen = options(__doc__, store="sqlite", asleep=0, burst=0, idle=0.0)
    asleep = chosen.asleep or (100 if chosen.quick else 10_000)
    burst = chosen.burst or (50 if chosen.quick else 1000)
    idle = chosen.idle or (0.1 if chosen.quick else 10.0)
    report = Report(f"sleepers{'-postgres' * (chosen.store == 'postgres')}", "ms", quick=chosen.quick)
    with ExitStack() as stack:
        if chosen.store == "postgres":
            url = stack.enter_context(fresh_databases())()
        else:
            url = f"sqlite:///{stack.enter_context(scratch())}/jobs.db"
        application = Application(url)
        stack.callback(application.jobs.stop, drain=5)
        application.asleep(min(burst, asleep))  # what grows at first use has grown
        samples = interleaved(
            {
                f"{burst:,} ordinary runs": partial(application.burst, "plain", burst),
                f"{burst:,} runs that wake": partial(application.burst, "flow", burst),
            },
            chosen.repeats,
        )
        before, memory = application.idle(idle), resident_mb()
        application.asleep(asleep)
        after, grown = application.idle(idle), resident_mb() - memory
    report.samples({name: [1000 * each for each in values] for name, values in samples.items()})
    ordinary, woken = samples.values()
    report.ratio("waking, against ordinary runs", woken, ordinary, most=2)
    report.figure("CPU of a second without work, few asleep", [before])
    report.figure(f"CPU of a second without work, {asleep:,} asleep", [after])
    report.figure(f"memory that {asleep:,} runs asleep leave", [grown], unit="MiB")
    report.finish()


if __name__ == "__main__":
    main()
