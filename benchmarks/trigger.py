"""From `trigger_job` to the handler's first instruction, on an idle process at 50 starts a second: its row is durable in between.

On SQLite FULL and PostgreSQL, beside one commit of the bare driver, which is the least that a durable row costs; beside
APScheduler's memory store, which keeps nothing, and pgqueuer, if that is installed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import peer_pgqueuer
from floor import OurTable, PostgresTable
from measure import Report, options, percentile, scratch
from postgres import fresh_databases, installed

from jobmanager import JobManager, RunContext, Settings

PER_SECOND = 50
Lateness = Callable[[int], list[float]]


class Ours:
    """A started manager; answers milliseconds from the call to the start, and keeps those to the call's return."""

    def __init__(self, url: str) -> None:
        self._starts: dict[str, float] = {}
        self.returned: list[float] = []
        self.manager = JobManager(Settings(database_url=url))
        self.manager.add_job("work", self._work, overlap="allow")
        self.manager.start()

    def _work(self, context: RunContext) -> None:
        self._starts[context.run_id] = time.perf_counter()

    def __call__(self, count: int) -> list[float]:
        called: dict[str, float] = {}
        for _ in range(count):
            begun = time.perf_counter()
            run = self.manager.trigger_job("work")
            self.returned.append((time.perf_counter() - begun) * 1000)
            called[run.id] = begun
            time.sleep(1 / PER_SECOND)
        while not called.keys() <= self._starts.keys():
            time.sleep(0.01)
        return [(self._starts[run_id] - begun) * 1000 for run_id, begun in called.items()]


class Apscheduler:
    def __init__(self) -> None:
        from apscheduler.schedulers.background import BackgroundScheduler

        self.scheduler = BackgroundScheduler()
        self.scheduler.start()

    def __call__(self, count: int) -> list[float]:
        late: list[float] = []
        for _ in range(count):
            begun = time.perf_counter()
            self.scheduler.add_job(lambda begun=begun: late.append((time.perf_counter() - begun) * 1000))
            time.sleep(1 / PER_SECOND)
        while len(late) < count:
            time.sleep(0.01)
        return late


def commits(table: Any) -> Lateness:
    """One INSERT and its commit."""

    def measure(count: int) -> list[float]:
        took = []
        for _ in range(count):
            begun = time.perf_counter()
            run_id = table.open()
            took.append((time.perf_counter() - begun) * 1000)
            table.end(run_id)  # its key is free again
            time.sleep(1 / PER_SECOND)
        return took

    return measure


def main() -> None:
    chosen = options(__doc__, store="both")
    count = 10 if chosen.quick else 60
    report = Report("trigger", "ms", quick=chosen.quick)
    with ExitStack() as stack:
        ours: dict[str, Ours] = {}
        cases: dict[str, Lateness] = {}
        if chosen.store in ("both", "sqlite"):
            folder = stack.enter_context(scratch())
            ours["SQLite"] = Ours(f"sqlite:///{folder / 'trigger.db'}")
            cases["the bare driver's commit, SQLite"] = commits(OurTable(folder / "floor.db", "FULL"))
        if chosen.store == "postgres" or (chosen.store == "both" and installed()):
            make = stack.enter_context(fresh_databases())
            ours["PostgreSQL"] = Ours(make())
            cases["the bare driver's commit, PostgreSQL"] = commits(PostgresTable(make()))
            if peer_pgqueuer.installed():
                cases["pgqueuer, PostgreSQL"] = lambda n: peer_pgqueuer.latencies(make(), n, PER_SECOND)
        cases |= {f"jobmanager, {store}": measure for store, measure in ours.items()}
        cases["APScheduler, memory, no history"] = apscheduler = Apscheduler()
        late: dict[str, list[list[float]]] = {name: [] for name in cases}
        for _ in range(chosen.repeats):
            for name in random.sample(list(cases), len(cases)):
                late[name].append(cases[name](count))
        for each in ours.values():
            each.manager.stop()
            each.manager.store.close()
        apscheduler.scheduler.shutdown()
    for name, rounds in late.items():
        for percent in (50, 99):
            report.figure(f"{name}, {percent} of 100", [percentile(values, percent) for values in rounds])
    for store, each in ours.items():
        report.figure(
            f"jobmanager, {store}: the call has returned, 50 of 100", [percentile(each.returned, 50)]
        )
        for percent in (50, 99):
            mine, floor = (
                [percentile(values, percent) for values in late[name]]
                for name in (f"jobmanager, {store}", f"the bare driver's commit, {store}")
            )
            report.ratio(f"{store}, {percent} of 100, against one commit", mine, floor)
    report.finish()


if __name__ == "__main__":
    main()
