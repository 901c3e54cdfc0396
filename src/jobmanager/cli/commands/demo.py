"""`jobmanager demo`: three real jobs on a temporary SQLite file, to watch."""

from __future__ import annotations

import logging
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import click

from jobmanager.cli.session import Session
from jobmanager.cli.verbs import verb
from jobmanager.clock import SystemClock
from jobmanager.present.phrases import clock, count, distance, length, tail
from jobmanager.present.records import run_record

if TYPE_CHECKING:
    from rich.console import Group

    from jobmanager.manager.manager import JobManager
    from jobmanager.run import Run

SECONDS_WITHOUT_TERMINAL = 15.0
LOOK_EVERY_SECONDS = 0.25
NEWEST = 6


@verb("demo", example="jobmanager demo --seconds 20")
@click.option(
    "--seconds",
    metavar="N",
    type=click.FloatRange(min=0),
    help="End by itself after so long; without a terminal 15.",
)
@click.pass_obj
def demo(here: Session, seconds: float | None) -> None:
    """Run three sample jobs and watch them.

    They run in a temporary folder until Ctrl-C.
    """
    watched = here.console.is_terminal and not here.as_json
    if seconds is None and not watched:
        seconds = SECONDS_WITHOUT_TERMINAL
    logging.getLogger("jobmanager").addHandler(logging.NullHandler())
    logging.getLogger("jobmanager").propagate = False
    with tempfile.TemporaryDirectory(prefix="jobmanager-demo-") as folder, _signals() as told_to_end:
        manager = _manager(Path(folder))
        told: set[str] = set()
        with manager:
            until = None if seconds is None else SystemClock().monotonic() + seconds
            if watched:
                _watch(here, manager, told_to_end, until)
            else:
                _report(here, manager, told_to_end, until, told)
        if not watched:
            _print_new(here, manager, told)
        _sum_up(here, manager)
        manager.store.close()


def _manager(folder: Path) -> JobManager:
    from jobmanager.cli.demo_jobs import declare
    from jobmanager.manager.manager import JobManager
    from jobmanager.settings import Settings

    manager = JobManager(
        Settings(backend="local", database_url=f"sqlite:///{folder / 'demo.db'}", drain_seconds=5)
    )
    declare(manager)
    return manager


@contextmanager
def _signals() -> Iterator[SimpleQueue[int]]:
    """Put Ctrl-C and SIGTERM into the queue while the context is open."""
    told: SimpleQueue[int] = SimpleQueue()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda number, _frame: told.put(number)) for number in numbers}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ended(told: SimpleQueue[int], until: float | None) -> bool:
    """Wait a moment; return True as soon as the end has come."""
    try:
        told.get(timeout=LOOK_EVERY_SECONDS)
    except Empty:
        return until is not None and SystemClock().monotonic() >= until
    return True


def _watch(here: Session, manager: JobManager, told: SimpleQueue[int], until: float | None) -> None:
    from rich.live import Live

    with Live(console=here.console, auto_refresh=False) as live:
        while not _ended(told, until):
            live.update(_screen(here, manager), refresh=True)


def _screen(here: Session, manager: JobManager) -> Group:
    """Return the three jobs and the newest runs as a table."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    from jobmanager.cli.commands.runs import said
    from jobmanager.cli.output.lists import Column, dim, heading, listing, status

    now = manager.store.now()
    runs = manager.runs(limit=200)
    rows = []
    for state in manager.get_all_job_statuses():
        last = next((run for run in runs if run.job_id == state.id), None)
        progress = last.progress if last and not last.status.closed else None
        bar = ProgressBar(progress.total or 100, progress.processed, width=20) if progress else Text("")
        schedule = manager.registry.jobs[state.id].schedule
        words = schedule.describe() if schedule else ""
        rows.append(
            (state.id, words, distance(state.next_run, now), status(last.status.value) if last else "", bar)
        )
    columns = (
        Column("JOB"),
        Column("SCHEDULE", wide=70),
        Column("NEXT", right=True),
        Column("NOW"),
        Column("", wide=66),
    )
    newest = [
        (
            tail(run.id),
            clock(run.opened_at, now),
            run.job_id,
            status(run.status.value),
            length(run.duration),
            said(run, now),
        )
        for run in runs[:NEWEST]
    ]
    run_columns = (
        Column("RUN"),
        Column("AT", wide=64),
        Column("JOB"),
        Column("STATUS"),
        Column("TOOK", right=True),
        Column("SAID", wide=70, yields=True),
    )
    return Group(
        heading("Three jobs, for real: SQLite, retries, progress, log. Ctrl-C ends them."),
        "",
        listing(here.console, columns, rows),
        "",
        listing(here.console, run_columns, newest),
        "",
        dim("The same of your own application: jobmanager --app module:name run"),
    )


def _report(
    here: Session, manager: JobManager, told: SimpleQueue[int], until: float | None, seen: set[str]
) -> None:
    while not _ended(told, until):
        _print_new(here, manager, seen)


def _print_new(here: Session, manager: JobManager, seen: set[str]) -> None:
    """Print a line for each run that ended since the last call."""
    for run in reversed(manager.runs(limit=200)):
        if run.status.closed and run.id not in seen:
            seen.add(run.id)
            if here.as_json:
                here.emit(run_record(run), line=True)
            else:
                here.print(_line(run))


def _line(run: Run) -> str:
    from jobmanager.cli.commands.runs import said

    moment = (run.finished_at or run.opened_at).astimezone()
    return f"{moment:%H:%M:%S %Z}  {tail(run.id)}  {run.job_id:<14} {run.status.value:<10} {length(run.duration):>7}  {said(run).plain}".rstrip()


def _sum_up(here: Session, manager: JobManager) -> None:
    runs = manager.runs(limit=10_000)
    if here.as_json:
        return
    statuses = Counter(
        "cut by the end" if run.error and run.error.kind == "shutdown" else run.status.value for run in runs
    )
    retried = sum(run.attempt > 1 for run in runs)
    took = sum((run.duration or timedelta(0) for run in runs), timedelta(0))
    told = ", ".join(f"{number} {status}" for status, number in statuses.most_common())
    here.print(
        "",
        f"{count(len(runs), 'run')}: {told or 'none'}; {retried} tried again, {length(took) or '0 s'} of work. Every tick has its row.",
    )
