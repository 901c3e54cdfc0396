"""Chaos: four processes on one ledger, killed, stopped and cut off from it by a seeded hand; then the history is judged.

    python tests/faults/chaos/run.py --seed 7 --seconds 45 --store sqlite

Ends with 1 if an invariant is broken. Everything it made stays in the folder that it names then.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

import checker  # noqa: E402
import program  # noqa: E402
from checker import Database  # noqa: E402

PROCESSES = 4
REST_SECONDS = 100
HEAD = "seed  store     s  ticks   runs starts  again crashed  kills stops terms outages refused violations"


class Sqlite:
    """A file; an outage is a foreign process that does not let go. Not ours: a child forked while we hold the file open would
    find it locked for ever."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder}/jobs.db"
        self._file = folder / "jobs.db"
        self._holder: int | None = None

    def go(self) -> None:
        self._holder = os.fork()
        if self._holder == 0:
            try:
                database = sqlite3.connect(self._file, timeout=5, isolation_level=None)
                database.execute("BEGIN EXCLUSIVE")
                time.sleep(60)
            finally:
                os._exit(0)

    def come_back(self) -> None:
        if self._holder is not None:
            _send(self._holder, signal.SIGKILL)
            os.waitpid(self._holder, 0)
            self._holder = None

    def close(self) -> None:
        self.come_back()


class Postgres:
    """A server of our own; an outage is an immediate stop, as after a crash, or a server that is frozen."""

    def __init__(self, chance: random.Random) -> None:
        import servers

        self._server = servers.Postgres().start()
        self._chance = chance
        self._frozen: list[int] = []
        self.url = self._server.url

    def go(self) -> None:
        if self._chance.random() < 0.7:
            self._server.stop(immediately=True)
            return
        import psutil

        assert self._server.process is not None
        main = psutil.Process(self._server.process.pid)
        self._frozen = [child.pid for child in main.children(recursive=True)] + [main.pid]
        for pid in self._frozen:
            _send(pid, signal.SIGSTOP)

    def come_back(self) -> None:
        for pid in self._frozen:
            _send(pid, signal.SIGCONT)
        if not self._frozen and self._server.process is None:
            self._server.start()
        self._frozen = []

    def close(self) -> None:
        self.come_back()
        self._server.remove()


