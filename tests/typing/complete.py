"""Run by the gate: every public name is completely typed, as pyright sees the package. `python tests/typing/complete.py`.

Public is what docs/reference/api.md lists, with everything that belongs to it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reference" / "api.md"


def public_names() -> set[str]:
    """Return the full names that the page lists; those of `jobmanager` itself stand in their own modules, too."""
    listed: list[str] = re.findall(
        r"^\.\. auto\w+:: ([\w.]+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    sys.path.insert(0, str(ROOT / "src"))
    import jobmanager

    homes = {
        f"jobmanager.{name}": f"{getattr(getattr(jobmanager, name), '__module__', '')}.{name}"
        for name in jobmanager.__all__
    }
    return {homes.get(name, name) for name in listed} | {*homes.values()}


def verdict() -> list[dict[str, object]]:
    """Ask pyright about every symbol of the package."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [
        sys.executable,
        "-m",
        "pyright",
        "--pythonpath",
        sys.executable,
        "--verifytypes",
        "jobmanager",
        "--ignoreexternal",
        "--outputjson",
    ]
    # From a folder without a configuration: the package is looked at as an application sees it.
    ended = subprocess.run(
        command, cwd=Path(__file__).parent, env=environment, capture_output=True, text=True, check=False
    )
    try:
        symbols: list[dict[str, object]] = json.loads(ended.stdout)["typeCompleteness"]["symbols"]
    except (ValueError, KeyError):
        sys.exit(f"pyright did not say:\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    return symbols


def main() -> int:
    """Print what is public and not completely typed, and how much is."""
    names = public_names()
    ours = [item for item in verdict() if any(f"{item['name']}.".startswith(f"{name}.") for name in names)]
    open_ends = [item for item in ours if not item["isTypeKnown"] or item["isTypeAmbiguous"]]
    for item in open_ends:
        print(f"{item['name']}: its type is not complete")
    print(f"{len(ours) - len(open_ends)} of {len(ours)} public symbols are completely typed")
    return 1 if open_ends or len(ours) < len(names) else 0


if __name__ == "__main__":
    sys.exit(main())
