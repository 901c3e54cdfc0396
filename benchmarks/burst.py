"""A thousand jobs due in the same second: how late the last of them starts, ours with durable history, APScheduler's without.

Two processes take turns, one due two seconds after the other, so that the machine treats them alike.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC

from measure import Report, answer, child, options, percentile, scratch

starts: list[float] = []


def fire() -> None:
    """The handler of both."""
    starts.append(time.time())


def ours(count: int, period: int, path: str) -> None:
    from jobmanager import JobManager, Settings

    manager = JobManager(Settings(database_url=f"sqlite:///{path}"))
    for number in range(count):
        manager.add_job(f"job-{number}", fire, cron=f"*/{period} * * * * *")
    manager.start()
    until_told()
    manager.stop(drain=5)
    tell(count, period, 0)


def theirs(count: int, period: int, _path: str) -> None:
    from apscheduler.schedulers.background import BackgroundScheduler
    from apscheduler.triggers.cron import CronTrigger

    scheduler = BackgroundScheduler(timezone=UTC, job_defaults={"misfire_grace_time": None, "coalesce": True})
    scheduler.start(paused=True)
    for number in range(count):
        scheduler.add_job(
            fire, CronTrigger(second=f"{period // 2}-59/{period}", timezone=UTC), id=f"job-{number}"
        )
    scheduler.resume()
    until_told()
    scheduler.shutdown()
    tell(count, period, period // 2)


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


def main() -> None:
    chosen = options(__doc__, jobs=0, period=0, side="", path="")
    count = chosen.jobs or (50 if chosen.quick else 1000)
    period = chosen.period or (2 if chosen.quick else 4)
    if chosen.side:
        (ours if chosen.side == "ours" else theirs)(count, chosen.period, chosen.path)
        return
    with scratch() as folder:
        words = ("--jobs", count, "--period", period, "--path", folder / "burst.db")
        sides = {
            side: child(__file__, "--side", side, *words, stdin=subprocess.PIPE)
            for side in ("ours", "theirs")
        }
        for process in sides.values():
            answer(process)
        time.sleep(period * (1 + chosen.repeats))
        for process in sides.values():
            assert process.stdin is not None
            process.stdin.close()
        rounds = {side: answer(process) for side, process in sides.items()}
    report = Report("burst", "ms", quick=chosen.quick)
    lasts = {}
    for side, name in (
        ("ours", "jobmanager, SQLite FULL history"),
        ("theirs", "APScheduler, memory, no history"),
    ):
        kept = rounds[side][-chosen.repeats :]
        lasts[side] = [late[-1] * 1000 for late in kept]
        report.figure(f"{name}: first start", [late[0] * 1000 for late in kept])
        report.figure(f"{name}: half have started", [percentile(late, 50) * 1000 for late in kept])
        report.figure(f"{name}: last start", lasts[side])
    pairs = min(len(lasts["ours"]), len(lasts["theirs"]))
    report.ratio(
        f"last start of {count:,}, against APScheduler",
        lasts["ours"][-pairs:],
        lasts["theirs"][-pairs:],
        most=0.25,
    )
    report.finish()


if __name__ == "__main__":
    main()
