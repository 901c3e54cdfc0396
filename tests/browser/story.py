"""One consistent set of jobs and runs, so that a wrong sum is seen on every page: a shop on Wednesday 25 November 2026, 14:32:08 in Berlin.

`tell(url)` fills a fresh store, `retell(url)` returns the manager of a store that was filled. Its clock stands still and it is not started:
nothing moves but by a test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from jobmanager import JobManager, Retry, Settings
from jobmanager.run import Failure, Progress, Run, RunStatus, new_id
from jobmanager.schedule import Cron, Schedule
from jobmanager.stores.values import Instance
from jobmanager.testing import FakeClock

BERLIN = "Europe/Berlin"
BEGIN = datetime(2026, 11, 11, 23, tzinfo=UTC)
NOW = datetime(2026, 11, 25, 13, 32, 8, tzinfo=UTC)
MIDNIGHT = datetime(2026, 11, 24, 23, tzinfo=UTC)
OVERRIDDEN = datetime(2026, 11, 19, 9, 40, tzinfo=UTC)
PAUSED = datetime(2026, 11, 23, 10, tzinfo=UTC)
MADE = datetime(2026, 11, 25, 10, 2, tzinfo=UTC)
DOWN, UP = datetime(2026, 11, 24, 23, 52, tzinfo=UTC), datetime(2026, 11, 25, 0, 9, tzinfo=UTC)

HANDLERS = (
    "sync-stripe", "generate-analytics", "crm-sync", "cleanup-sessions", "check-llm-credits", "process-account-deletions",
    "refresh-search-index", "process-pending-emails", "poll-carrier-status", "check-low-credits-alerts", "export-orders",
    "legacy-import", "send-newsletter",
)  # fmt: skip
"""What the two processes of the shop can execute; `approve-mature-affiliate-conversions` they cannot since their last deployment."""

TIMED_OUT = Failure(
    kind="exception", type="APIConnectionError", message="api.stripe.com: read timed out after 80 s",
    traceback='Traceback (most recent call last):\n  File "shop/stripe.py", line 31, in sync\nAPIConnectionError: read timed out after 80 s\n',
)  # fmt: skip
BAD_GATEWAY = Failure(kind="http", type="WebhookError", message="HTTP 502 from crm.example.com", traceback="")
NO_HANDLER = Failure(kind="handler_missing", type="HandlerNotFoundError", message="No handler", traceback="")

DUE_TODAY = {
    "succeeded": 254,
    "failed": 6,
    "missed": 6,
    "skipped": 3,
    "cancelled": 1,
    "pending": 1,
    "running": 2,
}
"""What became of the instants that were due since midnight in Berlin."""


def tell(url: str) -> JobManager:
    """Fill the empty store at `url`, and return the manager of its jobs."""
    clock = FakeClock(BEGIN)
    jobs = manager(url, clock)
    jobs.get_all_job_statuses()
    jobs.sync()
    for moment, change in CHANGES.items():
        clock.advance_to(moment)
        settle(jobs, moment)
        change(jobs)
    clock.advance_to(NOW)
    settle(jobs, NOW)
    web_1, web_2 = processes(jobs)
    for job_id, runs in runs_of(web_1, web_2).items():
        insert(jobs, job_id, runs)
    jobs._assembly.rollup.round()  # as running processes do
    return jobs


def retell(url: str) -> JobManager:
    """Return the manager of a store in which the story was told."""
    return manager(url, FakeClock(NOW))


def manager(url: str, clock: FakeClock) -> JobManager:
    """Return the manager of the shop over a store."""
    jobs = JobManager(Settings(database_url=url, backend="local", durability="relaxed"), clock=clock)
    declare(jobs)
    return jobs


def declare(jobs: JobManager) -> None:
    """Declare the jobs as the shop's code does."""

    def job(job_id: str, name: str, **options: Any) -> None:
        if "cron" in options:
            options.setdefault("timezone", BERLIN)
        jobs.job(job_id, name=name, **options)(HANDLER_OF.get(job_id, nothing))

    job("sync-stripe", "Reconcile subscriptions with Stripe", cron="0 */4 * * *", timezone="UTC", timeout=300,
        retry=Retry(max_attempts=3, delays=(60, 180)), config={"page_size": 100}, pause_after_failures=4)  # fmt: skip
    job("approve-mature-affiliate-conversions", "Approve affiliate conversions", cron="0 4 * * *")
    job("generate-analytics", "Daily MRR, users, token usage", cron="0 1 * * *", catch_up="none")
    job("crm-sync", "Contacts to the CRM", cron="20 * * * *", timezone="UTC", retry=Retry(max_attempts=4))
    job("cleanup-sessions", "Delete old chat sessions", cron="0 2 * * *")
    job("check-llm-credits", "Provider keys running low", cron="0 9 * * *")
    job("process-account-deletions", "GDPR deletion queue", cron="*/30 * * * *", timezone="UTC")
    job("refresh-search-index", "Search index", cron="*/15 * * * *", timezone="UTC")
    job("process-pending-emails", "E-mail retry queue", cron="*/10 * * * *", timezone="UTC")
    job("poll-carrier-status", "Parcels on their way", every=900)
    job("check-low-credits-alerts", "Push when credits run low", cron="0 */6 * * *")
    job("legacy-import", "Orders of the old shop", cron="0 5 * * *")
    job("send-newsletter", "Newsletter")
    jobs.handler("export-orders")(export_orders)


