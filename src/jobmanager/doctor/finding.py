"""The value that a check yields."""

from __future__ import annotations

from dataclasses import dataclass

from jobmanager.backends.base import Level

__all__ = ["Finding", "Level", "counted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at. `level` failing: jobs do not run, or will not. `fix` is '' only for ok and note."""

    check: str
    level: Level
    text: str
    fix: str = ""


def counted(number: int, noun: str) -> str:
    """Return `1 job`, `2 jobs`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
