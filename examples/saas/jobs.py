"""What the application does by the clock; the work itself is in housekeeping.py, mail.py and analytics.py.

jobmanager --app examples.saas.jobs:jobs jobs list
jobmanager --app examples.saas.jobs:jobs run
"""

import time
from datetime import UTC, date, datetime, timedelta

from jobmanager import JobManager, Retry, RunContext

from . import analytics, database, housekeeping, mail

jobs = JobManager()


@jobs.job("cleanup-sessions", cron="0 2 * * *", config={"days_to_keep": 30}, timeout=300)
def cleanup_sessions(
    context: RunContext, days_to_keep: int, batch_size: int = 500, rest_seconds: float = 0.05
) -> dict[str, int]:
    """Delete sessions that ended more than `days_to_keep` days ago."""
    return _delete(context, housekeeping.EXPIRED_SESSIONS, days_to_keep, batch_size, rest_seconds)


@jobs.job("cleanup-invitations", cron="0 3 * * *", config={"days_to_keep": 30}, timeout=300)
def cleanup_invitations(
    context: RunContext, days_to_keep: int, batch_size: int = 500, rest_seconds: float = 0.05
) -> dict[str, int]:
    """Delete invitations that nobody accepted and that ran out more than `days_to_keep` days ago."""
    return _delete(context, housekeeping.UNANSWERED_INVITATIONS, days_to_keep, batch_size, rest_seconds)


@jobs.job("purge-logs", cron="0 4 * * *", config={"days_to_keep": 90}, timeout=900)
def purge_logs(
    context: RunContext, days_to_keep: int, batch_size: int = 500, rest_seconds: float = 0.05
) -> dict[str, int]:
    """Delete log lines older than `days_to_keep` days."""
    return _delete(context, housekeeping.OLD_LOGS, days_to_keep, batch_size, rest_seconds)


@jobs.job(
    "process-pending-emails",
    cron="*/5 * * * *",
    config={"backoff_seconds": [60, 180, 540, 900]},
    retry=Retry(max_attempts=3),
    timeout=240,
)
def process_pending_emails(
    context: RunContext, backoff_seconds: list[int], batch_size: int = 20
) -> dict[str, int]:
    """Send what is due. A refused mail waits for its next turn; a server that is gone fails the attempt, another follows."""
    counts: dict[mail.Outcome, int] = {"sent": 0, "failed": 0, "taken": 0}
    backoff = [timedelta(seconds=seconds) for seconds in backoff_seconds]
    worker = f"{context.run_id}/{context.attempt}"
    with database.connect() as db, mail.Outbox(db, worker, backoff=backoff) as outbox:
        if due := outbox.due():
            with mail.server() as smtp:
                while batch := outbox.claim(batch_size):
                    for letter in batch:
                        context.raise_if_cancelled()
                        counts[outbox.send(letter, smtp)] += 1
                        context.progress(sum(counts.values()), due, letter.recipient)
        return {"sent": counts["sent"], "failed": counts["failed"], "left": outbox.left()}


@jobs.job("generate-analytics", cron="0 1 * * *", retry=Retry(max_attempts=3), timeout=60)
def generate_analytics(context: RunContext, day: date | None = None) -> dict[str, str | int]:
    """Write the figures of `day`, by default the day before the run was due. Again is as good as once."""
    with database.connect() as db:
        return analytics.summarise(db, day or _due(context).date() - timedelta(days=1), datetime.now(UTC))


@jobs.job("test-job")
def always_succeeds(context: RunContext, steps: int = 20, seconds: float = 2.0) -> dict[str, int]:
    """Take `seconds` in `steps`, to be watched. No schedule: started by hand."""
    for step in range(1, steps + 1):
        context.raise_if_cancelled()
        time.sleep(seconds / steps)
        context.progress(step, steps, f"step {step} of {steps}")
    context.log.info("all %s steps done", steps)
    return {"steps": steps}


@jobs.job("test-fail-job")
def always_fails() -> None:
    """To see what a failure looks like. No schedule: started by hand."""
    raise RuntimeError("This job always fails; that is its job.")


def _delete(
    context: RunContext, old: housekeeping.OldRows, days_to_keep: int, batch_size: int, rest_seconds: float
) -> dict[str, int]:
    before = _due(context) - timedelta(days=days_to_keep)
    deleted = 0
    with database.connect() as db:
        total = old.count(db, before)
        while batch := old.delete(db, before, batch_size):
            deleted += batch
            context.progress(deleted, total, f"{deleted:,} of {total:,} {old.table}")
            context.raise_if_cancelled()
            time.sleep(rest_seconds)  # SQLite has one writer at a time: let web requests have their turn
    return {"deleted": deleted}


def _due(context: RunContext) -> datetime:
    """Return the moment the work is for: a late or repeated run does what the run on time would have done."""
    return context.scheduled_for or datetime.now(UTC)
