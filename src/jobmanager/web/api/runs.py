"""Runs over the API: the list, one of them with its attempts and log, and what is done to one or to many."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import Query, Request
from pydantic import Field

from jobmanager import RunFilter
from jobmanager.access.principal import READ, WRITE
from jobmanager.manager.bulk import MOST_IN_BULK
from jobmanager.present.phrases import iso
from jobmanager.present.records import attempt_record, line_record, run_record
from jobmanager.run import RunStatus, Trigger
from jobmanager.web.api.models import MOST_ON_A_PAGE, Given, Instant, Moment, Page, Shown, page_of, text
from jobmanager.web.api.routing import Routes
from jobmanager.web.api.run_models import RUN_ID, AttemptModel, LineModel, RunModel, Status
from jobmanager.web.site import site_of

MOST_LINES = 1_000
Word = Annotated[str | None, Query(max_length=500)]
router = Routes(tags=["runs"])


class Many(Given):
    """The same for many runs, by their whole ids."""

    action: Literal["cancel", "redrive", "discard"]
    ids: Annotated[list[Annotated[str, text(100)]], Field(max_length=MOST_IN_BULK, examples=[[RUN_ID]])]
    dry_run: bool = Field(
        default=False, description="Only say which runs are eligible, and why the others are not."
    )


class RunsModel(Page[RunModel]):
    """A page of runs. `searched_to`: a search stopped there, and older runs are found with `next`; else null."""

    searched_to: Instant | None


class RefusedRun(Shown):
    """A run that was not changed, and why."""

    id: str
    why: str = Field(examples=["it has ended: succeeded"])


class BulkModel(Shown):
    """The runs that were changed, or would be, and why the others were not. All entries of the audit have the `batch_id`."""

    action: Literal["cancel", "redrive", "discard"]
    dry_run: bool
    eligible: list[str]
    refused: list[RefusedRun]
    batch_id: str | None


def list_runs(
    request: Request,
    *,
    job: Annotated[str | None, Query(max_length=128, description="The id of a job.")] = None,
    status: Annotated[list[Status] | None, Query(description="One status, or several.")] = None,
    reason: Word = None,
    kind: Annotated[str | None, Query(max_length=100, description="The kind of the error.")] = None,
    text: Annotated[
        str | None, Query(max_length=500, description="A part of the error's type or message.")
    ] = None,
    trigger: Annotated[Trigger | None, Query()] = None,
    scope: Word = None,
    requested_by: Word = None,
    since: Annotated[Moment | None, Query(description="Instants from then on.")] = None,
    until: Annotated[Moment | None, Query(description="Instants before then.")] = None,
    longer_than: Annotated[
        float | None,
        Query(ge=0, le=3_155_760_000, description="The last attempt took so many seconds or more."),
    ] = None,
    retried: Annotated[bool, Query(description="With more than one attempt.")] = False,
    late: Annotated[bool, Query(description="Begun more than a minute after their instant.")] = False,
    dead: Annotated[bool, Query(description="Failed, and neither redriven nor discarded.")] = False,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_ON_A_PAGE)] = 50,
) -> dict[str, Any]:
    """List runs, newest first: those of one job by the instant each stands for, those of all jobs by when they were opened.

    A search reads at most the newest 100,000 rows and says in `searched_to` how far back it came, if it stopped there; `next` goes on.
    """
    wanted = RunFilter(
        job=job,
        statuses=[RunStatus(word) for word in status or ()],
        reason=reason,
        error_kind=kind,
        text=text,
        trigger=trigger,
        scope=scope,
        requested_by=requested_by,
        since=since,
        until=until,
        duration=None if longer_than is None else timedelta(seconds=longer_than),
        retried=retried,
        late=late,
        dead=dead,
    )
    found = site_of(request).jobs.search_runs(wanted, before=cursor, limit=limit)
    return {
        "items": [run_record(run) for run in found.runs],
        "next": found.next,
        "searched_to": iso(found.searched_to),
    }


def get_run(request: Request, run_id: str) -> dict[str, Any]:
    """Get one run, by its id or an unambiguous end of it."""
    return run_record(site_of(request).jobs.run(run_id))


def list_attempts(request: Request, run_id: str) -> dict[str, Any]:
    """List the earlier attempts of a run, oldest first; the run itself is the last one."""
    return {"items": [attempt_record(each) for each in site_of(request).jobs.attempts(run_id)], "next": None}


def list_lines(
    request: Request,
    run_id: str,
    cursor: Annotated[
        str | None,
        Query(pattern=r"^[0-9]{1,9}\.[0-9]{1,9}$", description="The lines after the one that has it."),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_LINES)] = MOST_LINES,
) -> dict[str, Any]:
    """List the log lines of a run. `next` is null when there are no more for now: to follow a running run, ask with the last line's `cursor`."""
    flush, read = map(int, (cursor or "0.0").split("."))
    found, places = [], Counter[int]()
    for position, attempt, line in site_of(request).jobs.logs(run_id, after=flush - 1):
        places[position] += 1
        if (position, places[position]) > (flush, read):
            found.append({"cursor": f"{position}.{places[position]}", **line_record(attempt, line)})
    return page_of(found, limit, lambda line: str(line["cursor"]))


def cancel_run(
    request: Request,
    run_id: str,
    children: Annotated[
        Literal["cancel", "keep"], Query(description="What becomes of the runs that it has started in steps.")
    ] = "cancel",
) -> dict[str, Any]:
    """Ask a run to end: a pending one is cancelled at once, a closed one stays as it is. Twice is safe."""
    return run_record(site_of(request).jobs.cancel(run_id, children=children))


def redrive_run(
    request: Request,
    run_id: str,
    *,
    from_start: Annotated[bool, Query(description="Forget what its steps have done.")] = False,
) -> dict[str, Any]:
    """Open a failed, cancelled, skipped or missed run again, due now."""
    return run_record(site_of(request).jobs.redrive(run_id, from_start=from_start))


def discard_run(request: Request, run_id: str) -> dict[str, Any]:
    """Take a failed run off the dead letters; it stays on record. Twice is safe."""
    return run_record(site_of(request).jobs.discard(run_id))


def change_many(request: Request, given: Many) -> dict[str, Any]:
    """Cancel, redrive or discard up to 1,000 runs. Each is audited, all under one batch."""
    done = site_of(request).jobs.bulk(given.action, given.ids, dry_run=given.dry_run)
    return {
        "action": given.action,
        "dry_run": given.dry_run,
        "eligible": list(done.run_ids),
        "refused": [{"id": run_id, "why": why} for run_id, why in done.refused.items()],
        "batch_id": done.batch_id,
    }


router.add("GET", "/runs", READ, list_runs, response_model=RunsModel)
router.add("POST", "/runs/bulk", WRITE, change_many, responses=[409], response_model=BulkModel)
router.add("GET", "/runs/{run_id}", READ, get_run, response_model=RunModel)
router.add("GET", "/runs/{run_id}/attempts", READ, list_attempts, response_model=Page[AttemptModel])
router.add("GET", "/runs/{run_id}/logs", READ, list_lines, response_model=Page[LineModel])
for _path, _do in (("cancel", cancel_run), ("redrive", redrive_run), ("discard", discard_run)):
    router.add("POST", f"/runs/{{run_id}}/{_path}", WRITE, _do, responses=[409], response_model=RunModel)
