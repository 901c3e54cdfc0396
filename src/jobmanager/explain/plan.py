"""Decides by the schedule, the state and the living processes, for an instant without a row."""

from __future__ import annotations

import os
from datetime import timedelta

from jobmanager.clock import earlier
from jobmanager.errors import HandlerNotFoundError
from jobmanager.explain.question import Decision, Question, start_one
from jobmanager.schedule import Cron, Every
from jobmanager.schedule.changes import change_that_decides

SECOND = timedelta(seconds=1)


def no_schedule(question: Question) -> Decision | None:
    """Decide for a job that is never due."""
    if question.schedule is not None:
        return None
    known = question.row or question.job
    if known is not None and known.on is not None:
        return question.no(
            "no_schedule",
            f"It has no schedule: each event {known.on} starts a run, and one may be started by hand.",
            f"`jobmanager events send {known.on}` sends one.",
        )
    return question.no(
        "no_schedule",
        "It has no schedule: it is started by hand only.",
        f"`jobmanager trigger {question.job_id}` starts it.",
    )


def not_an_instant(question: Question) -> Decision | None:
    """Decide for a moment that the schedule does not name."""
    before = earlier(question.at, SECOND)
    if question.schedule is None or question.schedule.next_after(before) == question.at:
        return None
    told = f"{question.told(question.at)} is no instant of its schedule ({question.schedule.describe()})."
    if (
        question.row is not None
        and question.row.schedule_rev > 1
        and question.at <= question.row.accounted_until
    ):
        told += f" State or schedule changed since ({question.row.schedule_rev - 1} times); what held then is not on record."
    return question.no("not_an_instant", told, "Ask for one of the nearest instants.")


def excluded(question: Question) -> Decision | None:
    """Decide for an instant that the schedule excludes."""
    what = None if question.schedule is None else question.schedule.excluded(question.at)
    if what is None or question.schedule is None:
        return None
    following = question.schedule.next_run_after(question.at)
    then = "" if following is None else f" The next instant that runs is {question.told(following)}."
    return question.no(
        "excluded",
        f"Its schedule excludes that instant: {what}.{then}",
        f"`jobmanager trigger {question.job_id}` runs it all the same.",
    )


def clocks(question: Question) -> str:
    """Return what a change of the clocks around the instant does to the job; '' without one."""
    change = (
        change_that_decides(question.schedule, question.at) if isinstance(question.schedule, Cron) else None
    )
    if change is None:
        return ""
    shown = f"{change.wall_before:%H:%M} to {change.wall_after:%H:%M}"
    return f" The clocks go {change.direction} from {shown}: {change.note}"


def ended(question: Question) -> str:
    """Return that the schedule has no further instant because it ends; '' while it has."""
    schedule = question.schedule
    if isinstance(schedule, (Cron, Every)) and schedule.until is not None and schedule.ended(question.at):
        return f" No instant comes after that: the schedule ends at {question.told(schedule.until)}."
    return ""


def nobody_keeps_time(question: Question) -> Decision | None:
    """Decide for a backend that lets nothing fire."""
    if question.jobs.backend.capabilities.keeps_time:
        return None
    return question.no(
        "nobody_keeps_time",
        f"Nobody keeps the time: backend {question.jobs.resolution.backend}, because {question.jobs.resolution.reason}.",
        "Unset that where the job should run; `jobmanager doctor` shows every candidate.",
    )


def closed(question: Question) -> Decision | None:
    """Decide by the state of the job, for instants without a row."""
    row, job = question.row, question.job
    if row is None:
        if job is None or job.gate(os.environ):
            return None
        return question.no(
            "disabled",
            f"Its gate is closed: {_gate(question)}.",
            "Open the gate, then start the process anew.",
        )
    if row.state == "active" or question.at <= row.accounted_until:
        return None
    since = f" since {question.told(row.state_at)}" if row.state_at else ""
    by = f" by {row.state_by}" if row.state_by else ""
    why = f": {row.state_reason}" if row.state_reason else ""
    if row.state == "paused":
        return question.no(
            "paused",
            f"The job is paused{since}{by}{why}.",
            f"`jobmanager jobs resume {row.id}` ends the pause.",
        )
    if row.state_reason == "undeclared":
        return question.no(
            "disabled",
            f"The job is disabled{since}: no living process declares it.",
            "Start a process whose code declares it; that enables it again.",
        )
    if row.state_reason == "gate":
        return question.no(
            "disabled",
            f"The job is disabled{since}: its gate is closed ({_gate(question)}).",
            "Open the gate, then start the process anew.",
        )
    return question.no(
        "deleted" if row.state == "deleted" else "disabled", f"The job is {row.state}{since}{by}{why}."
    )


