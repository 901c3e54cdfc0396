"""The command `jobmanager`: its global options and verbs, and errors as one line of what and one of what to do."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

import click
from click.exceptions import NoArgsIsHelpError

from jobmanager.cli.discovery import stated_target
from jobmanager.cli.output.failures import INTERRUPTED, USAGE, FailedError, problem_of
from jobmanager.cli.session import ReaderGoneError, Session
from jobmanager.cli.verbs import Verbs

_FLAGS = ("--json", "--no-color", "--debug")

# Each verb with the place of its declaration below `cli.commands`. A module is loaded when one of its verbs is called.
SECTIONS: Mapping[str, Mapping[str, str]] = {
    "Keep the time and execute": {
        "run": "serve:run",
        "worker": "celery:worker",
        "beat": "celery:beat",
        "demo": "demo:demo",
    },
    "Jobs": {
        "jobs": "jobs:jobs",
        "explain": "why:explain",
        "simulate": "why:simulate",
        "sync": "operate:sync",
        "override": "operate:override",
        "webhooks": "webhooks:webhooks",
        "audit": "stored:audit",
    },
    "Runs": {
        "runs": "runs:runs",
        "logs": "logs:logs",
        "trigger": "trigger:trigger",
        "cancel": "runs:cancel",
        "redrive": "trigger:redrive",
        "dead": "operate:dead",
        "backfill": "operate:backfill",
        "events": "events:events",
    },
    "Watch and maintain": {
        "dashboard": "dashboard:dashboard",
        "mcp": "mcp:mcp",
        "doctor": "maintenance:doctor",
        "healthcheck": "operate:healthcheck",
        "notifications": "notifications:notifications",
        "stats": "stats:stats",
        "metrics": "metrics:metrics",
        "db": "db:db",
        "purge": "maintenance:purge",
        "version": "maintenance:version",
        "keys": "keys:keys",
        "dashboard-user": "keys:dashboard_user",
    },
    "pg_cron": {
        "init": "init:init",
        "verify": "verify:verify",
        "pg-cron": "pg_cron:pg_cron",
        "secret": "secret:secret",
    },
    "Other schedulers": {
        "import": "bring:bring",
        "export": "export:export",
        "ticker": "ticker:ticker",
    },
}
_PLACES = {name: place for section in SECTIONS.values() for name, place in section.items()}


class _Command(Verbs):
    """The command itself."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _PLACES:
            return None
        module, _, name = _PLACES[cmd_name].partition(":")
        found: click.Command = getattr(import_module(f"jobmanager.cli.commands.{module}"), name)
        return found

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_PLACES)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, section in SECTIONS.items():
            self.write_section(ctx, formatter, title, list(section))


@click.group(
    "jobmanager",
    cls=_Command,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100},
    invoke_without_command=True,
    epilog="Options of this page may stand anywhere. Exit codes: 0 ok, 1 failed, 2 usage, 3 conflict. "
    "Wherever a run is asked for, the end of its id is enough.",
)
@click.option(
    "--app",
    "target",
    envvar="JOBMANAGER_APP",
    show_envvar=True,
    metavar="MODULE:NAME",
    help="Where the JobManager is.",
)
@click.option("--json", "as_json", is_flag=True, help="For machines: JSON on standard output.")
@click.option("--no-color", is_flag=True, help="No colours and no emphasis.")
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
@click.option("--version", is_flag=True, help="Show the version.")
@click.pass_context
def app(
    ctx: click.Context, target: str | None, as_json: bool, no_color: bool, debug: bool, version: bool
) -> None:
    """Recurring jobs: declared once, kept on time, every run on record."""
    here = ctx.obj = Session(target=target or None, as_json=as_json, color=not no_color, debug=debug)
    ctx.call_on_close(here.close)
    verb = ctx.invoked_subcommand
    if verb and not target and (stated := stated_target(Path.cwd())):
        here.target = stated
        here.say_taken(stated, "pyproject.toml")
    if version:
        from jobmanager.cli.commands.maintenance import version as version_verb

        ctx.invoke(version_verb)
    elif verb is None:
        click.echo(ctx.get_help())


def run(arguments: Sequence[str] | None = None) -> int:
    """Execute one command line and return its exit code. Never raises."""
    words = hoisted(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(
                errors="replace"
            )  # a terminal without UTF-8 shows "?", and the command goes on
    color = False if os.environ.get("NO_COLOR") or "--no-color" in words else None
    try:
        return int(app.main(words, "jobmanager", standalone_mode=False, color=color) or 0)
    except KeyboardInterrupt:
        return INTERRUPTED
    except click.Abort as abort:
        if isinstance(abort.__cause__, KeyboardInterrupt):
            return INTERRUPTED
        return _report(FailedError("The question was not answered. Nothing was changed."), words)
    except NoArgsIsHelpError as error:
        error.show()
        return USAGE
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
