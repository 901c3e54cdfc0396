"""The pg_cron backend: calls accepted a second, a thousand jobs due at :00, entries kept in step, and what announcing costs.

On a server of its own with real pg_cron, which waits for the disk; pg_net is the stand-in of the tests, which wakes sooner than the
real one. Parts: --only endpoint,burst,sync,announce. `burst` waits for a full minute in each of its cases.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import hashlib
import hmac
import json
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measure import Report, answer, child, interleaved, options, percentile
from plans import distinct
from postgres import installed

from jobmanager.backends.timetable import ScheduledJob
from jobmanager.job import Job
from jobmanager.schedule import Cron
from jobmanager.stores.values import JobRow

if TYPE_CHECKING:
    import psycopg
    from tests.servers import PgCron

    from jobmanager.backends.pg_cron import PgCronBackend

PARTS = ("endpoint", "burst", "sync", "announce")
SIDES = Path(__file__).with_name("pg_cron_sides.py")
KEY = hashlib.sha256(b"benchmark").digest()
SECRET = "whsec_" + base64.b64encode(KEY).decode()
NEVER = "0 0 1 1 *"
# Connections instead of background workers: the quicker of the two where each job has an entry.
CONF = {
    "fsync": "on",
    "full_page_writes": "on",
    "cron.use_background_workers": "off",
    "shared_buffers": "256MB",
}


class Bench:
    """The server, and processes that end with their `with`."""

    def __init__(self, server: PgCron, *, quick: bool) -> None:
        self.server = server
        self.quick = quick

    def fresh(self) -> psycopg.Connection[Any]:
        """A connection to the database, which is as new."""
        self.server.clear()
        return self.connect()

    def connect(self) -> psycopg.Connection[Any]:
        import psycopg

        return psycopg.connect(self.server.url, autocommit=True, options="-c timezone=UTC")

    @contextmanager
    def side(self, role: str, **about: Any) -> Iterator[Side]:
        """A process of pg_cron_sides.py."""
        words = json.dumps({"role": role, "store": self.server.url, **about})
        process = child(str(SIDES), words, stdin=subprocess.PIPE)
        try:
            yield Side(process, answer(process))
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def ours(self, jobs: int, cron: str, **settings: Any) -> contextlib.AbstractContextManager[Side]:
        return self.side("ours", jobs=jobs, cron=cron, secret=SECRET, **settings)


class Side:
    """A web process, and the port at which it serves."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process = process
        self.port = port

    def ask(self, what: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return answer(self._process)


def one(connection: psycopg.Connection[Any], query: str, *values: object) -> Any:
    row = connection.execute(query, values).fetchone()
    return None if row is None else row[0]


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.01)


# ---------------------------------------------------------------- endpoint

CLIENTS = 16
JOBS = 20_000  # none of them comes again in one round
ANNOUNCE = """INSERT INTO jobmanager.runs (id, job_id, schedule_rev, scheduled_for, ticks, status, trigger, notify, due_at, attempt,
 max_attempts, retry_on_crash, concurrency_key, priority, opened_at)
 SELECT gen_random_uuid(), j.id, j.schedule_rev, t.at, 1, 'pending', 'schedule', false, t.at, 0, 1, true, j.id, 0, clock_timestamp()
   FROM (SELECT n, 'job-' || n %% %(jobs)s AS job, date_trunc('second', clock_timestamp()) - (%(runs)s - n) / %(jobs)s * interval '1 second' AS at
     FROM generate_series(1, %(runs)s) n) t JOIN jobmanager.jobs j ON j.id = t.job ORDER BY t.n RETURNING id::text"""


