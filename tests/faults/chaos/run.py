"""Chaos: processes on one ledger, killed, stopped and cut off from it by a seeded hand; then the history is judged.

    python tests/faults/chaos/run.py --seed 7 --seconds 45 --store sqlite
    python tests/faults/chaos/run.py --seed 7 --seconds 60 --backends mixed

Mixed: local, Celery and pg_cron keep the time in turn on one PostgreSQL, whose broker is restarted too. Ends with 1 if an
invariant is broken. Everything it made stays in the folder that it names then.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2]), str(Path(__file__).parents[3])]

import checker  # noqa: E402
import program  # noqa: E402
from checker import Database, Verdict  # noqa: E402
from crew import PROCESSES, Crew, MovingCrew  # noqa: E402
from ground import Broker, Ground, Postgres, PostgresWithCron, Sqlite, send  # noqa: E402

REST_SECONDS = 100
HEAD = "seed  store     s  ticks   runs starts  again crashed  kills stops terms outages refused violations"


def chaos(seed: int, seconds: float, kind: str) -> bool:
    """Make one run, print its line, and return True if no invariant was broken; `kind` is a store, or mixed."""
    folder = Path(tempfile.mkdtemp(prefix=f"jobmanager-chaos-{seed}-"))
    chance = random.Random(seed)
    with ExitStack() as stack:
        ground = _ground(kind, folder, chance)
        for each in ground.values():
            stack.enter_context(closing(each))
        crew = (MovingCrew if kind == "mixed" else Crew)(ground, folder, chance)
        stack.callback(crew.kill)
        database = Database(ground["store"].url)
        calls = kind == "mixed" and chance.random() < 0.5
        if calls:
            crew.urls["calls"] = f"http://127.0.0.1:{_shared_port(stack)}"
        _in_a_process(lambda: program.prepare(ground["store"].url, kind == "mixed", calls))
        database.log_transitions()
        with _clock(ground["store"].url, calls, folder) if kind == "mixed" else ExitStack():
            for _ in range(PROCESSES):
                crew.spawn()
                time.sleep(chance.uniform(0, 0.3))
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                pause = time.monotonic() + chance.expovariate(1 / crew.pace)
                while time.monotonic() < pause:
                    crew.tend()
                    time.sleep(0.02)
                crew.act()
            crew.calm()
            unrest = _come_to_rest(crew, database)
            crew.end()
            # What was declared dead while the others ended left runs that the next process takes over: this one.
            crew.spawn_all()
            unrest += _come_to_rest(crew, database)
        crew.end()
        database.save(folder / "rows")
        verdict = checker.check(database, folder / "effects", disturbed=crew.disturbed, grace=program.GRACE)
    verdict.violations += [f"I12: {text}" for text in unrest]
    _report(verdict, seed, seconds, kind, crew, folder)
    return not verdict.violations


def _ground(kind: str, folder: Path, chance: random.Random) -> dict[str, Ground]:
    if kind == "sqlite":
        return {"store": Sqlite(folder)}
    if kind == "postgres":
        return {"store": Postgres(chance)}
    program.preload()
    return {"store": PostgresWithCron(chance), "broker": Broker(chance)}


def _shared_port(stack: ExitStack) -> int:
    """Return a port for all processes that take calls, kept as long as the run: no connection gets it while none of them lives."""
    kept = stack.enter_context(socket.socket())
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    kept.bind(("127.0.0.1", 0))
    return int(kept.getsockname()[1])


def _in_a_process(what: Callable[[], None]) -> None:
    """Do it where nothing of the library is left behind in the process that all others are forked from."""
    pid = os.fork()
    if pid == 0:
        try:
            what()
            os._exit(0)
        finally:
            os._exit(3)
    assert os.waitpid(pid, 0)[1] == 0, "the store could not be prepared"


@contextmanager
def _clock(url: str, calls: bool, folder: Path) -> Iterator[None]:
    pid = os.fork()
    if pid == 0:
        try:
            program.begin_log(folder / "clock")
            program.clock(url, calls)
        finally:
            os._exit(3)
    try:
        yield
    finally:
        send(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _come_to_rest(crew: Crew, database: Database) -> list[str]:
    since = time.time()
    deadline = time.monotonic() + REST_SECONDS
    while unrest := checker.unrest(database, since, crew.living()):
        if time.monotonic() > deadline:
            return unrest[:10]
        crew.tend()
        time.sleep(0.3)
    return []


def _report(verdict: Verdict, seed: int, seconds: float, kind: str, crew: Crew, folder: Path) -> None:
    """Print the line of a run and what is broken; remove the folder if nothing is."""
    c, d = verdict.counts, crew.done
    if d["hung"]:
        verdict.add("G11", f"{d['hung']} processes did not end 20 s after SIGTERM")
    log = (folder / "log").read_text(errors="replace")
    for text in checker.faults_in(log):
        verdict.add("log", f"{text}; see {folder}/log")
    for role, pid, code in crew.fallen:
        # Celery gives a worker up whose child is killed while it comes up. Its supervisor starts it again, if the code says so.
        if role not in ("worker", "prefork") or code != 1:
            verdict.add("ended", f"{role} {pid} ended by itself with {code}")
    runs = sum(
        c[status]
        for status in ("succeeded", "failed", "cancelled", "skipped", "missed", "pending", "running")
    )
    print(
        f"{seed:4}  {kind:8} {seconds:3.0f} {c['ticks']:6} {runs:6} {c['starts']:6} {c['again']:6} {c['crashed']:7}"
        f" {d['kills']:6} {d['stops']:5} {d['terms']:5} {d['outages']:7} {log.count('late writer refused'):7}"
        f" {len(verdict.violations):10}",
        flush=True,
    )
    if kind == "mixed":
        by = ", ".join(
            f"{c['starts by ' + role]} {role}" for role in ("local", "pg_cron", "worker", "prefork")
        )
        print(
            f"      {d['moves']} moves, {d['brokers']} outages of the broker, {len(crew.fallen)} workers given up by Celery;"
            f" starts by {by}; ends with {crew.backend}",
            flush=True,
        )
    for line in checker.lines(verdict):
        print("      ", line, flush=True)
    if verdict.violations:
        print("       the history is in", folder, flush=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--seeds", type=int, default=1, help="so many seeds, from --seed on")
    parser.add_argument("--seconds", type=float, default=45)
    parser.add_argument("--store", choices=["sqlite", "postgres"])
    parser.add_argument("--backends", choices=["local", "mixed"], default="local")
    asked = parser.parse_args()
    mixed = asked.backends == "mixed"
    if mixed and asked.store == "sqlite":
        parser.error("--backends mixed needs pg_cron: leave --store out, or give postgres")
    kind = "mixed" if mixed else asked.store or "sqlite"
    print(HEAD, flush=True)
    held = [chaos(seed, asked.seconds, kind) for seed in range(asked.seed, asked.seed + asked.seeds)]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
