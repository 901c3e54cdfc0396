"""The worker of the stand-in for pg_net, as a thread, with switches for what goes wrong between a queue and an application."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb
from tests.pg_net.curl import Answer, Curl, Request

OBJECTS = Path(__file__).with_name("stand_in.sql")
RESTARTS_AFTER_SECONDS = 1
PAUSE_SECONDS = 1

# As CREATE EXTENSION would note it.
ON_RECORD = """
INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
  SELECT 999998, 'pg_net', oid, 'net'::regnamespace, false, %s FROM pg_roles WHERE rolname = current_user
"""
# Until 0.12 everybody might call, and only its owner might look.
RIGHTS_BEFORE_0_12 = """
REVOKE ALL ON ALL TABLES IN SCHEMA net FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA net FROM PUBLIC;
REVOKE ALL ON SCHEMA net FROM PUBLIC;
ALTER FUNCTION net.http_post SECURITY DEFINER
"""

EXPIRE = """
DELETE FROM net._http_response WHERE ctid IN (
    SELECT ctid FROM net._http_response WHERE created < now() - %s::interval ORDER BY created LIMIT %s
)
"""
TAKE = """
DELETE FROM net.http_request_queue WHERE id IN (SELECT id FROM net.http_request_queue ORDER BY id LIMIT %s)
RETURNING id, method, url, body, timeout_milliseconds, coalesce(
    (SELECT jsonb_object_agg(key, value) FROM jsonb_each_text(headers) WHERE value IS NOT NULL), '{}'
) AS headers
"""
ANSWER = """
INSERT INTO net._http_response (id, status_code, content_type, headers, content, timed_out, error_msg)
VALUES (%s, %s, net.unchecked(%s), %s, net.unchecked(%s), %s, %s)
"""


class EndedError(Exception):
    """The worker ends; it comes back a second later, as a background worker does."""


class StandIn:
    """Sends what is in the queue of the database at `url`; wakes sooner than the real one, which may sleep out its second.

    The attributes below may be set at any time.
    """

    batch_size = 200
    ttl = "6 hours"
    # How many of the next requests
    drop = 0  # leave the queue and are not sent
    duplicate = 0  # are sent twice at the same time
    # How many of the next batches
    truncate = 0  # are lost with all that is in the queue
    crash_after_send = (
        0  # are sent, and their answers lost: the worker dies before it commits, and comes back
    )
    # Until set back
    reorder = False  # the last request is sent first, each after the answer of the one before
    delay = 0.0  # seconds before a batch is sent; its rows are in the queue meanwhile. Less of it lets a waiting batch go

    def __init__(self, url: str, version: str | None = None) -> None:
        """With `version` the extension is on record with it, and rights and the worker's name are as they were then."""
        self.url = url
        self.version = version
        self._curl = Curl()
        self._threads = ThreadPoolExecutor(self.batch_size, "pg_net request")
        self._stopping = threading.Event()
        self._up = threading.Event()
        self._worker: threading.Thread | None = None

    def install(self) -> None:
        """Make what an application calls."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(OBJECTS.read_text())
            if self.version is not None:
                connection.execute(ON_RECORD, (self.version,))
            if self._is_older_than(0, 12):
                connection.execute(RIGHTS_BEFORE_0_12)

    def _is_older_than(self, *release: int) -> bool:
        return self.version is not None and tuple(map(int, self.version.split("."))) < release

    def start(self) -> Self:
        """Start the worker, or start it again after `stop`, and wait until it hears."""
        self._stopping.clear()
        self._up.clear()
        self._worker = threading.Thread(target=self._live, name="pg_net worker")
        self._worker.start()
        assert self._up.wait(15), "the stand-in for pg_net did not come up"
        return self

    def stop(self) -> None:
        """End it, after the batch it is at. Twice is safe."""
        self._stopping.set()
        if self._worker is not None:
            self._worker.join(60)
            assert not self._worker.is_alive(), "the stand-in for pg_net did not end"
            self._worker = None
        self._curl.close()

    def close(self) -> None:
        """End it for good."""
        self.stop()
        self._threads.shutdown()
        if self.version is not None:
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute("DELETE FROM pg_extension WHERE oid = 999998")

    def _live(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._session(self._name()) as queue, self._session("ear") as ear:
                    ear.execute("LISTEN pg_net")
                    self._up.set()
                    self._serve(queue, ear)
            except (EndedError, psycopg.Error):
                self._stopping.wait(RESTARTS_AFTER_SECONDS)

    def _name(self) -> str:
        """The name in pg_stat_activity, which the worker has since 0.14; a background worker before that had none."""
        return "" if self._is_older_than(0, 14) else f"pg_net {self.version or '0.20.4'}"

    def _session(self, name: str) -> psycopg.Connection:
        return psycopg.connect(self.url, autocommit=True, application_name=name)

    def _serve(self, queue: psycopg.Connection, ear: psycopg.Connection) -> None:
        # One batch before the first wake: a worker before this one may have left something.
        busy = True
        while True:
            busy = bool(busy and self._batch(queue))
            busy = self._woken(ear, within=PAUSE_SECONDS if busy else None) or busy

    def _woken(self, ear: psycopg.Connection, *, within: float | None) -> bool:
        """Whether a wake came within so many seconds, or since it was last asked: this session only listens, so none is lost."""
        deadline = time.monotonic() + within if within is not None else float("inf")
        while (left := deadline - time.monotonic()) > 0:
            if self._stopping.is_set():
                raise EndedError
            heard = [notice.payload for notice in ear.notifies(timeout=min(left, 0.1), stop_after=1)]
            if "restart" in heard:
                raise EndedError
            if heard:
                return True
        return False

    def _batch(self, queue: psycopg.Connection) -> bool:
        """One transaction; whether there was anything to do."""
        with queue.transaction():
            expired = queue.execute(EXPIRE, (self.ttl, self.batch_size)).rowcount
            taken = queue.cursor(row_factory=class_row(Request)).execute(TAKE, (self.batch_size,)).fetchall()
            if taken and self._take("truncate"):
                queue.execute("TRUNCATE net.http_request_queue")
                taken = []
            for request, answer in self._send(sorted(taken, key=lambda request: request.id)):
                queue.execute(ANSWER, _row(request, answer))
        return bool(expired or taken)

    def _send(self, batch: list[Request]) -> list[tuple[Request, Answer]]:
        self._hold()
        batch = [request for request in batch if not self._take("drop")]
        again = [request for request in batch if self._take("duplicate")]
        if self.reorder:
            batch.reverse()
            answers = [self._curl.send(request) for request in batch + again]
        else:
            answers = list(self._threads.map(self._curl.send, batch + again))
        if batch and self._take("crash_after_send"):
            raise EndedError
        return list(zip(batch, answers, strict=False))  # the second answers are nobody's

    def _hold(self) -> None:
        since = time.monotonic()
        while time.monotonic() < since + self.delay and not self._stopping.wait(0.02):
            pass

    def _take(self, switch: str) -> bool:
        """Whether this one is to suffer it; uses it up."""
        left = getattr(self, switch)
        setattr(self, switch, max(0, left - 1))
        return left > 0


def _row(request: Request, answer: Answer) -> tuple[object, ...]:
    headers = None if answer.headers is None else Jsonb(answer.headers)
    return (
        request.id,
        answer.status,
        answer.content_type,
        headers,
        answer.content,
        answer.timed_out,
        answer.error,
    )
