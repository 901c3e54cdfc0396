"""`jobmanager jobs`: list, show, pause and resume jobs."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from jobmanager.cli.commands import stored
from jobmanager.cli.output.failures import UsageError
from jobmanager.cli.session import Session
from jobmanager.cli.verbs import Verbs
from jobmanager.present.jobs import (
    FIRES,
    RUNS,
    fire_record,
    fires,
    handler_name,
    in_zone,
    job_record,
    parameters,
    policies_in_words,
    shown_config,
    whole_job_record,
)
from jobmanager.present.phrases import both, clock, compact, count, distance, length, utc
from jobmanager.validation.printable import printable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from jobmanager.ledger.job_view import JobView
    from jobmanager.manager.manager import JobManager

jobs = Verbs(
    "jobs", help="The jobs: list, show, next, pause, resume; create, edit, delete.", default=["list"]
)
JOB_ID = click.argument("job", metavar="JOB", help="Its id.")


# ---------------------------------------------------------------- list


@jobs.command("list", example="jobmanager jobs list")
@click.pass_obj
def list_jobs(here: Session) -> None:
    """List every job: schedule, next run, outcome of the last one."""
    found = here.jobs.list_jobs()
    if here.as_json:
        here.emit([job_record(view) for view in found])
        return
    from jobmanager.cli.output.lists import Column, dim, listing

    now = here.jobs.store.now()
    columns = (
        Column("JOB", yields=True),
        Column("SCHEDULE", wide=76, folds=True, yields=True),
        Column("NEXT", wide=110),
        Column("DUE", right=True),
        Column("LAST RUN"),
        Column("TOOK", wide=90, right=True),
        Column("STATE"),
    )
    here.print(listing(here.console, columns, [_row(view, now) for view in found]))
    if not found:
        here.print("No job is declared.")
    here.print("", *(dim(line) for line in _remarks(here.jobs, found)))


def _row(view: JobView, now: datetime) -> tuple[str | Text, ...]:
    from rich.text import Text

    from jobmanager.cli.output.lists import STYLES, status

    ended = view.last is not None and view.last.status.closed
    when = view.last and (view.last.finished_at if ended else view.last.started_at or view.last.opened_at)
    last = status(view.last.status.value) if view.last else Text("never", "dim")
    return (
        view.id,
        view.words,
        "ended" if view.ended else clock(view.next_run, now),
        distance(view.next_run, now) or "-",
        last.append(f" {distance(when, now)}", "dim") if when else last,
        length(view.last.duration) if view.last else "",
        Text(view.state, STYLES.get(view.state, "") if view.state != "active" else "dim"),
    )


def _remarks(manager: JobManager, found: list[JobView]) -> list[str]:
    """Return the remarks below the list: how many jobs and processes there are, and whether ticks come at all."""
    from jobmanager.process.heartbeat import living

    alive = living(manager.store, manager.settings)
    told = f"{count(len(found), 'job')} in {manager.store.url}; {count(len(alive), 'process', 'processes')} living."
    remarks = [told]
    if not alive and any(view.schedule for view in found):
        remarks.append(_who_could(manager))
    return remarks


def _who_could(manager: JobManager) -> str:
    from jobmanager.explain import start_one

    if manager.backend.capabilities.keeps_time:
        return f"No living process keeps the time now. {start_one(manager)}"
    chosen = manager.resolution
    return f"Nothing fires by itself: backend {chosen.backend}, because {chosen.reason}."


# ---------------------------------------------------------------- show


@jobs.command("show", example="jobmanager jobs show nightly-report")
@JOB_ID
@click.pass_obj
def show(here: Session, job: str) -> None:
    """Show everything about one job: schedule, next fires, policies, config, last runs."""
    view = here.jobs.get_job(job)
    if here.as_json:
        here.emit(whole_job_record(here.jobs, view))
        return
    coming = fires(view, here.jobs.store.now(), FIRES)
    runs = here.jobs.runs(job, limit=RUNS)
    from rich.text import Text

    from jobmanager.cli.commands.runs import runs_table
    from jobmanager.cli.output.lists import facts, heading, status

    state = status(view.state, sign=False)
    if view.row and view.state != "active":
        since = f" since {both(view.row.state_at)}" if view.row.state_at else ""
        state.append(
            f"{since}{f' by {view.row.state_by}' if view.row.state_by else ''}{f': {view.why}' if view.why else ''}",
            "default",
        )
    here.print(
        Text.assemble((view.id, "bold"), ("" if view.name == view.id else f"  {printable(view.name)}")),
        facts(
            [
                (
                    "schedule",
                    f"{view.words}  [{view.schedule.text}]"
                    if view.schedule
                    else view.words
                    if view.on
                    else "none: by hand only",
                ),
                ("state", state),
                ("handler", handler_name(here.jobs, view)),
                ("takes", parameters(here.jobs, view)),
                ("config", compact(shown_config(here.jobs, view) or None)),
                *((name.replace("_", " "), told) for name, told in policies_in_words(view)),
                ("override", _override(view)),
                ("known", "" if view.row else "no process has started with it yet"),
                ("declared", _source(view)),
            ],
        ),
    )
    if coming:
        here.print("", heading("Next"), _fires_table(here, view, coming))
    here.print("", heading("Last runs"))
    here.print(runs_table(here, runs, of_one_job=True) if runs else "none on record")


def _source(view: JobView) -> str:
    """Return where the job comes from; '' for the code of this application."""
    if view.row is not None and view.row.definition is not None:
        return f"by an operator, revision {view.row.definition_rev}: `jobmanager jobs history {view.id}`"
    return "" if view.job else "not by this application"


def _override(view: JobView) -> str:
    """Return what is overridden, who did that last, and when; '' for a job that never was."""
    row = view.row
    if row is None or row.override_at is None:
        return ""
    words = ", ".join(sorted(row.override or {}))
    by = f" by {printable(row.override_by)}" if row.override_by else ""
    return f"{words or 'removed'}{by}, {both(row.override_at)}"


# ---------------------------------------------------------------- next


@jobs.command("next", example="jobmanager jobs next nightly-report --number 10")
@click.argument("job", required=False, metavar="[JOB]", help="Its id; without it, all jobs.")
@click.option(
    "-n", "--number", metavar="N", type=click.IntRange(min=1, max=1000), default=5, help="How many."
)
@click.pass_obj
def next_fires(here: Session, job: str | None, number: int) -> None:
    """List the next instants at which a job, or any job, is due."""
    now = here.jobs.store.now()
    found = [here.jobs.get_job(job)] if job else here.jobs.list_jobs()
    planned = sorted(
        ((fire, view) for view in found for fire in fires(view, now, number)),
        key=lambda item: (item[0], item[1].id),
    )[:number]
    if here.as_json:
        here.emit([{"job": view.id, **fire_record(view, fire)} for fire, view in planned])
    elif not planned:
        state = (
            f"It is {found[0].state}." if job and found[0].state != "active" else "Nothing has a schedule."
        )
        here.print(f"Nothing is due. {state}")
    else:
        from jobmanager.cli.output.lists import Column, listing

        if job:
            here.print(_fires_table(here, planned[0][1], [fire for fire, _ in planned]))
            return
        columns = (
            Column("JOB", yields=True),
            Column("DUE", right=True),
            Column("HERE"),
            Column("UTC", wide=80),
        )
        rows = [(view.id, distance(fire, now), clock(fire, now), utc(fire)) for fire, view in planned]
        here.print(listing(here.console, columns, rows))


def _fires_table(here: Session, view: JobView, coming: list[datetime]) -> RenderableType:
    from jobmanager.cli.output.lists import Column, listing

    now = here.jobs.store.now()
    zone, _ = in_zone(view, coming[0])
    zoned = zone != "UTC"
    columns = [
        Column("DUE", right=True),
        *([Column(zone)] if zoned else []),
        Column("UTC"),
    ]
    rows = []
    for fire in coming:
        local = in_zone(view, fire)[1]
        rows.append(
            [
                distance(fire, now),
                *([f"{local:%a} {local.day:2} {local:%b %H:%M:%S %Z}"] if zoned else []),
                utc(fire)[:-4],
            ]
        )
    return listing(here.console, columns, rows)


# ---------------------------------------------------------------- pause and resume


ALL = click.option("--all", "every", is_flag=True, help="Every job of the application.")
ONE_JOB = click.argument("job", required=False, metavar="[JOB]", help="Its id.")


@jobs.command("pause", example="jobmanager jobs pause nightly-report --reason 'the warehouse moves'")
@ONE_JOB
@ALL
@click.option("--reason", help="Why; shown where the job is listed as paused.")
@click.pass_obj
def pause(here: Session, job: str | None, every: bool, reason: str | None) -> None:
    """Stop a job from firing until it is resumed; its ticks are recorded as skipped (paused)."""
    for view in _chosen(here, job, every=every):
        if view.state == "active" or not every:
            here.jobs.stop_job(view.id, reason=reason, by=here.user)
    _print_states(here, job, "Running runs go on. `jobmanager jobs resume` ends the pause.")


@jobs.command("resume", example="jobmanager jobs resume --all")
@ONE_JOB
@ALL
@click.pass_obj
def resume(here: Session, job: str | None, every: bool) -> None:
    """Let a paused job fire again, from its next instant on; instants of the pause are not caught up."""
    for view in _chosen(here, job, every=every):
        if view.state == "paused" or not every:
            here.jobs.resume_job(view.id, by=here.user)
    _print_states(here, job, "")


def _chosen(here: Session, job: str | None, *, every: bool) -> list[JobView]:
    if (job is None) == (not every):
        raise UsageError("Name one job, or give --all.", hint="`jobmanager jobs list` shows the ids.")
    return [here.jobs.get_job(job)] if job else here.jobs.list_jobs()


def _print_states(here: Session, job: str | None, remark: str) -> None:
    """Print the state of the jobs after the change."""
    found = [here.jobs.get_job(job)] if job else here.jobs.list_jobs()
    if here.as_json:
        records = [job_record(view) for view in found]
        here.emit(records[0] if job else records)
        return
    from jobmanager.cli.output.lists import dim, status

    now = here.jobs.store.now()
    for view in found:
        line = status(view.state, sign=False).append(f" {view.id}", "bold")
        if view.state == "paused" and view.row and view.row.state_at:
            line.append(
                printable(
                    f" since {clock(view.row.state_at, now)} by {view.row.state_by or 'an unnamed user'}"
                ),
                "default",
            )
            line.append(printable(f": {view.why}") if view.why != "no reason given" else "", "default")
        elif view.next_run:
            line.append(f", next {distance(view.next_run, now)}: {both(view.next_run)}", "default")
        elif view.ended:
            line.append(", its schedule has ended", "default")
        here.print(line)
    if remark:
        here.print(dim(remark))


for _verb in stored.VERBS:
    jobs.add_command(_verb)
