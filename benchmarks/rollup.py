"""What keeping statistics and announcing ends cost whole runs: the same manager with and without them, in turns, on either store.

The CPU time of a run is measured beside the rate, as other work on the machine falsifies it less. A hundred runs are in flight. The counts by the hour are made by the background thread every five seconds, announcements on PostgreSQL
by a thread of their own: a round of this script has to be longer than that.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial

from measure import Case, Report, interleaved, options, scratch
from postgres import fresh_databases, installed
from runs import Loop

from jobmanager.clock import SystemClock
from jobmanager.stores.base import RunStore
from jobmanager.stores.sql.postgres import PostgresStore
from jobmanager.stores.sql.sqlite import SqliteStore

IN_FLIGHT = 100
BAR = 0.97


class Switched:
    """A loop of runs whose statistics and announcements can be switched off."""

    def __init__(self, store: RunStore) -> None:
        self._loop = Loop(store, IN_FLIGHT, lambda: None)
        self.cpu: dict[str, list[float]] = {"neither": [], "counting": [], "both": []}
        """Microseconds of this process for a run, by what was switched on, a round each."""
        assembly = self._loop._manager._assembly
        self._rollup, self._announcer = assembly.rollup, assembly.announcer
        self._round, self._note, self._announces = (
            self._rollup.round,
            self._rollup.note,
            self._announcer._wanted,
        )

    def measure(self, seconds: float, *, on: str) -> float:
        counts, announces = on != "neither", on == "both"
        self._rollup.round = self._round if counts else lambda: None  # type: ignore[method-assign]
        self._rollup.note = self._note if counts else lambda _run_id: None  # type: ignore[method-assign]
        self._announcer._wanted = announces and self._announces
        used, began = time.process_time(), time.perf_counter()
        rate = self._loop.measure(seconds)
        runs = rate * (time.perf_counter() - began)
        self.cpu[on].append((time.process_time() - used) / runs * 1e6)
        return rate

    def stop(self) -> None:
        self._loop.stop()


def main() -> None:
    chosen = options(__doc__, seconds=0.0)
    seconds = chosen.seconds or (0.05 if chosen.quick else 12.0)
    report = Report("rollup", "runs/s", quick=chosen.quick)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        stores: dict[str, RunStore] = {"SQLite": SqliteStore(folder / "jobs.db", clock=SystemClock())}
        if installed() and not chosen.quick:
            stores["PostgreSQL"] = PostgresStore(stack.enter_context(fresh_databases())())
        cases: dict[str, Case] = {}
        loops = {name: Switched(store) for name, store in stores.items()}
        for name, loop in loops.items():
            for on in loop.cpu:
                cases[f"{name}, {on}"] = partial(loop.measure, seconds, on=on)
        samples = interleaved(cases, chosen.repeats)
        for loop in loops.values():
            loop.stop()
    report.samples(samples)
    for name, loop in loops.items():
        for on, values in loop.cpu.items():
            report.figure(f"{name}, {on}, CPU of a run", values, unit="µs")
        for on in ("counting", "both"):
            report.ratio(f"{name}, {on}", samples[f"{name}, {on}"], samples[f"{name}, neither"], least=BAR)
            report.ratio(f"{name}, {on}, CPU of a run", loop.cpu[on], loop.cpu["neither"], most=1 / BAR)
    report.finish()


if __name__ == "__main__":
    main()
