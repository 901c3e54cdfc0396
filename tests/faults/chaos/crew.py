"""The processes of the chaos, and the hand that ends, freezes and replaces them, and takes the ground from under them."""

from __future__ import annotations

import os
import random
import signal
import time
import traceback
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import program
import psutil
from ground import Ground, send

PROCESSES = 4
PATIENCE = 20.0  # seconds that a process may take to end after SIGTERM

# The processes of each backend; a worker executes in its threads, the one with children in them.
ROLES: Mapping[str, Sequence[str]] = {
    "local": ["local"] * PROCESSES,
    "celery": ["beat", "worker", "beat", "prefork"],
    "pg_cron": ["pg_cron"] * PROCESSES,
}


class Crew:
    """Processes of one backend on one ground, and when each is to be woken or replaced."""

    pace = 0.45  # seconds between two things that happen, on average

    def __init__(self, ground: Mapping[str, Ground], folder: Path, chance: random.Random) -> None:
        self.done = Counter[str]()
        self.fallen: list[tuple[str, int, int]] = []
        """Processes that ended by themselves: role, pid and exit code."""
        self.disturbed: set[int] = set()
        self.backend = "local"
        self.urls = {name: each.url for name, each in ground.items()}
        self._ground = ground
        self._folder = folder
        self._chance = chance
        self._role: dict[int, str] = {}
        self._children: dict[int, set[int]] = {}
        self._stopped: dict[int, float] = {}
        self._ending: dict[int, float] = {}
        self._next: list[float] = []
        self._back_at: dict[str, float] = {}

    def spawn(self) -> None:
        """Start the process that is lacking most."""
        roles = ROLES[self.backend]
        present = Counter(self._role[pid] for pid in self._staying())
        role = min(roles, key=lambda role: present[role] - roles.count(role))
        self._role[self._fork(role)] = role

    def spawn_all(self) -> None:
        """Start one process of each kind that the backend needs."""
        for role in sorted(set(ROLES[self.backend])):
            self._role[self._fork(role)] = role

    def _fork(self, role: str) -> int:
        seed = self._chance.getrandbits(32)
        pid = os.fork()
        if pid == 0:
            try:
                os.setpgid(0, 0)
                program.main(role, self.urls, self._folder, seed)
            except Exception:
                traceback.print_exc()  # into the log, where it counts as a fault
            finally:
                os._exit(3)
        os.setpgid(pid, pid)
        self._children[pid] = set()
        return pid

    # ---------------------------------------------------------------- what happens to them

    def act(self) -> None:
        """Let one thing happen."""
        awake = sorted(self._role.keys() - self._stopped.keys() - self._ending.keys())
        dice = self._chance.random()
        if dice < 0.12 and "store" not in self._back_at:
            self._outage("store", "outages")
        elif not awake:
            return
        elif dice < 0.55:
            pid = self._chance.choice(awake)
            children = sorted(self._family(pid) - {pid})
            if children and self._chance.random() < 0.5:
                self._kill_child(self._chance.choice(children))
            else:
                self._kill(pid)
                self._replace()
        elif dice < 0.92:
            pid = self._chance.choice(awake)
            self.done["stops"] += 1
            self.disturbed |= self._family(pid)
            send(-pid, signal.SIGSTOP)
            self._stopped[pid] = time.monotonic() + self._chance.uniform(0.3, 2.7) * program.LEASE
        else:
            self._terminate(self._chance.choice(awake))
            self._replace()

    def _outage(self, ground: str, name: str) -> None:
        self.done[name] += 1
        if ground == "store":  # what ends meanwhile may have to leave its ends to the others
            self.disturbed.update(*map(self._family, self._ending))
        self._ground[ground].go()
        self._back_at[ground] = time.monotonic() + self._chance.uniform(0.3, 4.0)

    def _replace(self) -> None:
        self._next.append(time.monotonic() + self._chance.uniform(0, 1.0))

    def _kill(self, pid: int, name: str = "kills") -> None:
        self.done[name] += 1
        self.disturbed |= self._family(pid)
        send(-pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self._forget(pid)

    def _kill_child(self, pid: int) -> None:
        self.done["kills"] += 1
        self.disturbed.add(pid)
        send(pid, signal.SIGKILL)

    def _family(self, pid: int) -> set[int]:
        """Return the pids of a process and of all children that it was seen to have."""
        if self._role.get(pid) == "prefork":
            with suppress(psutil.Error):
                self._children[pid] |= {child.pid for child in psutil.Process(pid).children()}
        return {pid} | self._children[pid]

    def _terminate(self, pid: int) -> None:
        self.done["terms"] += 1
        if "store" in self._back_at:
            self.disturbed |= self._family(pid)
        send(pid, signal.SIGTERM)
        self._ending[pid] = time.monotonic() + PATIENCE

    def _forget(self, pid: int) -> None:
        self._role.pop(pid, None)
        self._stopped.pop(pid, None)
        self._ending.pop(pid, None)

    # ---------------------------------------------------------------- what is to be done in time

    def tend(self) -> None:
        """Wake, bury, replace and give back what it is time for."""
        now = time.monotonic()
        for pid, until in list(self._stopped.items()):
            if until <= now:
                del self._stopped[pid]
                send(-pid, signal.SIGCONT)
        self._bury(now)
        for ground, at in list(self._back_at.items()):
            if at <= now:
                del self._back_at[ground]
                self._ground[ground].come_back()
        for at in [at for at in self._next if at <= now]:
            self._next.remove(at)
            self.spawn()

    def _bury(self, now: float) -> None:
        for pid, role in list(self._role.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                fell = pid not in self._ending
                send(-pid, signal.SIGKILL)  # what it left behind
                if fell:
                    self.fallen.append((role, pid, os.waitstatus_to_exitcode(status)))
                    self.disturbed |= {pid} | self._children[pid]
                self._forget(pid)
                if fell:
                    self._replace()
            elif self._ending.get(pid, now) < now:
                send(pid, signal.SIGABRT)  # its log tells where each of its threads stands
                time.sleep(0.5)
                self._kill(pid, "hung")

    def calm(self) -> None:
        """Let there be no more trouble: every process is awake, and the ground is there."""
        self._stopped = dict.fromkeys(self._stopped, 0.0)
        self._back_at = dict.fromkeys(self._back_at, 0.0)
        self._next = [0.0 for _ in self._next]
        self.tend()

    def living(self) -> Collection[int]:
        """Return the pids that exist and were not told to end."""
        return set[int]().union(*map(self._family, self._role.keys() - self._ending.keys()))

    def _staying(self) -> Collection[int]:
        """Return the processes of the chosen backend."""
        return self._role.keys() - self._ending.keys()

    def end(self) -> None:
        """End all of them, and wait for it."""
        for pid in self._role.keys() - self._ending.keys():
            self._terminate(pid)
        while self._role:
            self.tend()
            time.sleep(0.02)

    def kill(self) -> None:
        """Leave none behind, whatever happened."""
        for pid in self._role:
            send(-pid, signal.SIGKILL)


class MovingCrew(Crew):
    """Processes of one backend after the other: the chosen one changes, with an overlap or a stop between."""

    pace = 0.8

    def __init__(self, ground: Mapping[str, Ground], folder: Path, chance: random.Random) -> None:
        super().__init__(ground, folder, chance)
        self._leaving: dict[int, float] = {}
        self._turns: list[str] = []
        self._choose()

    def _choose(self) -> None:
        """Let another backend keep the time; each has its turn before any has a second."""
        if not self._turns:
            self._turns = self._chance.sample(sorted(ROLES.keys() - {self.backend}), len(ROLES) - 1)
            self._turns.append(self.backend)
        self.backend = self._turns.pop(0)
        shortest = 9.0 if self.backend == "celery" else 5.0  # a worker takes longest to come up
        self._move_at = time.monotonic() + shortest * self._chance.uniform(1.0, 1.6)

    def act(self) -> None:
        if time.monotonic() > self._move_at:
            self._move()
        elif self._chance.random() < 0.1 and "broker" not in self._back_at:
            self._outage("broker", "brokers")
        else:
            super().act()

    def _move(self) -> None:
        """Choose another backend. The processes of the old one go soon after, or before the first of the new one comes."""
        self.done["moves"] += 1
        self._choose()
        overlap = self._chance.random() < 0.5
        now = time.monotonic()
        for pid in self._role.keys() - self._ending.keys():
            self._leaving.setdefault(pid, now + (self._chance.uniform(0.5, 3.0) if overlap else 0.0))
        pause = 0.0 if overlap else self._chance.uniform(0.2, 3.0)
        self._next = [now + pause + self._chance.uniform(0.0, 0.5) for _ in range(PROCESSES)]

    def _replace(self) -> None:
        if len(self._staying()) + len(self._next) < PROCESSES:
            super()._replace()

    def _staying(self) -> Collection[int]:
        return self._role.keys() - self._ending.keys() - self._leaving.keys()

    def _forget(self, pid: int) -> None:
        super()._forget(pid)
        self._leaving.pop(pid, None)

    def tend(self) -> None:
        now = time.monotonic()
        for pid, at in list(self._leaving.items()):
            if at <= now and pid not in self._ending:
                if self._chance.random() < 0.3:
                    self._kill(pid)
                else:
                    self._terminate(pid)
        super().tend()

    def calm(self) -> None:
        self._leaving = dict.fromkeys(self._leaving, 0.0)
        super().calm()
