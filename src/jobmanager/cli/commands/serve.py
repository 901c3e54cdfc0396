"""`jobmanager run`: keep time and execute in the foreground, until a signal ends it."""

from __future__ import annotations

import logging
import os
import signal
import sys
from dataclasses import replace
from queue import SimpleQueue
from typing import TYPE_CHECKING

import click

from jobmanager.cli.output.failures import UsageError
from jobmanager.cli.session import Session
from jobmanager.cli.verbs import verb
from jobmanager.present.phrases import clock, count, distance, iso

if TYPE_CHECKING:
    from jobmanager.manager.manager import JobManager


@verb("run", example="jobmanager --app shop.jobs:jobs run")
@click.pass_obj
def run(here: Session) -> None:
    """Keep time and execute, in the foreground.

    Ends with Ctrl-C or SIGTERM; running handlers may then end, and a second signal ends the process at once.

    Logs go to standard error, unless the application has set up logging itself.
    """
    jobs = here.jobs
    warn_of_no_job(here, jobs)
    if not jobs.backend.capabilities.executes_in_process:
        raise UsageError(
            f"Backend {jobs.backend.name!r} neither keeps time nor executes in this process.",
            hint="Start `jobmanager beat` and `jobmanager worker`, or set JOBMANAGER_BACKEND=local.",
        )
    _log_to_stderr(here)
    told_to_end = _signals()
    jobs.start()
    try:
        _introduce(here, jobs)
        number = told_to_end.get()
        drain = f"what runs may end within {jobs.settings.drain_seconds:g} s; a second one leaves at once"
        here.aside.print(f"{signal.Signals(number).name}: {drain}", soft_wrap=True)
    finally:
        jobs.stop()
    if here.as_json:
        here.emit({"event": "stopped"}, line=True)
    else:
        here.print("Stopped.")


def warn_of_no_job(here: Session, jobs: JobManager) -> None:
    """Say so where the application declares no job: operators may make some, or a module was not imported."""
    if not jobs.registry.declared:
        here.aside.print(
            "note: the application declares no job; those that operators make are kept. If it should, import the modules that "
            "declare them before its JobManager is used.",
            soft_wrap=True,
        )


def _introduce(here: Session, jobs: JobManager) -> None:
    """Print the backend, the store, and a line per job with the next instant it is due."""
    declared, fires = jobs.registry.jobs, jobs.backend.capabilities.keeps_time
    statuses = [
        status if fires else replace(status, next_run=None)
        for status in jobs.get_all_job_statuses()
        if status.id in declared
    ]
    if here.as_json:
        known = [
            {"id": status.id, "status": status.status, "next_run": iso(status.next_run)}
            for status in statuses
        ]
        resolved = {"backend": jobs.resolution.backend, "reason": jobs.resolution.reason}
        here.emit({"event": "started", **resolved, "store": jobs.store.url, "jobs": known}, line=True)
        return
    from jobmanager.cli.output.lists import Column, dim, facts, listing
    from jobmanager.ledger.job_view import start_words

    now = jobs.store.now()
    here.print(
        facts(
            [
                ("backend", f"{jobs.resolution.backend}, because {jobs.resolution.reason}"),
                ("store", jobs.store.url),
                ("jobs", count(len(declared), "job")),
            ],
        ),
        "",
    )
    rows = []
    for status in statuses:
        job = declared[status.id]
        words = start_words(job.schedule, job.on)
        waits = distance(status.next_run, now) or ("stopped" if status.status == "stopped" else "")
        rows.append((status.id, words, clock(status.next_run, now), waits))
    columns = (
        Column("JOB", yields=True),
        Column("SCHEDULE", folds=True, yields=True),
        Column("NEXT", wide=70),
        Column("", right=True),
    )
    here.print(listing(here.console, columns, rows), "")
    if not fires:
        here.print(f"Nothing fires by itself: {jobs.resolution}.")
    here.print(dim("Ctrl-C ends it."))


def _signals() -> SimpleQueue[int]:
    """Put SIGINT, SIGTERM and SIGHUP into the queue from now on; the second one ends the process."""
    # A queue, unlike an Event, may be filled by a handler while this very thread waits on it.
    told: SimpleQueue[int] = SimpleQueue()
    before: list[int] = []

    def on_signal(number: int, _frame: object) -> None:
        if before:
            os._exit(128 + number)
        before.append(number)
        told.put(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, on_signal)
    return told


def _log_to_stderr(here: Session) -> None:
    """Log to standard error, unless the application has set up logging itself."""
    root = logging.getLogger()
    if root.handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine(coloured=here.aside.is_terminal and here.aside.color_system is not None))
    # What the manager says at start is what we introduce ourselves with.
    handler.addFilter(
        lambda record: record.name != "jobmanager.manager.manager" or record.levelno > logging.INFO
    )
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.getLogger("apscheduler").setLevel(logging.WARNING)


class _OneLine(logging.Formatter):
    """Formats records as `14:02:11 CET succeeded job=heartbeat run_id=...`; those above INFO name their level."""

    def __init__(self, *, coloured: bool) -> None:
        super().__init__(datefmt="%H:%M:%S %Z")
        self._coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.levelno > logging.INFO:
            text = f"{record.levelname} {text}"
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        moment = self.formatTime(record, self.datefmt)
        if not self._coloured:
            return f"{moment} {text}"
        colour = (
            "31" if record.levelno >= logging.ERROR else "33" if record.levelno >= logging.WARNING else "0"
        )
        return f"\x1b[2m{moment}\x1b[0m \x1b[{colour}m{text}\x1b[0m"
