"""One job each second, for a minute: how late each start is, beside APScheduler's memory store without history.

Two processes, one due at whole seconds and one at half seconds. Drift is how much later the last third starts than the first.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

from measure import Report, answer, child, options, percentile, scratch

starts: list[float] = []


def fire() -> None:
    """The handler of both."""
    starts.append(time.time())


def ours(path: str) -> None:
    from jobmanager import JobManager, Settings

    manager = JobManager(Settings(database_url=f"sqlite:///{path}"))
    manager.add_job("each-second", fire, every=1)
    manager.start()
    until_told(0.0)
    manager.stop(drain=5)


def theirs(_path: str) -> None:
    from apscheduler.schedulers.background import BackgroundScheduler
    from apscheduler.triggers.interval import IntervalTrigger

    scheduler = BackgroundScheduler(timezone=UTC)
    first = datetime.now(UTC).replace(microsecond=500_000) + timedelta(seconds=1)
    scheduler.add_job(fire, IntervalTrigger(seconds=1, start_date=first, timezone=UTC))
    scheduler.start()
    until_told(0.5)
    scheduler.shutdown()


def until_told(offset: float) -> None:
    """Until the parent closes our standard input; then tell how late each start was."""
    print(json.dumps("ready"), flush=True)
    sys.stdin.read()
    print(json.dumps([(start - offset) % 1 for start in starts]), flush=True)


def main() -> None:
    chosen = options(__doc__, side="", path="", seconds=0)
    if chosen.side:
        (ours if chosen.side == "ours" else theirs)(chosen.path)
        return
    seconds = chosen.seconds or (3 if chosen.quick else 60)
    with scratch() as folder:
        sides = {
            side: child(__file__, "--side", side, "--path", folder / "second.db", stdin=subprocess.PIPE)
            for side in ("ours", "theirs")
        }
        for process in sides.values():
            answer(process)
        time.sleep(seconds)
        late = {}
        for side, process in sides.items():
            assert process.stdin is not None
            process.stdin.close()
            late[side] = [value * 1000 for value in answer(process)][1:]  # the first start warms up
    report = Report("one-a-second", "ms", quick=chosen.quick)
    for side, name in (
        ("ours", "jobmanager, SQLite FULL history"),
        ("theirs", "APScheduler, memory, no history"),
    ):
        report.figure(f"{name}: lateness, median", late[side])
        report.figure(f"{name}: lateness, 99 of 100", [percentile(late[side], 99)])
    p99 = {side: percentile(values, 99) for side, values in late.items()}
    report.ratio("lateness, 99 of 100, against APScheduler", [p99["ours"]], [p99["theirs"]], most=1.5)
    third = max(1, len(late["ours"]) // 3)
    drift = statistics.median(late["ours"][-third:]) - statistics.median(late["ours"][:third])
    report.bar("drift from the first third to the last", drift, unit="ms", most=1.0)
    report.bar("seconds without a start", seconds - 1 - len(late["ours"]), unit="", most=1)
    report.finish()


if __name__ == "__main__":
    main()