def nothing() -> None:
    """Do nothing."""


def sync_stripe(page_size: int = 100, since: datetime | None = None, *, full: bool = False) -> str:
    """Reconcile subscriptions."""
    return f"{page_size} {since} {full}"


def export_orders(limit: int = 1000, since: datetime | None = None) -> None:
    """Export the orders of a day."""


HANDLER_OF: Mapping[str, Callable[..., object]] = {"sync-stripe": sync_stripe}
CHANGES: Mapping[datetime, Callable[[JobManager], object]] = {
    OVERRIDDEN: lambda jobs: jobs.override_job(
        "sync-stripe", cron="0 * * * *", config={"page_size": 250}, by="ana"
    ),
    PAUSED: lambda jobs: (
        jobs.stop_job("check-llm-credits", reason="Until the new provider key is there.", by="ana"),
        jobs.disable_job("legacy-import", by="ben"),
    ),
    MADE: lambda jobs: jobs.create_job(
        "nightly-export", handler="export-orders", cron="0 3 * * *", timezone=BERLIN, by="ana"
    ),
}


def settle(jobs: JobManager, moment: datetime) -> None:
    """Let every instant until the moment be accounted for: the rows of the story say what became of them."""
    for view in jobs.list_jobs():
        with jobs.store.jobs.lock(view.id) as txn:
            after = view.schedule.next_after(moment) if view.schedule else None
            due = after if txn.job.state == "active" else None
            txn.save(replace(txn.job, accounted_until=moment, next_due_at=due))


def processes(jobs: JobManager) -> tuple[str, str]:
    """Register the two processes of the shop, and return their ids."""
    ids = []
    for number, host in enumerate(("web-1", "web-2"), start=1):
        instance_id = new_id(UP + timedelta(seconds=12 * number))
        instance = Instance(
            id=instance_id, namespace=jobs.settings.namespace, host=host, pid=100 + number, executes=True,
            started_at=UP + timedelta(seconds=12 * number), seen_at=NOW, beats=9_000,
            last_tick_at=NOW - timedelta(seconds=8), lag_seconds=0.2, backend="local",
        )  # fmt: skip
        jobs.store.processes.register(instance, [view.id for view in jobs.list_jobs()], HANDLERS)
        ids.append(instance_id)
    return ids[0], ids[1]


