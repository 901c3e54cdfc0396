"""A run in a few words: what happened, and who asked for it."""

from __future__ import annotations

from jobmanager.present.phrases import compact
from jobmanager.run import Failure, Progress, Run

STARTED_BY = {
    "schedule": "its schedule",
    "catch_up": "its schedule, caught up",
    "manual": "by hand",
    "backfill": "a backfill",
    "sweep": "the account",
}


def started_by(run: Run) -> str:
    """Return who or what started the run: `its schedule`, or `ana, by hand`."""
    who = STARTED_BY[run.trigger]
    return f"{run.requested_by}, {who}" if run.requested_by else who


def error_line(failure: Failure) -> str:
    """Return type and message of an error on one line, as searches find it."""
    told = f"{failure.type}: {failure.message}" if failure.type else failure.message
    return told.strip().partition("\n")[0] or failure.kind


def progress_words(progress: Progress) -> str:
    """Return `412 of 1,200 accounts`."""
    total = f" of {progress.total:,}" if progress.total else ""
    return f"{progress.processed:,}{total} {progress.message}".strip()


def what_happened(run: Run) -> str:
    """Return one line about the run: its error, its reason, its progress, or what it returned."""
    if run.error is not None:
        return error_line(run.error)
    if not run.status.closed:
        return progress_words(run.progress) if run.progress is not None else run.reason or ""
    many = f"{run.ticks:,} instants in one row" if run.ticks > 1 else ""
    return ": ".join(filter(None, (run.reason, many))) or compact(run.output)
