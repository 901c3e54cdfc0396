"""The benchmarks run: in their quick mode, which shows a sign of life and no figures."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
NOT_RUN = {"measure", "floor", "run"}
SCRIPTS = sorted(path.stem for path in BENCHMARKS.glob("*.py") if path.stem not in NOT_RUN)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def running(results: Path) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """All of them at once: most of their time they wait."""
    environment = {**os.environ, "BENCH_DIR": str(results), "BENCH_RESULTS": str(results)}
    processes = {
        script: subprocess.Popen(
            [sys.executable, BENCHMARKS / f"{script}.py", "--quick"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for script in SCRIPTS
    }
    yield processes
    for process in processes.values():
        process.kill()
        process.communicate()


@pytest.mark.parametrize("script", SCRIPTS)
def test_runs_and_keeps_its_figures(
    script: str, running: dict[str, subprocess.Popen[str]], results: Path
) -> None:
    said, _ = running[script].communicate(timeout=60)
    assert running[script].returncode == 0, said
    assert "Traceback" not in said
    told = json.loads((results / f"{script.replace('_', '-')}.json").read_text())
    assert told["quick"]
    assert told["figures"] or told["bars"]


def test_all_are_run_together_and_explained() -> None:
    run = (BENCHMARKS / "run.py").read_text()
    readme = (BENCHMARKS / "README.md").read_text()
    assert [script for script in SCRIPTS if f'"{script}"' not in run or f"`{script}.py`" not in readme] == []
