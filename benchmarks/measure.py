"""How every benchmark measures: cases in shuffled order, ratios within a round, one table, one JSON file.

A machine's disk and cores change from minute to minute, so a figure means little and a ratio of two cases of the same round
a lot: `Report.ratio` divides round by round and takes the median of the quotients.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RESULTS = Path(os.environ.get("BENCH_RESULTS") or Path(__file__).parent / "results")

Case = Callable[[], float]
Samples = Mapping[str, list[float]]


def options(description: str | None, **more: Any) -> argparse.Namespace:
    """The switches of a benchmark: --quick (a smoke test, no figures), --repeats, and those of `more` by name and default."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--quick", action="store_true", help="a second instead of a minute; proves only that it runs"
    )
    parser.add_argument("--repeats", type=int, default=0, help="rounds (default 5, in --quick 1)")
    for name, default in more.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    chosen = parser.parse_args()
    chosen.repeats = chosen.repeats or (1 if chosen.quick else 5)
    return chosen


def interleaved(cases: Mapping[str, Case], repeats: int) -> dict[str, list[float]]:
    """Every case once per round, in a new order each round, so that what the machine does meanwhile meets all alike."""
    samples: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name in random.sample(list(cases), len(cases)):
            gc.collect()
            samples[name].append(cases[name]())
    return samples


def rate(step: Callable[[], int], seconds: float) -> float:
    """Units a second: calls `step`, which answers how many units it did, until the time is over."""
    done, started = 0, time.perf_counter()
    while True:
        done += step()
        elapsed = time.perf_counter() - started
        if elapsed >= seconds:
            return done / elapsed


def percentile(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[round((len(ordered) - 1) * percent / 100)]


def resident_mb(pid: int | None = None) -> float:
    """Memory of a process, of this one by default, in MiB."""
    import psutil

    return psutil.Process(pid).memory_info().rss / 2**20


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder on a real disk, gone afterwards; BENCH_DIR names another disk."""
    folder = Path(tempfile.mkdtemp(prefix="jobmanager-bench-", dir=os.environ.get("BENCH_DIR")))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def child(script: str, *arguments: object, stdin: int | None = None) -> subprocess.Popen[str]:
    """`python script arguments` in a process of its own, whose standard output the caller reads."""
    words = [sys.executable, script, *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBMANAGER_")}
    return subprocess.Popen(words, stdout=subprocess.PIPE, stdin=stdin, text=True, env=environment)


def answer(process: subprocess.Popen[str]) -> Any:
    """The next line of a child's output, as JSON."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{process.args} ended without an answer ({process.wait()})")
    return json.loads(line)


class Report:
    """A table that is printed and kept as JSON, with the bars of the design beside the figures."""

    def __init__(self, name: str, unit: str, *, quick: bool) -> None:
        self.name = name
        self.unit = unit
        self.quick = quick
        self.figures: dict[str, dict[str, Any]] = {}
        self.bars: list[dict[str, Any]] = []

    def samples(self, samples: Samples, *, unit: str | None = None) -> None:
        """One line per case: median, smallest, largest."""
        for name, values in samples.items():
            self.figure(name, values, unit=unit)

    def figure(self, name: str, values: Sequence[float], *, unit: str | None = None) -> float:
        median = statistics.median(values)
        self.figures[name] = {
            "median": median,
            "min": min(values),
            "max": max(values),
            "n": len(values),
            "unit": unit or self.unit,
        }
        return median

    def ratio(
        self,
        name: str,
        ours: Sequence[float],
        theirs: Sequence[float],
        *,
        least: float | None = None,
        most: float | None = None,
    ) -> None:
        """Ours divided by theirs, round by round, against a bar."""
        quotients = [mine / yours for mine, yours in zip(ours, theirs, strict=True)]
        self.bar(name, statistics.median(quotients), unit="x", least=least, most=most, spread=quotients)

    def bar(
        self,
        name: str,
        value: float,
        *,
        unit: str,
        least: float | None = None,
        most: float | None = None,
        spread: Sequence[float] = (),
    ) -> None:
        """A figure that has to be at least, or at most, so much; without either it is only told."""
        met = (least is None or value >= least) and (most is None or value <= most)
        self.bars.append(
            {
                "name": name,
                "value": value,
                "unit": unit,
                "least": least,
                "most": most,
                "met": met if (least, most) != (None, None) else None,
                "min": min(spread, default=value),
                "max": max(spread, default=value),
            }
        )

    def finish(self) -> None:
        """Print the table and write results/<name>.json."""
        print(f"\n{self.name}" + ("  (--quick: no figures, only a sign of life)" if self.quick else ""))
        for name, figure in self.figures.items():
            spread = f"{_number(figure['min'])} .. {_number(figure['max'])}" if figure["n"] > 1 else ""
            print(f"  {name:<58} {_number(figure['median']):>10} {figure['unit']:<7} {spread}")
        for bar in self.bars:
            wanted = _wanted(bar)
            word = {True: "met", False: "MISSED", None: ""}[bar["met"]]
            spread = f"{_number(bar['min'])} .. {_number(bar['max'])}" if bar["min"] != bar["max"] else ""
            print(
                f"  {bar['name']:<58} {_number(bar['value']):>10} {bar['unit']:<7} {wanted:<12} {word:<7} {spread}"
            )
        RESULTS.mkdir(parents=True, exist_ok=True)
        told = {
            "name": self.name,
            "quick": self.quick,
            "machine": machine(),
            "figures": self.figures,
            "bars": self.bars,
        }
        (RESULTS / f"{self.name}.json").write_text(json.dumps(told, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """What the figures were measured with."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "sqlite": sqlite3.sqlite_version,
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }


def _wanted(bar: Mapping[str, Any]) -> str:
    if bar["least"] is not None:
        return f">= {_number(bar['least'])}"
    return f"<= {_number(bar['most'])}" if bar["most"] is not None else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
