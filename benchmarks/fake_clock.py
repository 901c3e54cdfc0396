"""Thirty days of a test's time: 5 hourly and 15 daily jobs fire, in order, on a clock that is moved by hand."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from measure import Report, interleaved, options

from jobmanager import JobManager, Settings
from jobmanager.testing import FakeClock

START = datetime(2026, 1, 1, tzinfo=UTC)


def move(days: int) -> float:
    """Seconds it takes to move the clock so far; every instant the schedules ask for has then been fired."""
    fired: list[datetime] = []
    clock = FakeClock(START)
    manager = JobManager(Settings(backend="local", database_url="memory://"), clock=clock)
    for number in range(5):
        manager.add_job(f"hourly-{number}", lambda: fired.append(clock.now()), cron=f"{number * 7} * * * *")
    for number in range(15):
        manager.add_job(
            f"daily-{number}",
            lambda: fired.append(clock.now()),
            cron=f"{number} {number} * * *",
            timezone="Europe/Berlin",
        )
    manager.start()
    planned = manager.simulate(START, START.replace(day=1 + days))
    begun = time.perf_counter()
    clock.advance(days=days)
    elapsed = time.perf_counter() - begun
    manager.stop(0)
    assert fired == [tick.scheduled_for for tick in planned]
    return elapsed


def main() -> None:
    chosen = options(__doc__)
    days = 2 if chosen.quick else 30
    report = Report("fake-clock", "s", quick=chosen.quick)
    samples = interleaved({f"{days} days": lambda: move(days)}, chosen.repeats)
    report.samples(samples)
    report.bar(f"{days} days", report.figures[f"{days} days"]["median"], unit="s", most=2.0)
    runs = days * (5 * 24 + 15)
    report.bar("a run", report.figures[f"{days} days"]["median"] / runs * 1e6, unit="us")
    report.finish()


if __name__ == "__main__":
    main()
