"""Questions on the terminal before something is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

from jobmanager.cli.output.failures import FailedError, UsageError

if TYPE_CHECKING:
    from jobmanager.cli.session import Session

T = TypeVar("T")


def confirm(here: Session, question: str, *, yes: bool) -> None:
    """Ask on a terminal whether to go on; elsewhere `--yes` is required."""
    if yes:
        return
    if not can_ask(here):
        raise UsageError(
            "This changes the database, and there is no terminal to confirm it.",
            hint="Give --yes if it is meant.",
        )
    if not asked(lambda: click.confirm(question)):
        raise FailedError("Nothing was changed.")


def can_ask(here: Session) -> bool:
    """Return whether a question on this terminal can be answered."""
    return here.console.is_terminal and not here.as_json


def asked(ask: Callable[[], T]) -> T:
    """Ask on the terminal and return the reply; FailedError if the prompt is left."""
    try:
        return ask()
    except click.Abort:
        raise FailedError("Nothing was changed.") from None
