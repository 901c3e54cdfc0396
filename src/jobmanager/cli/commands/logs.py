"""`jobmanager logs`: the log lines of a run, also while it is running."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from jobmanager.cli.commands.runs import RUN_ID, find, log_line
from jobmanager.cli.session import Session
from jobmanager.cli.verbs import verb
from jobmanager.clock import SystemClock
from jobmanager.present.records import line_record

if TYPE_CHECKING:
    from jobmanager.run import LogLine

LOOK_EVERY_SECONDS = 0.5


@verb("logs", example="jobmanager logs 8f0c2b1a --follow")
@RUN_ID
@click.option("--follow", "-f", is_flag=True, help="Go on until the run has ended.")
@click.pass_obj
def logs(here: Session, run: str, follow: bool) -> None:
    """Show the log lines of a run."""
    found = find(here.ledger, run)
    read, told_attempt, any_line = 0, 1, False
    while True:
        # The status first: lines that came with the end are then read too.
        ended = find(here.ledger, found.id).status.closed
        for position, attempt, line in here.ledger.store.history.lines(found.id, after=read):
            read, any_line = position, True
            _show(here, attempt, line, new_attempt=attempt != told_attempt)
            told_attempt = attempt
        if ended or not follow:
            break
        SystemClock().sleep(LOOK_EVERY_SECONDS)
    if not any_line and not here.as_json:
        here.aside.print(
            "It logged nothing." if ended else "It has logged nothing yet; -f waits for it.", soft_wrap=True
        )


def _show(here: Session, attempt: int, line: LogLine, *, new_attempt: bool) -> None:
    if here.as_json:
        here.emit(line_record(attempt, line), line=True)
        return
    from jobmanager.cli.output.lists import dim

    if new_attempt:
        here.print(dim(f"--- attempt {attempt} ---"))
    here.print(log_line(line))
