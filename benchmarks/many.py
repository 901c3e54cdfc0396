"""Many schedules, few due: declaring them, the first start (rows are written), a later start (rows are read), memory, idle CPU.

10,000 and 100,000 jobs of 2,000 distinct (expression, zone), each case in a process of its own. Memory is what the jobs add to
a process that has ten. APScheduler's memory store is beside us for declaring and memory; with it every start declares anew.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime

from measure import Report, answer, child, options, resident_mb, scratch

ZONES = ("UTC", "Europe/Berlin")
FEW = 10


def expression(number: int) -> tuple[str, str]:
    """One of 2,000, none due in the next months."""
    kind = number % 2000
    month = (datetime.now(UTC).month + 5) % 12 + 1
    return f"{kind % 60} {kind // 60 % 24} {1 + kind % 28} {month} *", ZONES[kind // 1000]


def work() -> None:
    """The handler; it never runs here."""


def ours(count: int, path: str, idle: float) -> None:
    from jobmanager import JobManager, Settings

    manager = JobManager(Settings(database_url=f"sqlite:///{path}"))
    told = {}
    begun = time.perf_counter()
    for number in range(count):
        cron, zone = expression(number)
        manager.add_job(f"job-{number}", work, cron=cron, timezone=zone)
    told["declared_s"] = time.perf_counter() - begun
    begun = time.perf_counter()
    manager.start()
    told["started_s"] = time.perf_counter() - begun
    tell(told, idle)
    manager.stop(drain=1)


def theirs(count: int, _path: str, idle: float) -> None:
    from apscheduler.schedulers.background import BackgroundScheduler
    from apscheduler.triggers.cron import CronTrigger

    scheduler = BackgroundScheduler(timezone=UTC)
    scheduler.start()
    begun = time.perf_counter()
    for number in range(count):
        cron, zone = expression(number)
        scheduler.add_job(work, CronTrigger.from_crontab(cron, timezone=zone), id=f"job-{number}")
    tell({"declared_s": time.perf_counter() - begun, "started_s": 0.0}, idle)
    scheduler.shutdown()


def tell(told: dict[str, float], idle: float) -> None:
    """Wait until start-up has settled, then look at the CPU time of doing nothing."""
    time.sleep(min(3.0, idle))
    told["resident_mb"] = resident_mb()
    cpu, begun = time.process_time(), time.perf_counter()
    time.sleep(idle)
    told["idle_percent"] = 100 * (time.process_time() - cpu) / (time.perf_counter() - begun)
    print(json.dumps(told), flush=True)
    sys.stdin.read()


def one(side: str, count: int, path: object, idle: float) -> dict[str, float]:
    process = child(
        __file__, "--side", side, "--count", count, "--path", path, "--idle", idle, stdin=subprocess.PIPE
    )
    told: dict[str, float] = answer(process)
    process.communicate()
    return told


def main() -> None:
    chosen = options(__doc__, side="", path="", count=0, idle=0.0)
    idle = chosen.idle or (0.5 if chosen.quick else 20.0)
    if chosen.side:
        (ours if chosen.side == "ours" else theirs)(chosen.count, chosen.path, idle)
        return
    counts = (200,) if chosen.quick else (10_000, 100_000)
    report = Report("many", "s", quick=chosen.quick)
    with scratch() as folder:
        base = one("ours", FEW, folder / "few.db", 0.1)
        their_base = one("theirs", FEW, "", 0.1)
        for count in counts:
            path = folder / f"{count}.db"
            first = one("ours", count, path, 0.1)
            again = one("ours", count, path, idle)
            strict = count == 100_000
            name = f"{count:,}:"
            report.bar(f"{name} declared", again["declared_s"], unit="s", most=3.0 if strict else None)
            report.bar(f"{name} first start, rows written", first["started_s"], unit="s")
            report.bar(f"{name} start, rows read", again["started_s"], unit="s", most=1.0 if strict else None)
            report.bar(
                f"{name} memory over ten jobs",
                again["resident_mb"] - base["resident_mb"],
                unit="MiB",
                most=80 if strict else None,
            )
            report.bar(f"{name} idle CPU", again["idle_percent"], unit="%", most=0.3)
            if not strict:
                stock = one("theirs", count, "", 0.1)
                report.bar(f"{name} APScheduler's memory store, declared", stock["declared_s"], unit="s")
                report.bar(
                    f"{name} APScheduler's memory store, memory over ten jobs",
                    stock["resident_mb"] - their_base["resident_mb"],
                    unit="MiB",
                )
    report.finish()


if __name__ == "__main__":
    main()
