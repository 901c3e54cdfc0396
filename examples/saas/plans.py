"""The purchases of a user, by number: one rule for the seeded rows, and for the fakes of the services that know it too."""

from datetime import datetime, timedelta

CENTS = {"free": 0, "team": 1_900, "business": 9_900}
PERIOD = timedelta(days=30)


def plan_of(number: int) -> str:
    """Return the plan: of nine users six have none, two are teams and one is a business."""
    return "business" if number % 9 == 0 else "team" if number % 3 == 0 else "free"


def status_of(number: int) -> str:
    """Return what Stripe says of the subscription."""
    return "canceled" if number % 42 == 0 else "past_due" if number % 30 == 0 else "active"


def period_end_of(number: int, begun: datetime, now: datetime) -> datetime:
    """Return the end of the paid period. An active one is renewed when it ends; the others are not."""
    end = begun + timedelta(days=number % 30 + 1, hours=number % 24, minutes=7)
    while status_of(number) == "active" and end <= now:
        end += PERIOD
    return end
