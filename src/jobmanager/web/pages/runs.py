"""The page of runs, and what is done to many of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, tzinfo
from typing import Any, cast, get_args
from urllib.parse import urlencode

from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from jobmanager.errors import RunNotFoundError
from jobmanager.manager.bulk import MOST_IN_BULK, BulkAction, BulkResult
from jobmanager.manager.manager import JobManager
from jobmanager.present.phrases import count
from jobmanager.present.runs import what_happened, word_of
from jobmanager.run import Run
from jobmanager.search import DeadLetters, RunFilter
from jobmanager.web.pages.found import MOST_DEAD, Beside
from jobmanager.web.pages.rendering import back_to, confirmation, form_of, local_path, page, templates
from jobmanager.web.pages.run_filters import PERIODS, Facets, chips_of, filters_of
from jobmanager.web.pages.times import Times
from jobmanager.web.problems import Problem, ProblemError
from jobmanager.web.site import site_of

PAGE = 50
MOST_NEWER = 100
MOST_GROUPS, MOST_LISTED = 5, 12
DONE = {
    "cancel": "were asked to end",
    "redrive": "are pending again",
    "discard": "are no dead letters any more",
}


def runs(request: Request) -> Response:
    """Show a page of runs by the filters of the address, and dead letters by their error."""
    site = site_of(request)
    now = site.now()
    filters = filters_of(request.query_params, now, site.zone)
    before = request.query_params.get("before") or None
    found = site.jobs.search_runs(filters.wanted, before=before, limit=PAGE)
    beside = Beside(site.jobs, filters.wanted, found if before is None else None, site.cached)
    dead = beside.dead_letters()
    response = page(
        request,
        "runs.html",
        filters=filters,
        facets=Facets(beside.counts(), filters),
        chips=chips_of(filters, Times(now, site.zone).clock),
        found=found,
        before=before,
        dead=dead,
        dead_total=sum(len(group.run_ids) for group in dead),
        most_groups=MOST_GROUPS,
        most_dead=MOST_DEAD,
        periods=[(value, told) for value, (told, _) in PERIODS.items()],
        longest=max((run.duration for run in found.runs if run.duration), default=None),
        all_selected=request.query_params.get("select") == "all",
        back="/runs" + (f"?{request.url.query}" if request.url.query else ""),
        said=_said(request.query_params.get("done", "")),
    )
    if "hx-request" in request.headers:  # the address without fields that were left empty
        response.headers["hx-push-url"] = f"{request.scope.get('root_path', '')}/runs?{filters.query}"
    return response


def newer(request: Request) -> Response:
    """Say how many runs came since the page was shown: a region that the page asks for by itself."""
    site = site_of(request)
    filters = filters_of(request.query_params, site.now(), site.zone)
    top = request.query_params.get("top", "")
    found = site.jobs.search_runs(filters.wanted, limit=MOST_NEWER).runs
    ids = [run.id for run in found]
    number = ids.index(top) if top in ids else len(ids)
    more = "+" if top not in ids and number == MOST_NEWER else ""
    text = (
        templates()
        .get_template("runs_newer.html")
        .render(at=request.scope.get("root_path", ""), filters=filters, top=top, newer=number, more=more)
    )
    return HTMLResponse(text)


# ---------------------------------------------------------------- many at once


async def bulk(request: Request) -> Response:
    """Ask whether the chosen runs are to be changed; when that was confirmed, change them."""
    form = cast("FormData", await form_of(request))
    action = str(form.get("do", ""))
    if action not in get_args(BulkAction):
        raise ProblemError(
            Problem(
                status=422, kind="invalid-request", title="No such action", hint="Go back and choose one."
            )
        )
    back = local_path(form.get("back") or "/runs")
    manager = site_of(request).jobs
    ids = await run_in_threadpool(_chosen, manager, form)
    if not ids:
        raise ProblemError(
            Problem(
                status=422,
                kind="nothing-chosen",
                title="No run is selected",
                hint="Go back and select runs by their boxes.",
            )
        )
    chosen = cast("BulkAction", action)
    if form.get("sure") == "yes":
        result = await run_in_threadpool(manager.bulk, chosen, ids)
        done = f"done={action}.{len(result.run_ids)}.{len(result.refused)}"
        return back_to(request, f"{back}{'&' if '?' in back else '?'}{done}")
    return await run_in_threadpool(_confirm, request, chosen, ids, back)


def _chosen(manager: JobManager, form: FormData) -> list[str]:
    """Return the ids of a form: those of its boxes, those it was given, or those of all dead letters with the error of one."""
    ids = [str(run_id) for run_id in form.getlist("id")] + str(form.get("ids", "")).split()
    if not (same := form.get("same")):
        return ids[: MOST_IN_BULK + 1]
    run = manager.run(str(same))
    wanted = RunFilter(job=run.job_id, error_kind=run.error.kind if run.error else None)
    groups = manager.dead_letters_by_error(wanted, limit=MOST_IN_BULK)
    return next((list(group.run_ids) for group in groups if run.id in group.run_ids), [run.id])


def _confirm(request: Request, action: BulkAction, ids: Sequence[str], back: str) -> Response:
    manager = site_of(request).jobs
    result = manager.bulk(action, ids, dry_run=True)
    number, total = len(result.run_ids), len(ids)
    verb = action.capitalize()
    of = f"{number:,} of {total:,} runs" if number != total else count(total, "run")
    return confirmation(
        request,
        template="runs_confirm.html",
        question=f"{verb} {of}?" if number else f"None of {count(total, 'run')} can be {PAST[action]}",
        told=TOLD[action],
        listed=_listed(manager, result),
        others=max(0, total - MOST_LISTED),
        apply="/runs/bulk",
        fields={"do": action, "ids": " ".join(result.run_ids), "sure": "yes", "back": back},
        verb=f"{verb} {count(number, 'run')}" if number else "",
        danger=action == "cancel",
        keep="Keep them" if number else "Back",
        back=back,
        remark=REMARK,
    )


PAST = {"cancel": "cancelled", "redrive": "redriven", "discard": "discarded"}
TOLD = {
    "redrive": "They go back to pending, due now, and count as further attempts of their instants.",
    "discard": "They are taken off the dead letters and stay on record. Nothing is executed.",
    "cancel": "Pending ones end at once. A running one ends when its handler looks whether it is to end; nothing is killed.",
}
REMARK = "These very runs: what fails meanwhile is not added. It is written to the audit as one batch."


def _listed(manager: JobManager, result: BulkResult) -> list[tuple[Run | None, str, str]]:
    """Return the first runs of a confirmation with why they are not eligible: those that are not come first."""
    chosen = [*result.refused.items(), *((run_id, "") for run_id in result.run_ids)][:MOST_LISTED]
    return [(_run(manager, run_id), run_id, why) for run_id, why in chosen]


def _run(manager: JobManager, run_id: str) -> Run | None:
    try:
        return manager.run(run_id)
    except RunNotFoundError:
        return None


def _said(done: str) -> str:
    """Return the sentence about what a form did, from its address: only words and numbers of ours."""
    action, *numbers = done.split(".")
    if (
        action not in DONE
        or len(numbers) != 2
        or not all(number.isdecimal() and len(number) < 6 for number in numbers)
    ):
        return ""
    changed, refused = map(int, numbers)
    told = f"{count(changed, 'run')} {DONE[action] if changed != 1 else DONE[action].replace('were', 'was').replace('are', 'is')}."
    return told + (f" {count(refused, 'other')} changed meanwhile and stayed." if refused else "")


def took(run: Run, longest: Any) -> Markup:
    """Return the bar below a length: how long the run took beside the longest of the page."""
    if not run.duration or not longest:
        return Markup("")
    share = max(1, round(100 * run.duration / longest))
    return Markup(
        '<svg class="chart {}" height="3" aria-hidden="true"><rect class="vol" width="100%" height="3"/>'
        '<rect class="edge" width="{}%" height="3"/></svg>'
    ).format(run.status.value, share)


def local(moment: datetime | None, zone: tzinfo) -> str:
    """Return a moment as the field of a form has it; empty for None."""
    return "" if moment is None else f"{moment.astimezone(zone):%Y-%m-%dT%H:%M}"


def group_query(group: DeadLetters) -> str:
    """Return the query of the runs of a group."""
    text = [("text", group.text)] if group.text else []
    return urlencode([("job", group.job_id), ("kind", group.error_kind), *text, ("dead", "1")])


templates().globals.update(
    took=took, local=local, group_query=group_query, what_happened=what_happened, word_of=word_of
)
ROUTES = [Route("/runs", runs), Route("/runs/newer", newer), Route("/runs/bulk", bulk, methods=["POST"])]
