"""What follows from the schedule, the state and who lives, for an instant without a row."""

from __future__ import annotations

import os
from datetime import timedelta

from jobmanager.errors import HandlerNotFoundError
from jobmanager.explain.case import Answer, Case, start_one

SECOND = timedelta(seconds=1)


def no_schedule(case: Case) -> Answer | None:
    """Nothing is ever due."""
    if case.schedule is not None:
        return None
    return case.no(
        "no_schedule",
        "It has no schedule: it is started by hand only.",
        f"`jobmanager trigger {case.job_id}` starts it.",
    )


def not_an_instant(case: Case) -> Answer | None:
    """The schedule does not ask for this moment."""
    if case.schedule is None or case.schedule.next_after(case.at - SECOND) == case.at:
        return None
    told = f"{case.told(case.at)} is no instant of its schedule ({case.schedule.describe()})."
    if case.row is not None and case.row.schedule_rev > 1 and case.at <= case.row.accounted_until:
        told += f" State or schedule changed since ({case.row.schedule_rev - 1} times); what held then is not on record."
    return case.no("not_an_instant", told, "Ask for one of the nearest instants.")


def nobody_keeps_time(case: Case) -> Answer | None:
    """The backend is one that lets nothing fire."""
    if case.jobs.backend.capabilities.keeps_time:
        return None
    return case.no(
        "nobody_keeps_time",
        f"Nobody keeps the time: backend {case.jobs.resolution.backend}, because {case.jobs.resolution.reason}.",
        "Unset that where the job should run; `jobmanager doctor` shows every candidate.",
    )


def closed(case: Case) -> Answer | None:
    """Its state, for instants that no row answers for."""
    row, job = case.row, case.job
    if row is None:
        if job is None or job.gate(os.environ):
            return None
        return case.no(
            "disabled", f"Its gate is closed: {_gate(case)}.", "Open the gate, then start the process anew."
        )
    if row.state == "active" or case.at <= row.accounted_until:
        return None
    since = f" since {case.told(row.state_at)}" if row.state_at else ""
    by = f" by {row.state_by}" if row.state_by else ""
    why = f": {row.state_reason}" if row.state_reason else ""
    if row.state == "paused":
        return case.no(
            "paused",
            f"The job is paused{since}{by}{why}.",
            f"`jobmanager jobs resume {row.id}` ends the pause.",
        )
    if row.state_reason == "undeclared":
        return case.no(
            "disabled",
            f"The job is disabled{since}: no living process declares it.",
            "Start a process whose code declares it; that enables it again.",
        )
    if row.state_reason == "gate":
        return case.no(
            "disabled",
            f"The job is disabled{since}: its gate is closed ({_gate(case)}).",
            "Open the gate, then start the process anew.",
        )
    return case.no(
        "deleted" if row.state == "deleted" else "disabled", f"The job is {row.state}{since}{by}{why}."
    )


def _gate(case: Case) -> str:
    gate = None if case.job is None else case.job.enabled_when
    return f"enabled_when asks for {gate}=true" if isinstance(gate, str) else "enabled_when says no"


def handler_missing(case: Case) -> Answer | None:
    """There is no code to call."""
    if case.job is None:
        return None
    try:
        case.jobs.registry.handler(case.job.handler).function  # noqa: B018 - importing it is the question
    except HandlerNotFoundError as error:
        return case.no(
            "handler_missing",
            f"{error}",
            "Register it, or give the job its function; start() refuses without.",
        )
    return None


def never_started(case: Case) -> Answer | None:
    """No process ever opened its account."""
    if case.row is not None:
        return None
    when = (
        "no process has ever started with this job"
        if case.stored
        else f"there is no ledger yet at {case.jobs.store.url}"
    )
    return case.no("never_started", f"Its account is not open: {when}.", start_one(case.jobs))


# ---------------------------------------------------------------- past instants without a row


def before_history(case: Case) -> Answer | None:
    """The instant lies before what is on record."""
    row = case.row
    if row is None or case.at > row.history_from:
        return None
    purged = case.jobs.get_job_metrics().last_cleanup
    also = " or older than what retention keeps" if purged else ""
    return case.no(
        "before_history",
        f"That is before the job was first started{also}: its record begins after {case.told(row.history_from)}.",
    )


def not_expected(case: Case) -> Answer | None:
    """It is accounted for, and there is no row."""
    if case.row is None or case.at > case.row.accounted_until:
        return None
    return case.no(
        "not_expected",
        "Nothing was expected then: the job was disabled at that moment, or followed another schedule.",
    )


def unaccounted(case: Case) -> Answer:
    """Due, open and no row yet."""
    late = case.now - case.at
    lives = bool(case.jobs.executors(case.job_id))
    if not lives:
        then = _at_the_next_start(case)
        return case.no("nobody_lives", f"No living process executes this job; {then}.", start_one(case.jobs))
    if late <= case.jobs.settings.grace:
        return Answer(
            "pending", "due_now", f"It was due {late.total_seconds():,.0f} s ago and may still start on time."
        )
    symptom = case.standstill
    if symptom is not None:
        because = f"A tick is overdue since {case.told(case.at)}, because {symptom.because}."
        return Answer("pending", "overdue", because, symptom.fix)
    return Answer(
        "pending",
        "not_yet_accounted",
        f"It was not started in time and is not accounted for yet; the sweep does that every {case.jobs.settings.sweep_seconds:g} s.",
        "If that lasts, `jobmanager doctor` shows which process is behind.",
    )


def _at_the_next_start(case: Case) -> str:
    policy, window = (case.row.catch_up, case.row.catch_up_window) if case.row else ("none", timedelta(0))
    if policy == "none" or case.now - case.at >= window:
        return "the next process to start records it as missed (downtime)"
    if policy == "all":
        return "the next process to start catches it up"
    return "the next process to start catches up the latest such instant"


# ---------------------------------------------------------------- instants to come


def accounted_ahead(case: Case) -> Answer | None:
    """The account reaches beyond now."""
    if case.row is None or case.at > case.row.accounted_until:
        return None
    return case.no(
        "accounted_ahead",
        f"Its account is closed up to {case.told(case.row.accounted_until)}: the clock was ahead once, and no instant counts twice.",
        "Wait until the clock has passed that, or `jobmanager trigger` it by hand.",
    )


def coming(case: Case) -> Answer:
    """Nothing stands in its way but, perhaps, that nobody lives."""
    if not case.jobs.executors(case.job_id):
        return case.no(
            "nobody_lives",
            "Nothing stands in its way but that no living process executes this job.",
            start_one(case.jobs),
        )
    symptom = case.standstill
    if symptom is not None and symptom.since is not None:
        overdue = f"A tick is overdue since {case.told(symptom.since)}, because {symptom.because}"
        return case.no("overdue", f"{overdue}; this one will be late or missed as well.", symptom.fix)
    told = "It will run, as planned"
    if case.job is not None and case.schedule != case.job.schedule:
        told += ", by the stored schedule; the code here declares another, which holds once a process starts with it"
    return Answer("will_run", "as_planned", f"{told}.")
