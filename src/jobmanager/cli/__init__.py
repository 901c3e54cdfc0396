"""The command line: `jobmanager VERB`. Loaded by nobody but its own entry point."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, by default the process's own; answers its exit code: 0 ok, 1 failed, 2 usage, 3 conflict."""
    from jobmanager.cli.app import run

    return run(arguments)
