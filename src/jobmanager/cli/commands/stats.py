"""`jobmanager stats`: what runs came to over a period."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from jobmanager.cli.session import Session
from jobmanager.cli.verbs import verb
from jobmanager.present.account import statistics_record
from jobmanager.present.phrases import distance, length

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jobmanager.ledger.statistics import Lengths, Period, Statistics

PERIODS = ("1h", "24h", "7d", "30d")
WORDS = {"1h": "last hour", "24h": "last 24 hours", "7d": "last 7 days", "30d": "last 30 days"}
STATUSES = ("succeeded", "failed", "cancelled", "skipped", "missed")
SHORTEST = timedelta(milliseconds=10)  # the counts by the hour tell shorter lengths not apart
WIDEST = 30  # characters of the longest bar


@verb("stats", example="jobmanager stats nightly-export --period 7d")
@click.argument("job", required=False, metavar="[JOB]", help="Its id; all jobs by default.")
@click.option("--period", type=click.Choice(PERIODS), default="24h", help="Up to now.")
@click.pass_obj
def stats(here: Session, job: str | None, period: Period) -> None:
    """Count runs by outcome and time, with percentiles of duration and lateness, success rate and backlog.

    Periods longer than an hour read counts by the hour, which running processes keep up to date.
    """
    found = here.ledger.stats(job, period)
    if here.as_json:
        here.emit(statistics_record(found))
    else:
        _print(here, found)


def _print(here: Session, found: Statistics) -> None:
    from rich.text import Text

    from jobmanager.cli.output.lists import Column, dim, facts, heading, listing

    here.print(heading(f"{found.job or 'all jobs'}, {WORDS[found.period]}"), facts(_facts(found)), "")
    shown = [status for status in STATUSES if found.counts.get(status)]
    if not shown:
        here.print(dim("No run ended in that time."))
        return
    columns = [
        Column("since (UTC)"),
        *(Column(status, right=True) for status in shown),
        Column("", wide=80),
    ]
    most = max(sum(bucket.counts.values()) for bucket in found.buckets)
    rows: list[list[str | Text]] = [
        [
            _beginning(bucket.since, found),
            *(f"{bucket.counts[status]:,}" if status in bucket.counts else "" for status in shown),
            Text.assemble(*_bar(bucket.counts, most)),
        ]
        for bucket in found.buckets
    ]
    here.print(listing(here.console, columns, rows))


def _facts(found: Statistics) -> Iterator[tuple[str, str]]:
    counts = [f"{found.counts[status]:,} {status}" for status in STATUSES if found.counts.get(status)]
    yield "runs", ", ".join(counts) or "none"
    if found.success_rate is not None:
        yield "success", f"{found.success_rate:.1%} of those that succeeded or failed"
    for name, lengths in (("duration", found.duration), ("lateness", found.lateness)):
        if lengths is not None:
            yield name, _told(lengths)
    waiting = f"{found.backlog:,}" if found.backlog <= 10_000 else "10,000+"
    yield (
        "backlog",
        waiting
        + (f", the oldest due {distance(found.oldest_pending, found.until)}" if found.oldest_pending else ""),
    )
    if found.newest_only:
        yield "read", f"the newest {found.newest_only:,} runs only"
    elif found.counted_at is None:
        yield "counted", "not yet: a running process counts within seconds"
    elif (found.until - found.counted_at) > timedelta(minutes=2):
        yield "counted", f"{distance(found.counted_at, found.until)}; runs that ended since are missing"


def _told(lengths: Lengths) -> str:
    exact = lengths.within == 1.0
    percentiles = ", ".join(
        f"{name} {length(value) if exact or value >= SHORTEST else 'below 10 ms'}"
        for name, value in (("p50", lengths.p50), ("p95", lengths.p95), ("p99", lengths.p99))
    )
    error = "" if exact else f" (percentiles within a factor of {lengths.within:g})"
    return f"{percentiles}, mean {length(lengths.mean)}, longest {length(lengths.longest)}{error}"


def _beginning(moment: datetime, found: Statistics) -> str:
    return f"{moment:%a %d %b}" if found.period == "30d" else f"{moment:%a %d %b %H:%M}"


def _bar(counts: Any, most: int) -> Sequence[tuple[str, str]]:
    """Return a bar in the colours of the statuses; a status that has a run is never left out."""
    from jobmanager.cli.output.lists import STYLES

    return [
        ("▇" * max(1, round(counts[status] * WIDEST / most)), STYLES[status])
        for status in STATUSES
        if counts.get(status)
    ]
