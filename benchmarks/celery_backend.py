"""The Celery backend: bursts, ticks, many schedules, whole runs and starts by hand, with a real Redis and the ledger on PostgreSQL.

Beside stock `celery beat`, RedBeat (where `celery-redbeat` is installed) and plain Celery with a SQLAlchemy result backend. What
counts as sent is what a worker could take: the parent asks Redis. Parts: --only burst,ten_thousand,ticks,many,runs,latency,beats.
"""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
import statistics
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from measure import Report, answer, child, interleaved, options, percentile, resident_mb, scratch
from postgres import fresh_databases, installed

PARTS = ("burst", "ten_thousand", "ticks", "many", "runs", "latency", "beats")
NAMES = {"ours": "jobmanager", "stock": "stock beat", "redbeat": "RedBeat"}
QUEUES = {"ours": "jobmanager", "stock": "celery", "redbeat": "celery"}
SIDES = Path(__file__).with_name("celery_sides.py")
STAGED = "staged"
SENT_AGAIN = 25.0  # seconds after which whoever sweeps thinks of a message as lost, and a little less
NEVER = 300.0  # seconds after which a burst is given up


class Bench:
    """The servers, and processes that end with their `with`."""

    def __init__(self, redis: Any, store: Callable[[], str], folder: Path, *, quick: bool) -> None:
        self._redis = redis
        self.store = store
        self.folder = folder
        self.quick = quick

    def broker(self, number: int = 0) -> str:
        return f"redis://127.0.0.1:{self._redis.port}/{number}"

    def redis(self, number: int = 0) -> Any:
        import redis

        return redis.Redis(port=self._redis.port, db=number)

    @contextmanager
    def side(self, role: str, **about: Any) -> Iterator[tuple[subprocess.Popen[str], Any]]:
        """A process of celery_sides.py, and what it told when it was ready."""
        process = child(str(SIDES), json.dumps({"role": role, **about}), stdin=subprocess.PIPE)
        try:
            yield process, answer(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def beat(self, kind: str, entries: int, **about: Any) -> Any:
        about.setdefault("broker", self.broker())
        about.setdefault("store", "" if kind != "ours" else self.store())
        about.setdefault("with_canary", False)
        about.setdefault("file", str(self.folder / f"schedule-{random.random()}") if kind == "stock" else "")
        return self.side("beat", kind=kind, entries=entries, **about)


# ---------------------------------------------------------------- beats


def burst(bench: Bench, kind: str, entries: int) -> float:
    """Milliseconds from the instant at which all are due until all messages are in Redis.

    One more job each second has made the beat connect by then.
    """
    server = bench.redis()
    server.flushdb()
    store = bench.store() if kind == "ours" else ""
    lead = 8 + entries / (400 if kind == "redbeat" else 2000)
    with bench.beat(kind, entries, lead=lead, store=store, with_canary=True) as (_, told):
        time.sleep(max(0.0, told["due"] - time.time() - 0.1))
        while waiting(server, QUEUES[kind]) < entries:
            if time.time() > told["due"] + NEVER:
                raise SystemExit(f"{NAMES[kind]}: {waiting(server, QUEUES[kind])} of {entries} were sent")
            time.sleep(0.003)
        took = time.time() - told["due"]
    if kind == "ours" and (kept := rows(store, "runs", "job_id <> 'canary'")) != entries:
        raise SystemExit(f"{kept} rows in the ledger for {entries} messages")
    return 1000 * took


def waiting(server: Any, queue: str) -> int:
    """How many messages a worker could take; Redis has a list for each priority."""
    pipeline = server.pipeline(transaction=False)
    for priority in ("", "3", "6", "9"):
        pipeline.llen(f"{queue}\x06\x16{priority}" if priority else queue)
    return sum(pipeline.execute())


def rows(store: str, table: str, where: str = "true") -> int:
    """How many rows there are; none where the table is still to be made. Asked again and again, so it costs one statement."""
    import sqlalchemy as sa

    if store not in _connections:
        engine = sa.create_engine(store, isolation_level="AUTOCOMMIT")
        _connections[store] = engine.connect()
    schema = "jobmanager" if table == "runs" and store.startswith("postgres") else None
    name = f"jobmanager_{table}" if table == "runs" and schema is None else table
    counted = sa.select(sa.func.count()).select_from(sa.table(name, schema=schema)).where(sa.text(where))
    try:
        return int(_connections[store].execute(counted).scalar_one())
    except sa.exc.DBAPIError:
        return 0


_connections: dict[str, Any] = {}


def measure_burst(bench: Bench, report: Report, repeats: int) -> None:
    entries = 20 if bench.quick else 1000
    kinds = [kind for kind in NAMES if kind != "redbeat" or importlib.util.find_spec("redbeat")]
    samples = interleaved({kind: partial(burst, bench, kind, entries) for kind in kinds}, repeats)
    for kind, values in samples.items():
        report.figure(f"{entries:,} due at once, last message: {NAMES[kind]}", values)
    for kind, most in (("stock", 1 / 20), ("redbeat", 1 / 5)):
        if kind in samples:
            report.ratio(
                f"{entries:,} due at once, against {NAMES[kind]}", samples["ours"], samples[kind], most=most
            )


def measure_ten_thousand(bench: Bench, report: Report, repeats: int) -> None:
    if bench.quick:
        return  # as the burst, only more
    entries = 10_000
    values = [burst(bench, "ours", entries) for _ in range(repeats)]
    report.bar(
        f"{entries:,} due at once, last message",
        statistics.median(values),
        unit="ms",
        most=1500,
        spread=values,
    )


def measure_ticks(bench: Bench, report: Report, repeats: int) -> None:
    many = 100 if bench.quick else 10_000
    cases = [(kind, entries) for kind in ("ours", "stock") for entries in (10, many)]
    with ExitStack() as stack:
        processes = {}
        for kind, entries in cases:
            about = {
                "file": str(bench.folder / f"ticks-{entries}"),
                "store": bench.store() if kind == "ours" else "",
            }
            words = {"kind": kind, "entries": entries, "broker": bench.broker(), "seconds": 0.3, **about}
            processes[f"{NAMES[kind]}, {entries:,} entries"] = stack.enter_context(
                bench.side("ticks", **words)
            )[0]

        def tick(process: subprocess.Popen[str]) -> float:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
            return float(answer(process))

        measured = interleaved({name: partial(tick, process) for name, process in processes.items()}, repeats)
    for name, values in measured.items():
        report.figure(f"a tick with nothing due: {name}", values, unit="us")
    few, ours, stock_few, stock = measured.values()
    report.ratio(f"a tick: {many:,} entries against 10", ours, few, most=1.5)
    report.ratio(f"a tick of stock beat: {many:,} entries against 10", stock, stock_few)


# ---------------------------------------------------------------- many schedules


def measure_many(bench: Bench, report: Report, repeats: int) -> None:  # noqa: ARG001 - each is started once
    seconds = 1.0 if bench.quick else 20.0
    base = {kind: later_start(bench, kind, 10, bench.store(), 0.0) for kind in ("ours", "stock")}
    for entries in (50,) if bench.quick else (10_000, 100_000):
        told, strict = {}, entries == 100_000
        for kind in random.sample(("ours", "stock"), 2):
            store = bench.store()
            told[kind] = first_start(bench, kind, entries, store, seconds)
            told[kind] |= later_start(bench, kind, entries, store, seconds)
            told[kind]["resident_mb"] -= base[kind]["resident_mb"]
            name = f"{entries:,} schedules, {NAMES[kind]}:"
            is_ours = kind == "ours"
            for figure, unit, most in (
                ("declared_s", "s", None),
                ("first_start_s", "s", None),
                ("first_tick_s", "s", None),
                ("resident_mb", "MiB", None),
                ("idle_percent", "%", 0.5 if is_ours else None),
                ("busy_percent", "%", None),
                ("late_p50_ms", "ms", None),
                ("late_max_ms", "ms", None),
                ("drift_ms", "ms", None),
            ):
                if figure in told[kind]:
                    report.bar(f"{name} {FIGURES[figure]}", told[kind][figure], unit=unit, most=most)
        for figure, most in (("first_tick_s", 1 / 10), ("resident_mb", 1 / 5)):
            if not bench.quick:
                quotient = told["ours"][figure] / told["stock"][figure]
                name = f"{entries:,} schedules, against stock beat: {FIGURES[figure]}"
                report.bar(name, quotient, unit="x", most=most if strict else None)


FIGURES = {
    "declared_s": "declared",
    "first_start_s": "first start until the first tick",
    "first_tick_s": "later start until the first tick",
    "resident_mb": "memory over ten",
    "idle_percent": "idle CPU",
    "busy_percent": "CPU with a 1 s job",
    "late_p50_ms": "a 1 s job, half are as late",
    "late_max_ms": "a 1 s job, the latest",
    "drift_ms": "a 1 s job, drift",
}


def first_start(bench: Bench, kind: str, entries: int, store: str, seconds: float) -> dict[str, float]:
    """Start where nothing is kept yet, with one job due each second; how its messages come."""
    bench.redis().flushdb()
    file = str(bench.folder / f"many-{kind}-{entries}")
    with bench.beat(kind, entries, with_canary=True, store=store, file=file) as (process, told):
        arrived = arrivals(bench.redis(), "canary", 1.0 if bench.quick else 3.0)
        begun, before = time.perf_counter(), cpu_seconds([process.pid])
        arrived += arrivals(bench.redis(), "canary", seconds)
        busy = 100 * (cpu_seconds([process.pid]) - before) / (time.perf_counter() - begun)
    if not bench.quick:
        arrived = arrived[3:]  # start-up has settled
    figures = {"first_start_s": told["first_tick_s"], "busy_percent": busy}
    if len(arrived) > 1:
        # Ours is due at whole seconds; an interval of stock beat counts from when it ran last, so it has no instant to be late for.
        figures["drift_ms"] = 1000 * (arrived[-1] - arrived[0] - (len(arrived) - 1)) / (len(arrived) - 1)
        if kind == "ours":
            late = [1000 * (moment % 1) for moment in arrived]
            figures |= {"late_p50_ms": percentile(late, 50), "late_max_ms": max(late)}
    return figures


def arrivals(server: Any, queue: str, seconds: float) -> list[float]:
    """When each message came within so many seconds."""
    keys = [queue, *(f"{queue}\x06\x16{priority}" for priority in "369")]
    came: dict[str, float] = {}
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        taken = server.blpop(keys, timeout=max(left, 0.05))
        if taken is not None:
            came.setdefault(json.loads(taken[1])["headers"]["id"], time.time())
    return sorted(came.values())


def later_start(bench: Bench, kind: str, entries: int, store: str, seconds: float) -> dict[str, float]:
    """Start where the schedules are kept already; memory and CPU of having nothing to do."""
    file = str(bench.folder / f"many-{kind}-{entries}")
    with bench.beat(kind, entries, store=store, file=file) as (process, told):
        time.sleep(min(3.0, seconds))
        told["resident_mb"] = resident_mb(process.pid)
        if seconds:
            # Stock beat sleeps up to five minutes where nothing is due; ours looks for changes each second.
            told["idle_percent"] = cpu_percent([process.pid], seconds)
    del told["due"]
    return dict(told)


def cpu_percent(pids: Sequence[int], seconds: float) -> float:
    """Of one core, all of them together."""
    before, begun = cpu_seconds(pids), time.perf_counter()
    time.sleep(seconds)
    return 100 * (cpu_seconds(pids) - before) / (time.perf_counter() - begun)


def cpu_seconds(pids: Sequence[int]) -> float:
    import psutil

    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def measure_beats(bench: Bench, report: Report, repeats: int) -> None:  # noqa: ARG001 - once
    number, entries = (2, 10) if bench.quick else (10, 100)
    store = bench.store()
    with ExitStack() as stack:
        beats = [stack.enter_context(bench.beat("ours", entries, store=store))[0].pid for _ in range(number)]
        time.sleep(0.5 if bench.quick else 5.0)
        used = cpu_percent(beats, 0.5 if bench.quick else 20.0) / number
        resident = statistics.median(map(resident_mb, beats))
    report.bar(f"{number} beats on one store, {entries} jobs: memory of each", resident, unit="MiB")
    report.bar(f"{number} beats on one store, {entries} jobs: idle CPU of each", used, unit="%")


# ---------------------------------------------------------------- workers

WORKERS = {
    "plain Celery, prefork 2": {"kind": "plain", "pool": "prefork", "concurrency": 2},
    "plain Celery, threads 8": {"kind": "plain", "pool": "threads", "concurrency": 8},
    "jobmanager, prefork 2": {"kind": "ours", "pool": "prefork", "concurrency": 2},
    "jobmanager, threads 8": {"kind": "ours", "pool": "threads", "concurrency": 8},
    "jobmanager, prefork 2, groups of 20": {
        "kind": "ours",
        "pool": "prefork",
        "concurrency": 2,
        "group_max": 20,
    },
    "jobmanager, threads 8, groups of 20": {
        "kind": "ours",
        "pool": "threads",
        "concurrency": 8,
        "group_max": 20,
    },
}


class Ours:
    """Starts by hand from a process that executes nothing, as a web application makes them."""

    def __init__(self, broker: str, store: str, group_max: int = 1) -> None:
        from celery_sides import nothing, stamp

        from jobmanager import JobManager, Settings
        from jobmanager.backends.celery import CeleryBackend
        from jobmanager.backends.celery.application import make_app

        held: list[Any] = []
        self._held = held

        class Holding(CeleryBackend):
            """Keeps what is to be sent until all of it is there."""

            holds = False

            def dispatch(self, *which: Any) -> None:
                if self.holds:
                    held.append(which)
                else:
                    super().dispatch(*which)

        self._backend = Holding(make_app(broker), group_max=group_max)
        self._manager = JobManager(Settings(database_url=store), backend=self._backend)
        self._backend.start(lambda _: None)  # or each start by hand would wait until its message is sent
        self._manager.add_job("nothing", nothing, overlap="allow")
        self._manager.add_job("stamp", stamp, overlap="allow")
        self._store = store
        self.queue = "jobmanager"

    def stage(self, count: int) -> None:
        """Have so many runs open in the store, and their messages on a queue that nobody reads."""
        self._backend.queue, self._backend.holds = STAGED, True
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda _: self._manager.trigger_job("nothing"), range(count)))
        self._backend.holds = False
        for which in self._held:
            self._backend.dispatch(*which)
        self._held.clear()
        self._backend.queue = self.queue

    def start_one(self, path: str) -> None:
        self._manager.trigger_job("stamp", {"sent": time.time(), "path": path})

    def recorded(self) -> int:
        return rows(self._store, "runs", "status = 'succeeded'")

    def stop(self) -> None:
        self._manager.stop()
        self._manager.backend.stop(self._manager.settings.drain)


