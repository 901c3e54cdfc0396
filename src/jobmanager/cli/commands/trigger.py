"""`jobmanager trigger` and `redrive`: start a run by hand, or once more, and watch it if wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.exceptions import Exit

from jobmanager.cli.arguments import duration
from jobmanager.cli.arguments import payload as read_payload
from jobmanager.cli.commands.runs import RUN_ID, find
from jobmanager.cli.output.failures import FAILED
from jobmanager.cli.session import Session
from jobmanager.cli.verbs import verb
from jobmanager.present.phrases import both, compact, distance, length, tail
from jobmanager.present.records import run_record
from jobmanager.validation.printable import printable

if TYPE_CHECKING:
    from jobmanager.manager.manager import JobManager
    from jobmanager.run import Run

WAIT = click.option(
    "--wait", "-w", is_flag=True, help="Watch it to its end; executed here if no living process does it."
)
TIMEOUT = click.option("--timeout", metavar="LENGTH", help="Wait at most so long, like 30s or 5m.")


@verb("trigger", example="jobmanager trigger nightly-report --payload '{\"days\": 7}' --wait")
@click.argument("job", metavar="JOB", help="Its id.")
@click.option(
    "--payload", "-p", metavar="JSON", help="Arguments: a JSON object, @file, or - for standard input."
)
@WAIT
@TIMEOUT
@click.option("--key", help="Idempotency key: the same key again returns the same run.")
@click.option("--delay", metavar="LENGTH", help="Start it so much later.")
@click.option(
    "--priority", metavar="N", type=int, help="The higher one is taken first, among runs that wait."
)
@click.option(
    "--max-attempts", metavar="N", type=int, help="How many attempts this run has, in place of the job's."
)
@click.option("--scope", help="Tenant part of the concurrency key.")
@click.pass_obj
def trigger(
    here: Session,
    job: str,
    payload: str | None,
    wait: bool,
    timeout: str | None,
    key: str | None,
    delay: str | None,
    priority: int | None,
    max_attempts: int | None,
    scope: str | None,
) -> None:
    """Start a run by hand.

    A living process takes it within seconds; with --wait, if none lives, it is executed here.

    Exit 1 if it was waited for and did not succeed, 3 if an active run is in the way.
    """
    limit = None if timeout is None else duration(timeout)
    later = None if delay is None else duration(delay)
    run = here.jobs.trigger_job(
        job,
        read_payload(payload),
        delay=later,
        priority=priority,
        max_attempts=max_attempts,
        key=key,
        scope=scope,
        requested_by=here.user,
    )
    _start_if_not_stopped(here, here.jobs, run, wait=wait or limit is not None, limit=limit)


@verb("redrive", example="jobmanager redrive 8f0c2b1a --wait")
@RUN_ID
@click.option("--from-start", is_flag=True, help="Forget what its steps have done, and do all of them again.")
@WAIT
@TIMEOUT
@click.pass_obj
def redrive(here: Session, run: str, *, from_start: bool, wait: bool, timeout: str | None) -> None:
    """Open an ended run again.

    Failed, cancelled, skipped and missed runs can be redriven; the old outcome stays among the attempts.
    """
    limit = None if timeout is None else duration(timeout)
    watch = wait or limit is not None
    manager = here.jobs if watch else here.ledger  # executing it here takes the application's handlers
    again = manager.redrive(find(manager, run).id, from_start=from_start)
    _start_if_not_stopped(here, manager, again, wait=watch, limit=limit)


def _start_if_not_stopped(here: Session, manager: JobManager, run: Run, *, wait: bool, limit: object) -> None:
    from datetime import timedelta

    if wait and not run.status.closed:
        from jobmanager.cli.output.waiting import watch

        run = watch(here, manager, run, limit if isinstance(limit, timedelta) else None)
    if here.as_json:
        here.emit(run_record(run))
    else:
        _show(here, manager, run)
    if run.status.closed and run.status.value != "succeeded":
        raise Exit(FAILED)


def _show(here: Session, manager: JobManager, run: Run) -> None:
    from jobmanager.cli.output.lists import dim, status

    line = status(run.status.value).append(f" {tail(run.id)}", "bold").append(f" {run.job_id}", "default")
    if not run.status.closed:
        here.print(line, dim(_what_follows(manager, run)))
        return
    if run.duration is not None:
        line.append(f" in {length(run.duration)}", "default")
    if run.error is not None:
        line.append(printable(f": {run.error.type or run.error.kind}: {run.error.message}"), "red")
    elif run.output is not None:
        line.append(f"  {compact(run.output)}", "default")
    elif run.reason:
        line.append(printable(f" ({run.reason})"), "default")
    here.print(line)
    if run.error is not None:
        here.print(dim(f"`jobmanager runs show {tail(run.id)}` has the traceback and the log."))


def _what_follows(manager: JobManager, run: Run) -> str:
    now = manager.store.now()
    if run.due_at > now:
        return f"It is due {distance(run.due_at, now)}: {both(run.due_at)}."
    executors = manager.executors(run.job_id)
    if executors:
        return f"{executors[0].host} pid {executors[0].pid} takes it within seconds. `jobmanager logs {tail(run.id)} -f` follows it."
    return "No living process executes this job; it waits until one starts. With --wait it would run here."
