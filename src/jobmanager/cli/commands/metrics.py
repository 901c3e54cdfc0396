"""`jobmanager metrics`: the figures of the store, for Prometheus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobmanager.cli.arguments import duration
from jobmanager.cli.session import Session


def add_to(app: typer.Typer) -> None:
    """Announce the verb."""
    app.command("metrics")(metrics)


def metrics(
    ctx: typer.Context,
    window: Annotated[
        str, typer.Option("--window", metavar="LENGTH", help="Count the runs opened in the last so long.")
    ] = "1h",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="For node_exporter's textfile collector, replaced whole."
        ),
    ] = None,
) -> None:
    """Print the figures of the store in Prometheus' text format.

    Reads the runs of the window only. A process that executes jobs can serve more: see `jobmanager.observe.prometheus`.
    """
    from jobmanager.observe.prometheus import text_of, write_textfile

    here: Session = ctx.obj
    if output is not None:
        write_textfile(output, here.ledger, window=duration(window))
        return
    text = text_of(here.ledger, window=duration(window))
    if here.as_json:
        here.emit({"text": text})
    else:
        print(text, end="")