class Plain:
    """The same by plain Celery."""

    def __init__(self, broker: str, store: str) -> None:
        from celery_sides import plain_worker_app

        self._app = plain_worker_app(broker, store)
        self._store = store
        self.queue = "celery"

    def stage(self, count: int) -> None:
        task = self._app.tasks["nothing"]
        with self._app.producer_pool.acquire() as producer:
            for _ in range(count):
                task.apply_async(producer=producer, queue=STAGED)

    def start_one(self, path: str) -> None:
        self._app.tasks["stamp"].delay(time.time(), path)

    def recorded(self) -> int:
        return rows(self._store, "celery_taskmeta", "status = 'SUCCESS'")

    def stop(self) -> None:
        self._app.close()


@contextmanager
def workers(bench: Bench, names: Sequence[str]) -> Iterator[dict[str, tuple[Ours | Plain, Any]]]:
    """A worker of each kind with a broker and a store of its own, and who sends to it."""
    with ExitStack() as stack:
        found: dict[str, tuple[Ours | Plain, Any]] = {}
        for number, name in enumerate(names, 1):
            about = WORKERS[name]
            place = {"broker": bench.broker(number), "store": bench.store()}
            sender: Ours | Plain
            if about["kind"] == "ours":
                sender = Ours(**place, group_max=int(about.get("group_max", 1)))
            else:
                store = place["store"].replace("postgresql://", "postgresql+psycopg://")
                place["store"] = store
                sender = Plain(**place)
            bench.redis(number).flushdb()
            stack.callback(sender.stop)
            stack.enter_context(bench.side("worker", **place, **about))
            found[name] = sender, bench.redis(number)
            drained(*found[name], 20)  # everything is imported and connected
        yield found