def _gate(question: Question) -> str:
    gate = None if question.job is None else question.job.enabled_when
    return f"enabled_when asks for {gate}=true" if isinstance(gate, str) else "enabled_when says no"


def handler_missing(question: Question) -> Decision | None:
    """Decide for a job whose handler is missing."""
    if question.job is None:
        return None
    try:
        question.jobs.registry.handler(question.job.handler).function  # noqa: B018 - importing it is the question
    except HandlerNotFoundError as error:
        return question.no(
            "handler_missing",
            f"{error}",
            "Register it, or give the job its function; start() refuses without.",
        )
    return None


def never_started(question: Question) -> Decision | None:
    """Decide for a job that no process ever started with."""
    if question.row is not None:
        return None
    when = (
        "no process has ever started with this job"
        if question.stored
        else f"there is no ledger yet at {question.jobs.store.url}"
    )
    return question.no("never_started", f"Its account is not open: {when}.", start_one(question.jobs))


# ---------------------------------------------------------------- past instants without a row


def before_history(question: Question) -> Decision | None:
    """Decide for an instant before the record of the job."""
    row = question.row
    if row is None or question.at > row.history_from:
        return None
    purged = question.jobs.get_job_metrics().last_cleanup
    also = " or older than what retention keeps" if purged else ""
    return question.no(
        "before_history",
        f"That is before the job was first started{also}: its record begins after {question.told(row.history_from)}.",
    )


def not_expected(question: Question) -> Decision | None:
    """Decide for an instant that is accounted for and has no row."""
    if question.row is None or question.at > question.row.accounted_until:
        return None
    return question.no(
        "not_expected",
        "Nothing was expected then: the job was disabled at that moment, or followed another schedule.",
    )


def unaccounted(question: Question) -> Decision:
    """Decide for an instant that was due and has no row yet."""
    late = question.now - question.at
    lives = bool(question.jobs.executors(question.job_id))
    if not lives:
        then = _at_the_next_start(question)
        return question.no(
            "nobody_lives", f"No living process executes this job; {then}.", start_one(question.jobs)
        )
    if late <= question.jobs.settings.grace:
        return Decision(
            "pending", "due_now", f"It was due {late.total_seconds():,.0f} s ago and may still start on time."
        )
    symptom = question.standstill
    if symptom is not None:
        because = f"A tick is overdue since {question.told(question.at)}, because {symptom.because}."
        return Decision("pending", "overdue", because, symptom.fix)
    return Decision(
        "pending",
        "not_yet_accounted",
        f"It was not started in time and is not accounted for yet; the sweep does that every {question.jobs.settings.sweep_seconds:g} s.",
        "If that lasts, `jobmanager doctor` shows which process is behind.",
    )


def _at_the_next_start(question: Question) -> str:
    policy, window = (
        (question.row.catch_up, question.row.catch_up_window) if question.row else ("none", timedelta(0))
    )
    if policy == "none" or question.now - question.at >= window:
        return "the next process to start records it as missed (downtime)"
    if policy == "all":
        return "the next process to start catches it up"
    return "the next process to start catches up the latest such instant"


# ---------------------------------------------------------------- instants to come


def accounted_ahead(question: Question) -> Decision | None:
    """Decide for an account that reaches beyond now."""
    if question.row is None or question.at > question.row.accounted_until:
        return None
    return question.no(
        "accounted_ahead",
        f"Its account is closed up to {question.told(question.row.accounted_until)}: the clock was ahead once, and no instant counts twice.",
        "Wait until the clock has passed that, or `jobmanager trigger` it by hand.",
    )


def coming(question: Question) -> Decision:
    """Decide for an instant to come with nothing in its way but, perhaps, that no process lives or no tick comes."""
    if question.jobs.settings.wait:  # no process has to live until then
        return Decision(
            "will_run",
            "as_planned",
            "It will run when the clock outside calls; so do retries, delayed starts and what is caught up: each waits for a call.",
        )
    if not question.jobs.executors(question.job_id):
        return question.no(
            "nobody_lives",
            "Nothing stands in its way but that no living process executes this job.",
            start_one(question.jobs),
        )
    symptom = question.standstill
    if symptom is not None and symptom.since is not None:
        overdue = f"A tick is overdue since {question.told(symptom.since)}, because {symptom.because}"
        return question.no("overdue", f"{overdue}; this one will be late or missed as well.", symptom.fix)
    told = "It will run, as planned"
    is_another = question.job is not None and question.schedule != question.job.schedule
    if question.job is not None and is_another and question.job.max_runs is None:
        told += ", by the stored schedule; the code here declares another, which holds once a process starts with it"
    return Decision("will_run", "as_planned", f"{told}.")
