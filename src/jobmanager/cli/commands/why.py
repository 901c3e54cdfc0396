"""`jobmanager explain` and `simulate`: why a job did, will or will not run, and what would fire between two moments."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from jobmanager.cli.arguments import moment
from jobmanager.cli.output.failures import UsageError
from jobmanager.cli.output.phrases import both, clock, continued, distance, iso, tail, utc
from jobmanager.cli.output.records import run_record
from jobmanager.cli.session import Session
from jobmanager.cli.verbs import verb

if TYPE_CHECKING:
    from rich.console import RenderableType

    from jobmanager.explain import Explanation
    from jobmanager.ledger.queries import Planned
    from jobmanager.manager.manager import JobManager

SLICE = timedelta(days=1)
LONGEST = timedelta(days=3_660)


@verb("explain")
@click.argument("job", metavar="JOB", help="Its id.")
@click.option("--at", metavar="MOMENT", help="The instant in question, like 02:00 or 2026-11-23T02:00.")
@click.pass_obj
def explain(here: Session, job: str, at: str | None) -> None:
    """Explain why a job did, will, or will not run.

    At the instant of --at; without it, at the last instant that was due and at the next one.
    """
    from jobmanager.explain import explain as explain_one
    from jobmanager.explain import explain_now

    now = here.jobs.store.now()
    if at is None:
        found = explain_now(here.jobs, job, told=both)
    else:
        found = [explain_one(here.jobs, job, moment(at, now), told=both)]
    if here.as_json:
        here.emit({"job": job, "explanations": [_record(item) for item in found]})
        return
    for number, item in enumerate(found):
        here.print(*([""] if number else []), *_portrait(item, now))


def _record(item: Explanation) -> dict[str, Any]:
    return {
        "at": iso(item.at),
        "verdict": item.verdict,
        "cause": item.cause,
        "because": item.because,
        "advice": item.advice,
        "before": iso(item.before),
        "after": iso(item.after),
        "run": run_record(item.run) if item.run else None,
    }


_VERDICTS = {
    "ran": ("ran", "green"),
    "running": ("is running", "cyan"),
    "pending": ("is due", "blue"),
    "did_not_run": ("did not run", "red"),
    "will_run": ("will run", "green"),
    "will_not_run": ("will not run", "red"),
}


def _portrait(item: Explanation, now: datetime) -> Iterator[RenderableType]:
    from rich.text import Text

    from jobmanager.cli.output.lists import facts

    word, colour = _VERDICTS[item.verdict]
    if item.cause == "failed":
        word, colour = "ran and failed", "red"
    when = "" if item.cause == "no_schedule" else f" {both(item.at)}, {distance(item.at, now)}"
    yield Text.assemble((item.job_id, "bold"), " ", (word, f"bold {colour}"), when)
    yield Text(continued(item.because))
    if item.advice:
        yield Text.assemble(("do: ", "bold"), continued(item.advice))
    yield facts(
        [
            ("cause", item.cause),
            ("run", f"{tail(item.run.id)}, {item.run.status.value}" if item.run else ""),
            ("instant before", both(item.before) if item.before else ""),
            ("instant after", both(item.after) if item.after else ""),
        ],
    )


# ---------------------------------------------------------------- simulate


@verb("simulate")
@click.option("--from", "start", default="now", metavar="MOMENT", help="After this moment.")
@click.option("--to", "end", default="+1d", metavar="MOMENT", help="Up to this moment.")
@click.option("--job", metavar="JOB", help="Only this job.")
@click.option(
    "--limit", "-n", type=click.IntRange(min=1, max=1_000_000), default=1000, help="At most so many."
)
@click.pass_obj
def simulate(here: Session, start: str, end: str, job: str | None, limit: int) -> None:
    """List what would fire between two moments.

    Nothing fires and nothing is written.
    """
    now = here.jobs.store.now()
    if job is not None:
        from jobmanager.cli.output.views import views

        views(here.jobs, job)
    first = moment(start, now)
    last = moment(end, first if end.strip()[:1] in "+-" else now)
    if not first < last <= first + LONGEST:
        raise UsageError(
            f"From {utc(first)} to {utc(last)} is no stretch of time.",
            hint="--to must be later, within ten years.",
        )
    found = list(islice(_planned(here.jobs, first, last, job), limit + 1))
    cut, found = len(found) > limit, found[:limit]
    if here.as_json:
        here.emit([_planned_record(item) for item in found])
    else:
        _show(here, found, first, last)
    if cut:
        here.aside.print(f"More than {limit:,}; --limit shows more.", soft_wrap=True)


def _planned(manager: JobManager, first: datetime, last: datetime, job: str | None) -> Iterator[Planned]:
    """Yield the instants slice by slice, so that a year of seconds is not held at once."""
    while first < last:
        upto = min(first + SLICE, last)
        yield from (item for item in manager.simulate(first, upto) if job in (None, item.job_id))
        first = upto


def _planned_record(item: Planned) -> dict[str, Any]:
    return {
        "job": item.job_id,
        "scheduled_for": iso(item.scheduled_for),
        "fires": item.fires,
        "why": item.why,
    }


def _show(here: Session, found: list[Planned], first: datetime, last: datetime) -> None:
    from jobmanager.cli.output.lists import Column, dim, listing

    now = here.jobs.store.now()
    columns = (
        Column("UTC", wide=80),
        Column("HERE"),
        Column("JOB", yields=True),
        Column("FIRES"),
        Column("WHY", wide=66, folds=True, yields=True),
    )
    rows = [
        (
            utc(item.scheduled_for)[:-4],
            clock(item.scheduled_for, now),
            item.job_id,
            "yes" if item.fires else "no",
            item.why,
        )
        for item in found
    ]
    fires = sum(item.fires for item in found)
    if rows:
        here.print(listing(here.console, columns, rows), "")
    here.print(
        dim(f"{fires:,} fires, {len(found) - fires:,} that do not, after {both(first)} up to {both(last)}.")
    )
