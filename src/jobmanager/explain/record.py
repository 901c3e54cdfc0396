"""What a row on record says about its instant."""

from __future__ import annotations

from typing import assert_never

from jobmanager.explain.case import Answer, Case, start_one
from jobmanager.explain.explanation import Verdict
from jobmanager.run import Run, RunStatus


def recorded(case: Case) -> Answer | None:
    """The row of this instant, if there is one."""
    run = case.run
    if run is None:
        return None
    match run.status:
        case RunStatus.SUCCEEDED:
            return Answer("ran", "succeeded", f"It ran{_lateness(case, run)} and succeeded.")
        case RunStatus.FAILED:
            return _failed(case, run)
        case RunStatus.CANCELLED:
            verdict: Verdict = "ran" if run.attempt else "did_not_run"
            return Answer(verdict, "cancelled", _CANCELLED.get(run.reason or "", "It was cancelled."))
        case RunStatus.RUNNING:
            since = case.told(run.started_at or run.opened_at)
            return Answer("running", "running", f"It runs{_lateness(case, run)}, since {since}.")
        case RunStatus.PENDING:
            return _pending(case, run)
        case RunStatus.SKIPPED:
            return _skipped(case, run)
        case RunStatus.MISSED:
            return _missed(case, run)
        case _:
            assert_never(run.status)


_CANCELLED = {
    "requested": "It was cancelled: somebody asked it to end.",
    "superseded": "It was cancelled: a later run took its place.",
    "disabled": "It was cancelled before it started: the job was disabled.",
    "handler": "It ran, and its handler itself ended it as cancelled.",
}


def _lateness(case: Case, run: Run) -> str:
    if run.started_at is None:
        return ""
    late = (run.started_at - case.at).total_seconds()
    if run.trigger == "catch_up":
        return f" {late:,.0f} s late, caught up because nobody had started it in time,"
    return f" {late:,.0f} s late" if late >= 1 else ""


def _failed(case: Case, run: Run) -> Answer:
    error = run.error
    tail = run.id[-8:]
    if error is not None and error.kind == "handler_missing":
        return Answer(
            "did_not_run",
            "handler_missing",
            f"Its handler was missing in the process that took it: {error.message}",
            f"Make that process import it, then `jobmanager redrive {tail}`.",
        )
    told = f"{error.type or error.kind}: {error.message}" if error else "without an error on record"
    return Answer(
        "ran",
        "failed",
        f"It ran{_lateness(case, run)} and failed: {told}",
        f"`jobmanager runs show {tail}` has the traceback; `jobmanager redrive {tail}` runs it again.",
    )


def _pending(case: Case, run: Run) -> Answer:
    if run.attempt and run.due_at > case.now:
        return Answer(
            "pending",
            "waits_for_retry",
            f"Attempt {run.attempt} failed; the next one is due {case.told(run.due_at)}.",
        )
    if run.turn == "waits":
        return Answer("pending", "waits_for_turn", "It waits until the run before it has ended.")
    executors = case.jobs.executors(case.job_id)
    if executors:
        return Answer(
            "pending",
            "waits_for_executor",
            f"It is open and waits for a free worker of a living process ({len(executors)} live).",
        )
    return Answer(
        "pending",
        "waits_for_executor",
        "It is open, and no living process executes this job.",
        start_one(case.jobs),
    )


def _skipped(case: Case, run: Run) -> Answer:
    if run.reason == "overlap":
        blocker = (run.blocked_by or "")[-8:]
        policy = case.row.overlap if case.row else "skip"
        room = "allows no second one" if policy == "skip" else "had no room for another that waits"
        return case.no(
            "overlap",
            f"Another run of it was still active ({blocker or 'not on record'}), and overlap={policy!r} {room}.",
            f"`jobmanager runs show {blocker}` shows that run; a timeout would bound it." if blocker else "",
        )
    if run.reason == "paused":
        return case.no("paused", f"The job was paused then{_stretch(case, run)}.")
    return case.no("disabled", f"The job was disabled before the run could start{_stretch(case, run)}.")


def _missed(case: Case, run: Run) -> Answer:
    stretch = _stretch(case, run)
    if run.reason == "downtime":
        return case.no("downtime", f"No process lived then{stretch}{_not_caught_up(case)}.", _CATCH_UP)
    if run.reason == "deadline":
        return case.no("deadline", f"It could not start before its start_deadline{stretch}.")
    return case.no(
        "transport",
        f"A process lived, but nobody brought this tick in time{stretch}{_not_caught_up(case)}.",
        "Look for a stalled process or a locked store in the logs of that time.",
    )


_CATCH_UP = (
    "`jobmanager trigger` runs it now; catch_up and catch_up_window say what is made up after an outage."
)


def _not_caught_up(case: Case) -> str:
    match case.row.catch_up if case.row else "latest":
        case "none":
            return ", and catch_up='none' makes nothing up"
        case "latest":
            return ", and it was too late to catch up, or a later instant was"
        case _:
            return ", and it was too late to catch up"


def _stretch(case: Case, run: Run) -> str:
    if run.first_for is None or run.scheduled_for is None:
        return ""
    return f" (one row stands for {run.ticks:,} instants from {case.told(run.first_for)} to {case.told(run.scheduled_for)})"
