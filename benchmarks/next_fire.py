"""What one next fire costs, beside the calendars others use, walking from each to the next.

Ours: asked for the first time, and asked again (jobs that share an expression share the answer). APScheduler reads 1-5 as
Tuesday to Saturday, so its walk there is over other days.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger
from croniter import croniter
from cronsim import CronSim
from measure import Report, interleaved, options

from jobmanager import Cron

EXPRESSIONS = ("* * * * *", "*/5 * * * *", "0 3 * * *", "30 9 * * 1-5", "15 10 1 1,4,7,10 *", "0 0 29 2 *")
STEPS = {"15 10 1 1,4,7,10 *": 100, "0 0 29 2 *": 12}  # the others walk 300
ZONES = ("UTC", "America/New_York")
CASES = ("jobmanager, first time", "jobmanager, again", "croniter", "cronsim", "APScheduler")


def walk(step: Callable[[datetime], datetime], start: datetime, steps: int) -> float:
    """Microseconds a step."""
    moment, begun = start, time.perf_counter()
    for _ in range(steps):
        moment = step(moment)
    return (time.perf_counter() - begun) / steps * 1e6


class Walks:
    """The five ways, for one expression in one zone; each round goes over dates it has not seen."""

    def __init__(self, expression: str, zone: str, steps: int) -> None:
        self._expression, self._zone, self._steps = expression, ZoneInfo(zone), steps
        self._cron = Cron(expression, timezone=zone)
        self._year = 1990

    def round(self) -> dict[str, float]:
        self._year += 50  # the longest walk is 48 years: what one round has asked, no later one asks again
        start = datetime(self._year, 1, 1, tzinfo=UTC)
        local = start.astimezone(self._zone)
        theirs = croniter(self._expression, local)
        simulated = CronSim(self._expression, local)
        trigger = CronTrigger.from_crontab(self._expression, timezone=self._zone)
        return {
            "jobmanager, first time": walk(self._cron.next_after, start, self._steps),  # type: ignore[arg-type]
            "jobmanager, again": walk(self._cron.next_after, start, self._steps),  # type: ignore[arg-type]
            "croniter": walk(lambda _: theirs.get_next(datetime), local, self._steps),
            "cronsim": walk(lambda _: next(simulated), local, self._steps),
            "APScheduler": walk(
                lambda moment: trigger.get_next_fire_time(moment, moment), local, self._steps
            ),
        }


def main() -> None:
    chosen = options(__doc__)
    report = Report("next-fire", "us", quick=chosen.quick)
    walks = {
        (expression, zone): Walks(expression, zone, 3 if chosen.quick else STEPS.get(expression, 300))
        for expression in EXPRESSIONS
        for zone in ZONES
    }
    told: dict[tuple[str, str], list[dict[str, float]]] = {key: [] for key in walks}

    def measure(key: tuple[str, str]) -> float:
        told[key].append(walks[key].round())
        return 0.0

    interleaved({f"{key}": partial(measure, key) for key in walks}, chosen.repeats)
    ours: list[float] = []
    theirs: list[float] = []
    for (expression, zone), rounds in told.items():
        for case in CASES:
            report.figure(f"{expression:<20} {zone:<17} {case}", [figures[case] for figures in rounds])
        ours += [figures["jobmanager, first time"] for figures in rounds]
        theirs += [figures["croniter"] for figures in rounds]
    report.ratio("first time, against croniter, over all", ours, theirs)
    report.finish()


if __name__ == "__main__":
    main()
