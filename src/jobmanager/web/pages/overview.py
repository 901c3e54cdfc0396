"""The first page: whether time is kept, what needs a person, today's account, what runs and what comes next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobmanager import RunFilter
from jobmanager.ledger.job_view import JobView
from jobmanager.ledger.statistics import JobTotals, Statistics
from jobmanager.present.condition import Condition, Instant, streak_of
from jobmanager.present.phrases import count, distance
from jobmanager.present.runs import time_left
from jobmanager.process.health import HealthReport
from jobmanager.run import PENDING, RUNNING, Run
from jobmanager.web.pages.board import FRESH, Entry, board_of, seen_by, totals_of
from jobmanager.web.pages.charts.axis import Dot, axis_chart
from jobmanager.web.pages.charts.hours import HOURS, LANES, Hour, hours_chart
from jobmanager.web.pages.pulse import pulse_of
from jobmanager.web.pages.rendering import page
from jobmanager.web.site import Site, site_of

MOST_SHOWN = 10
MOST_OPEN = 1_000
STREAK = 30
NUMBERS = (
    "Nothing", "One job", "Two jobs", "Three jobs", "Four jobs", "Five jobs", "Six jobs", "Seven jobs", "Eight jobs", "Nine jobs",
    "Ten jobs", "Eleven jobs", "Twelve jobs",
)  # fmt: skip


@dataclass(frozen=True)
class Trouble:
    """A job that needs a person: what it is, its last instants that ended alike, and the run to look at."""

    entry: Entry
    view: JobView
    streak: Condition | None
    instant: Instant | None
    run: Run | None


@dataclass(frozen=True)
class Coming:
    """The next instant of a job, or the next attempt of a run."""

    at: datetime
    job_id: str
    view: JobView | None
    retry: Run | None = None
    never_ran: bool = False


@dataclass(frozen=True)
class Account:
    """Today's instants and starts by hand: what they came to by status, and by the hour.

    `unaccounted` counts the jobs that have an instant of which no row says what became, for longer than may be.
    """

    since: datetime
    counts: dict[str, int]
    late: int
    open: int
    more_open: bool
    unaccounted: int
    hours: Sequence[Hour]

    @property
    def due(self) -> int:
        """All of them."""
        return sum(self.counts.values()) + self.open + self.unaccounted


def overview(request: Request) -> Response:
    """Show in one look whether everything is fine."""
    site = site_of(request)
    board, now = board_of(site), site.now()
    open_runs = site.cached.get(("open", seen_by()), FRESH, lambda: _open(site))
    troubles = board.in_trouble
    soonest = sorted(
        (entry for entry in board.entries if entry.standing.next_due is not None),
        key=lambda entry: (entry.standing.next_due, entry.id),
    )[:MOST_SHOWN]
    shown = troubles[:MOST_SHOWN]
    ids = {entry.id for entry in (*shown, *soonest)}
    views = {view.id: view for view in site.jobs.list_jobs(ids=ids)}
    coming = _coming(soonest, views, [run for run in open_runs if run.status is PENDING], now)
    running = sorted(
        (run for run in open_runs if run.status is RUNNING), key=lambda run: run.started_at or run.opened_at
    )
    pulse = pulse_of(site)
    health: HealthReport = site.cached.get(("health", seen_by()), FRESH, site.jobs.health)
    processes = health.facts.processes if health.facts else ()
    account = _account(site, open_runs, len(health.facts.overdue) if health.facts else 0, now)
    needs = NUMBERS[len(troubles)] if len(troubles) < len(NUMBERS) else count(len(troubles), "job")
    verb = "needs" if len(troubles) <= 1 else "need"
    return page(
        request,
        "overview.html",
        heading=f"{pulse.told}. {needs} {verb} you.",
        board=board,
        troubles=_troubles(site, shown, views),
        more=len(troubles) - len(shown),
        account=account,
        chart=_chart(request, account, site, now),
        running=running[:MOST_SHOWN],
        more_running=max(0, len(running) - MOST_SHOWN),
        totals=totals_of(site, sorted({run.job_id for run in running[:MOST_SHOWN]})),
        left=time_left,
        is_longer=_is_longer,
        coming=coming,
        axis=_axis(coming, site, now),
        since=min((item.started_at for item in processes), default=None),
        executing=sum(item.executes for item in processes),
        findings=health.symptoms,
    )


# ---------------------------------------------------------------- what needs a person


def _troubles(site: Site, entries: Sequence[Entry], views: dict[str, JobView]) -> list[Trouble]:
    due = site.jobs.due_instants([entry.id for entry in entries], limit=STREAK) if entries else {}
    return [
        _trouble(site, entry, views[entry.id], due.get(entry.id, ()))
        for entry in entries
        if entry.id in views
    ]


def _trouble(site: Site, entry: Entry, view: JobView, instants: Sequence[Instant]) -> Trouble:
    newest = entry.standing.runs.instant
    run = None
    if entry.condition.word == "recovered":
        run = site.jobs.run(max(entry.dead))
    elif newest is not None:
        run = next((run for run in view.latest if run.id == newest.run_id), None)
        if run is None and entry.condition.word == "failed":
            run = site.jobs.run(newest.run_id)
    elif entry.condition.word == "failed":
        run = view.last
    return Trouble(entry, view, streak_of(instants), newest, run)


# ---------------------------------------------------------------- today's account


def _account(site: Site, open_runs: Sequence[Run], unaccounted: int, now: datetime) -> Account:
    midnight = now.astimezone(site.zone).replace(hour=0, minute=0, second=0, microsecond=0)
    stats: Statistics = site.cached.get(("day", seen_by()), FRESH, lambda: site.jobs.stats(period="24h"))
    counts: dict[str, int] = {}
    hours = {hour: Hour(hour) for hour in range(HOURS)}
    late = 0
    for bucket in stats.buckets:
        if bucket.since < midnight - timedelta(minutes=30) or not (bucket.counts or bucket.late):
            continue
        hour = bucket.since.astimezone(site.zone).hour
        late += bucket.late
        for status, number in bucket.counts.items():
            counts[status] = counts.get(status, 0) + number
        there = hours[hour]
        hours[hour] = Hour(
            hour,
            due=there.due + sum(bucket.counts.values()),
            late=there.late + bucket.late,
            **{lane: there.count(lane) + bucket.counts.get(lane, 0) for lane in LANES if lane != "late"},
        )
    today = [run for run in open_runs if run.instant >= midnight]
    for run in today:
        hour = run.instant.astimezone(site.zone).hour
        there = hours[hour]
        hours[hour] = Hour(hour, there.due + 1, there.failed, there.missed, there.late, there.skipped)
    return Account(
        since=midnight,
        counts=counts,
        late=late,
        open=len(today),
        more_open=len(open_runs) >= MOST_OPEN,
        unaccounted=unaccounted,
        hours=[hours[hour] for hour in range(HOURS)],
    )


def _chart(request: Request, account: Account, site: Site, now: datetime) -> Markup:
    root = request.scope.get("root_path", "")
    local = now.astimezone(site.zone)
    links = []
    for hour in account.hours:
        since = account.since.replace(hour=hour.hour)
        stretch = {"since": since.isoformat(), "until": (since + timedelta(hours=1)).isoformat()}
        links.append([f"{root}/runs?{urlencode({**_filter(lane), **stretch})}" for lane in LANES])
    return hours_chart(account.hours, now=local.hour * 60 + local.minute, links=links)


def _filter(lane: str) -> dict[str, str]:
    return {"late": "1"} if lane == "late" else {"status": lane}


# ---------------------------------------------------------------- what runs, and what comes


def _open(site: Site) -> list[Run]:
    return list(site.jobs.search_runs(RunFilter(statuses=[PENDING, RUNNING]), limit=MOST_OPEN).runs)


def _is_longer(run: Run, totals: JobTotals | None, now: datetime) -> bool:
    """Return whether the run takes longer than 95 of 100 did."""
    usual = totals.duration.p95 if totals and totals.duration else None
    return usual is not None and run.started_at is not None and now - run.started_at > usual


def _coming(
    soonest: Sequence[Entry], views: dict[str, JobView], pending: Sequence[Run], now: datetime
) -> list[Coming]:
    instants = [
        Coming(entry.standing.next_due, entry.id, views.get(entry.id), never_ran=not entry.standing.runs.ran)
        for entry in soonest
        if entry.standing.next_due is not None
    ]
    retries = [
        Coming(run.due_at, run.job_id, views.get(run.job_id), retry=run)
        for run in pending
        if run.due_at > now
    ]
    return sorted([*instants, *retries], key=lambda coming: (coming.at, coming.job_id))[:MOST_SHOWN]


def _axis(coming: Sequence[Coming], site: Site, now: datetime) -> Markup:
    dots = [
        Dot(
            item.at,
            f"{item.at.astimezone(site.zone):%H:%M} {item.job_id}, {distance(item.at, now)}",
            item.retry is not None,
        )
        for item in coming
    ]
    return axis_chart(dots, now)


ROUTES = [Route("/", overview)]
