"""Actions on a job over the API, and previews of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query, Request, Response
from pydantic import Field

from jobmanager.access.principal import READ, WRITE
from jobmanager.explain import explain, explain_now
from jobmanager.explain.explanation import Cause, Explanation, Verdict
from jobmanager.ledger.backfill import MadeUp
from jobmanager.present.account import explanation_record
from jobmanager.present.phrases import iso
from jobmanager.present.preview import preview_of, preview_record
from jobmanager.web.api.jobs import WholeJob, shown_job
from jobmanager.web.api.models import EXAMPLE, Given, Instant, Length, Moment, Remark, Shown
from jobmanager.web.api.options import CRON, ZONE, DstModel
from jobmanager.web.api.preview import WouldBeSettled, previewed, settled
from jobmanager.web.api.routing import Routes
from jobmanager.web.site import site_of

router = Routes(tags=["jobs"])


class Reason(Given):
    """Why a job is paused or disabled; shown where it is listed."""

    reason: Remark | None = Field(default=None, examples=["the warehouse moves"])


class Stretch(Given):
    """The instants after `start`, up to `end`."""

    start: Moment
    end: Moment
    dry_run: bool = Field(default=False, description="Only say what would be done.")


class InstantModel(Shown):
    """The outcome of a backfill for one instant."""

    scheduled_for: Instant
    action: Literal["open", "redrive", "done", "active", "folded", "not due"]
    run_id: str | None


class BackfillModel(Shown):
    """The outcome of a backfill for each instant of a stretch."""

    dry_run: bool
    opened: int = Field(description="How many of them are open again, or would be.")
    items: list[InstantModel]


class ExplanationModel(Shown):
    """The one cause that decided, or will decide, whether the job runs at an instant."""

    at: Instant
    verdict: Verdict
    cause: Cause
    because: str
    advice: str
    run_id: str | None
    before: Instant | None
    after: Instant | None


class ExplanationsModel(Shown):
    """The explanations of an instant, or of the latest and the next one."""

    items: list[ExplanationModel]


class NewSchedule(Given):
    """A schedule to look at: at most one of `cron`, `every` and `at`; without any, the job's own."""

    cron: CRON | None = None
    timezone: ZONE | None = None
    dst: DstModel | None = None
    every: Length | None = None
    at: Moment | None = None
    until: Moment | None = None
    number: Annotated[int, Field(ge=1, le=100)] = Field(
        default=5, description="So many of the next instants."
    )


class ClockChangeModel(Shown):
    """A change of the clocks in the zone of the schedule within a year, and what it does to the job."""

    at: Instant
    direction: Literal["forward", "back"]
    clock_before: str
    clock_after: str
    met: bool
    times: list[str]
    note: str


class PreviewModel(Shown):
    """A schedule in words, its next instants, clock changes, and what would become of what is not accounted for."""

    schedule: str = Field(examples=["30 2 * * *"])
    schedule_in_words: str = Field(examples=["at 02:30 every day, Europe/Berlin"])
    timezone: str | None
    dst: DstModel | None
    next: list[Instant]
    clock_changes: list[ClockChangeModel]
    settles: WouldBeSettled = Field(
        description="An edit settles the instants before it by the old rule first; nothing fires by it."
    )


# ---------------------------------------------------------------- states


def pause_job(
    request: Request, response: Response, job_id: str, given: Reason | None = None
) -> dict[str, Any]:
    """Pause a job for all processes: its ticks are recorded as skipped. Twice is safe."""
    site_of(request).jobs.stop_job(job_id, reason=given.reason if given else None)
    return shown_job(request, response, job_id)


def resume_job(request: Request, response: Response, job_id: str) -> dict[str, Any]:
    """End a pause. Instants of the pause are not caught up. Twice is safe."""
    site_of(request).jobs.resume_job(job_id)
    return shown_job(request, response, job_id)


def enable_job(request: Request, response: Response, job_id: str) -> dict[str, Any]:
    """Enable a disabled job. Twice is safe."""
    site_of(request).jobs.enable_job(job_id)
    return shown_job(request, response, job_id)


def disable_job(
    request: Request, response: Response, job_id: str, given: Reason | None = None
) -> dict[str, Any]:
    """Disable a job: nothing starts it, not even by hand. Twice is safe."""
    site_of(request).jobs.disable_job(job_id, reason=given.reason if given else None)
    return shown_job(request, response, job_id)


def reset_job(request: Request, response: Response, job_id: str) -> dict[str, Any]:
    """Remove every override of a job that code declares. Twice is safe."""
    site_of(request).jobs.reset_job(job_id)
    return shown_job(request, response, job_id)


# ---------------------------------------------------------------- instants


def backfill_job(request: Request, job_id: str, given: Stretch) -> dict[str, Any]:
    """Open a run for each instant of a stretch that did not succeed, at most 1,000."""
    made = site_of(request).jobs.backfill(job_id, given.start, given.end, dry_run=given.dry_run)
    return {
        "dry_run": given.dry_run,
        "opened": sum(each.action in ("open", "redrive") for each in made),
        "items": [_instant(each) for each in made],
    }


def explain_job(
    request: Request,
    job_id: str,
    at: Annotated[
        Moment | None,
        Query(
            description="An instant; without it the latest one that was due, and the next.",
            examples=[EXAMPLE],
        ),
    ] = None,
) -> dict[str, Any]:
    """Explain why a job did, will, or will not run."""
    manager = site_of(request).jobs
    found = explain_now(manager, job_id) if at is None else [explain(manager, job_id, at)]
    return {"items": [_explained(each) for each in found]}


def preview_job(request: Request, job_id: str, given: NewSchedule) -> dict[str, Any]:
    """Look at a changed schedule of a job, without a write: words, next instants, clock changes, and what an edit would settle."""
    site = site_of(request)
    view = site.jobs.get_job(job_id)
    schedule = previewed(view, given.model_dump(exclude={"number"}, exclude_none=True))
    preview = preview_of(schedule, site.now(), number=given.number)
    return {**preview_record(preview), "settles": settled(site, view)}


def _instant(made: MadeUp) -> dict[str, Any]:
    return {"scheduled_for": iso(made.scheduled_for), "action": made.action, "run_id": made.run_id}


def _explained(found: Explanation) -> dict[str, Any]:
    told = explanation_record(found)
    del told["run"]  # has an address of its own
    return {**told, "run_id": found.run.id if found.run else None}


for _path, _do in (
    ("pause", pause_job),
    ("resume", resume_job),
    ("enable", enable_job),
    ("disable", disable_job),
    ("reset", reset_job),
):
    router.add("POST", f"/jobs/{{job_id}}/{_path}", WRITE, _do, responses=[409], response_model=WholeJob)
router.add(
    "POST", "/jobs/{job_id}/backfill", WRITE, backfill_job, responses=[409], response_model=BackfillModel
)
router.add("GET", "/jobs/{job_id}/explain", READ, explain_job, response_model=ExplanationsModel)
router.add("POST", "/jobs/{job_id}/preview", READ, preview_job, response_model=PreviewModel)
