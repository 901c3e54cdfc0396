"""The three jobs of the demo: one succeeds, one reports progress, one fails and is retried."""

from __future__ import annotations

import random
import time

from jobmanager.context import RunContext
from jobmanager.job import Retry
from jobmanager.manager.manager import JobManager


def declare(jobs: JobManager) -> None:
    """Declare the three jobs."""
    jobs.job("heartbeat", every=2, name="A coroutine, every two seconds")(heartbeat)
    jobs.job("import-orders", every=5, name="Reports its progress", config={"orders": 40})(import_orders)
    jobs.job(
        "send-invoices",
        every=4,
        name="Fails now and then, and is tried again",
        retry=Retry(max_attempts=3, delays=[0.5, 1]),
    )(send_invoices)


async def heartbeat() -> str:
    """Return at once."""
    return "alive"


def import_orders(context: RunContext, orders: int = 40) -> dict[str, int]:
    """Import one order after the other."""
    for number in context.track(range(orders), message="orders"):
        time.sleep(0.07)
        if number % 20 == 0:
            context.log.info("order %d", number)
    return {"imported": orders}


def send_invoices(context: RunContext) -> dict[str, int]:
    """Call a mail server that is refused now and then."""
    time.sleep(0.3)
    if context.attempt == 1 and random.random() < 0.5:  # noqa: S311 - a demo
        raise ConnectionError("the mail server hung up")
    return {"sent": random.randint(1, 9)}  # noqa: S311
