"""The command `jobmanager`: its global options and verbs, and errors as one line of what and one of what to do."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from jobmanager.cli.commands import (
    bring,
    celery,
    db,
    demo,
    export,
    init,
    jobs,
    logs,
    maintenance,
    metrics,
    operate,
    pg_cron,
    runs,
    secret,
    serve,
    trigger,
    verify,
    why,
)
from jobmanager.cli.discovery import stated_target
from jobmanager.cli.output.failures import INTERRUPTED, problem_of
from jobmanager.cli.session import ReaderGoneError, Session

_FLAGS = ("--json", "--no-color", "--debug")

app = typer.Typer(
    name="jobmanager",
    help="Recurring jobs: declared once, kept on time, every run on record.",
    epilog="Options of this page may stand anywhere. Exit codes: 0 ok, 1 failed, 2 usage, 3 conflict. "
    "Wherever a run is asked for, the end of its id is enough.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None if os.environ.get("NO_COLOR") else "rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _start(
    ctx: typer.Context,
    target: Annotated[
        str | None,
        typer.Option(
            "--app", envvar="JOBMANAGER_APP", metavar="MODULE:NAME", help="Where the JobManager is."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines: JSON on standard output.")] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours and no emphasis.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    ctx.obj = Session(target=target or None, as_json=as_json, color=not no_color, debug=debug)
    if not target and ctx.invoked_subcommand is not None and (stated := stated_target(Path.cwd())):
        ctx.obj.target = stated
        ctx.obj.say_taken(stated, "pyproject.toml")
    ctx.call_on_close(ctx.obj.close)
    if version:
        maintenance.version(ctx)
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


serve.add_to(app)
celery.add_to(app)
jobs.add_to(app)
trigger.add_to(app)
runs.add_to(app)
logs.add_to(app)
why.add_to(app)
operate.add_to(app)
maintenance.add_to(app)
metrics.add_to(app)
db.add_to(app)
init.add_to(app)
verify.add_to(app)
pg_cron.add_to(app)
secret.add_to(app)
bring.add_to(app)
export.add_to(app)
demo.add_to(app)


def run(arguments: Sequence[str] | None = None) -> int:
    """Execute one command line and return its exit code. Never raises."""
    words = hoisted(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(
                errors="replace"
            )  # a terminal without UTF-8 shows "?", and the command goes on
    try:
        return int(app(words, prog_name="jobmanager", standalone_mode=False) or 0)
    except KeyboardInterrupt:
        return INTERRUPTED
    except ReaderGoneError:
        # At exit Python would try to flush once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - shown to people as one line; --debug has the rest
        return _report(error, words)


def hoisted(words: Sequence[str]) -> list[str]:
    """Move the global options of a command line to its front, so that they may stand anywhere before a `--`."""
    front: list[str] = []
    rest: list[str] = []
    left = iter(words)
    for word in left:
        if word == "--":
            rest += [word, *left]
        elif word in _FLAGS or word.startswith("--app="):
            front.append(word)
        elif word == "--app":
            front += [word, *(value for value in [next(left, None)] if value is not None)]
        else:
            rest.append(word)
    return front + rest


def _report(error: Exception, words: Sequence[str]) -> int:
    """Print the error as text or as JSON, and return its exit code."""
    problem = problem_of(error)
    here = Session(as_json="--json" in words, color="--no-color" not in words)
    if "--debug" in words:
        import traceback

        traceback.print_exception(error)
    if here.as_json:
        told = {"kind": problem.kind, "message": problem.message, "hint": problem.hint}
        here.emit({"error": {**told, "exit_code": problem.code, **problem.facts}})
        return problem.code
    from rich.text import Text

    here.aside.print(Text.assemble(("error: ", "bold red"), problem.message), soft_wrap=True)
    if problem.hint:
        here.aside.print(Text.assemble(("   do: ", "bold"), problem.hint), soft_wrap=True)
    return problem.code
