"""The benchmarks run: in their quick mode, which shows a sign of life and no figures."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
NOT_RUN = {
    "measure",
    "floor",
    "run",
    "postgres",
    "peer_dbos",
    "peer_pgqueuer",
    "celery_sides",
    "pg_cron_sides",
}
ON_BOTH_STORES = {"recorder", "runs", "burst", "trigger", "steps", "sleepers"}
SCRIPTS = sorted(path.stem for path in BENCHMARKS.glob("*.py") if path.stem not in NOT_RUN)
SERVERS = {"celery_backend", "pg_cron_backend"}  # with processes of their own
QUICK = [script for script in SCRIPTS if script not in SERVERS]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


def start(script: str, results: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, BENCHMARKS / f"{script}.py", "--quick", *arguments],
        env={**os.environ, "BENCH_DIR": str(results), "BENCH_RESULTS": str(results)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def running(results: Path) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """All of them at once: most of their time they wait."""
    processes = {
        script: start(script, results, *(("--store", "sqlite") if script in ON_BOTH_STORES else ()))
        for script in QUICK
    }
    yield processes
    for process in processes.values():
        process.kill()
        process.communicate()


@pytest.mark.parametrize("script", QUICK)
def test_runs_and_keeps_its_figures(
    script: str, running: dict[str, subprocess.Popen[str]], results: Path
) -> None:
    keeps_figures(running[script], results / f"{script.replace('_', '-')}.json")


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.parametrize(
    ("script", "name"),
    [
        ("recorder", "recorder-postgres"),
        pytest.param("runs", "runs-postgres", marks=pytest.mark.faults),
        pytest.param("burst", "burst", marks=pytest.mark.faults),
        pytest.param("trigger", "trigger", marks=pytest.mark.faults),
        ("celery_backend", "celery-backend"),
        ("pg_cron_backend", "pg-cron-backend"),
    ],
)
def test_runs_on_postgresql_and_keeps_its_figures(
    script: str, name: str, tmp_path: Path, postgres_server: str, request: pytest.FixtureRequest
) -> None:
    if script == "pg_cron_backend":
        request.getfixturevalue("pg_cron_server")
    words = {"celery_backend": ("--store", "postgres", "--only", "runs,ticks"), "pg_cron_backend": ()}
    keeps_figures(
        start(script, tmp_path, *words.get(script, ("--store", "postgres"))), tmp_path / f"{name}.json"
    )


def keeps_figures(process: subprocess.Popen[str], file: Path) -> None:
    try:
        said, _ = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert "Traceback" not in said
    told = json.loads(file.read_text())
    assert told["quick"]
    assert told["figures"] or told["bars"]


def test_all_are_run_together_and_explained() -> None:
    run = (BENCHMARKS / "run.py").read_text()
    readme = (BENCHMARKS / "README.md").read_text()
    assert [script for script in SCRIPTS if f'"{script}"' not in run or f"`{script}.py`" not in readme] == []
