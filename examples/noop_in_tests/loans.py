"""The application: a public library that reminds readers of overdue books. Nothing in it knows that it will be tested."""

from datetime import date, datetime, timedelta

from jobmanager import JobManager, RunContext

LOANS = {"Momo": date(2026, 3, 2), "Dune": date(2026, 3, 20), "Emma": date(2026, 3, 27)}

jobs = JobManager()


@jobs.job("remind-readers", cron="0 9 * * mon-fri", timezone="Europe/Berlin", config={"days": 14})
def remind_readers(context: RunContext, days: int, today: date | None = None) -> dict[str, list[str]]:
    """Write to everybody whose book is out for longer than `days` days."""
    day = today or (context.scheduled_for or datetime.now().astimezone()).date()
    overdue = [title for title, lent in context.track(LOANS.items()) if day - lent > timedelta(days=days)]
    context.log.info("%s reminders", len(overdue))
    return {"reminded": overdue}


@jobs.job("order-books")
def order_books(titles: list[str], budget: float = 100.0) -> float:
    """Spend what 20 a piece costs; started by hand."""
    if (cost := 20.0 * len(titles)) > budget:
        raise ValueError(f"{cost:g} is more than the {budget:g} there are")
    return cost
