"""Durable steps: a step of one run beside one durable commit of the bare driver, and the steps of 100 runs at once.

Each flow is a running run whose steps are kept through `StepLedger`, as `context.step` keeps them; the called function does nothing.
DBOS, where it is installed, has as many workflows at once on a database of its own. `--store postgres`: the same on a server.
"""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial

import peer_dbos
from floor import PostgresTable, TenColumns
from measure import Case, Report, interleaved, options, rate, scratch
from postgres import fresh_databases

from jobmanager import JobManager, RunContext, Settings
from jobmanager.clock import SystemClock
from jobmanager.context import AttemptState
from jobmanager.execution.flow import flows
from jobmanager.job import Job
from jobmanager.ledger.redaction import Redactor
from jobmanager.ledger.steps import StepLedger
from jobmanager.process.heartbeat import Heartbeat
from jobmanager.run import RUNNING, Run, new_id
from jobmanager.stores.base import RunStore

IN_FLIGHT = (1, 10, 100)


class Flows:
    """So many runs at once, each with one step after the other."""

    def __init__(self, url: str, in_flight: int) -> None:
        jobs = JobManager(Settings(database_url=url, backend="noop"))
        jobs.add_job("flow", lambda: None, overlap="allow")
        jobs.sync()
        self._store: RunStore = jobs.store
        self._clock = SystemClock()
        beat = Heartbeat(self._store, self._clock, namespace="default", length=timedelta(hours=1))
        beat.beat()
        self._owner = beat.id
        self._flows = flows(
            StepLedger(self._store, self._clock, namespace="default"),
            self._clock,
            Redactor(()),
            lambda *_: [],
            (),
        )
        self._in_flight = in_flight

    def measure(self, seconds: float) -> float:
        """Return the steps in a second."""
        runs = [self._running() for _ in range(self._in_flight)]
        deadline = time.perf_counter() + seconds
        began = time.perf_counter()
        with ThreadPoolExecutor(len(runs)) as threads:
            counts = list(threads.map(partial(self._work, deadline), runs))
        return sum(counts) / (time.perf_counter() - began)

    def _work(self, deadline: float, run: Run) -> int:
        """Return how many steps the run did until then."""
        job = Job(id="flow", name="flow", handler="flow")
        context = RunContext(
            AttemptState(job, run, clock=self._clock, lease_ok=lambda: True, steps_of=self._flows([run]))
        )
        done = 0
        while time.perf_counter() < deadline:
            context.step("one", int)
            done += 1
        return done

    def _running(self) -> Run:
        now = datetime.now(UTC)
        run = Run(
            id=new_id(now),
            job_id="flow",
            status=RUNNING,
            trigger="manual",
            due_at=now,
            attempt=1,
            starts=1,
            owner=self._owner,
            concurrency_key="flow",
            opened_at=now,
            accepted_at=now,
            started_at=now,
        )
        assert run.id in self._store.runs.write([run], ()).opened
        return run


def main() -> None:
    chosen = options(__doc__, store="sqlite", seconds=0.0)
    seconds = chosen.seconds or (0.05 if chosen.quick else 2.0)
    report = Report(f"steps{'-postgres' * (chosen.store == 'postgres')}", "steps/s", quick=chosen.quick)
    with ExitStack() as stack:
        if chosen.store == "postgres":
            make = stack.enter_context(fresh_databases())
            table = PostgresTable(make())

            def floor() -> int:
                table.run()  # two commits
                return 2

            urls, theirs = [make() for _ in IN_FLIGHT], make()
        else:
            folder = stack.enter_context(scratch())
            ten = TenColumns(folder / "ten.db", "FULL")

            def floor() -> int:
                ten.run()  # two commits
                return 2

            urls = [f"sqlite:///{folder}/{number}.db" for number in IN_FLIGHT]
            theirs = f"sqlite:///{folder}/dbos.db"
        cases: dict[str, Case] = {"the bare driver, one commit": partial(rate, floor, seconds)}
        for number, url in zip(IN_FLIGHT, urls, strict=True):
            cases[f"{number} flows in flight"] = partial(Flows(url, number).measure, seconds)
            if peer_dbos.installed() and number != 10:
                cases[f"DBOS, {number} in flight"] = partial(peer_dbos.steps, theirs, number, seconds)
        samples = interleaved(cases, chosen.repeats)
    report.samples(samples)
    for number, least in ((1, 1 / 1.2), (10, None), (100, None)):
        report.ratio(
            f"{number} flows in flight, against one commit",
            samples[f"{number} flows in flight"],
            samples["the bare driver, one commit"],
            least=least,
        )
        peer = samples.get(f"DBOS, {number} in flight")
        if peer:
            report.ratio(f"{number} in flight, against DBOS", samples[f"{number} flows in flight"], peer)
    most = samples[f"{IN_FLIGHT[-1]} flows in flight"]
    report.bar(f"{IN_FLIGHT[-1]} flows in flight", statistics.median(most), unit="steps/s", least=5000)
    report.finish()


if __name__ == "__main__":
    main()
