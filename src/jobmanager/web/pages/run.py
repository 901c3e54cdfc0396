"""The page of one run, and what is done to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from jobmanager.access.principal import WRITE
from jobmanager.errors import JobManagerError, StoreError
from jobmanager.explain import explain
from jobmanager.explain.resting import resting, waited_for
from jobmanager.ledger.redaction import Redactor
from jobmanager.manager.manager import JobManager
from jobmanager.present.frames import parts_of
from jobmanager.present.phrases import tail
from jobmanager.present.runs import (
    error_line,
    progress_words,
    resting_words,
    started_by,
    time_left,
    what_happened,
    word_of,
)
from jobmanager.present.steps import MOST_COUNTED, Branch, name_of, took, tree, waited
from jobmanager.run import FAILED, MISSED, PENDING, RUNNING, SKIPPED, LogLine, Run, RunStatus
from jobmanager.search import DeadLetters, RunFilter
from jobmanager.step import Step
from jobmanager.validation.printable import printable_json, printable_lines
from jobmanager.web.pages.rendering import back_to, check_page, confirmation, form_of, page, templates
from jobmanager.web.pages.strip import CELLS
from jobmanager.web.pages.times import Times
from jobmanager.web.pages.waterfall import axis, bars_of, scale_of, step_picture, waterfall
from jobmanager.web.problems import Problem, ProblemError
from jobmanager.web.site import site_of

LINES, MOST_BLOCKED, MOST_ENTRIES, SHORT_JSON, MOST_STEPS = 300, 5, 10, 14, 200
LEVELS = {"WARNING": "late", "ERROR": "failed", "CRITICAL": "failed"}
REDRIVEN = frozenset(RunStatus) - {PENDING, RUNNING, RunStatus.SUCCEEDED}
T = TypeVar("T")


@dataclass(frozen=True)
class Text:
    """A text of several lines, and whether it is folded."""

    text: str
    is_long: bool


def run(request: Request) -> Response:
    """Show a run: its status, attempts, log, payload and result."""
    site = site_of(request)
    manager, times = site.jobs, Times(site.now(), site.zone)
    found = manager.run(request.path_params["run_id"])
    hosts = {process.id: process.host for process in _told(lambda: manager.executors(found.job_id)) or ()}
    lines = manager.logs(found.id)
    bars = bars_of(found, manager.attempts(found.id), hosts, times.now)
    before, after = manager.runs_beside(found.id)
    steps = manager.steps(found.id)
    children = manager.children(found.id, limit=MOST_COUNTED) if steps else []
    return page(
        request,
        "run.html",
        run=found,
        word=word_of(found),
        why=_rest(found, steps, children, times) or _why(manager, found, times),
        rests=resting_words(found, times.now, times.clock),
        steps=steps[-MOST_STEPS:],
        earlier_steps=max(0, len(steps) - MOST_STEPS),
        family=_family(manager, found, children),
        starts=bars,
        scale=scale_of(found, bars, times.now),
        lines=lines[-LINES:],
        earlier_lines=max(0, len(lines) - LINES),
        host=hosts.get(found.owner or "", ""),
        before=before,
        after=after,
        due=manager.due_instants([found.job_id], limit=CELLS).get(found.job_id, ()),
        left=time_left(found, times.now),
        blocked=_blocked(manager, found),
        same=_same(manager, found),
        frames=parts_of(found.error.traceback) if found.error and found.error.traceback else [],
        payload=_json(Redactor(manager.settings.secret_values()).value(found.payload)),
        output=_json(found.output),
        usual=_told(lambda: manager.stats(found.job_id, "7d").duration),
        entries=_told(lambda: manager.audit(target="run", target_id=found.id, limit=MOST_ENTRIES)) or (),
        may_cancel=not found.status.closed and found.cancel_requested_at is None,
        may_redrive=found.status in REDRIVEN,
        may_discard=found.status is FAILED and found.discarded_at is None,
        is_dead=found.status is FAILED and found.discarded_at is None,
    )


def _told(ask: Callable[[], T]) -> T | None:
    """Return an answer that only adds to the page; None where it is refused to the principal or cannot be had."""
    try:
        return ask()
    except StoreError:
        raise
    except JobManagerError:
        return None


def _rest(found: Run, steps: list[Step], children: list[Run], times: Times) -> tuple[str, str] | None:
    """Return what the run waits for in its steps, and what to do about it; None if it does not rest."""
    decision = resting(found, steps, children, now=times.now, told=times.clock)
    return None if decision is None else (decision.because, decision.advice)


def _family(manager: JobManager, found: Run, children: list[Run]) -> Branch | None:
    """Return the run with the runs that it has started and theirs; None for a run that started none."""
    if not children:
        return None
    return tree(
        found,
        lambda run_id: children if run_id == found.id else manager.children(run_id, limit=MOST_COUNTED),
    )


def _why(manager: JobManager, found: Run, times: Times) -> tuple[str, str]:
    """Return why an instant did not run, waits or came late, in a sentence, and what to do about it."""
    due = found.scheduled_for
    is_late = due is not None and found.started_at is not None and word_of(found) == "late"
    if due is None or not (is_late or found.status in (MISSED, SKIPPED, PENDING)):
        return "", ""
    told = _told(lambda: explain(manager, found.job_id, due, told=lambda at: times.clock(at, seconds=True)))
    if told is None or told.run is None or told.run.id != found.id:
        return "", ""
    return told.because, told.advice


def _blocked(manager: JobManager, found: Run) -> list[Run]:
    """Return runs that wait for this one, or were skipped because of it."""
    if found.started_at is None:
        return []
    waiting = [RunFilter(job=found.job_id, statuses=[PENDING])] if not found.status.closed else []
    skipped = RunFilter(job=found.job_id, statuses=[SKIPPED], reason="overlap", since=found.instant)
    some = [each for wanted in (*waiting, skipped) for each in manager.search_runs(wanted, limit=50).runs]
    return [
        each
        for each in some
        if each.blocked_by == found.id
        or (each.turn == "waits" and each.concurrency_key == found.concurrency_key)
    ][:MOST_BLOCKED]


def _same(manager: JobManager, found: Run) -> DeadLetters | None:
    """Return the dead letters with the same error, if there are others."""
    if found.status is not FAILED or found.error is None:
        return None
    groups = manager.dead_letters_by_error(RunFilter(job=found.job_id, error_kind=found.error.kind))
    group = next((group for group in groups if found.id in group.run_ids), None)
    return group if group is not None and len(group.run_ids) > 1 else None


def _json(value: Any) -> Text | None:
    if value is None:
        return None
    text = printable_json(value, indent=1)
    if len(text) <= 76:
        text = printable_json(value)
    return Text(text, text.count("\n") > SHORT_JSON or len(text) > 2000)


def log(request: Request) -> Response:
    """Send the whole log as plain text."""
    site = site_of(request)
    lines = site.jobs.logs(request.path_params["run_id"])
    return PlainTextResponse(
        "".join(
            f"{_stamp(line, site.zone)} {line.level:<8} {printable_lines(line.text)}\n"
            for _, _, line in lines
        )
    )


def _stamp(line: LogLine, zone: Any) -> str:
    return line.at.astimezone(zone).isoformat(sep=" ", timespec="milliseconds")


def short_stamp(line: LogLine, zone: Any) -> str:
    """Return the time of a line as the log shows it: `14:30:00.3`."""
    return f"{line.at.astimezone(zone):%H:%M:%S.%f}"[:10]


async def redrive(request: Request) -> Response:
    """Open the run again, and show it."""
    form = await form_of(request)
    return await _done(request, "redrive", from_start=form.get("from_start") == "yes")


async def discard(request: Request) -> Response:
    """Take the run off the dead letters, and show it."""
    return await _do(request, "discard")


async def cancel(request: Request) -> Response:
    """Ask whether the run is to end; when that was confirmed, ask it to end."""
    form = await form_of(request)
    if form.get("sure") == "yes":
        return await _done(request, "cancel")
    return await run_in_threadpool(_confirm, request)


async def _do(request: Request, action: str) -> Response:
    await form_of(request)
    return await _done(request, action)


async def _done(request: Request, action: str, **how: Any) -> Response:
    run_id = request.path_params["run_id"]
    changed = await run_in_threadpool(getattr(site_of(request).jobs, action), run_id, **how)
    return back_to(request, f"/runs/{changed.id}")


def _confirm(request: Request) -> Response:
    check_page(request, WRITE)
    site = site_of(request)
    found = site.jobs.run(request.path_params["run_id"])
    if found.status.closed:
        raise ProblemError(
            Problem(
                status=409,
                kind="transition",
                title="The run has ended",
                detail=f"It is {found.status}.",
                hint="Load its page again.",
            )
        )
    now = found.status is PENDING
    at = Times(site.now(), site.zone).clock(found.instant)
    return confirmation(
        request,
        question=f"Cancel the run of {found.job_id}, {at}?",
        told="It ends at once, before it starts."
        if now
        else "It ends when its handler looks whether it is to end; nothing is killed. So do the runs that it has started.",
        apply=f"/runs/{found.id}/cancel",
        fields={"sure": "yes"},
        verb="Cancel the run",
        danger=True,
        keep="Keep it",
        back=f"/runs/{found.id}",
    )


templates().globals.update(
    axis=axis,
    waterfall=waterfall,
    step_picture=step_picture,
    name_of_step=name_of,
    step_took=took,
    step_waited=waited,
    waited_for=waited_for,
    what_happened=what_happened,
    short_stamp=short_stamp,
    log_levels=LEVELS,
    started_by=started_by,
    error_line=error_line,
    progress_words=progress_words,
    tail_of=tail,
)
ROUTES = [
    Route("/runs/{run_id}", run),
    Route("/runs/{run_id}/log", log),
    Route("/runs/{run_id}/redrive", redrive, methods=["POST"]),
    Route("/runs/{run_id}/discard", discard, methods=["POST"]),
    Route("/runs/{run_id}/cancel", cancel, methods=["POST"]),
]
