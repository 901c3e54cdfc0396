"""The state every verb gets: the application's manager, the output, JSON or text."""

from __future__ import annotations

import getpass
import os
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobmanager.cli.discovery import usual_target
from jobmanager.cli.loading import NO_APPLICATION, load
from jobmanager.present.phrases import Block
from jobmanager.validation.printable import printable, printable_json, printable_lines

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from jobmanager.manager.manager import JobManager

ENDLESS = 10_000  # columns of a pipe: nothing that a program reads is cut or wrapped


@dataclass
class Session:
    """One call of the command line."""

    target: str | None = None
    as_json: bool = False
    color: bool = True
    debug: bool = False

    @cached_property
    def jobs(self) -> JobManager:
        """The application's manager, also of a usual file; UsageError if there is none and no application is named."""
        self.look_around()
        if not self.target:
            raise NO_APPLICATION
        return self._hiding(load(self.target))

    def look_around(self) -> None:
        """Take the application of a usual file of this folder, if none is named and there is one."""
        if not self.target and (found := usual_target(Path.cwd())):
            self.target = found
            self.say_taken(found, f"{found}.py of this folder")

    def say_taken(self, target: str, place: str) -> None:
        """Say on standard error which application was taken without being named on the command line."""
        if not self.as_json:
            self.aside.print(
                f"note: the application is {target}, found in {place}; --app names another",
                soft_wrap=True,
                markup=False,
            )

    @cached_property
    def ledger(self) -> JobManager:
        """The application's manager, or one made of the settings alone: enough to read and end runs."""
        from jobmanager.manager.manager import JobManager

        return self.jobs if self.target else self._hiding(JobManager())

    def _hiding(self, manager: JobManager) -> JobManager:
        from jobmanager.present.records import hide

        hide(manager.settings.secret_values())
        return manager

    def close(self) -> None:
        """Close the connections."""
        for name in ("jobs", "ledger"):
            manager: JobManager | None = vars(self).get(name)
            if manager is not None:
                manager._parts.close()  # noqa: SLF001 - a store that was never used is not made to be closed

    @property
    def user(self) -> str:
        """Return the user's name for the record."""
        try:
            return getpass.getuser()
        except (KeyError, OSError):  # a container without a passwd entry
            return "cli"

    # ---------------------------------------------------------------- printing

    @cached_property
    def console(self) -> Console:
        """Standard output: coloured and as wide as the terminal, plain and endless in a pipe."""
        return self._console_on(sys.stdout)

    @cached_property
    def aside(self) -> Console:
        """Standard error, for what is no result."""
        return self._console_on(sys.stderr)

    def _console_on(self, file: Any) -> Console:
        from jobmanager.cli.output.escaping import EscapingConsole

        plain = not self.color or bool(os.environ.get("NO_COLOR"))
        console = EscapingConsole(
            file=file, color_system=None if plain else "auto", highlight=False, emoji=False
        )
        if not console.is_terminal:
            console.width = ENDLESS
        return console

    def print(self, *shown: RenderableType) -> None:
        """For people. A text is one line, unless it is a Block, and nothing in it is markup; in a pipe no line ends in blanks."""
        for given in shown:
            item = printable(given) if isinstance(given, str) and not isinstance(given, Block) else given
            if self.console.is_terminal:
                self.console.print(item, markup=False)
                continue
            if isinstance(item, str):
                _write(printable_lines(item))
                continue
            with self.console.capture() as captured:
                self.console.print(item, markup=False, soft_wrap=True)
            for line in captured.get().splitlines() or [""]:
                _write(line.rstrip())

    def emit(self, document: Any, *, line: bool = False) -> None:
        """For machines: one JSON document, or with `line` one of many on a line of its own."""
        _write(printable_json(document, indent=None if line else 2))

    def copyable(self, text: str) -> None:
        """For people who copy it: never wrapped, also in a terminal."""
        _write(printable_lines(text))


class ReaderGoneError(Exception):
    """The reader of the output has closed it (`| head`)."""


def _write(line: str) -> None:
    try:
        print(line, flush=True)
    except BrokenPipeError:
        raise ReaderGoneError from None
