"""What the processes of the chaos stand on, stores and a broker, and how each of them goes away for a while."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any, Protocol

import servers


class Ground(Protocol):
    """Something that all processes need."""

    url: str

    def go(self) -> None:
        """Be away from now on."""

    def come_back(self) -> None:
        """Be there again. Twice is safe."""

    def close(self) -> None:
        """Leave nothing behind."""


def send(pid: int, number: int) -> None:
    """Signal a process, if it is there."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


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
            send(self._holder, signal.SIGKILL)
            os.waitpid(self._holder, 0)
            self._holder = None

    def close(self) -> None:
        self.come_back()


class Postgres:
    """A server of our own; an outage is a stop, as after a crash or as by an operator, or a server that is frozen."""

    def __init__(self, chance: random.Random, server: servers.Postgres | None = None) -> None:
        self._server = (server or servers.Postgres()).start()
        self._chance = chance
        self._frozen: list[int] = []
        self.url = self._server.url

    def go(self) -> None:
        dice = self._chance.random()
        if dice < 0.7:
            self._server.stop(immediately=dice < 0.4)
            return
        import psutil

        assert self._server.process is not None
        main = psutil.Process(self._server.process.pid)
        self._frozen = [child.pid for child in main.children(recursive=True)] + [main.pid]
        for pid in self._frozen:
            send(pid, signal.SIGSTOP)

    def come_back(self) -> None:
        for pid in self._frozen:
            send(pid, signal.SIGCONT)
        if not self._frozen and self._server.process is None:
            self._server.start()
        self._frozen = []

    def close(self) -> None:
        self.come_back()
        self._server.remove()


class PostgresWithCron(Postgres):
    """The same with the real pg_cron, which wakes our functions at each full minute."""

    def __init__(self, chance: random.Random) -> None:
        server = servers.PgCron({"max_connections": "200"})
        super().__init__(chance, server)
        server.clear()


class Broker:
    """A Redis of our own, in memory: an outage is its death, with all messages that it had, or a server that is frozen."""

    def __init__(self, chance: random.Random) -> None:
        self._server = servers.Redis().start()
        self._chance = chance
        self._frozen = False
        self.url = self._server.url

    def go(self) -> None:
        self._frozen = self._chance.random() < 0.3
        if self._frozen:
            self._signal(signal.SIGSTOP)
        else:
            self._server.stop()

    def come_back(self) -> None:
        if self._frozen:
            self._signal(signal.SIGCONT)
            self._frozen = False
        elif self._server.process is None:
            self._server.start()

    def close(self) -> None:
        self.come_back()
        self._server.remove()

    def _signal(self, number: int) -> None:
        process: Any = self._server.process
        process.send_signal(number)