def insert(jobs: JobManager, job_id: str, runs: Iterable[Run]) -> None:
    """Insert the rows of a job as they are."""
    with jobs.store.jobs.lock(job_id) as txn:
        for run in runs:
            assert txn.insert(run)


# ---------------------------------------------------------------- what became of each instant


def runs_of(web_1: str, web_2: str) -> dict[str, list[Run]]:
    """Return the rows of each job, as the two processes of these ids left them."""
    found = {
        "sync-stripe": [
            *good("sync-stripe", Cron("0 */4 * * *"), BEGIN, OVERRIDDEN, took=55),
            *good("sync-stripe", Cron("0 * * * *"), OVERRIDDEN, NOW, took=52),
        ],
        "approve-mature-affiliate-conversions": daily("approve-mature-affiliate-conversions", 4, took=3),
        "generate-analytics": daily("generate-analytics", 1, took=600),
        "crm-sync": good("crm-sync", Cron("20 * * * *"), NOW - timedelta(days=2), NOW, took=4),
        "cleanup-sessions": daily("cleanup-sessions", 2, took=40),
        "check-llm-credits": daily("check-llm-credits", 9, took=2),
        "process-account-deletions": good(
            "process-account-deletions", Cron("*/30 * * * *"), NOW - timedelta(days=1), NOW, took=290
        ),
        "refresh-search-index": good(
            "refresh-search-index", Cron("*/15 * * * *"), NOW - timedelta(days=1), NOW, took=100
        ),
        "process-pending-emails": good(
            "process-pending-emails", Cron("*/10 * * * *"), NOW - timedelta(days=1), NOW, took=3
        ),
        "poll-carrier-status": good(
            "poll-carrier-status", Cron("*/15 * * * *"), NOW - timedelta(days=1), NOW, took=0.34
        ),
        "check-low-credits-alerts": good(
            "check-low-credits-alerts", Cron("0 */6 * * *", BERLIN), NOW - timedelta(days=8), NOW, took=9
        ),
    }
    today = {job_id: {run.instant: run for run in runs} for job_id, runs in found.items()}
    for job_id, moments, change in STORIES:
        for moment in moments:
            today[job_id][moment] = change(today[job_id][moment])
    running = today["process-account-deletions"]
    last = max(running)
    running[last] = runs_now(running[last], web_1, Progress(processed=412, total=1200, message="accounts"))
    running = today["refresh-search-index"]
    last = max(running)
    running[last] = runs_now(running[last], web_1, None)
    by_hand = new_run("generate-analytics", NOW - timedelta(minutes=11, seconds=20))
    told = {job_id: list(runs.values()) for job_id, runs in today.items()}
    told["generate-analytics"].append(
        replace(
            runs_now(by_hand, web_2, Progress(processed=9, total=10, message="tables: token usage")),
            scheduled_for=None,
            trigger="manual",
            requested_by="ana",
        )
    )
    sent = new_run("send-newsletter", NOW - timedelta(days=3))
    told["send-newsletter"] = [replace(sent, scheduled_for=None, trigger="manual", requested_by="ben")]
    for runs in told.values():
        for place, run in enumerate(runs):
            if run.status is RunStatus.RUNNING and run.owner is None:
                runs[place] = replace(run, owner=web_1)
    return told


def good(job_id: str, schedule: Schedule, since: datetime, until: datetime, *, took: float) -> list[Run]:
    """Return a row that succeeded for each instant; lengths differ a little, and always the same way."""
    return [
        new_run(job_id, instant, took=took * (0.7 + (place * 7 % 11) / 14))
        for place, instant in enumerate(schedule.between(since, until))
    ]


def daily(job_id: str, hour: int, *, took: float) -> list[Run]:
    return good(job_id, Cron(f"0 {hour} * * *", BERLIN), BEGIN, NOW, took=took)


