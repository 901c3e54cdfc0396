"""Whatever the store does, ticks go on afterwards and `stop()` ends: each trouble, at each statement of the hot path.

A network's trouble begins at a statement that the proxy recognises in the client's traffic; a server's or a file's is made for all at once.
`test_store_outages.py` looks at what an outage leaves in the ledger; here it is about time: when the next tick is executed, and when `stop()` returns.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit, urlunsplit

import psutil
import pytest
from tests.faults.conftest import Process, effects, until
from tests.faults.proxy import Proxy, Trouble
from tests.servers import Postgres

StartProcess = Callable[..., Process]

# How long the store's driver may wait for an answer before it gives the connection up.
STATEMENT_DEADLINE = 8.0
NEXT_TICK = STATEMENT_DEADLINE + 2
DRAIN = 2.0
STOP = DRAIN + 5
# Beyond what is promised: what a machine that is busy with other tests takes to let a process run at all.
NOISE = 2.0
LASTS = 3.0

JOBS = """
@jobs.job("second", every=1)
def second(context):
    note("second", int(context.scheduled_for.timestamp()), time.time())

@jobs.job("coroutine", every=1)
async def coroutine(context):
    note("coroutine", int(context.scheduled_for.timestamp()), time.time())

@jobs.job("behind", every=1, overlap="skip")
def behind(context):
    note("behind", int(context.scheduled_for.timestamp()), time.time())
    time.sleep(1.3)

@jobs.job("line", every=2, overlap="queue_all")
def line(context):
    note("line", int(context.scheduled_for.timestamp()), time.time())
    time.sleep(1)

@jobs.job("steady")
def steady(context):
    while True:
        context.progress(int(time.time() * 10))
        context.log.info("a line")
        time.sleep(0.1)

@jobs.job("by-hand", overlap="allow")
def by_hand(context):
    note("by-hand", context.run_id, time.time())
