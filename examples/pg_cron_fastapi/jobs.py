"""The jobs of a small shop. Who keeps the time, and where the work is done, is not written here."""

import logging
from datetime import UTC, date, datetime, timedelta

from jobmanager import JobManager, Retry, RunContext

log = logging.getLogger(__name__)

jobs = JobManager()


@jobs.job(
    "daily-report",
    cron="30 7 * * mon-fri",
    timezone="Europe/Berlin",
    retry=Retry(max_attempts=3),
    timeout=300,
)
def daily_report(context: RunContext, currency: str = "EUR") -> dict[str, str]:
    """Half past seven by Berlin's clock, summer and winter, before the office opens."""
    yesterday = (context.scheduled_for or datetime.now(UTC)).date() - timedelta(days=1)
    log.info("the sales of %s in %s are on their way", yesterday, currency)
    return {"day": yesterday.isoformat(), "currency": currency}


@jobs.job("check-stock", every=timedelta(minutes=1))
async def check_stock() -> int:
    """Once a minute, on the minute, whenever the process was started."""
    log.info("nothing has run out")
    return 0


@jobs.job("import-orders")
def import_orders(context: RunContext, since: date, limit: int = 100) -> dict[str, int]:
    """By hand only: `since` is needed and arrives as a date, whatever text it was sent as."""
    for page in context.track(range(0, limit, 10)):
        log.info("orders %s to %s since %s", page + 1, page + 10, since)
    return {"imported": limit}
