"""The closed loop for tests: a database that calls, the stand-in that sends, and an application behind a gate that can misbehave."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import psycopg
from tests.faults.conftest import until
from tests.pg_net.stand_in import StandIn
from tests.pg_net.target import Received, Reply, Target

from jobmanager import JobManager, RunContext, Settings
from jobmanager.errors import StoreUnavailableError
from jobmanager.web import wsgi

SECRET = "whsec_" + base64.b64encode(hashlib.sha256(b"the loop").digest()).decode()

# Supabase's Vault, as far as it is used: a view that shows what the functions keep.
VAULT = """
CREATE SCHEMA vault;
CREATE TABLE vault.secrets (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text UNIQUE, secret text);
CREATE VIEW vault.decrypted_secrets AS SELECT id, name, secret AS decrypted_secret FROM vault.secrets;
CREATE FUNCTION vault.create_secret(text, text) RETURNS uuid LANGUAGE sql AS
  'INSERT INTO vault.secrets (secret, name) VALUES ($1, $2) RETURNING id';
CREATE FUNCTION vault.update_secret(uuid, text) RETURNS void LANGUAGE sql AS
  'UPDATE vault.secrets SET secret = $2 WHERE id = $1';
"""


def start_in_silence(manager: JobManager) -> None:
    """Start it without announcing what is due: a minute that began just before would bring a tick that no test asked for."""
    backend: Any = manager._assembly.backend
    backend._announce_what_is_due = lambda: None
    try:
        manager.start()
    finally:
        del backend._announce_what_is_due


class Loop:
    """One job of every minute, whose handler notes its instants. The gate answers with `reply`, or hands on to the application."""

    def __init__(
        self, url: str, stand_in: StandIn, *, jobs: Sequence[str] = ("work",), **settings: Any
    ) -> None:
        self.stand_in = stand_in
        self.gate = Target().start()
        self.started: list[tuple[str, datetime]] = []
        self.manager = JobManager(
            Settings(
                database_url=url,
                backend="pg_cron",
                public_url=self.gate.url,
                secret=SECRET,
                grace_seconds=600,
                **{"pg_cron_transport": "pg_net", **settings},
            )
        )
        for job in jobs:
            self.manager.add_job(job, self._note, cron="* * * * *", overlap="allow")
        self._application = wsgi(self.manager)
        self.connection = psycopg.connect(url, autocommit=True)

    def __enter__(self) -> Self:
        # What is looked at here are the calls; a sweep of the application would accept what is announced without one.
        self.manager._assembly.sweep._accept = list
        try:
            start_in_silence(self.manager)
        except BaseException:
            self.__exit__()
            raise
        self.connection.execute("SELECT jobmanager.put_key('default', %s)", (SECRET,))
        # Only the test lets time pass: no entry of pg_cron does.
        self.connection.execute("SELECT jobmanager.remove_entries()")
        self.gate.reply = self.application
        return self

    def __exit__(self, *_: object) -> None:
        self.manager.stop(1)
        self.manager.store.close()
        self.connection.close()
        self.gate.stop()

    def _note(self, context: RunContext) -> None:
        assert context.scheduled_for is not None
        self.started.append((context.job.id, context.scheduled_for))

    def application(self, request: Received) -> Reply:
        """The real endpoint, with the request as it came."""
        heard: dict[str, Any] = {}

        def start_response(
            status: str, headers: list[tuple[str, str]], *_: object
        ) -> Callable[[bytes], object]:
            heard.update(status=int(status.split(maxsplit=1)[0]), headers=dict(headers))
            return io.BytesIO().write

        environ = {
            "REQUEST_METHOD": request.method, "PATH_INFO": request.path, "QUERY_STRING": "", "SCRIPT_NAME": "",
            "CONTENT_LENGTH": str(len(request.body)), "wsgi.input": io.BytesIO(request.body), "REMOTE_ADDR": "127.0.0.1",
            "SERVER_NAME": "gate", "SERVER_PORT": "80", "wsgi.url_scheme": "http", "wsgi.errors": io.StringIO(),
            "CONTENT_TYPE": request.header("content-type") or "",
            **{"HTTP_" + name.upper().replace("-", "_"): value for name, value in request.headers},
        }  # fmt: skip
        body = b"".join(self._application(environ, start_response))
        return Reply(status=heard["status"], body=body, headers=heard["headers"])

    # ---------------------------------------------------------------- what a test says

    def ask(self, query: str, *values: object) -> Any:
        """The first column of the first row."""
        row = self.connection.execute(query, values).fetchone()
        return None if row is None else row[0]

    def make_due(self, *, minutes: int = 0) -> datetime:
        """All jobs are due: the last full minute, or one before it; answers it."""
        instant = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=minutes)
        self.connection.execute(
            "UPDATE jobmanager.jobs SET next_due_at = %s, accounted_until = %s",
            (instant, instant - timedelta(seconds=1)),
        )
        return instant

    def fire(self, moment: datetime | None = None) -> int:
        """As pg_cron at the full minute; answers how many runs were announced. Then nothing is due for a day."""
        found = self.ask("SELECT jobmanager.fire(NULL, %s)", moment)
        self.connection.execute(
            "UPDATE jobmanager.jobs SET next_due_at = clock_timestamp() + interval '1 day', accounted_until = clock_timestamp()"
        )
        return int(found)

    def sweep(self, *, after: float = 0) -> int:
        """A pass of the database's sweep, so many seconds later: what was is moved back. Answers how many runs were called for."""
        for table, column in {
            "jobmanager.calls": "sent_at",
            "jobmanager.run_calls": "next_call_at",
            "jobmanager.runs": "due_at",
            "net._http_response": "created",
        }.items():
            self.connection.execute(
                f"UPDATE {table} SET {column} = {column} - make_interval(secs => %s)", (after,)
            )
        return int(self.ask("SELECT jobmanager.sweep()"))

    def is_sent(self) -> bool:
        """Whether pg_net's worker has committed that it took all calls out of its queue."""
        return int(self.ask("SELECT count(*) FROM net.http_request_queue")) == 0

    def answered(self, count: int = 1) -> None:
        """Wait until pg_net has so many answers, or what it says instead of one."""
        until(lambda: self.ask("SELECT count(*) FROM net._http_response") >= count, 30)

    def outcomes(self) -> list[str]:
        """Of all calls, in order."""
        rows = self.connection.execute(
            "SELECT outcome FROM jobmanager.calls WHERE kind = 'ticks' ORDER BY id"
        )
        return [row[0] for row in rows]

    def succeeded(self, job: str = "work", count: int = 1) -> None:
        """Wait until so many runs of the job have succeeded; each instant was started once."""

        def enough() -> bool:
            try:
                return len(self.manager.runs(job, "succeeded")) >= count
            except StoreUnavailableError:  # the test restarted the server
                return False

        until(enough, 60)
        assert len(set(self.started)) == len(self.started)