"""
SETTINGS: dict[str, Any] = {
    "lease_seconds": 4,
    "drain_seconds": DRAIN,
    "sweep_seconds": 1,
    "grace_seconds": 60,
    "workers": 8,
}

# What the hot path says to PostgreSQL, and which threads say it.
STATEMENTS = {
    "open": r"WITH opened AS",  # scheduler, writer, caller
    "end": r"^WITH v AS \(",  # worker, writer
    "claim": r"WITH due AS MATERIALIZED",  # background
    "beat": r"^UPDATE jobmanager\.instances SET beats",  # heartbeat
    "instances": r"^SELECT jobmanager\.instances\.id",  # heartbeat
    "lock": r"FROM jobmanager\.jobs .*FOR (NO KEY )?UPDATE",  # background, scheduler
    "commit": r"^COMMIT",  # all of them
    "begin": r"^BEGIN",
    "clock": r"^SELECT clock_timestamp\(\)",
    "due jobs": r"^SELECT jobmanager\.jobs\.id FROM jobmanager\.jobs WHERE .*next_due_at <= ",  # background, from here on
    "progress": r"^UPDATE jobmanager\.runs SET progress",
    "lines": r"^INSERT INTO jobmanager\.run_logs",
    "cancel": r"^SELECT .* FROM jobmanager\.runs WHERE .*cancel_requested_at IS NOT NULL",
    "changes": r"change_seq FROM jobmanager\.meta",
    "dead": r"^SELECT .*jobmanager\.runs\.status = 'running' AND NOT \(EXISTS",
    "expired": r"^UPDATE jobmanager\.runs SET status=",
    "unaccepted": r"^SELECT DISTINCT jobmanager\.runs\.job_id",
}
FAST = {("silent", "open"), ("all silent", "beat"), ("half-closed", "end")}


def started(url: str, start_process: StartProcess, folder: Path) -> Process:
    """A process that has executed some ticks, and has a run going on."""
    process = start_process(url, JOBS, **SETTINGS)
    process("jobs.trigger_job('steady').id")
    until(lambda: {"second", "coroutine", "behind", "line"} <= {line[0] for line in effects(folder)})
    until(lambda: len(executed(folder, "second")) >= 3)
    return process


def executed(folder: Path, job: str) -> list[tuple[int, float]]:
    """The instants of a job that were executed, and when."""
    return [(int(instant), float(at)) for name, instant, at in map(tuple, effects(folder)) if name == job]


def next_tick(folder: Path, since: float) -> float:
    """How long after `since` a tick that was due later than that was executed, of a function and of a coroutine."""

    def found(job: str) -> list[float]:
        return [at for instant, at in executed(folder, job) if instant > since]

    until(lambda: found("second") and found("coroutine"), 3 * NEXT_TICK)
    return max(found("second")[0], found("coroutine")[0]) - since


def nothing_ran_twice(folder: Path) -> None:
    starts = [tuple(line[:2]) for line in effects(folder)]
    twice = {start for start in starts if starts.count(start) > 1}
    assert not twice


def seconds_to_stop(process: Process) -> float:
    """How long `stop()` takes, at most four times as long as it may."""
    begun = time.monotonic()
    process.tell("jobs.stop()")
    assert process._pipe.poll(4 * STOP), f"stop() does not return\n{process.errors()[-2000:]}"
    process.answer()
    return time.monotonic() - begun


def says(process: Process, before: int) -> bool:
    """Whether it logged a warning since its log had this length."""
    return any(line.startswith(("WARNING", "ERROR")) for line in process.errors()[before:].splitlines())


# ---------------------------------------------------------------- the network, at each statement


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[Proxy]:
    with Proxy(urlsplit(postgres_url).port or 5432) as proxy:
        yield proxy


@pytest.fixture
def proxied_url(postgres_url: str, proxy: Proxy) -> str:
    parts = urlsplit(postgres_url)
    return urlunsplit(parts._replace(netloc=f"{parts.username}@127.0.0.1:{proxy.port}"))


AT_EACH = [
    pytest.param(
        trouble,
        statement,
        marks=[] if (trouble, statement) in FAST else [pytest.mark.faults],
        id=f"{trouble}-{statement}".replace(" ", "-"),
    )
    for trouble in get_args(Trouble)
    for statement in STATEMENTS
]


@pytest.mark.servers
@pytest.mark.parametrize(("trouble", "statement"), AT_EACH)
def test_a_connection_in_trouble_holds_ticks_up_no_longer_than_one_statement_may_take(
    trouble: Trouble,
    statement: str,
    proxy: Proxy,
    proxied_url: str,
    start_process: StartProcess,
    tmp_path: Path,
) -> None:
    """L5. New connections work at once, so the next tick waits for the deadline of one statement at most, and `stop()` for no more."""
    process = started(proxied_url, start_process, tmp_path)
    before = len(process.errors())
    since = begin(proxy, trouble, statement)
    if trouble == "slow":
        time.sleep(2 * LASTS)  # as long as two of its answers take
        proxy.heal()
        since = time.time()
    took = next_tick(tmp_path, since)
    begin(proxy, trouble, statement)
    stopped = seconds_to_stop(process)

    nothing_ran_twice(tmp_path)
    assert took < NEXT_TICK + NOISE
    assert stopped < STOP + NOISE
    assert says(process, before) or trouble == "slow"


def begin(proxy: Proxy, trouble: Trouble, statement: str) -> float:
    """Let it begin, and say when it did."""
    proxy.trouble_at(STATEMENTS[statement], trouble)
    assert proxy.begun.wait(30), f"nobody says {STATEMENTS[statement]}: {sorted(proxy.seen)}"
    return time.time()


CALLS = {
    "trigger": "jobs.trigger_job('by-hand').id",
    "runs": "len(jobs.runs('second'))",
    "pause": "jobs.stop_job('line')",
    "cancel": "jobs.cancel(jobs.runs('steady')[0].id)",
    "health": "str(jobs.health())",
}


@pytest.mark.servers
def test_the_deadline_of_a_statement_is_the_one_that_the_store_keeps() -> None:
    deadline = pytest.importorskip("jobmanager.stores.sql.postgres_deadline")

    assert deadline.STATEMENT_DEADLINE == STATEMENT_DEADLINE


@pytest.mark.servers
@pytest.mark.faults
@pytest.mark.parametrize("call", CALLS)
def test_a_caller_hears_of_a_silent_store_within_one_statement(
    call: str, proxy: Proxy, proxied_url: str, start_process: StartProcess, tmp_path: Path
) -> None:
    """The thread of whoever calls is one that others need: it gets a result or StoreUnavailableError, and in time."""
    process = started(proxied_url, start_process, tmp_path)
    proxy.trouble_at("", "all silent")
    assert proxy.begun.wait(10)
    begun = time.monotonic()
    process.tell(CALLS[call])
    assert process._pipe.poll(60), f"{call} does not return"
    good, value = process._pipe.recv()

    assert (
        time.monotonic() - begun < 2 * STATEMENT_DEADLINE + NOISE
    )  # one to ask, and one to ask again on a new connection
    assert good or "StoreUnavailableError" in value, value


# ---------------------------------------------------------------- the server as a whole


class ServerTrouble:
    """A trouble of a server of our own that begins and ends."""

    def __init__(self, server: Postgres, url: str, proxy: Proxy) -> None:
        self._server = server
        self._url = url
        self._proxy = proxy
        self._held: Any = None

    def begin(self, kind: str) -> None:
        getattr(self, f"_begin_{kind}")()

    def end(self, kind: str) -> None:
        getattr(self, f"_end_{kind}")()

    def _begin_refusing(self) -> None:
        self._proxy.set("refuse")

    def _end_refusing(self) -> None:
        self._proxy.set("pass")

    def _begin_hanging(self) -> None:
        self._proxy.set("hang")

    def _end_hanging(self) -> None:
        self._proxy.set("pass")

    def _begin_read_only(self) -> None:
        """As a primary that was demoted looks to its clients."""
        self._set("default_transaction_read_only = on")

    def _end_read_only(self) -> None:
        self._set("default_transaction_read_only = off")

    def _set(self, what: str) -> None:
        self._do(f"ALTER SYSTEM SET {what}")
        self._do("SELECT pg_reload_conf()")

    def _begin_full(self) -> None:
        self._do("""CREATE FUNCTION jobmanager.full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$""")
        for table in ("runs", "instances", "run_logs"):
            self._do(f"""CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON jobmanager.{table}
                FOR EACH ROW EXECUTE FUNCTION jobmanager.full_disk()""")

    def _end_full(self) -> None:
        self._do("DROP FUNCTION jobmanager.full_disk CASCADE")

    def _begin_locked(self) -> None:
        import psycopg

        tables = "jobmanager.runs, jobmanager.instances, jobmanager.jobs"
        self._held = psycopg.connect(self._url)
        while True:
            try:
                self._held.execute(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE")
            except (
                psycopg.errors.DeadlockDetected
            ):  # with a write of the process, which took them in another order
                self._held.rollback()
            else:
                break

    def _end_locked(self) -> None:
        self._held.close()

    def _begin_frozen(self) -> None:
        assert self._server.process is not None
        server = psutil.Process(self._server.process.pid)
        self._held = [server.pid, *(child.pid for child in server.children(recursive=True))]
        self._signal(signal.SIGSTOP)

    def _end_frozen(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for pid in self._held:
            if psutil.pid_exists(pid):
                os.kill(pid, number)

    def _begin_restarted(self) -> None:
        self._server.stop(immediately=True)

    def _end_restarted(self) -> None:
        self._server.start()

    def _do(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(
            self._url, autocommit=True, options="-c default_transaction_read_only=off"
        ) as connection:
            connection.execute(statement)


@pytest.fixture(scope="module")
def own_server() -> Iterator[Postgres]:
    """A server that may be broken."""
    pytest.importorskip("psycopg")
    server = Postgres()
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture
def own_url(own_server: Postgres) -> str:
    """An empty database on it."""
    import psycopg

    def do(statement: str) -> None:
        with psycopg.connect(own_server.url, autocommit=True) as connection:
            connection.execute(statement)

    do("DROP DATABASE IF EXISTS troubled WITH (FORCE)")
    do("CREATE DATABASE troubled")
    return urlunsplit(urlsplit(own_server.url)._replace(path="/troubled"))


SERVER_TROUBLES = ["refusing", "hanging", "read_only", "full", "locked", "frozen", "restarted"]


@pytest.mark.servers
@pytest.mark.faults
@pytest.mark.parametrize("kind", SERVER_TROUBLES)
def test_ticks_go_on_when_the_server_does_and_stop_ends_before(
    kind: str, own_server: Postgres, own_url: str, start_process: StartProcess, tmp_path: Path
) -> None:
    """Fails if a thread waits for a server without a limit of its own: it would go on waiting for what never comes."""
    with Proxy(own_server.port) as proxy:
        parts = urlsplit(own_url)
        url = urlunsplit(parts._replace(netloc=f"{parts.username}@127.0.0.1:{proxy.port}"))
        process = started(url, start_process, tmp_path)
        trouble = ServerTrouble(own_server, own_url, proxy)
        before = len(process.errors())
        trouble.begin(kind)
        time.sleep(LASTS)  # the length of the trouble is what is tested
        trouble.end(kind)
        took = next_tick(tmp_path, time.time())
        trouble.begin(kind)
        try:
            time.sleep(LASTS)  # so that threads are in the middle of it
            stopped = seconds_to_stop(process)
        finally:
            trouble.end(kind)

    nothing_ran_twice(tmp_path)
    assert took < NEXT_TICK + NOISE
    assert stopped < STOP + NOISE
    assert says(process, before)


# ---------------------------------------------------------------- the file


HOLD = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
connection.execute("BEGIN " + sys.argv[2])
print("held", flush=True)
time.sleep(600)
"""


