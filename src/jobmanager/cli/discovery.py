"""Finding the application that no option names: what pyproject.toml says, else `app.py` or `jobs.py` of the working directory."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from jobmanager.cli.output.failures import UsageError

USUAL_FILES = ("app.py", "jobs.py")


def stated_target(folder: Path) -> str | None:
    """Return `app` of `[tool.jobmanager]` in the folder's pyproject.toml; None without one. UsageError for what is no text."""
    file = folder / "pyproject.toml"
    try:
        with file.open("rb") as opened:
            document: Any = tomllib.load(opened)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return None  # not there, or not ours to complain about
    tool = document.get("tool")
    ours = tool.get("jobmanager") if isinstance(tool, dict) else None
    if not isinstance(ours, dict) or "app" not in ours:
        return None
    target = ours["app"]
    if not isinstance(target, str) or not target:
        raise UsageError(
            f"app={target!r} in [tool.jobmanager] of {file} is no text.",
            hint='Write app = "package.module:name" there.',
        )
    return target


def usual_target(folder: Path) -> str | None:
    """Return the module of the first usual file of the folder that makes a JobManager, read without being executed."""
    for name in USUAL_FILES:
        try:
            text = (folder / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if re.search(r"^\s*\w[\w.]*(\s*:[^=\n]+)?\s*=\s*(\w+\.)?JobManager\(", text, re.MULTILINE):
            return name.removesuffix(".py")
    return None