def drained(sender: Ours | Plain, server: Any, count: int) -> float:
    """Recorded runs a second: all messages appear at once before an idle worker."""
    before, begun = sender.recorded(), time.perf_counter()
    sender.stage(count)
    if isinstance(sender, Ours):
        time.sleep(0.3)
        size = 0
        while size != (size := waiting(server, STAGED)):
            time.sleep(0.1)
    if sender.recorded() > before or time.perf_counter() > begun + SENT_AGAIN:
        raise SystemExit(f"staging {count} runs took so long that some were sent again to the worker")
    begun = time.perf_counter()
    for key in server.keys(f"{STAGED}*"):
        server.rename(key, sender.queue + key.decode().removeprefix(STAGED))
    while sender.recorded() < before + count:
        if time.perf_counter() > begun + NEVER:
            raise SystemExit(f"{sender.recorded() - before} of {count} are recorded")
        time.sleep(0.02)
    return count / (time.perf_counter() - begun)


def measure_runs(bench: Bench, report: Report, repeats: int) -> None:
    names = [name for name in WORKERS if not bench.quick or "prefork" in name]
    with workers(bench, names) as found:
        cases = {name: partial(drained, *who, 40 if bench.quick else 1000) for name, who in found.items()}
        samples = interleaved(cases, repeats)
    for name, values in samples.items():
        report.figure(f"recorded runs, {name}", values, unit="/s")
    for name in names:
        if name.startswith("jobmanager"):
            plain = name.split(", ")[1]
            least = 10 if "groups" in name else 1.5
            report.ratio(
                f"recorded runs, {name.removeprefix('jobmanager, ')}, against plain",
                samples[name],
                samples[f"plain Celery, {plain}"],
                least=least,
            )


