"""Plans reach the database before they are needed: at the start, when fewer than 200 days are left, with new zone data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from jobmanager.backends.pg_cron.database import Connection
from jobmanager.backends.pg_cron.plans.plan import Plan, plan_of, unsupported
from jobmanager.backends.pg_cron.schema import STAMP
from jobmanager.clock import Clock
from jobmanager.schedule import Schedule, zones
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

SOON_OVER = timedelta(days=200)
FIRST_DAYS, LATER_DAYS = 220, 400
EARLIER_DAYS = 32
"""A plan holds for the past, too: what was due before it was made, or made anew, must have its row."""
AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Drift:
    """The differences from the declarations: schedules without a plan, jobs without an instant, entries; and how calls are made."""

    unplanned: Sequence[str]
    unready: bool
    entries: bool
    ticker: dict[str, Any] | None
    keys: int
    release: str | None
    """Of our objects."""
    able: Sequence[Any]
    """The result of a probe that was part of the same query."""


class Planning:
    """Makes plans and puts them into the database."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def drift(
        self, connection: Connection, namespace: str, schedules: Iterable[Schedule], probe: str
    ) -> Drift:
        """Return what differs from the declarations, and the result of `probe`, by one query."""
        texts = sorted(schedule.text for schedule in schedules)
        until = self._clock.now().date() + SOON_OVER
        question = (
            "SELECT unplanned, unready, entries, ticker, keys, obj_description(to_regprocedure(%s), 'pg_proc'), probe.*"  # noqa: S608 - constants
            f" FROM jobmanager.drift(%s, %s, %s, %s), ({probe}) AS probe"
        )
        row: Sequence[Any] = connection.execute(  # type: ignore[assignment]  # the query returns one
            question.encode(), (STAMP, namespace, texts, zones.version(), until)
        ).fetchone()
        unplanned, unready, entries, ticker, keys, release, *able = row
        return Drift(unplanned, unready, entries, ticker, keys, release, able)

    def put(self, connection: Connection, schedules: Sequence[Schedule]) -> None:
        """Plan these: many at once not as far as few, so that no start waits for it."""
        schedules = [schedule for schedule in schedules if _can_be_kept(schedule)]
        days = LATER_DAYS if len(schedules) <= AT_ONCE else FIRST_DAYS
        first, days = self._clock.now() - timedelta(days=EARLIER_DAYS), days + EARLIER_DAYS
        for start in range(0, len(schedules), AT_ONCE):
            plans = [plan_of(each, first, days) for each in schedules[start : start + AT_ONCE]]
            rows = [
                {"schedule": plan.schedule, "n": n, "minutes": row.minutes_text, "days": row.days_text}
                for plan in plans
                for n, row in enumerate(plan.rows)
            ]
            connection.execute(
                "SELECT jobmanager.put_plans(%s::jsonb, %s::jsonb)",
                (json.dumps([_values(plan) for plan in plans]), json.dumps(rows)),
            )


def _can_be_kept(schedule: Schedule) -> bool:
    """Return whether SQL can keep this schedule; log an error for one that cannot be kept and was written into the table by hand."""
    reason = unsupported(schedule)
    if reason is not None:
        logger.error("pg_cron: jobs with this schedule stand still. %s", reason)
    return reason is None


def _values(plan: Plan) -> dict[str, Any]:
    return {
        "schedule": plan.schedule,
        "kind": plan.kind,
        "first_at": None if plan.first_at is None else plan.first_at.isoformat(),
        "step": None if plan.step is None else plan.step // timedelta(seconds=1),
        "wakeup": plan.wakeup,
        "planned_until": "infinity" if plan.planned_until == date.max else plan.planned_until.isoformat(),
        "tzdata": plan.tzdata,
        "rows": len(plan.rows),
    }
