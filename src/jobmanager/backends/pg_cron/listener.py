"""Ticks without HTTP: the database notifies, a connection of our own listens, and a poll finds what no notification brought."""

from __future__ import annotations

import random
import threading
import time
import uuid
from datetime import UTC, timedelta

import psycopg

from jobmanager.backends.base import Deliver
from jobmanager.backends.pg_cron.database import Connection, PgCronDatabase
from jobmanager.errors import JobManagerError
from jobmanager.run import Tick
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

CHANNEL = "jobmanager"
POLL = 5.0  # seconds, and up to a fifth more so that processes do not poll together
ECHO_WITHIN = 2.0
SILENCE = 8.0  # seconds without a reply after which another connection listens
LONGEST_PAUSE = 30.0

ANNOUNCED = "SELECT run_id::text, job_id, scheduled_for, schedule_rev FROM jobmanager.announced_runs(%s)"


class Listener:
    """One thread with one connection; delivers every announced run once it hears of it, and again until it is accepted."""

    def __init__(self, database: PgCronDatabase, namespace: str, deliver: Deliver) -> None:
        self._database = database
        self._namespace = namespace
        self._deliver = deliver
        self._stopping = threading.Event()
        self._delivering = threading.Lock()
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._live, name="jobmanager-listener", daemon=True)

    def start(self) -> None:
        """Listen from now on; does not block."""
        self._thread.start()

    def stop(self, timeout: timedelta) -> None:
        """Deliver nothing more; a delivery that is under way ends first."""
        self._stopping.set()
        with self._delivering:
            pass
        self._thread.join(timeout.total_seconds())

    def _live(self) -> None:
        pause = 0.5
        while not self._stopping.is_set():
            try:
                with self._database.connect(deadline=SILENCE, name="jobmanager listener") as connection:
                    self._listen(connection)
                    pause = 0.5
            except (JobManagerError, psycopg.Error) as error:
                if not self._stopping.is_set():
                    logger.warning("listening is interrupted, trying again in %.1f s: %s", pause, error)
                self._stopping.wait(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    def _listen(self, connection: Connection) -> None:
        connection.execute(f"LISTEN {CHANNEL}")
        hears = self._hears_itself(connection)
        if not hears and not self._stopping.is_set():
            logger.warning(
                "%s: no notification arrives (a transaction pooler?); asking every %.0f s instead",
                self._database.shown,
                POLL,
            )
        while not self._stopping.is_set():
            self._bring(connection)
            if hears:
                self._wait_for_notification(connection, POLL * random.uniform(1, 1.2))  # noqa: S311 - to spread, not to hide
            else:
                self._stopping.wait(POLL * random.uniform(1, 1.2))  # noqa: S311

    def _hears_itself(self, connection: Connection) -> bool:
        """LISTEN succeeds behind a transaction pooler, and then nothing ever comes: so ask.

        From another session: a notification of a session to itself comes with its own result, even there.
        """
        probe = f"probe {uuid.uuid4()}"
        with self._database.connect(deadline=SILENCE) as other:
            other.execute("SELECT pg_catalog.pg_notify(%s, %s)", (CHANNEL, probe))
        deadline = time.monotonic() + ECHO_WITHIN
        while (left := deadline - time.monotonic()) > 0 and not self._stopping.is_set():
            for note in connection.notifies(timeout=min(left, 0.2), stop_after=1):
                if note.payload == probe:
                    return True
        return False

    def _wait_for_notification(self, connection: Connection, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not self._stopping.is_set():
            for note in connection.notifies(timeout=min(left, 0.2), stop_after=1):
                if note.payload.partition(" ")[0] == self._namespace:
                    return

    def _bring(self, connection: Connection) -> None:
        with self._database.pinned(connection):
            rows = connection.execute(ANNOUNCED, (self._namespace,)).fetchall()
        ticks = [
            Tick(job_id, instant.astimezone(UTC), revision, run_id)
            for run_id, job_id, instant, revision in rows
        ]
        with self._delivering:
            if ticks and not self._stopping.is_set():
                try:
                    self._deliver(ticks)
                except Exception:
                    logger.exception("%d ticks could not be delivered; they are brought again", len(ticks))
