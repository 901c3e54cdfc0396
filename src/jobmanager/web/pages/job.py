"""The page of one job: what became of its instants, how long its runs take, what it is, and why it did or did not run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobmanager.explain import Explanation, explain
from jobmanager.ledger.job_view import JobView
from jobmanager.present.arguments import Field, fields_of
from jobmanager.present.condition import Condition, Instant, condition_of, outcome_of, streak_of
from jobmanager.present.definition import definition_lines, told_change
from jobmanager.present.jobs import shown_config
from jobmanager.present.phrases import length
from jobmanager.run import Run, RunStatus
from jobmanager.web.pages.board import HANDLERS_FRESH, board_of, seen_by
from jobmanager.web.pages.charts.calendar import Cell, calendar_chart, worst
from jobmanager.web.pages.charts.durations import Dot, durations_chart, grid, percentile
from jobmanager.web.pages.rendering import page
from jobmanager.web.pages.times import Times
from jobmanager.web.site import Site, site_of

DAYS = 14
MOST_INSTANTS = 3_000
MOST_COMING = 1_500
RUNS = 96
LISTED = 8
CHANGES = 8
STATS_FRESH = 5.0
"""Seconds for which the sums over a week are kept."""


@dataclass(frozen=True)
class Calendar:
    """The instants of some days: what they came to, the picture, and those that did not go well, newest first."""

    counts: Mapping[str, int]
    days: Sequence[date]
    chart: Markup
    bad: Sequence[tuple[Instant, str, Run | None]]
    is_cut: bool

    @property
    def due(self) -> int:
        """All instants that were due."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class Durations:
    """How long the last runs took."""

    chart: Markup
    count: int
    p50: timedelta | None
    p95: timedelta | None


def job(request: Request) -> Response:
    """Show a job; `explain` of the query is an instant to be explained."""
    return job_page(request, request.path_params["job_id"])


def job_page(
    request: Request,
    job_id: str,
    status: int = 200,
    *,
    fields: Sequence[Field] | None = None,
    refused: str = "",
    typed: Mapping[str, str] | None = None,
) -> Response:
    """Return the page of a job; with `fields` and `refused` after a start by hand that was refused, as it was typed."""
    site = site_of(request)
    jobs, now = site.jobs, site.now()
    view = jobs.get_job(job_id)
    t = Times(now, site.zone)
    midnight = now.astimezone(site.zone).replace(hour=0, minute=0, second=0, microsecond=0)
    since = (midnight - timedelta(days=DAYS - 1)).astimezone(UTC)
    instants = jobs.due_instants([view.id], limit=MOST_INSTANTS, since=since).get(view.id, [])
    missing = {
        entry.standing.handler
        for entry in board_of(site, fresh=HANDLERS_FRESH).entries
        if not entry.standing.has_handler
    }
    newest = jobs.runs(view.id, limit=RUNS)
    asked = request.query_params.get("explain", "").strip()
    given, _ = config_of(site, view)
    return page(
        request,
        "job.html",
        status,
        view=view,
        condition=condition_of(view, instants, missing),
        failing=_failing(view, instants),
        calendar=_calendar(request, view, instants, newest, t),
        durations=_durations(view, newest, t),
        stats=site.cached.get(("stats", seen_by(), view.id), STATS_FRESH, lambda: jobs.stats(view.id, "7d")),
        lines=definition_lines(view, jobs.registry.declared.get(view.id), shown_config(jobs, view), now),
        changes=[(entry, told_change(entry)) for entry in jobs.history(view.id, limit=CHANGES)]
        if view.row is not None
        else [],
        fields=fields_of(schema_of(site, view.handler), given) if fields is None else fields,
        refused=refused,
        typed=typed or {},
        asked=asked,
        account=_equation,
        **_answer(site, view, asked, t),
    )


