"""A thousand jobs due in the same second: how late the last of them starts, ours with durable history, APScheduler's without.

Each in a process of its own, on SQLite, on PostgreSQL and APScheduler; they take turns, one due two seconds after the other, so that
the machine treats them alike.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import UTC

from measure import Report, answer, child, options, percentile, scratch
from postgres import fresh_databases, installed

starts: list[float] = []


def fire() -> None:
    """The handler of both."""
    starts.append(time.time())


def ours(count: int, period: int, offset: int, url: str) -> None:
    from jobmanager import JobManager, Settings

    manager = JobManager(Settings(database_url=url))
    for number in range(count):
        manager.add_job(f"job-{number}", fire, cron=f"{offset}-59/{period} * * * * *")
    manager.start()
    until_told()
    manager.stop(drain=5)


def theirs(count: int, period: int, offset: int) -> None:
    from apscheduler.schedulers.background import BackgroundScheduler
    from apscheduler.triggers.cron import CronTrigger

    scheduler = BackgroundScheduler(timezone=UTC, job_defaults={"misfire_grace_time": None, "coalesce": True})
    scheduler.start(paused=True)
    for number in range(count):
        scheduler.add_job(fire, CronTrigger(second=f"{offset}-59/{period}", timezone=UTC), id=f"job-{number}")
    scheduler.resume()
    until_told()
    scheduler.shutdown()


def until_told() -> None:
    """The parent closes our standard input when enough rounds have been seen."""
    print(json.dumps("ready"), flush=True)
    sys.stdin.read()


def tell(count: int, period: int, offset: int) -> None:
    """Lateness of every start, by the instant it was due at; rounds that were not complete are left out."""
    rounds: dict[int, list[float]] = {}
    for start in starts:
        due = int((start - offset) // period) * period + offset
        rounds.setdefault(due, []).append(start - due)
    print(
        json.dumps([sorted(late) for due, late in sorted(rounds.items()) if len(late) == count]), flush=True
    )


NAMES = {
    "sqlite": "jobmanager, SQLite FULL history",
    "postgres": "jobmanager, PostgreSQL history",
    "apscheduler": "APScheduler, memory, no history",
}
BARS = {"sqlite": 1 / 4, "postgres": 1 / 3}


def main() -> None:
    chosen = options(__doc__, store="both", jobs=0, period=0, offset=0, side="", url="")
    count = chosen.jobs or (50 if chosen.quick else 1000)
    period = chosen.period or (3 if chosen.quick else 6)
    if chosen.side:
        if chosen.side == "apscheduler":
            theirs(count, period, chosen.offset)
        else:
            ours(count, period, chosen.offset, chosen.url)
        tell(count, period, chosen.offset)
        return
    with ExitStack() as stack:
        urls = {"apscheduler": ""}
        if chosen.store in ("both", "sqlite"):
            urls["sqlite"] = f"sqlite:///{stack.enter_context(scratch()) / 'burst.db'}"
        if chosen.store == "postgres" or (chosen.store == "both" and installed()):
            urls["postgres"] = stack.enter_context(fresh_databases())()
        sides = {}
        for place, (side, url) in enumerate(urls.items()):
            words = ("--jobs", count, "--period", period, "--offset", place * period // 3, "--url", url)
            sides[side] = child(__file__, "--side", side, *words, stdin=subprocess.PIPE)
        for process in sides.values():
            answer(process)
        time.sleep(period * (1 + chosen.repeats))
        for process in sides.values():
            assert process.stdin is not None
            process.stdin.close()
        rounds = {side: answer(process) for side, process in sides.items()}
    report = Report("burst", "ms", quick=chosen.quick)
    lasts = {}
    for side, name in NAMES.items():
        kept = rounds.get(side, [])[-chosen.repeats :]
        if not kept:
            continue
        lasts[side] = [late[-1] * 1000 for late in kept]
        report.figure(f"{name}: first start", [late[0] * 1000 for late in kept])
        report.figure(f"{name}: half have started", [percentile(late, 50) * 1000 for late in kept])
        report.figure(f"{name}: last start", lasts[side])
    for side, most in BARS.items():
        if side in lasts:
            pairs = min(len(lasts[side]), len(lasts["apscheduler"]))
            mine, theirs_ = lasts[side][-pairs:], lasts["apscheduler"][-pairs:]
            report.ratio(f"last start of {count:,}, {side}, against APScheduler", mine, theirs_, most=most)
    report.finish()


if __name__ == "__main__":
    main()
