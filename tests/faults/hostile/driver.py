"""Have the programme of hostile handlers run in processes of its own, as many as the handlers wear out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.faults.hostile.handlers import Case
from tests.faults.hostile.programme import cases_of, is_well

ROOT = Path(__file__).parents[3]


def run_programme(mode: str, url: str, folder: Path, names: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """What is said of each case; "process died" of one that ended its process."""
    found: dict[str, dict[str, Any]] = {}
    left = [case.name for case in cases_of(mode) if not names or case.name in names]
    number = 0
    while left:
        report = folder / f"report-{mode}-{number}"
        lines = one_process(mode, url, report, left)
        for line in lines:
            if "begun" in line:
                found[line["begun"]] = {"name": line["begun"], "shape": "process died"}
            elif "name" in line:
                found[line["name"]] = line
            else:
                found["stop"] = {"name": "stop", **line}
        begun = [line["begun"] for line in lines if "begun" in line]
        assert begun, (folder / "log").read_text()
        left = [name for name in left if name not in begun]
        number += 1
    return found


def one_process(
    mode: str, url: str, report: Path, names: Sequence[str], *, runs: int = 0
) -> list[dict[str, Any]]:
    """The lines of one process of the programme; with `runs`, of so many runs of these cases, many at once."""
    command = [sys.executable, "-m", "tests.faults.hostile", mode, url, str(report), *names]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HOSTILE_LOG": str(report.parent / "log"),
        "HOSTILE_RUNS": str(runs),
    }
    with (report.parent / "output").open("ab") as output:
        subprocess.run(
            command,
            cwd=report.parent,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
            timeout=900,
        )
    return [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []


def faults_of(case: Case, line: dict[str, Any]) -> list[str]:
    """What is wrong with what was said of a case, in words."""
    wrong = []
    if line["shape"] not in case.shapes:
        wrong.append(f"ended as {line['shape']}, not as {' or '.join(case.shapes)}")
    if line["shape"] in ("no end", "process died"):
        return wrong
    if line["shape"] == "failed/exception" and case.error and line["type"] != case.error:
        wrong.append(f"its error is a {line['type']!r}, not a {case.error}")
    if line["shape"] == "failed/exception" and not line["type"]:
        wrong.append("its error has no type")
    if line["size"] > 200_000:
        wrong.append(f"{line['size']:,} characters on record")
    if not is_well(line):
        wrong.append(f"the process is not as it was: { ({name: line[name] for name in STATE}) }")
    return wrong


STATE = ("plain", "plain_coroutine", "capacity", "in_flight", "children")