class Crew:
    """The processes, and who is to be woken or replaced when."""

    def __init__(self, store: Any, folder: Path, chance: random.Random) -> None:
        self.done = Counter[str]()
        self.disturbed: set[int] = set()
        self._store = store
        self._folder = folder
        self._chance = chance
        self._stopped: dict[int, float] = {}
        self._living: set[int] = set()
        self._next: list[float] = []
        self._back_at: float | None = None

    def spawn(self) -> None:
        seed = self._chance.getrandbits(32)
        pid = os.fork()
        if pid == 0:
            try:
                program.main(self._store.url, self._folder / "effects", self._folder / "log", seed)
            finally:
                os._exit(3)
        self._living.add(pid)

    def act(self) -> None:
        """One of the things that happen to processes."""
        awake = sorted(self._living - self._stopped.keys())
        dice = self._chance.random()
        if dice < 0.12 and self._back_at is None:
            self.done["outages"] += 1
            self._store.go()
            self._back_at = time.monotonic() + self._chance.uniform(0.3, 4.0)
        elif not awake:
            return
        elif dice < 0.55:
            self._end(self._chance.choice(awake), signal.SIGKILL, "kills")
        elif dice < 0.92:
            pid = self._chance.choice(awake)
            self.done["stops"] += 1
            self.disturbed.add(pid)
            _send(pid, signal.SIGSTOP)
            self._stopped[pid] = time.monotonic() + self._chance.uniform(0.3, 2.7) * program.LEASE
        else:
            self._end(self._chance.choice(awake), signal.SIGTERM, "terms")

    def _end(self, pid: int, number: int, name: str) -> None:
        self.done[name] += 1
        if number == signal.SIGKILL:
            self.disturbed.add(pid)
            _send(pid, number)
            os.waitpid(pid, 0)
            self._living.discard(pid)
        else:
            _send(pid, number)
            self._reap(pid)
        self._next.append(time.monotonic() + self._chance.uniform(0, 1.0))

    def _reap(self, pid: int) -> None:
        deadline = time.monotonic() + 20
        while os.waitpid(pid, os.WNOHANG)[0] == 0:
            self.tend()
            if time.monotonic() > deadline:
                self.done["hung"] += 1
                self.disturbed.add(pid)
                _send(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                break
            time.sleep(0.02)
        self._living.discard(pid)

    def tend(self) -> None:
        """Wake, replace and give back what it is time for."""
        now = time.monotonic()
        for pid, until in list(self._stopped.items()):
            if until <= now:
                del self._stopped[pid]
                _send(pid, signal.SIGCONT)
        if self._back_at is not None and self._back_at <= now:
            self._back_at = None
            self._store.come_back()
        for at in [at for at in self._next if at <= now]:
            self._next.remove(at)
            self.spawn()

    def calm(self) -> None:
        """No more trouble: everybody is awake, and the store is there."""
        self._stopped = dict.fromkeys(self._stopped, 0.0)
        self._back_at = None if self._back_at is None else 0.0
        self._next = [0.0 for _ in self._next]
        self.tend()

    def living(self) -> set[int]:
        """The pids that exist and were not told to end."""
        return set(self._living)

    def end(self) -> None:
        for pid in self._living:
            _send(pid, signal.SIGTERM)
        for pid in sorted(self._living):
            self._reap(pid)

    def kill(self) -> None:
        for pid in self._living:
            _send(pid, signal.SIGKILL)


def chaos(seed: int, seconds: float, store_name: str) -> bool:
    """One run; prints its line, and True if no invariant was broken."""
    folder = Path(tempfile.mkdtemp(prefix=f"jobmanager-chaos-{seed}-"))
    chance = random.Random(seed)
    store: Any = Sqlite(folder) if store_name == "sqlite" else Postgres(chance)
    crew = Crew(store, folder, chance)
    database = Database(store.url)
    try:
        _prepare(store.url)
        database.log_transitions()
        for _ in range(PROCESSES):
            crew.spawn()
            time.sleep(chance.uniform(0, 0.3))
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pause = time.monotonic() + chance.expovariate(1 / 0.45)
            while time.monotonic() < pause:
                crew.tend()
                time.sleep(0.02)
            crew.act()
        crew.calm()
        unrest = _come_to_rest(crew, database)
        crew.end()
        # Who was declared dead while the others ended left runs that the next process takes over: this one.
        crew.spawn()
        unrest += _come_to_rest(crew, database)
        crew.end()
        verdict = checker.check(database, folder / "effects", disturbed=crew.disturbed, grace=program.GRACE)
    finally:
        crew.kill()
        store.close()
    verdict.violations += [f"I12: {text}" for text in unrest]
    if crew.done["hung"]:
        verdict.add("G11", f"{crew.done['hung']} processes did not end 20 s after SIGTERM")
    log = (folder / "log").read_text(errors="replace")
    for line in log.splitlines():
        if line.startswith(("Traceback", "Fatal Python error")) or " CRITICAL " in line:
            verdict.add("log", f"a process raised; see {folder}/log")
            break
    c, d = verdict.counts, crew.done
    runs = sum(
        c[status]
        for status in ("succeeded", "failed", "cancelled", "skipped", "missed", "pending", "running")
    )
    print(
        f"{seed:4}  {store_name:8} {seconds:3.0f} {c['ticks']:6} {runs:6} {c['starts']:6} {c['again']:6} {c['crashed']:7}"
        f" {d['kills']:6} {d['stops']:5} {d['terms']:5} {d['outages']:7} {log.count('late writer refused'):7}"
        f" {len(verdict.violations):10}",
        flush=True,
    )
    for line in checker.lines(verdict):
        print("      ", line, flush=True)
    if verdict.violations:
        print("       the history is in", folder, flush=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return not verdict.violations


def _prepare(url: str) -> None:
    """Make the tables, in a process of its own: nothing of the library lives where processes are forked."""
    pid = os.fork()
    if pid == 0:
        try:
            from jobmanager import JobManager, Settings

            JobManager(Settings(database_url=url)).store.install()
            os._exit(0)
        finally:
            os._exit(3)
    assert os.waitpid(pid, 0)[1] == 0, "the tables could not be made"


def _come_to_rest(crew: Crew, database: Database) -> list[str]:
    since = time.time()
    deadline = time.monotonic() + REST_SECONDS
    while unrest := checker.unrest(database, since, crew.living()):
        if time.monotonic() > deadline:
            return unrest[:10]
        crew.tend()
        time.sleep(0.3)
    return []


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--seeds", type=int, default=1, help="so many seeds, from --seed on")
    parser.add_argument("--seconds", type=float, default=45)
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    asked = parser.parse_args()
    print(HEAD, flush=True)
    held = [chaos(seed, asked.seconds, asked.store) for seed in range(asked.seed, asked.seed + asked.seeds)]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
