"""What keeping statistics and announcing ends cost whole runs: the same manager with and without them, in turns, on either store.

A hundred runs are in flight. The counts by the hour are made by the background thread every five seconds, announcements on PostgreSQL
by a thread of their own: a round of this script has to be longer than that.
"""

from __future__ import annotations

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
        assembly = self._loop._manager._assembly
        self._rollup, self._announcer = assembly.rollup, assembly.announcer
        self._round, self._note, self._announces = (
            self._rollup.round,
            self._rollup.note,
            self._announcer._wanted,
        )

    def measure(self, seconds: float, *, counts: bool, announces: bool) -> float:
        self._rollup.round = self._round if counts else lambda: None  # type: ignore[method-assign]
        self._rollup.note = self._note if counts else lambda _run_id: None  # type: ignore[method-assign]
        self._announcer._wanted = announces and self._announces
        return self._loop.measure(seconds)

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
            cases[f"{name}, neither"] = partial(loop.measure, seconds, counts=False, announces=False)
            cases[f"{name}, counting"] = partial(loop.measure, seconds, counts=True, announces=False)
            cases[f"{name}, both"] = partial(loop.measure, seconds, counts=True, announces=True)
        samples = interleaved(cases, chosen.repeats)
        for loop in loops.values():
            loop.stop()
    report.samples(samples)
    for name in stores:
        for case in ("counting", "both"):
            report.ratio(
                f"{name}, {case}", samples[f"{name}, {case}"], samples[f"{name}, neither"], least=BAR
            )
    report.finish()


if __name__ == "__main__":
    main()