def requests(runs: Sequence[str], per_call: int, first: int, port: int) -> list[bytes]:
    """Calls as the database sends them, with so many runs each."""
    made = []
    second = int(time.time())
    for place, start in enumerate(range(0, len(runs), per_call)):
        call = first + place
        body = json.dumps({"v": 1, "call": call, "kind": "ticks", "runs": runs[start : start + per_call]})
        signed = hmac.digest(KEY, f"call_{call}.{second}.{body}".encode(), "sha256")
        head = {
            "Host": f"127.0.0.1:{port}",
            "Content-Type": "application/json",
            "Content-Length": len(body),
            "webhook-id": f"call_{call}",
            "webhook-timestamp": second,
            "webhook-signature": "v1," + base64.b64encode(signed).decode(),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        made.append(f"POST /jobs/run HTTP/1.1\r\n{lines}\r\n{body}".encode())
    return made


async def called(port: int, calls: list[bytes], clients: int) -> tuple[float, list[float], int]:
    """Seconds that all of them took, the milliseconds of each, and how many runs were accepted."""
    left, took, accepted = iter(calls), [], 0

    async def client() -> None:
        nonlocal accepted
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for call in left:
            begun = time.perf_counter()
            writer.write(call)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 202"):
                raise SystemExit(f"answered {head[:200]!r}")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            said = json.loads(await reader.readexactly(int(length)))
            accepted += said["accepted"]
            took.append((time.perf_counter() - begun) * 1000)
        writer.close()

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return time.perf_counter() - begun, took, accepted


class Endpoint:
    """The web processes, called in turns; what they answered in how many milliseconds."""

    def __init__(self, connection: psycopg.Connection[Any], sides: dict[str, Side]) -> None:
        self._connection = connection
        self._sides = sides
        self._calls = 0
        self.took: dict[str, list[list[float]]] = {}

    def measure(self, name: str, role: str, calls: int, per_call: int, clients: int) -> float:
        """Runs that were accepted a second."""
        runs = [
            row[0] for row in self._connection.execute(ANNOUNCE, {"jobs": JOBS, "runs": calls * per_call})
        ]
        self._connection.execute("ANALYZE jobmanager.runs")
        made = requests(runs, per_call, self._calls + 1, self._sides[role].port)
        self._calls += calls
        gc.collect()
        seconds, took, accepted = asyncio.run(called(self._sides[role].port, made, clients))
        if role == "ours":
            if accepted != len(runs):
                raise SystemExit(f"{accepted} of {len(runs)} runs were accepted")
            open_ones = "SELECT count(*) FROM jobmanager.runs WHERE status IN ('pending', 'running')"
            until(lambda: one(self._connection, open_ones) == 0, 60, "the runs are executed")
        # Their history would grow in one case and be there in the next.
        self._connection.execute(
            "TRUNCATE jobmanager.runs, jobmanager.run_calls, jobmanager.run_logs CASCADE"
        )
        self._connection.execute("TRUNCATE run")
        self.took.setdefault(name, []).append(took)
        return len(runs) / seconds


def measure_endpoint(bench: Bench, report: Report, repeats: int) -> None:
    scale = 50 if bench.quick else 1
    alone, many = "one client, 1 run a call", f"{CLIENTS} clients, 1 run a call"
    grouped = [f"{CLIENTS} clients, {per_call} runs a call" for per_call in (10, 100)]
    thousand = "1,000 runs in 10 calls at once"
    bare = "bare Starlette route, one INSERT"
    cases = {
        f"uvicorn, nothing done: {many}": ("silent", 2000, 1, CLIENTS),
        f"{bare}: {alone}": ("bare", 500, 1, 1),
        f"{bare}: {many}": ("bare", 2000, 1, CLIENTS),
        f"jobmanager: {alone}": ("ours", 500, 1, 1),
        f"jobmanager: {many}": ("ours", 2000, 1, CLIENTS),
        f"jobmanager: {grouped[0]}": ("ours", 800, 10, CLIENTS),
        f"jobmanager: {grouped[1]}": ("ours", 160, 100, CLIENTS),
        f"jobmanager: {thousand}": ("ours", 10, 100, 10),
    }
    with ExitStack() as stack:
        connection = stack.enter_context(bench.fresh())
        stand_in(stack, bench.server.url)  # with notify, a listener would be quicker than we
        sides = {
            "ours": stack.enter_context(bench.ours(JOBS, NEVER)),
            "bare": stack.enter_context(bench.side("bare")),
            "silent": stack.enter_context(bench.side("silent")),
        }
        connection.execute("SELECT jobmanager.remove_entries()")  # only the benchmark calls
        connection.execute("ANALYZE")
        endpoint = Endpoint(connection, sides)
        for name, (role, *_, clients) in cases.items():
            endpoint.measure(name, role, 50, 1, clients)
        endpoint.took.clear()
        samples = interleaved(
            {
                name: partial(endpoint.measure, name, role, max(calls // scale, clients), per_call, clients)
                for name, (role, calls, per_call, clients) in cases.items()
            },
            repeats,
        )
    report.samples(samples, unit="runs/s")
    for name, rounds in endpoint.took.items():
        report.figure(f"{name}: p50 of a 202", [percentile(took, 50) for took in rounds], unit="ms")
        last = [percentile(took, 99) for took in rounds]
        is_ours = name.startswith("jobmanager") and not name.endswith(
            grouped[1]
        )  # 1,600 at once are never sent
        most = 100 if is_ours else None
        report.bar(f"{name}: p99 of a 202", percentile(last, 50), unit="ms", most=most, spread=last)
    floor = samples[f"{bare}: {many}"]
    report.ratio(f"{alone}, against a {bare}", samples[f"jobmanager: {alone}"], samples[f"{bare}: {alone}"])
    report.ratio(f"{many}, against a {bare}", samples[f"jobmanager: {many}"], floor, least=0.8)
    for name in grouped:
        report.ratio(f"{name}, against a {bare}", samples[f"jobmanager: {name}"], floor, least=2)
    report.ratio(
        f"what uvicorn itself can do, against a {bare}", samples[f"uvicorn, nothing done: {many}"], floor
    )


# ---------------------------------------------------------------- burst


def measure_burst(bench: Bench, report: Report, repeats: int) -> None:
    """pg_cron comes up to a second after the full minute, by its own polling, so what follows its first row is told apart."""
    jobs = 20 if bench.quick else 1000
    cases = {
        "dispatcher, pg_net (stand-in)": {"pg_cron_transport": "pg_net", "pg_cron_layout": "dispatcher"},
        "dispatcher, notify": {"pg_cron_transport": "notify", "pg_cron_layout": "dispatcher"},
        "an entry for each, pg_net (stand-in)": {"pg_cron_transport": "pg_net", "pg_cron_layout": "entries"},
    }
    for name, settings in cases.items():
        is_dispatched = settings["pg_cron_layout"] == "dispatcher"
        with ExitStack() as stack:
            connection = stack.enter_context(bench.fresh())
            stand_in(stack, bench.server.url)
            side = stack.enter_context(bench.ours(jobs, "* * * * *", **settings))
            connection.execute("SELECT jobmanager.put_key('default', %s)", (SECRET,))
            connection.execute("SELECT jobmanager.remove_entries()")
            connection.execute("ANALYZE")
            if is_dispatched:
                by_hand = [fired_by_hand(connection, side, jobs) for _ in range(repeats + 1)][1:]
                report.bar(
                    f"{jobs:,} due, {name}: last start after fire()",
                    percentile([last for _, last in by_hand], 50), unit="s", most=0.5, spread=[last for _, last in by_hand],
                )  # fmt: skip
                report.figure(f"{jobs:,} due, {name}: fire() itself", [took * 1000 for took, _ in by_hand])
            if not bench.quick:
                announced, late = live(connection, side, jobs)
                report.figure(f"{jobs:,} due at :00, {name}: first row", [announced], unit="s")
                report.figure(
                    f"{jobs:,} due at :00, {name}: half have started", [percentile(late, 50)], unit="s"
                )
                most = 0.5 if is_dispatched else None
                name_of_bar = f"{jobs:,} due at :00, {name}: last start after the first row"
                report.bar(name_of_bar, max(late) - announced, unit="s", most=most)
                report.bar(f"{jobs:,} due at :00, {name}: last start", max(late), unit="s", most=most)


def stand_in(stack: ExitStack, url: str) -> None:
    from tests.pg_net.stand_in import StandIn

    worker = StandIn(url)
    worker.install()
    stack.callback(worker.close)
    worker.start()


def fired_by_hand(connection: psycopg.Connection[Any], side: Side, jobs: int) -> tuple[float, float]:
    """Seconds that fire() took, and after which the last of the jobs started, all due since the last full minute."""
    instant = datetime.now(UTC).replace(second=0, microsecond=0)
    before = instant - timedelta(seconds=1)
    connection.execute("UPDATE jobmanager.jobs SET next_due_at = %s, accounted_until = %s", (instant, before))
    connection.execute("VACUUM ANALYZE jobmanager.jobs")
    side.ask("forget")
    begun = time.time()
    connection.execute("SELECT jobmanager.fire(NULL, %s)", (instant + timedelta(milliseconds=10),))
    took = time.time() - begun
    until(lambda: side.ask("count") >= jobs, 60, "all are started")
    last = max(side.ask("starts")) - begun
    open_ones = "SELECT count(*) FROM jobmanager.runs WHERE status IN ('pending', 'running')"
    until(lambda: one(connection, open_ones) == 0, 60, "the runs are executed")
    if (kept := one(connection, "SELECT count(*) FROM jobmanager.runs WHERE status = 'succeeded'")) != jobs:
        raise SystemExit(f"{kept} of {jobs} runs succeeded")
    connection.execute(
        "TRUNCATE jobmanager.runs, jobmanager.run_calls, jobmanager.calls, jobmanager.run_logs CASCADE"
    )
    return took, last


def live(connection: psycopg.Connection[Any], side: Side, jobs: int) -> tuple[float, list[float]]:
    """How many seconds after the full minute pg_cron had the first row written, and each job started."""
    due = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    if (due - datetime.now(UTC)).total_seconds() < 10:
        due += timedelta(minutes=1)
        time.sleep(15)
    # Nothing of the minutes that were played by hand.
    connection.execute(
        "UPDATE jobmanager.jobs SET next_due_at = %s, accounted_until = %s", (due, due - timedelta(seconds=1))
    )
    side.ask("forget")
    connection.execute("SELECT jobmanager.sync_entries()")
    time.sleep((due - datetime.now(UTC)).total_seconds())
    until(lambda: side.ask("count") >= jobs, 58, "all are started")
    connection.execute("SELECT jobmanager.remove_entries()")
    late = [start - due.timestamp() for start in side.ask("starts")]
    if len(late) != jobs or one(connection, "SELECT count(*) FROM jobmanager.runs") != jobs:
        raise SystemExit(f"{len(late)} starts of {jobs} jobs")
    announced = one(connection, "SELECT extract(epoch FROM min(opened_at))::float8 FROM jobmanager.runs")
    return announced - due.timestamp(), late


# ---------------------------------------------------------------- many entries


def backend_of(bench: Bench, layout: str) -> PgCronBackend:
    from jobmanager.backends.pg_cron import PgCronBackend

    return PgCronBackend(bench.server.url, transport="notify", layout=layout)  # type: ignore[arg-type]


def scheduled(count: int, different: int) -> list[ScheduledJob]:
    """So many jobs, none due for long."""
    schedules: list[Cron] = distinct(different, random.Random(count + different))
    due = datetime.now(UTC) + timedelta(days=300)
    return [
        ScheduledJob(
            Job(id=f"job-{n}", name=f"job-{n}", handler="work", schedule=schedules[n % different]), 1, due
        )
        for n in range(count)
    ]


def put_jobs(bench: Bench, jobs: Sequence[ScheduledJob]) -> None:
    """Their rows in the store; nothing else knows of them yet."""
    from jobmanager.stores.sql.postgres import PostgresStore

    store = PostgresStore(bench.server.url)
    store.install()
    now = datetime.now(UTC)
    store.jobs.add(
        [
            JobRow(
                id=item.job.id, namespace="default", declared="{}", schedule=item.schedule.text, next_due_at=item.next_due_at,
                accounted_until=now, history_from=now,
            )
            for item in jobs
        ]
    )  # fmt: skip
    store.close()


def synced(bench: Bench, count: int, different: int) -> dict[str, float]:
    """Seconds of the steps of a first start with so many jobs, and of the second."""
    jobs = scheduled(count, different)
    took: dict[str, float] = {}

    def timed(name: str, act: Callable[[], object]) -> None:
        gc.collect()
        begun = time.perf_counter()
        act()
        took[name] = time.perf_counter() - begun

    with bench.fresh() as connection:
        put_jobs(bench, jobs)
        backend_of(bench, "dispatcher").sync([])  # its functions are there
        backend = backend_of(bench, "entries")
        backend.sync([])
        connection.execute("VACUUM ANALYZE")
        timed("plans and entries", lambda: backend.sync(jobs))
        assert one(connection, "SELECT count(*) FROM cron.job WHERE active") == count + 1
        connection.execute("SELECT jobmanager.remove_entries()")
        connection.execute("VACUUM ANALYZE")
        timed("entries alone, with the question", lambda: backend.sync(jobs))
        assert one(connection, "SELECT count(*) FROM cron.job WHERE active") == count + 1
        connection.execute("SELECT jobmanager.remove_entries()")
        timed("sync_entries() alone", lambda: connection.execute("SELECT jobmanager.sync_entries()"))
        before = written(connection)
        timed("a second sync", lambda: backend.sync(jobs))
        if written(connection) != before:
            raise SystemExit("the second sync wrote something")
        timed("another process's first sync", lambda: backend_of(bench, "entries").sync(jobs))
        if bench.quick:
            return took
        one_more = scheduled(count + 1, different)[-1:]
        timed("one more job in the store, by the trigger", lambda: put_jobs(bench, one_more))
    return took


def written(connection: psycopg.Connection[Any]) -> dict[str, object]:
    """Which versions of which rows there are, in each table of ours and in pg_cron's entries: any write changes it, and nothing else does."""
    ours = connection.execute(
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'jobmanager'"
    )
    versions = "SELECT md5(string_agg(xmin || ' ' || ctid, ',' ORDER BY ctid)) FROM "
    return {table: one(connection, versions + table) for table in ["cron.job", *(row[0] for row in ours)]}


def measure_sync(bench: Bench, report: Report, repeats: int) -> None:
    cases = {(1_000, 1_000): 0.15, (10_000, 2_000): 2.0, (10_000, 10_000): 2.0}
    if bench.quick:
        cases = {(50, 20): 2.0}
    for (count, different), most in cases.items():
        rounds = [synced(bench, count, different) for _ in range(min(repeats, 3))]
        for step in rounds[0]:
            values = [took[step] for took in rounds]
            name = f"{count:,} jobs, {different:,} schedules: {step}"
            is_barred = step in ("plans and entries", "sync_entries() alone")
            report.bar(
                name, percentile(values, 50), unit="s", most=most if is_barred else None, spread=values
            )


# ---------------------------------------------------------------- announcing

MANY = 100_000
FLOOR = """WITH due AS (SELECT * FROM jobmanager.jobs WHERE next_due_at <= clock_timestamp()),
 opened AS (INSERT INTO jobmanager.runs (id, job_id, schedule_rev, scheduled_for, ticks, status, trigger, notify, due_at, attempt,
   max_attempts, retry_on_crash, concurrency_key, priority, opened_at)
   SELECT gen_random_uuid(), id, schedule_rev, next_due_at, 1, 'pending', 'schedule', false, next_due_at, 0, 1, true, id, 0,
     clock_timestamp() FROM due)
 UPDATE jobmanager.jobs j SET next_due_at = clock_timestamp() + interval '1 day' FROM due WHERE j.id = due.id"""
ANNOUNCED = "SELECT count(*) FROM jobmanager.announce(NULL, '0', clock_timestamp())"


def measure_announce(bench: Bench, report: Report, repeats: int) -> None:
    many = 500 if bench.quick else MANY
    jobs = scheduled(many, min(many, 2_000))
    backend = backend_of(bench, "dispatcher")
    with bench.fresh() as connection:
        put_jobs(bench, jobs)
        backend.sync(jobs)
        connection.execute("SELECT jobmanager.remove_entries()")
        connection.execute("VACUUM ANALYZE")

        def took(query: str, due: int = 0) -> float:
            """Milliseconds of the statement, with so many due; none of it stays."""
            with connection.transaction(force_rollback=True):
                connection.execute(
                    "UPDATE jobmanager.jobs SET next_due_at = date_trunc('minute', clock_timestamp()), accounted_until ="
                    " clock_timestamp() - interval '2 minutes' WHERE id IN (SELECT 'job-' || n FROM generate_series(1, %s) n)",
                    (due,),
                )
                begun = time.perf_counter()
                connection.execute(query)
                return (time.perf_counter() - begun) * 1000

        cases: dict[str, Callable[[], float]] = {
            f"announce, 0 due of {many:,} jobs": partial(took, ANNOUNCED),
            f"fire(), 0 due of {many:,} jobs": partial(took, "SELECT jobmanager.fire(NULL)"),
            f"an idle pass of the sweep, {many:,} jobs": partial(took, "SELECT jobmanager.sweep()"),
        }
        for due in (100,) if bench.quick else (1_000, 5_000):
            cases |= {
                f"announce, {due:,} due": partial(took, ANNOUNCED, due),
                f"fire(), {due:,} due": partial(took, "SELECT jobmanager.fire(NULL)", due),
                f"one INSERT and one UPDATE, {due:,} due": partial(took, FLOOR, due),
            }
        for case in cases.values():
            case()
        samples = interleaved(cases, repeats)
    for name, values in samples.items():
        if name.startswith("announce, 0 due"):
            report.bar(name, percentile(values, 50), unit="ms", most=5, spread=values)
        else:
            report.figure(name, values)
    for due in (100,) if bench.quick else (1_000, 5_000):
        floor = samples[f"one INSERT and one UPDATE, {due:,} due"]
        report.ratio(
            f"announce, {due:,} due, against one INSERT and one UPDATE",
            samples[f"announce, {due:,} due"],
            floor,
        )


# ---------------------------------------------------------------- together

MEASURES = {
    "endpoint": measure_endpoint,
    "burst": measure_burst,
    "sync": measure_sync,
    "announce": measure_announce,
}


def main() -> None:
    chosen = options(__doc__, only="")
    parts = chosen.only.split(",") if chosen.only else list(PARTS)
    if not installed() or not any(Path("/usr/share/postgresql").glob("*/extension/pg_cron.control")):
        print("pg_cron_backend: no PostgreSQL with pg_cron here, or no driver, so nothing is measured")
        return
    from tests.servers import PgCron

    report = Report("pg-cron-backend", "ms", quick=chosen.quick)
    server = PgCron(CONF)
    try:
        bench = Bench(server.start(), quick=chosen.quick)
        for part in parts:
            MEASURES[part](bench, report, chosen.repeats)
    finally:
        server.remove()
    report.finish()


if __name__ == "__main__":
    main()