def new_run(job_id: str, instant: datetime, *, took: float = 1.0) -> Run:
    """Return the row of an instant that succeeded half a second late."""
    started = instant + timedelta(milliseconds=400)
    return Run(
        id=new_id(instant), job_id=job_id, status=RunStatus.SUCCEEDED, opened_at=instant, due_at=instant, concurrency_key=job_id,
        schedule_rev=1, scheduled_for=instant, attempt=1, starts=1, accepted_at=instant, started_at=started,
        finished_at=started + timedelta(seconds=took), output={"done": True},
    )  # fmt: skip


def runs_now(run: Run, owner: str, progress: Progress | None) -> Run:
    return replace(
        run, status=RunStatus.RUNNING, owner=owner, progress=progress, output=None, finished_at=None, turn="holds",
        concurrency_key=f"{run.job_id}",
    )  # fmt: skip


def failed(error: Failure) -> Callable[[Run], Run]:
    return lambda run: replace(run, status=RunStatus.FAILED, error=error, output=None)


def closed(status: RunStatus, reason: str) -> Callable[[Run], Run]:
    """Return what makes a row of an instant that never began."""
    return lambda run: replace(
        run, status=status, reason=reason, attempt=0, starts=0, started_at=None, output=None,
        blocked_by=run.id if reason == "overlap" else None,
    )  # fmt: skip


def late(minutes: float) -> Callable[[Run], Run]:
    shift = timedelta(minutes=minutes)
    return lambda run: replace(
        run,
        started_at=run.started_at + shift if run.started_at else None,
        finished_at=run.finished_at + shift if run.finished_at else None,
    )


def retried(run: Run) -> Run:
    """Return the row that waits for its third attempt."""
    return replace(
        run, status=RunStatus.PENDING, attempt=2, starts=2, max_attempts=4, due_at=NOW + timedelta(minutes=2), owner=None,
        started_at=None, finished_at=None, output=None, error=BAD_GATEWAY, turn="holds",
    )  # fmt: skip


def cancelled(run: Run) -> Run:
    return replace(run, status=RunStatus.CANCELLED, reason="requested", output=None)


def at(*hours: str, day: int = 25) -> list[datetime]:
    """Return the moments of 25 November that clocks in UTC show so."""
    return [datetime(2026, 11, day, *map(int, hour.split(":")), tzinfo=UTC) for hour in hours]


MISSED, SKIPPED = closed(RunStatus.MISSED, "downtime"), closed(RunStatus.SKIPPED, "overlap")
STORIES: list[tuple[str, list[datetime], Callable[[Run], Run]]] = [
    ("sync-stripe", at("11:00", "12:00", "13:00"), failed(TIMED_OUT)),
    ("sync-stripe", at("8:00", day=13) + at("12:00", day=17), failed(TIMED_OUT)),
    ("sync-stripe", at("4:00", day=16) + at("1:00", "2:00", day=22), MISSED),
    ("sync-stripe", at("13:00", "14:00", day=21), SKIPPED),
    ("sync-stripe", at("16:00", day=24), cancelled),
    ("sync-stripe", at("0:00"), late(9.2)),
    ("approve-mature-affiliate-conversions", at("3:00"), failed(NO_HANDLER)),
    ("generate-analytics", at("0:00"), MISSED),
    ("generate-analytics", at("0:00", day=14), failed(TIMED_OUT)),
    ("crm-sync", at("5:20", "6:20"), failed(BAD_GATEWAY)),
    ("crm-sync", at("13:20"), retried),
    ("cleanup-sessions", at("1:00"), late(4.2)),
    ("check-llm-credits", at("8:00", day=24) + at("8:00"), closed(RunStatus.SKIPPED, "paused")),
    ("refresh-search-index", at("8:15", "9:45"), SKIPPED),
    ("refresh-search-index", at("10:00"), cancelled),
    ("process-pending-emails", at("0:00"), MISSED),
    ("process-account-deletions", at("0:00"), MISSED),
    ("poll-carrier-status", at("0:00"), MISSED),
    ("refresh-search-index", at("0:00"), MISSED),
    ("crm-sync", at("0:20"), MISSED),
]
