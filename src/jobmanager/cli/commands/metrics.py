"""`jobmanager metrics`: the figures of the store, for Prometheus."""

from __future__ import annotations

from pathlib import Path

import click

from jobmanager.cli.arguments import duration
from jobmanager.cli.output.failures import FailedError
from jobmanager.cli.session import Session
from jobmanager.cli.verbs import verb


@verb("metrics", example="jobmanager metrics --output /var/lib/node_exporter/jobmanager.prom")
@click.option("--window", default="1h", metavar="LENGTH", help="Count the runs opened in the last so long.")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="For node_exporter's textfile collector, replaced whole.",
)
@click.pass_obj
def metrics(here: Session, window: str, output: Path | None) -> None:
    """Print the figures of the store in Prometheus' text format.

    Reads the runs of the window only. A process that executes jobs can serve more: see `jobmanager.observe.prometheus`.
    """
    from jobmanager.observe.prometheus import text_of, write_textfile

    if output is not None:
        try:
            write_textfile(output, here.ledger, window=duration(window))
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise FailedError(
                f"{output} cannot be written: {why}.", hint="Name a file in a folder that exists."
            ) from None
        return
    text = text_of(here.ledger, window=duration(window))
    if here.as_json:
        here.emit({"text": text})
    else:
        print(text, end="")
