"""`jobmanager explain` and `simulate`: why a job did, will or will not run, and what would fire between two moments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from jobmanager.cli.arguments import moment
from jobmanager.cli.output.failures import UsageError
from jobmanager.cli.session import Session
from jobmanager.cli.verbs import verb
from jobmanager.errors import PayloadError
from jobmanager.present.account import explanation_record
from jobmanager.present.phrases import both, clock, continued, distance, iso, tail, utc

if TYPE_CHECKING:
    from rich.console import RenderableType

    from jobmanager.explain import Explanation
    from jobmanager.ledger.queries import Planned
    from jobmanager.manager.manager import JobManager

SLICE, SHORTEST = timedelta(days=1), timedelta(seconds=1)
OFTEN = 24
MOST_COUNTED = 200_000
LONGEST = timedelta(days=3_660)


@verb("explain", example="jobmanager explain nightly-report --at 02:00")
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
        here.emit({"job": job, "explanations": [explanation_record(item) for item in found]})
        return
    for number, item in enumerate(found):
        here.print(*([""] if number else []), *_portrait(item, now))


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


@verb("simulate", example="jobmanager simulate --from tomorrow --to +7d --job nightly-report")
@click.option("--from", "start", default="now", metavar="MOMENT", help="After this moment.")
@click.option("--to", "end", default="+1d", metavar="MOMENT", help="Up to this moment.")
@click.option("--job", metavar="JOB", help="Only this job.")
@click.option(
    "--limit",
    "-n",
    metavar="N",
    type=click.IntRange(min=1, max=1_000_000),
    default=1000,
    help="At most so many.",
)
@click.pass_obj
def simulate(here: Session, start: str, end: str, job: str | None, limit: int) -> None:
    """List what would fire between two moments.

    Nothing fires and nothing is written.
    """
    now = here.jobs.store.now()
    if job is not None:
        here.jobs.get_job(job)
    first = moment(start, now)
    last = moment(end, first if end.strip()[:1] in "+-" else now)
    if not first < last <= first + LONGEST:
        raise UsageError(
            f"From {utc(first)} to {utc(last)} is no stretch of time.",
            hint="--to must be later, within ten years.",
        )
    each = here.as_json or job is not None
    most = limit if each else MOST_COUNTED
    found = list(islice(_planned(here.jobs, first, last, job), most + 1))
    cut, found = len(found) > most, found[:most]
    rows = [(item, item.why) for item in found] if each else _summed_up(found, here.jobs.store.now())
    if here.as_json:
        here.emit([_planned_record(item) for item in found])
    else:
        from jobmanager.cli.output.lists import dim

        _show(here, rows[:limit])
        fires = sum(item.fires for item in found)
        until = both(found[-1].scheduled_for if cut else last)
        told = f"{fires:,} fires, {len(found) - fires:,} that do not, after {both(first)} up to {until}."
        here.print(dim(told))
    if (cut and each) or len(rows) > limit:
        here.aside.print(f"More than {limit:,}; --limit shows more.", soft_wrap=True)
    elif cut:
        here.aside.print(f"More than {most:,}; choose an earlier --to, or one --job.", soft_wrap=True)


def _planned(manager: JobManager, first: datetime, last: datetime, job: str | None) -> Iterator[Planned]:
    """Yield the instants slice by slice, so that a year of seconds is not held at once."""
    length = SLICE
    while first < last:
        upto = min(first + length, last)
        try:
            planned = manager.simulate(first, upto)
        except PayloadError:  # many jobs fire often: more than one call returns
            if length <= SHORTEST:
                raise
            length /= 2
            continue
        yield from (item for item in planned if job in (None, item.job_id))
        first = upto


def _planned_record(item: Planned) -> dict[str, Any]:
    return {
        "job": item.job_id,
        "scheduled_for": iso(item.scheduled_for),
        "fires": item.fires,
        "why": item.why,
    }


def _summed_up(found: list[Planned], now: datetime) -> list[tuple[Planned, str]]:
    """Return each instant with its reason; those of a job that fires often as the first of them, with their number."""
    number = Counter(item.job_id for item in found)
    last_of = {item.job_id: item.scheduled_for for item in found}
    rows: dict[tuple[str, datetime | None], tuple[Planned, str]] = {}
    for item in found:
        often = number[item.job_id]
        if often <= OFTEN:
            rows[item.job_id, item.scheduled_for] = (item, item.why)
        else:
            told = f"{item.why}: {often:,} times, the last at {clock(last_of[item.job_id], now)}; --job shows each"
            rows.setdefault((item.job_id, None), (item, told))
    return list(rows.values())


def _show(here: Session, rows: list[tuple[Planned, str]]) -> None:
    from jobmanager.cli.output.lists import Column, listing

    now = here.jobs.store.now()
    columns = (
        Column("UTC", wide=80),
        Column("HERE"),
        Column("JOB", yields=True),
        Column("FIRES"),
        Column("WHY", wide=66, folds=True, yields=True),
    )
    shown = [
        (
            utc(item.scheduled_for)[:-4],
            clock(item.scheduled_for, now),
            item.job_id,
            "yes" if item.fires else "no",
            why,
        )
        for item, why in rows
    ]
    if shown:
        here.print(listing(here.console, columns, shown), "")
