"""`jobmanager import`: the jobs of another scheduler as Python to paste, with a remark on each difference."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click
from click.exceptions import Exit

from jobmanager.cli.loading import imported, module_of
from jobmanager.cli.output.failures import FAILED, UsageError
from jobmanager.cli.session import Session
from jobmanager.cli.verbs import Verbs
from jobmanager.present.phrases import count

if TYPE_CHECKING:
    from jobmanager.bridge.brought import ImportedJob

WIDEST = 100
MARKS = {"same": ("same", "green"), "changed": ("changed", "yellow"), "manual": ("by hand", "red")}
EPILOG = (
    "Prints Python to paste, with remarks as comments: 'same' needs nothing, 'changed' will behave otherwise, 'by hand' is "
    "yours to decide. Exit 0: everything carries over unchanged; 1: something needs a human's eye; 2: nothing was found."
)
IMPORTS = {
    "os.": "import os",
    "subprocess.": "import subprocess",
    "tempfile.": "import tempfile",
    "datetime.": "from datetime import datetime",
    ": Any": "from typing import Any",
    "RunContext": "from jobmanager import RunContext",
}

bring = Verbs("import", help="Convert the jobs of Celery beat, APScheduler or cron.")

TARGET = click.argument(
    "target", metavar="MODULE[:NAME]", help="Where it is; the only one of the module without NAME."
)


@bring.command(
    "celery-beat", example="jobmanager import celery-beat shop.celery:app > jobs.py", epilog=EPILOG
)
@TARGET
@click.pass_obj
def celery_beat(here: Session, target: str) -> None:
    """Convert the beat_schedule of a Celery app, or a dict of that name, to jobs.

    Its module and those of the tasks are imported; nothing is executed or connected to.

    The instants are compared with those that Celery's own schedules compute.
    """
    from jobmanager.bridge import celery_beat as source
    from jobmanager.clock import SystemClock

    module, name = module_of(target, "")
    found = _named(module, name) if name else _only(module, source.is_app, "Celery app", source.DICTIONARIES)
    if source.is_app(found):
        beat = imported(f"the tasks of {module.__name__}", lambda: source.of_app(found))
    elif isinstance(found, Mapping):
        beat = source.of_dict(found, module)
    else:
        raise _other(target, found, "a Celery app or a beat_schedule dict")
    _print_program(
        here,
        source.bring(beat, SystemClock().now()),
        f'From the beat_schedule of {target}. Celery lets runs overlap, and so does overlap="allow": '
        "without it an instant is skipped while a run goes on.",
    )


@bring.command(
    "apscheduler", example="jobmanager import apscheduler shop.main:scheduler > jobs.py", epilog=EPILOG
)
@TARGET
@click.pass_obj
def apscheduler(here: Session, target: str) -> None:
    """Convert the jobs of an APScheduler 3 scheduler.

    Its module is imported, and no scheduler in it starts; nothing is executed. Its SQLAlchemy job stores are read.

    The instants are compared with those that APScheduler's own triggers compute.
    """
    from jobmanager.bridge import apscheduler as source
    from jobmanager.clock import SystemClock

    with source.held():
        module, name = module_of(target, "")
    found = _named(module, name) if name else _only(module, source.is_scheduler, "APScheduler scheduler")
    if not source.is_scheduler(found):
        raise _other(target, found, "an APScheduler 3 scheduler")
    _print_program(
        here,
        source.bring(found, SystemClock().now()),
        f"From the scheduler {target}. start_deadline is its misfire_grace_time, 1 s unless set: "
        "without it, what is late still runs.",
    )


@bring.command("crontab", example="crontab -l | jobmanager import crontab - > jobs.py", epilog=EPILOG)
@click.argument("file", metavar="FILE", help="A crontab, or - for standard input (crontab -l | ...).")
@click.option("--system", is_flag=True, help="A column names the user, as in /etc/crontab.")
@click.option("--timezone", "zone", metavar="ZONE", help="Of the machine it is from; by default this one's.")
@click.pass_obj
def crontab(here: Session, file: str, system: bool, zone: str | None) -> None:
    """Convert the lines of a crontab to jobs that run its commands.

    Nothing is executed.
    """
    from jobmanager.bridge import crontab as source
    from jobmanager.clock import SystemClock
    from jobmanager.schedule import Cron

    if zone is not None:
        Cron("* * * * *", zone)  # refuses what is no zone, once and not line by line
    _print_program(
        here,
        source.bring(_text(file), SystemClock().now(), zone=zone, system=system),
        f"From {'standard input' if file == '-' else file}. cron lets runs overlap and makes up for nothing that fell into a downtime: "
        "overlap and catch_up say the same.",
        source.RUN_COMMAND,
    )


# ---------------------------------------------------------------- finding it


def _text(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise UsageError(
            f"{file} cannot be read: {why}.", hint="Give a file, or - with `crontab -l |` in front."
        ) from error


def _named(module: ModuleType, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        near = [word for word in vars(module) if not word.startswith("_")]
        raise UsageError(
            f"{module.__name__}:{name} is nothing.",
            hint=f"{module.__name__} has: {', '.join(near) or 'nothing'}.",
        )
    return found


def _only(
    module: ModuleType, fits: Callable[[object], bool], what: str, dictionaries: Sequence[str] = ()
) -> Any:
    found = {name: value for name, value in vars(module).items() if fits(value)}
    if not found:
        found = {name: vars(module)[name] for name in dictionaries if name in vars(module)}
    if len(set(map(id, found.values()))) == 1:
        return next(iter(found.values()))
    if not found:
        raise UsageError(
            f"There is no {what} in {module.__name__}.",
            hint=f"Name the module that makes it, and the variable: {module.__name__}:name",
        )
    raise UsageError(
        f"{module.__name__} has {len(found)} of the kind {what}: {', '.join(found)}.",
        hint=f"Say which one: {module.__name__}:{next(iter(found))}",
    )


def _other(target: str, found: object, wanted: str) -> UsageError:
    return UsageError(
        f"{target} is an object of type {type(found).__name__}.", hint=f"Name {wanted}: MODULE:NAME."
    )


# ---------------------------------------------------------------- telling it


def _print_program(here: Session, found: Sequence[ImportedJob], about: str, helper: str = "") -> None:
    """Print the jobs as one program; exit 2 if there are none, 1 if an entry needs work by hand."""
    if not found:
        raise UsageError("There is nothing to bring over.", hint="Name what has entries, jobs or commands.")
    sources = [item.source for item in found if item.source]
    helper = helper if sources else ""
    imports = [line for use, line in IMPORTS.items() if any(use in text for text in (helper, *sources))]
    if here.as_json:
        here.emit(_record(found, imports, helper))
    else:
        for line, style in _program(found, imports, helper, about, min(here.console.width, WIDEST)):
            _print(here, line, style)
    if not all(item.unchanged for item in found):
        raise Exit(FAILED)


def _record(found: Sequence[ImportedJob], imports: Sequence[str], helper: str) -> dict[str, Any]:
    return {
        "unchanged": all(item.unchanged for item in found),
        "imports": imports,
        "helper": helper or None,
        "entries": [
            {
                "entry": item.entry,
                "job": item.job_id or None,
                "source": item.source or None,
                "unchanged": item.unchanged,
                "remarks": [{"mark": MARKS[r.mark][0], "text": r.text} for r in item.remarks],
            }
            for item in found
        ],
    }


def _program(
    found: Sequence[ImportedJob], imports: Sequence[str], helper: str, about: str, width: int
) -> Iterator[tuple[str, str]]:
    """Lines of Python, each with its style: source as it is, all else as comments."""
    yield from ((line, "dim") for line in _comment(about, "# ", "# ", width))
    yield from ((line, "") for line in ("", *imports))
    if helper:
        yield from ((line, "") for line in ("", "", *helper.split("\n"), ""))
    for item in found:
        yield "", ""
        yield from ((line, "bold") for line in _comment(item.entry, "# ", "# ", width))
        for remark in item.remarks:
            word, style = MARKS[remark.mark]
            yield from (
                (line, style) for line in _comment(remark.text, f"#   {word:8} ", "#" + " " * 12, width)
            )
        yield from ((line, "") for line in item.source.split("\n"))
    jobs = sum(bool(item.source) for item in found)
    unchanged = sum(item.unchanged for item in found)
    told = f"{unchanged} carried over unchanged, {len(found) - unchanged} to look at"
    yield "", ""
    yield f"# {count(jobs, 'job')} from {count(len(found), 'entry', 'entries')}: {told}.", "bold"


def _comment(text: str, first: str, rest: str, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        width - 1,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _print(here: Session, line: str, style: str) -> None:
    """Print a line that the terminal may fold, but that stays one line when it is copied."""
    if not here.console.is_terminal:
        here.print(line)
        return
    from rich.text import Text

    here.console.print(Text(line, style), soft_wrap=True)