def measure_latency(bench: Bench, report: Report, repeats: int) -> None:
    count = 10 if bench.quick else 50
    with workers(bench, ["plain Celery, prefork 2", "jobmanager, prefork 2"]) as found:
        took: dict[str, list[float]] = {name: [] for name in found}
        median: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(repeats):
            for name in random.sample(list(found), len(found)):
                late = latencies(found[name][0], bench.folder / f"stamps-{random.random()}", count)
                took[name] += late
                median[name].append(percentile(late, 50))
    for name, late in took.items():
        report.figure(f"started by hand, p50: {name}", median[name])
        report.bar(f"started by hand, p99: {name}", percentile(late, 99), unit="ms")
    theirs, ours = median.values()
    report.ratio("started by hand, p50 against plain Celery", ours, theirs)


def latencies(sender: Ours | Plain, path: Path, count: int) -> list[float]:
    """Milliseconds from the call to the handler's first instruction, at 25 a second."""
    for _ in range(count):
        sender.start_one(str(path))
        time.sleep(0.04)
    deadline = time.monotonic() + 30
    while not path.exists() or path.stat().st_size < 8 * count:
        if time.monotonic() > deadline:
            raise SystemExit(f"{path.stat().st_size // 8 if path.exists() else 0} of {count} started")
        time.sleep(0.02)
    return [1000 * late for (late,) in struct.iter_unpack("d", path.read_bytes())]


# ---------------------------------------------------------------- all


def main() -> None:
    chosen = options(__doc__, store="postgres", only=",".join(PARTS))
    missing = [
        what
        for what, there in (
            ("redis-server", shutil.which("redis-server")),
            ("celery[redis]", importlib.util.find_spec("celery") and importlib.util.find_spec("redis")),
        )
        if not there
    ]
    if missing:
        print(f"celery-backend: skipped, {' and '.join(missing)} not installed")
        return
    from tests.servers import Redis

    report = Report("celery-backend", "ms", quick=chosen.quick)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        if chosen.store == "postgres" and installed():
            store = stack.enter_context(fresh_databases())
        else:
            numbers = iter(range(10_000))
            store = lambda: f"sqlite:///{folder / f'{next(numbers)}.db'}"  # noqa: E731
        server = Redis()
        stack.callback(server.remove)
        server.start()
        bench = Bench(server, store, folder, quick=chosen.quick)
        parts = {part: globals()[f"measure_{part}"] for part in chosen.only.split(",")}
        for part in parts.values():
            part(bench, report, chosen.repeats)
    report.finish()


if __name__ == "__main__":
    main()
