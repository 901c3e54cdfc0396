"""The command line: `jobmanager VERB`. Only its own entry point imports it."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, by default the one of this process, and return its exit code: 0 ok, 1 failed, 2 usage, 3 conflict."""
    from jobmanager.cli.app import run

    return run(arguments)
