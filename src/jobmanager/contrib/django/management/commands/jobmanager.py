"""`manage.py jobmanager VERB`: every verb of the command `jobmanager`, for the jobs of this project."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from jobmanager.cli import main

TARGET = "jobmanager.contrib.django:jobs"


class Command(BaseCommand):
    """Passes its words on to the command line of the library."""

    help = "The command line of jobmanager, for the jobs of this project: `manage.py jobmanager --help`."
    requires_system_checks: Sequence[str] = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """Execute the words of a command line, whatever they are."""
        from django.db import connections

        try:
            code = call(_without_django(argv[2:]))
        finally:
            connections.close_all()
        if code:
            sys.exit(code)

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("words", nargs=argparse.REMAINDER)

    def handle(self, *args: Any, **options: Any) -> None:
        """Execute the words of `call_command("jobmanager", ...)`; CommandError if it fails."""
        words = [*args, *options.get("words", ())]
        if code := call(words):
            raise CommandError(f"jobmanager {' '.join(words)} ended with {code}", returncode=code)


def call(words: Sequence[str]) -> int:
    """Run one command for the jobs of this project and return its exit code."""
    return main([f"--app={TARGET}", *words])


def _without_django(words: Sequence[str]) -> list[str]:
    """Leave out the options that `manage.py` has read itself."""
    kept: list[str] = []
    left = iter(words)
    for word in left:
        if word in {"--settings", "--pythonpath"}:
            next(left, None)
        elif not word.startswith(("--settings=", "--pythonpath=")):
            kept.append(word)
    return kept
