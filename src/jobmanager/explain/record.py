"""Decides by the row on record for an instant."""

from __future__ import annotations

from typing import assert_never

from jobmanager.explain.explanation import Verdict
from jobmanager.explain.plan import excluded
from jobmanager.explain.question import Decision, Question, start_one
from jobmanager.explain.resting import resting, rests
from jobmanager.run import Run, RunStatus

MOST_CHILDREN = 1000


def recorded(question: Question) -> Decision | None:
    """Decide by the row of this instant, if there is one."""
    run = question.run
    if run is None:
        return None
    match run.status:
        case RunStatus.SUCCEEDED:
            return Decision("ran", "succeeded", f"It ran{_lateness(question, run)} and succeeded.")
        case RunStatus.FAILED:
            return _failed(question, run)
        case RunStatus.CANCELLED:
            verdict: Verdict = "ran" if run.attempt else "did_not_run"
            return Decision(verdict, "cancelled", _CANCELLED.get(run.reason or "", "It was cancelled."))
        case RunStatus.RUNNING:
            since = question.told(run.started_at or run.opened_at)
            return Decision("running", "running", f"It runs{_lateness(question, run)}, since {since}.")
        case RunStatus.PENDING:
            return _pending(question, run)
        case RunStatus.SKIPPED:
            return _skipped(question, run)
        case RunStatus.MISSED:
            return _missed(question, run)
        case _:
            assert_never(run.status)


_CANCELLED = {
    "requested": "It was cancelled: its end was requested.",
    "superseded": "It was cancelled: a later run took its place.",
    "disabled": "It was cancelled before it started: the job was disabled.",
    "handler": "It ran, and its handler itself ended it as cancelled.",
}


def _lateness(question: Question, run: Run) -> str:
    if run.started_at is None:
        return ""
    late = (run.started_at - question.at).total_seconds()
    if run.trigger == "catch_up":
        return f" {late:,.0f} s late, caught up because no process had started it in time,"
    return f" {late:,.0f} s late" if late >= 1 else ""


def _failed(question: Question, run: Run) -> Decision:
    error = run.error
    tail = run.id[-8:]
    if error is not None and error.kind == "handler_missing":
        return Decision(
            "did_not_run",
            "handler_missing",
            f"Its handler was missing in the process that took it: {error.message}",
            f"Make that process import it, then `jobmanager redrive {tail}`.",
        )
    told = f"{error.type or error.kind}: {error.message}" if error else "without an error on record"
    return Decision(
        "ran",
        "failed",
        f"It ran{_lateness(question, run)} and failed: {told}",
        f"`jobmanager runs show {tail}` has the traceback; `jobmanager redrive {tail}` runs it again.",
    )


def _pending(question: Question, run: Run) -> Decision:
    if (decision := _resting(question, run)) is not None:
        return decision
    if run.attempt and run.due_at > question.now:
        return Decision(
            "pending",
            "waits_for_retry",
            f"Attempt {run.attempt} failed; the next one is due {question.told(run.due_at)}.",
        )
    if run.turn == "waits":
        return Decision("pending", "waits_for_turn", "It waits until the run before it has ended.")
    executors = question.jobs.executors(question.job_id)
    if executors:
        return Decision(
            "pending",
            "waits_for_executor",
            f"It is open and waits for a free worker of a living process ({len(executors)} live).",
        )
    return Decision(
        "pending",
        "waits_for_executor",
        "It is open, and no living process executes this job.",
        start_one(question.jobs),
    )


def _resting(question: Question, run: Run) -> Decision | None:
    if not rests(run, question.now):
        return None
    children = question.jobs.children(run.id, limit=MOST_CHILDREN) if run.reason == "children" else ()
    return resting(run, question.jobs.steps(run.id), children, now=question.now, told=question.told)


def _skipped(question: Question, run: Run) -> Decision:
    if run.reason == "overlap":
        blocker = (run.blocked_by or "")[-8:]
        policy = question.row.overlap if question.row else "skip"
        room = "allows no second one" if policy == "skip" else "had no room for another that waits"
        return question.no(
            "overlap",
            f"Another run of it was still active ({blocker or 'not on record'}), and overlap={policy!r} {room}.",
            f"`jobmanager runs show {blocker}` shows that run; a timeout would bound it." if blocker else "",
        )
    if run.reason == "paused":
        return question.no("paused", f"The job was paused then{_stretch(question, run)}.")
    if run.reason == "excluded":
        return excluded(question) or question.no(
            "excluded", f"Its schedule excluded that instant then{_stretch(question, run)}."
        )
    return question.no(
        "disabled", f"The job was disabled before the run could start{_stretch(question, run)}."
    )


def _missed(question: Question, run: Run) -> Decision:
    stretch = _stretch(question, run)
    if run.reason == "downtime":
        return question.no(
            "downtime", f"No process lived then{stretch}{_not_caught_up(question)}.", _CATCH_UP
        )
    if run.reason == "deadline":
        return question.no("deadline", f"It could not start before its start_deadline{stretch}.")
    return question.no(
        "transport",
        f"A process lived, but this tick did not come in time{stretch}{_not_caught_up(question)}{_why(run)}.",
        "Look for a stalled process or a locked store in the logs of that time.",
    )


_CATCH_UP = (
    "`jobmanager trigger` runs it now; catch_up and catch_up_window say what is made up after an outage."
)


def _not_caught_up(question: Question) -> str:
    match question.row.catch_up if question.row else "latest":
        case "none":
            return ", and catch_up='none' makes nothing up"
        case "latest":
            return ", and it was too late to catch up, or a later instant was"
        case _:
            return ", and it was too late to catch up"


def _why(run: Run) -> str:
    return f": {run.error.message.rstrip('.')}" if run.error else ""


def _stretch(question: Question, run: Run) -> str:
    if run.first_for is None or run.scheduled_for is None:
        return ""
    return f" (one row stands for {run.ticks:,} instants from {question.told(run.first_for)} to {question.told(run.scheduled_for)})"