def schema_of(site: Site, handler: str) -> Mapping[str, Any] | None:
    """Return the JSON schema of a handler's arguments; None if this process does not have the handler, or hides it."""
    return next((info.arguments for info in site.jobs.handlers() if info.key == handler), None)


def config_of(site: Site, view: JobView) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the job's arguments that may be shown, and those that may not, as they are."""
    raw: dict[str, Any] = dict(view.declared.get("config") or {})
    shown = shown_config(site.jobs, view)
    return (
        {name: value for name, value in raw.items() if shown.get(name) == value},
        {name: value for name, value in raw.items() if shown.get(name) != value},
    )


def _failing(view: JobView, instants: Sequence[Instant]) -> tuple[Run, Condition] | None:
    """Return the run that failed last, while the job fails, and how many in a row."""
    streak = streak_of(instants)
    failed = next((run for run in view.latest if run.status is RunStatus.FAILED), None)
    if failed is None or streak is None or streak.word != "failed":
        return None
    return failed, streak


# ---------------------------------------------------------------- the calendar

_WENT_WELL = ("succeeded", "running", "pending")
_QUARTER = timedelta(minutes=15)


def _calendar(
    request: Request, view: JobView, instants: Sequence[Any], newest: Sequence[Run], t: Times
) -> Calendar:
    root = request.scope.get("root_path", "")
    today = t.now.astimezone(t.zone).date()
    days = [today - timedelta(days=ago) for ago in reversed(range(DAYS))]
    counts: dict[str, int] = {}
    by_hour: dict[tuple[date, int], list[tuple[str, Any]]] = {}
    bad: list[tuple[Any, str]] = []
    of_hour: list[tuple[str, Any]] = []
    # The zone is asked once for a quarter of an hour: in it all have one hour of the day, in every zone.
    begin = end = t.now
    for instant in instants:
        outcome = outcome_of(instant)
        counts[outcome] = counts.get(outcome, 0) + instant.ticks
        if outcome not in _WENT_WELL:
            bad.append((instant, outcome))
        due, first = instant.scheduled_for, instant.first_for
        for moment in (due,) if first is None or first == due else (due, first):
            if not begin <= moment < end:
                begin = moment.replace(minute=moment.minute // 15 * 15, second=0, microsecond=0)
                end = begin + _QUARTER
                local = moment.astimezone(t.zone)
                of_hour = by_hour.setdefault((local.date(), local.hour), [])
            of_hour.append((outcome, instant))
    cells = {hour: _cell(root, found, t) for hour, found in by_hour.items()}
    for moment in _coming(view, t):
        hour = moment.date(), moment.hour
        if hour not in cells:
            told = f"{moment:%a} {moment.day} {moment:%b %H:%M}: due"
            link = f"{root}/jobs/{view.id}?explain={moment:%Y-%m-%dT%H:%M}#explain"
            cells[hour] = Cell("due", 1, told, link)
    runs = _runs_of(site_of(request), [instant for instant, _ in bad[:LISTED]], newest)
    listed = [(instant, outcome, runs.get(instant.run_id)) for instant, outcome in bad[:LISTED]]
    return Calendar(counts, days, calendar_chart(days, cells), listed, len(instants) >= MOST_INSTANTS)


def _runs_of(site: Site, instants: Sequence[Any], newest: Sequence[Run]) -> dict[str, Run]:
    """Return the runs of these instants by id: from the newest runs of the job, and the others in one statement."""
    found = {run.id: run for run in newest}
    others = [instant.run_id for instant in instants if instant.run_id not in found]
    return found | site.jobs.runs_by_id(others) if others else found


def _cell(root: str, of_hour: Sequence[tuple[str, Any]], t: Times) -> Cell:
    words = [word for word, _ in of_hour]
    outcome = worst(set(words))
    instant = next(instant for word, instant in of_hour if word == outcome)
    local = instant.scheduled_for.astimezone(t.zone)
    told = f"{local:%a} {local.day} {local:%b %H:%M}: {outcome}"
    if outcome in ("succeeded", "failed") and instant.started_at and instant.finished_at:
        told += f" in {length(instant.finished_at - instant.started_at)}"
    if instant.reason:
        told += f" ({instant.reason})"
    alike = words.count(outcome)
    if len(of_hour) > 1:
        told += f"; {alike} of {len(of_hour)} in this hour"
    return Cell(outcome, alike, told, f"{root}/runs/{instant.run_id}")


def _coming(view: JobView, t: Times) -> list[datetime]:
    """Return the first instants of today's hours that are still to come, in the reader's zone."""
    if view.schedule is None or view.next_run is None:
        return []
    end = (t.now.astimezone(t.zone) + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    schedule, last = view.schedule, end.astimezone(UTC) - timedelta(seconds=1)
    found: list[datetime] = []
    moment = schedule.next_after(t.now)
    for _ in range(MOST_COMING):
        if moment is None or moment > last:
            break
        if schedule.excluded(moment) is None:
            found.append(moment.astimezone(t.zone))
            moment = found[-1].replace(minute=59, second=59, microsecond=0).astimezone(UTC)
        moment = schedule.next_after(moment)
    return found


def _equation(counts: Mapping[str, int]) -> str:
    """Return `182 succeeded (3 late) + 5 failed`, without what is zero."""
    late = counts.get("late", 0)
    good = counts.get("succeeded", 0) + late
    parts = [f"{good:,} succeeded" + (f" ({late:,} late)" if late else "")] if good else []
    words = ("failed", "missed", "skipped", "cancelled", "running", "pending")
    return " + ".join([*parts, *(f"{counts[word]:,} {word}" for word in words if counts.get(word))])


# ---------------------------------------------------------------- how long runs take


def _durations(view: JobView, runs: Sequence[Run], t: Times) -> Durations | None:
    ended = [
        run for run in reversed(runs) if run.duration is not None and run.status is not RunStatus.CANCELLED
    ]
    took = [run.duration for run in ended if run.duration is not None]
    if not took:
        return None
    dots = [
        Dot(
            run.duration or timedelta(0),
            run.status is RunStatus.FAILED,
            f"{t.clock(run.instant)}: {length(run.duration)}",
        )
        for run in ended
    ]
    good = [run.duration for run in ended if run.duration is not None and run.status is RunStatus.SUCCEEDED]
    p50, p95 = percentile(good, 0.5), percentile(good, 0.95)
    timeout = view.declared.get("timeout_seconds")
    limit = None if timeout is None else timedelta(seconds=timeout)
    told = {value: length(timedelta(seconds=value)) for value in grid(max(took))} | {-1.0: length(limit)}
    chart = durations_chart(dots, p50=p50, p95=p95, timeout=limit, told=told)
    return Durations(chart, len(dots), p50, p95)


# ---------------------------------------------------------------- why it did or did not run


def _answer(site: Site, view: JobView, asked: str, t: Times) -> dict[str, Any]:
    if not asked:
        return {"explained": None, "not_read": False}
    at = moment_of(asked, t)
    if at is None:
        return {"explained": None, "not_read": True}
    explained: Explanation = explain(
        site.jobs, view.id, at, told=lambda moment: t.clock(moment, seconds=True)
    )
    return {"explained": explained, "not_read": False}


def moment_of(text: str, t: Times) -> datetime | None:
    """Return the moment that was typed, in the reader's zone unless it has another: `2026-11-25 01:00`, or `01:00` today; None if it is none."""
    local = t.now.astimezone(t.zone)
    try:
        if len(text) <= 8 and ":" in text:
            text = f"{local:%Y-%m-%d} {text.zfill(5)}"
        found = datetime.fromisoformat(text)
        found = found if found.tzinfo else found.replace(tzinfo=t.zone)
        return found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


ROUTES = [Route("/jobs/{job_id}", job)]
