"""The processes that celery_backend.py measures, each told what to be as JSON: beats and workers, ours and those of plain Celery.

One says on standard output that it is ready, and ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import celery.beat
from celery import Celery, signals
from celery.platforms import SecurityWarning
from celery.schedules import crontab, schedule
from many import expression

from jobmanager import JobManager, Settings

SCHEDULERS = {
    "ours": "jobmanager.backends.celery:Scheduler",
    "stock": "celery.beat:PersistentScheduler",
    "redbeat": "redbeat.RedBeatScheduler",
}


def nothing() -> None:
    """The handler, and the task."""


def stamp(sent: float, path: str) -> None:
    """Keep how long it took to come here; a line of eight bytes is written whole."""
    late = struct.pack("d", time.time() - sent)
    with open(path, "ab", buffering=0) as file:  # noqa: PTH123 - nothing more before the clock is read
        file.write(late)


def our_manager(broker: str, store: str, group_max: int = 1) -> JobManager:
    return JobManager(
        Settings(backend="celery", celery_broker_url=broker, celery_group_max=group_max, database_url=store)
    )


# ---------------------------------------------------------------- beats


def our_app(broker: str, store: str, entries: int, due: float | None, with_canary: bool, **_: Any) -> Celery:
    """Jobs due all at once, or in the next months none of them, with or without one due each second."""
    manager = our_manager(broker, store)
    for number in range(entries):
        cron, zone = expression(number) if due is None else (f"{int(due) % 60} * * * * *", "UTC")
        manager.add_job(f"job-{number}", nothing, cron=cron, timezone=zone, overlap="allow")
    if with_canary:
        manager.add_job("canary", nothing, every=1, overlap="allow", queue="canary")
    return manager.backend.app  # type: ignore[attr-defined]


def plain_app(broker: str, entries: int, due: float | None, with_canary: bool, **_: Any) -> Celery:
    """The same for stock beat and RedBeat. Crontabs know minutes alone, so theirs is a clock that reads :00 at `due`."""
    app = Celery("plain", broker=broker)
    app.conf.update(timezone="UTC", task_ignore_result=True, result_expires=None)
    if due is not None:
        ahead = timedelta(seconds=-due % 60)
        app.now = lambda: datetime.now(UTC) + ahead
    crontabs = {f"job-{number}": _crontab(number, due) for number in range(entries)}
    app.conf.beat_schedule = {name: {"task": "nothing", "schedule": when} for name, when in crontabs.items()}
    if with_canary:
        canary = {"task": "nothing", "schedule": schedule(1.0, app=app), "options": {"queue": "canary"}}
        app.conf.beat_schedule["canary"] = canary
    return app


def _crontab(number: int, due: float | None) -> crontab:
    return crontab() if due is not None else crontab.from_string(expression(number)[0])


def as_redbeat(app: Celery, broker: str) -> None:
    """Move the schedule to where RedBeat reads it."""
    from redbeat import RedBeatSchedulerEntry

    app.conf.update(redbeat_redis_url=broker, beat_max_loop_interval=5)
    entries, app.conf.beat_schedule = app.conf.beat_schedule, {}
    for name, entry in entries.items():
        RedBeatSchedulerEntry(name, app=app, **entry).save()


def service(kind: str, file: str = "", **about: Any) -> tuple[celery.beat.Service, dict[str, float]]:
    """What `celery beat` makes, with its schedule loaded and a tick done, and what that took."""
    begun = time.perf_counter()
    app = our_app(**about) if kind == "ours" else plain_app(**about)
    if kind == "redbeat":
        as_redbeat(app, about["broker"])
    told = {"declared_s": time.perf_counter() - begun}
    begun = time.perf_counter()
    made = celery.beat.Service(app, schedule_filename=file or None, scheduler_cls=SCHEDULERS[kind])
    if kind != "redbeat":  # which ticks with a lock that it takes when it starts
        made.scheduler.tick()
    told["first_tick_s"] = time.perf_counter() - begun
    return made, told


def beat(lead: float = 0.0, **about: Any) -> None:
    """Keep the time; with `lead` everything is due that many seconds from now."""
    due = float(int(time.time() + lead) + 1) if lead else None
    made, told = service(due=due, **about)
    if due is not None and time.time() > due - 0.2:
        raise SystemExit(f"a lead of {lead:g} s is too short: {told}")
    tell({**told, "due": due})
    made.start()


def ticks(seconds: float, **about: Any) -> None:
    """Microseconds of a tick that finds nothing due, measured once for each line on standard input."""
    scheduler = service(due=None, with_canary=False, **about)[0].scheduler
    tell("ready")
    for _ in sys.stdin:
        done, begun = 0, time.perf_counter()
        while time.perf_counter() < begun + seconds:
            scheduler.tick()
            done += 1
        tell(1e6 * (time.perf_counter() - begun) / done)
    os._exit(0)


# ---------------------------------------------------------------- workers


def plain_worker_app(broker: str, results: str) -> Celery:
    """Plain Celery as its manual has it, with a result backend that keeps a row per task."""
    app = Celery("plain", broker=broker, backend=f"db+{results}")
    app.task(name="nothing")(nothing)
    app.task(name="stamp")(stamp)
    return app


def worker_manager(broker: str, store: str, group_max: int) -> JobManager:
    manager = our_manager(broker, store, group_max)
    manager.add_job("nothing", nothing, overlap="allow")
    manager.add_job("stamp", stamp, overlap="allow")
    return manager


def worker(kind: str, broker: str, store: str, pool: str, concurrency: int, group_max: int = 1) -> None:
    app: Celery
    if kind == "ours":
        app = worker_manager(broker, store, group_max).backend.app  # type: ignore[attr-defined]
    else:
        app = plain_worker_app(broker, store)
    warnings.filterwarnings("ignore", category=SecurityWarning)  # of being root
    signals.worker_ready.connect(lambda **_: tell("ready"), weak=False)
    quiet = ("--without-gossip", "--without-mingle", "--loglevel", "critical")
    app.worker_main(["--quiet", "worker", "--pool", pool, "--concurrency", str(concurrency), *quiet])


# ---------------------------------------------------------------- both


def tell(what: object) -> None:
    assert sys.__stdout__ is not None  # a worker makes log lines of what is printed
    print(json.dumps(what), file=sys.__stdout__, flush=True)


def end_with_input(role: str) -> None:
    import psutil

    while os.read(0, 1):  # not sys.stdin: the lock of its buffer would be held in every forked child
        pass
    if role == "beat":  # what it leaves tidy is measured by the next one
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    for process in psutil.Process().children(recursive=True):
        process.kill()
    os._exit(0)


ROLES: dict[str, Callable[..., None]] = {"beat": beat, "ticks": ticks, "worker": worker}


def main() -> None:
    about = json.loads(sys.argv[1])
    role = about.pop("role")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if role != "ticks":
        threading.Thread(target=end_with_input, args=(role,), daemon=True).start()
    ROLES[role](**about)


if __name__ == "__main__":
    main()