@contextmanager
def held(path: Path, how: str, *, frozen: bool = False) -> Iterator[None]:
    """A process of others that is inside a transaction on the file, and stands still in it."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, path, how], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        if frozen:
            holder.send_signal(signal.SIGSTOP)
        yield
    finally:
        holder.kill()
        holder.wait(10)
        holder.stdout.close()  # type: ignore[union-attr]


@contextmanager
def no_room(process: Process, path: Path) -> Iterator[None]:
    """The journal cannot grow, as on a full disk: the kernel refuses this process another byte beyond what it has."""
    limit = "__import__('resource').setrlimit(__import__('resource').RLIMIT_FSIZE, ({}, -1))"
    process(limit.format(path.with_name(f"{path.name}-wal").stat().st_size))
    try:
        yield
    finally:
        process(limit.format(-1))


FILE_TROUBLES: dict[str, Callable[[Process, Path], Any]] = {
    "locked": lambda _, path: held(path, "EXCLUSIVE"),
    "written": lambda _, path: held(path, "IMMEDIATE"),
    "frozen": lambda _, path: held(path, "IMMEDIATE", frozen=True),
    "full": no_room,
}


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[] if kind == "frozen" else [pytest.mark.faults]) for kind in FILE_TROUBLES],
)
def test_ticks_go_on_when_the_file_does_and_stop_ends_before(
    kind: str, start_process: StartProcess, tmp_path: Path
) -> None:
    """Fails if a thread waits for the file's lock without a limit, or gives a write up that may succeed later."""
    path = tmp_path / "jobs.db"
    process = started(f"sqlite:///{path}", start_process, tmp_path)
    before = len(process.errors())
    with FILE_TROUBLES[kind](process, path):
        time.sleep(LASTS + 5)  # longer than SQLite itself waits for a lock
    took = next_tick(tmp_path, time.time())
    with FILE_TROUBLES[kind](process, path):
        stopped = seconds_to_stop(process)

    nothing_ran_twice(tmp_path)
    assert took < NEXT_TICK + NOISE
    assert stopped < STOP + NOISE
    assert says(process, before)
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)
