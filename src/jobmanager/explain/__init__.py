"""Why a job did, will, or will not run at an instant. The cause that decides comes first; everything is read, nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from jobmanager.explain import plan, record
from jobmanager.explain.explanation import Explanation, Told, utc
from jobmanager.explain.question import Decision, Question, start_one
from jobmanager.manager.manager import JobManager
from jobmanager.validation.call_arguments import moment_of

__all__ = ["Explanation", "Told", "explain", "explain_now", "start_one", "utc"]


def explain(jobs: JobManager, job_id: str, at: datetime, *, told: Told = utc) -> Explanation:
    """Return the one cause that decided, or will decide, whether the job runs at `at` (aware; whole seconds count).

    `told` writes instants inside sentences. Raises JobNotFoundError for a job that is neither declared nor stored, and
    PayloadError for what is no aware datetime.
    """
    return _explanation(Question(jobs, job_id, moment_of("at", at), told))


def explain_now(jobs: JobManager, job_id: str, *, told: Told = utc) -> list[Explanation]:
    """Explain the latest instant that was due, and the next one; one explanation for a job without instants."""
    now = Question(jobs, job_id, jobs.store.now(), told)
    if now.schedule is None:
        return [_explanation(now)]
    around = (now.schedule.previous_before(now.at + plan.SECOND), now.after)
    return [explain(jobs, job_id, instant, told=told) for instant in around if instant is not None]


Step = Callable[[Question], Decision | None]
_PAST: tuple[Step, ...] = (
    record.recorded,
    plan.no_schedule,
    plan.not_an_instant,
    plan.never_started,
    plan.before_history,
    plan.not_expected,
    plan.closed,
    plan.excluded,
    plan.nobody_keeps_time,
    plan.handler_missing,
    plan.unaccounted,
)
_COMING: tuple[Step, ...] = (
    plan.no_schedule,
    plan.not_an_instant,
    plan.accounted_ahead,
    plan.nobody_keeps_time,
    plan.closed,
    plan.excluded,
    plan.handler_missing,
    plan.coming,
)


def _explanation(question: Question) -> Explanation:
    steps = _COMING if question.at > question.now else _PAST
    decision = next(decision for decision in (step(question) for step in steps) if decision is not None)
    return Explanation(
        job_id=question.job_id,
        at=question.at,
        verdict=decision.verdict,
        cause=decision.cause,
        because=f"{decision.because}{plan.clocks(question)}{plan.ended(question)}",
        advice=decision.advice,
        run=question.run,
        before=question.before,
        after=question.after,
    )
