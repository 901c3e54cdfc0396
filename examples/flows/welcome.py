"""A welcome flow, an order with compensation and a nightly fan-out, a week in a second: python examples/flows/welcome.py.

You will see each mail once, although the mail server refuses the first, and the order undo what it had done.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from jobmanager import JobManager, NonRetryable, Retry, RunContext, Settings, StepFailedError
from jobmanager.testing import FakeClock, run_flow

clock = FakeClock()
jobs = JobManager(Settings(backend="noop", database_url="memory://"), clock=clock)
refusals = 1


def send_mail(text: str) -> str:
    """Stand for a mail server that is busy at first."""
    global refusals  # noqa: PLW0603 - an example has no mail server
    if refusals:
        refusals -= 1
        raise OSError("451 try again later")
    print(f"{clock.now():%a %H:%M}  mail: {text}")
    return text


@jobs.job("welcome", overlap="allow")
def welcome(context: RunContext, user: str) -> str:
    """Greet a user, and remind once."""
    context.step("greet", send_mail, f"welcome, {user}", retry=Retry(max_attempts=5, base=60))
    context.sleep("settle in", days=3)
    context.step("tips", send_mail, f"three tips for {user}", retry=3)
    confirmed = context.wait_for("user/confirmed", key=user, timeout=timedelta(days=4))
    if confirmed is None:
        context.step("remind", send_mail, f"{user}, please confirm", retry=3)
    return "confirmed" if confirmed else "reminded"


def charge(order: str) -> str:
    """Stand for a payment."""
    print(f"charged {order}")
    return f"payment of {order}"


def ship(order: str) -> None:
    """Stand for a warehouse that has none left."""
    raise NonRetryable(f"{order} is sold out")


def refund(payment: str) -> None:
    """Stand for the way back."""
    print(f"refunded {payment}")


@jobs.job("order", overlap="allow")
def order(context: RunContext, order: str) -> str:
    """Charge and ship, or undo the charge."""
    payment = context.step("charge", charge, order, retry=3)
    try:
        context.step("ship", ship, order, retry=3)
    except StepFailedError:
        context.step("refund", refund, payment, retry=10)
        return "cancelled"
    return "shipped"


@jobs.job("report")
def report(tenant: str) -> dict[str, Any]:
    """Make the report of one tenant."""
    return {"tenant": tenant, "rows": len(tenant)}


@jobs.job("nightly", cron="0 2 * * *")
def nightly(context: RunContext) -> int:
    """Make all reports, each in a run of its own."""
    tenants = context.step("tenants", lambda: ["acme", "beta", "gamma"])
    reports = context.gather("reports", "report", [{"tenant": tenant} for tenant in tenants])
    return sum(each["rows"] for each in reports)


if __name__ == "__main__":
    with jobs:
        for job, payload in (("welcome", {"user": "ann"}), ("order", {"order": "4711"}), ("nightly", None)):
            ended = run_flow(job, payload, jobs=jobs)
            print(f"{job}: {ended.run.output}; steps {', '.join(ended.names)}; {ended.took}")
