"""CPU time of a whole run, by part: what its rows cost in the store, and what everything around them costs. On SQLite.

Whole runs as in `runs.py`: the CPU time of the process, all threads, divided by the runs. The rows: 100 starts in one write, then
their 100 ends in another, in the thread that writes. The rest: whole runs on a store that says yes and keeps nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from floor import OurTable
from measure import Case, Report, interleaved, options, scratch
from recorder import Client, sqlite_store
from runs import Loop, no_op

from jobmanager.run import SUCCEEDED, Ending, Run
from jobmanager.stores.values import Written

IN_FLIGHT = (1, 100, 1000)
TOGETHER = 100


def of_process(work: Callable[[], float]) -> float:
    """CPU microseconds per unit of `work`, which answers how many units it did."""
    before = time.process_time()
    units = work()
    return (time.process_time() - before) / units * 1e6


def whole_runs(loop: Loop, seconds: float) -> float:
    began = time.perf_counter()
    rate = loop.measure(seconds)
    return rate * (time.perf_counter() - began)


def bare_commits(floor: OurTable, seconds: float) -> float:
    done, until = 0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        done += floor.run()
    return done


class Rows:
    """Writes the rows of 100 runs at once, and times their starts and their ends apart."""

    def __init__(self, store: Any, batches: int) -> None:
        self._client = Client(store, TOGETHER)
        self._write = store.runs.write
        self._batches = batches

    def starts(self) -> float:
        return statistics.median(self._pair()[0] for _ in range(self._batches))

    def ends(self) -> float:
        return statistics.median(self._pair()[1] for _ in range(self._batches))

    def _pair(self) -> tuple[float, float]:
        runs = [self._client.run(f"job-{number}") for number in range(TOGETHER)]
        now = datetime.now(UTC)
        endings = [Ending(run=run, status=SUCCEEDED, started_at=now, finished_at=now) for run in runs]
        return self._timed(runs, ()), self._timed((), endings)

    def _timed(self, opens: Sequence[Run], endings: Sequence[Ending]) -> float:
        before = time.thread_time()
        written = self._write(opens, endings)
        took = time.thread_time() - before
        assert len(written.opened) + len(written.ended) == TOGETHER
        return took / TOGETHER * 1e6


def keep_nothing(loop: Loop) -> None:
    """From now on the loop's store says yes to everything."""
    loop.store_writes(
        lambda opens, endings: Written(
            {run.id for run in opens}, {ending.run.id: ending.status for ending in endings}
        )
    )


def main() -> None:
    chosen = options(__doc__, synchronous="FULL", seconds=0.0)
    seconds = chosen.seconds or (0.05 if chosen.quick else 1.0)
    report = Report("cpu" + "-off" * (chosen.synchronous == "OFF"), "us", quick=chosen.quick)
    with scratch() as folder:
        make = partial(sqlite_store, synchronous=chosen.synchronous)
        loops = {n: Loop(make(folder / f"{n}.db"), n, no_op) for n in IN_FLIGHT}
        rest = Loop(make(folder / "rest.db"), TOGETHER, no_op)
        for loop in (*loops.values(), rest):
            loop.measure(seconds / 4)
        keep_nothing(rest)
        floor = OurTable(folder / "floor.db", chosen.synchronous)
        kept = make(folder / "rows.db")
        rows = Rows(kept, 2 if chosen.quick else 20)
        cases: dict[str, Case] = {
            "the bare driver, two commits, our table": partial(
                of_process, partial(bare_commits, floor, seconds)
            ),
            **{
                f"a whole run, {n:,} in flight": partial(of_process, partial(whole_runs, loop, seconds))
                for n, loop in loops.items()
            },
            "its start row, 100 in one write": rows.starts,
            "its end row, 100 in one write": rows.ends,
            "the rest, 100 in flight, nothing kept": partial(of_process, partial(whole_runs, rest, seconds)),
        }
        samples = interleaved(cases, chosen.repeats)
        for loop in (*loops.values(), rest):
            loop.stop()
        kept.close()
    report.samples(samples)
    report.finish()


if __name__ == "__main__":
    main()
