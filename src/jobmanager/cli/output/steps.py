"""The steps and the children of a run, as `runs show` prints them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.text import Text

from jobmanager.cli.output.lists import Column, dim, heading, listing, status
from jobmanager.explain.resting import resting, waited_for
from jobmanager.present.phrases import clock, compact, continued, length, tail
from jobmanager.present.runs import what_happened
from jobmanager.present.steps import MOST_COUNTED, Branch, name_of, took, tree, waited
from jobmanager.validation.printable import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from jobmanager.manager.manager import JobManager
    from jobmanager.run import Run
    from jobmanager.step import Step

COLUMNS = (
    Column("STEP", yields=True),
    Column("KIND", wide=84),
    Column("STATUS"),
    Column("TRIES", wide=72, right=True),
    Column("TOOK", wide=60, right=True),
    Column("WAITED", wide=60, right=True),
    Column("WHAT", wide=66, yields=True),
)
COLOURS = {"retrying": "yellow", "waiting": "blue"}


def rest(run: Run, steps: Sequence[Step], children: Sequence[Run], now: datetime) -> list[RenderableType]:
    """Return a line that says what the run waits for in its steps, and what to do; nothing if it does not."""
    decision = resting(run, steps, children, now=now, told=lambda at: clock(at, now))
    if decision is None:
        return []
    advice = [Text.assemble(("do: ", "bold"), continued(decision.advice))] if decision.advice else []
    return [Text(continued(decision.because), "blue"), *advice]


def steps_parts(console: Console, steps: Sequence[Step], now: datetime) -> list[RenderableType]:
    """Return the section of the steps; nothing for a run without."""
    if not steps:
        return []
    rows = [
        (
            name_of(step),
            step.kind,
            Text(step.status, COLOURS[step.status]) if step.status in COLOURS else status(step.status),
            str(step.attempt),
            length(took(step)),
            length(waited(step, now)),
            _what(step, now),
        )
        for step in steps
    ]
    return ["", heading("Steps"), listing(console, COLUMNS, rows)]


def _what(step: Step, now: datetime) -> str:
    if waiting := waited_for(step, lambda at: clock(at, now)):
        return waiting
    if step.error is not None:
        return f"{step.error.type or step.error.kind}: {step.error.message}"
    return compact(step.output)


def family_parts(manager: JobManager, run: Run, now: datetime) -> list[RenderableType]:
    """Return the section of the runs that this one has started, and theirs; nothing for a run without."""
    branch = tree(run, lambda run_id: manager.children(run_id, limit=MOST_COUNTED))
    if not branch.children:
        return []
    return ["", heading("Children"), branch.counts, *_lines(branch, now, "")]


def _lines(branch: Branch, now: datetime, indent: str) -> Iterator[RenderableType]:
    for place, child in enumerate(branch.children, start=1):
        is_last = place == len(branch.children) and not branch.left_out
        yield _line(child, now, f"{indent}{'└' if is_last else '├'} ")
        yield from _lines(child, now, f"{indent}{' ' if is_last else '│'} ")
    if branch.left_out:
        yield dim(f"{indent}└ and {branch.left_out:,} more")


def _line(child: Branch, now: datetime, indent: str) -> Text:
    run = child.run
    said = printable(what_happened(run, now, lambda at: clock(at, now)))
    line = Text.assemble(
        (indent, "dim"), tail(run.id), "  ", printable(run.job_id), "  ", status(run.status.value),
        (f"  {child.counts}" if child.counts else "", "dim"), f"  {said}" if said else "",
    )  # fmt: skip
    line.no_wrap, line.overflow = True, "ellipsis"
    return line
