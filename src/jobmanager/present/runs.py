"""A run in a few words: what happened, and who asked for it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import cast

from jobmanager.explain.explanation import Told
from jobmanager.explain.resting import ends, rests
from jobmanager.present.condition import Instant, outcome_of
from jobmanager.present.phrases import compact
from jobmanager.run import Failure, Progress, Run

STARTED_BY = {
    "schedule": "its schedule",
    "catch_up": "its schedule, caught up",
    "manual": "by hand",
    "backfill": "a backfill",
    "sweep": "the account",
}
RESTING = {"sleeping": "sleeping", "waiting": "waiting for an event", "children": "waiting for its children"}


def started_by(run: Run) -> str:
    """Return who or what started the run: `its schedule`, or `ana, by hand`."""
    who = STARTED_BY[run.trigger]
    if run.by_event and run.requested_by:
        return run.requested_by
    return f"{run.requested_by}, {who}" if run.requested_by else who


def error_line(failure: Failure) -> str:
    """Return type and message of an error on one line, as searches find it."""
    told = f"{failure.type}: {failure.message}" if failure.type else failure.message
    return told.strip().partition("\n")[0] or failure.kind


def progress_words(progress: Progress) -> str:
    """Return `412 of 1,200 accounts`."""
    total = f" of {progress.total:,}" if progress.total else ""
    return f"{progress.processed:,}{total} {progress.message}".strip()


def word_of(run: Run) -> str:
    """Return the status of the run, or `late` for one that succeeded after a late start."""
    return run.status.value if run.scheduled_for is None else outcome_of(cast("Instant", run))


def time_left(run: Run, now: datetime) -> timedelta | None:
    """Return how long a run may still take by its progress so far; None where that tells nothing."""
    done = run.progress
    if done is None or not done.total or done.processed <= 0 or run.started_at is None:
        return None
    return max(timedelta(0), (now - run.started_at) * (done.total - done.processed) / done.processed)


def resting_words(run: Run, now: datetime, told: Told) -> str:
    """Return `sleeping until 5 May 09:00` for a run that waits in a step; '' for every other."""
    if not rests(run, now):
        return ""
    what = RESTING[run.reason or ""]
    return f"{what} until {told(run.due_at)}" if ends(run.opened_at, run.due_at) else what


def what_happened(run: Run, now: datetime, told: Told) -> str:
    """Return one line about the run: its error, its reason, its progress, what it waits for, or what it returned."""
    if run.error is not None:
        return error_line(run.error)
    if not run.status.closed:
        progress = progress_words(run.progress) if run.progress is not None else ""
        return ": ".join(filter(None, (resting_words(run, now, told), progress))) or run.reason or ""
    many = f"{run.ticks:,} instants in one row" if run.ticks > 1 else ""
    return ": ".join(filter(None, (run.reason, many))) or compact(run.output)
