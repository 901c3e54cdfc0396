"""What planning costs: 10,000 distinct schedules for 100 days, and one, dense or sparse, near changes of the clock.

The schedules are planned once each, in a fresh process's caches; the mixture is that of a large application: daily, hourly
and every few minutes, on weekdays or days of the month, in a handful of zones.
"""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime

from measure import Report, options

from jobmanager.backends.pg_cron.plans.plan import plan_of
from jobmanager.schedule import Cron

START = datetime(2026, 9, 1, tzinfo=UTC)  # 100 days in which most zones change their clocks
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo", "Australia/Sydney", "America/Sao_Paulo")
ONE = ("* * * * *", "*/5 * * * *", "30 2 * * *", "0 9-17 * * 1-5", "0 0 1 * *", "0 0 29 2 *")


def distinct(count: int, rng: random.Random) -> list[Cron]:
    found: dict[tuple[str, str], Cron] = {}
    while len(found) < count:
        minute, hour = rng.randrange(60), rng.randrange(24)
        expression = rng.choice(
            [
                f"{minute} {hour} * * *",
                f"{minute} {hour} * * *",
                f"{minute} {hour} * * 1-5",
                f"{minute} {hour} * * {rng.randrange(7)}",
                f"{minute} {hour} {rng.randrange(1, 29)} * *",
                f"{minute} * * * *",
                f"{minute}-59/{rng.randrange(2, 30)} {hour}-23 * * *",
                f"{minute},{(minute + 30) % 60} {hour},{(hour + 12) % 24} * {rng.randrange(1, 13)} *",
            ]
        )
        zone = rng.choice(ZONES)
        found[expression, zone] = Cron(expression, zone)
    return list(found.values())


def planned(schedules: list[Cron], days: int) -> float:
    begun = time.perf_counter()
    for schedule in schedules:
        plan_of(schedule, START, days)
    return time.perf_counter() - begun


def main() -> None:
    chosen = options(__doc__)
    count = 100 if chosen.quick else 10_000
    report = Report("plans", "ms", quick=chosen.quick)
    schedules = distinct(count, random.Random(1))
    plan_of(Cron("0 0 * * *", "Europe/Paris"), START, 100)
    taken = planned(schedules, 100)
    report.bar(f"{count} distinct schedules, 100 days", taken, unit="s", most=1.2)
    report.figure(f"{count} distinct schedules, 400 days", [planned(schedules, 400) * 1000])
    for expression in ONE:
        for days in (100, 400):
            # A zone and a day that nothing before has asked for.
            figures = [
                planned([Cron(expression, zone)], days) * 1000
                for zone in ("Europe/Rome", "America/Denver", "Asia/Beirut")
            ]
            report.figure(f"{expression:<16} {days} days", figures)
    report.finish()


if __name__ == "__main__":
    main()
