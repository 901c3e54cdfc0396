"""The queries of `doctor` in the database that keeps the time. Each is read only, and is given up after two seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from psycopg.rows import class_row

from jobmanager.backends.pg_cron import schema as objects
from jobmanager.backends.pg_cron.database import Connection, PgCronDatabase

WITHIN = 2  # seconds

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The facts that any role may see. `schedulers` and `senders` are the databases that pg_cron and pg_net are at work in."""

    database: str
    role: str
    version: int
    now: datetime
    extension: str | None
    could_have_pg_cron: bool
    waits_for_workers: bool
    schedulers: list[str]
    senders: list[str]
    has_pg_net: bool
    pg_net: str | None
    has_http: bool
    may_use: bool | None
    may_create: bool
    may_see_cron: bool | None
    settings: dict[str, str]


KEEPER = """SELECT backend FROM jobmanager.keepers WHERE namespace = %s"""
SCHEDULERS = """SELECT datname::text FROM pg_stat_activity WHERE application_name = 'pg_cron scheduler' AND datname IS NOT NULL"""

SERVER = r"""SELECT current_database()::text AS database, current_user::text AS role, current_setting('server_version_num')::int AS version,
  clock_timestamp() AS now, (SELECT extversion FROM pg_extension WHERE extname = 'pg_cron') AS extension,
  EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_cron') AS could_have_pg_cron,
  EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_cron' AND default_version ~ '^1\.[0-4]\M') AS waits_for_workers,
  ARRAY(SELECT datname::text FROM pg_stat_activity WHERE application_name = 'pg_cron scheduler' AND datname IS NOT NULL) AS schedulers,
  ARRAY(SELECT datname::text FROM pg_stat_activity WHERE (application_name LIKE 'pg\_net %' OR backend_type LIKE 'pg\_net %') AND datname IS NOT NULL) AS senders,
  EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'net' AND p.proname = 'http_post'
    AND oidvectortypes(p.proargtypes) = 'text, jsonb, jsonb, jsonb, integer') AS has_pg_net,
  (SELECT extversion FROM pg_extension WHERE extname = 'pg_net') AS pg_net,
  EXISTS (SELECT FROM pg_extension WHERE extname = 'http') AS has_http,
  (SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = 'jobmanager') AS may_use,
  (SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = 'cron') AS may_see_cron,
  has_database_privilege(current_database(), 'CREATE') AS may_create,
  (SELECT jsonb_object_agg(name, setting) FROM pg_settings WHERE name LIKE 'cron.%'
    OR name IN ('shared_preload_libraries', 'max_connections', 'max_worker_processes')) AS settings"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The owner of our functions, and so of the entries; `schedules` is None where pg_cron is not."""

    name: str
    release: str | None
    can_login: bool
    is_us: bool
    uses: bool | None
    schedules: bool | None
    reads_responses: bool | None
    """Of pg_net; None where it is not."""


# By the catalogue: a name with its schema fails for a role that has no right in the schema.
OWNER = """SELECT o.rolname::text AS name, obj_description(p.oid, 'pg_proc') AS release, o.rolcanlogin AS can_login,
  pg_has_role(p.proowner, 'USAGE') AS is_us,
  (SELECT has_schema_privilege(p.proowner, oid, 'USAGE') FROM pg_namespace WHERE nspname = 'cron') AS uses,
  (SELECT bool_and(has_function_privilege(p.proowner, f.oid, 'EXECUTE')) FROM pg_proc f JOIN pg_namespace c ON c.oid = f.pronamespace
    WHERE c.nspname = 'cron' AND (f.proname, f.pronargs) IN (('schedule', 3), ('unschedule', 1))) AS schedules,
  (SELECT bool_and(has_table_privilege(p.proowner, t.oid, 'SELECT') AND has_schema_privilege(p.proowner, t.relnamespace, 'USAGE'))
    FROM pg_class t JOIN pg_namespace c ON c.oid = t.relnamespace
    WHERE c.nspname = 'net' AND t.relname IN ('_http_response', 'http_request_queue')) AS reads_responses
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_roles o ON o.oid = p.proowner
 WHERE n.nspname = 'jobmanager' AND p.proname = 'fire'"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TickerRow:
    """How the application is reached, as the database has it on file."""

    transport: str
    layout: str
    auth: str
    url: str | None
    timeout_ms: int
    passes: int
    swept_at: datetime | None


TICKER = """SELECT transport, layout, auth, url, timeout_ms, passes, (SELECT swept_at FROM jobmanager.epoch) AS swept_at
  FROM jobmanager.tickers WHERE namespace = %s"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """The newest call that ended, and figures of those of the last hour."""

    outcome: str
    detail: str | None
    sent_at: datetime
    recent: int
    failed: int


CALLS = """SELECT c.outcome, c.detail, c.sent_at, r.recent, r.failed FROM jobmanager.calls c,
  (SELECT count(*) AS recent, count(*) FILTER (WHERE outcome <> 'accepted') AS failed FROM jobmanager.calls
    WHERE namespace = %(namespace)s AND outcome IS NOT NULL AND sent_at > clock_timestamp() - interval '1 hour') r
 WHERE c.namespace = %(namespace)s AND c.outcome IS NOT NULL ORDER BY c.sent_at DESC, c.id DESC LIMIT 1"""

OLDEST_CALL = """SELECT min(sent_at) FROM jobmanager.calls WHERE namespace = %s AND outcome IS NULL"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unplanned:
    """A job that has no instant to be due at, or will soon have none."""

    id: str
    schedule: str
    planned_until: str | None
    is_over: bool
    error: str | None


# A job whose plan is exhausted is parked with that word; any other is what SQL failed with.
UNPLANNED = """SELECT j.id, j.schedule, s.planned_until::text, nullif(p.error, 'plan_exhausted') AS error,
    p.error IS NOT NULL OR j.next_due_at IS NULL OR j.next_due_at <= j.accounted_until AS is_over
  FROM jobmanager.jobs j LEFT JOIN jobmanager.schedules s USING (schedule) LEFT JOIN jobmanager.parked p ON p.job_id = j.id
 WHERE j.namespace = %s AND j.state = 'active' AND j.schedule <> 'none' AND (p.job_id IS NOT NULL OR s.planned_until < current_date + 30
   OR ((j.next_due_at IS NULL OR j.next_due_at <= j.accounted_until) AND (s.schedule IS NULL OR s.planned_until < 'infinity')))
 ORDER BY error IS NULL, j.id LIMIT 100"""

LACKING = """SELECT 'EXECUTE ON FUNCTION jobmanager.' || p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname = 'jobmanager' AND p.proname = ANY (%(functions)s) AND NOT has_function_privilege(p.oid, 'EXECUTE')
UNION ALL SELECT 'SELECT, INSERT, UPDATE, DELETE ON jobmanager.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = 'jobmanager' AND c.relname = ANY (%(tables)s)
   AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE')
     AND has_table_privilege(c.oid, 'DELETE'))
UNION ALL SELECT 'SELECT ON jobmanager.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = 'jobmanager' AND c.relname = ANY (%(read)s) AND NOT has_table_privilege(c.oid, 'SELECT') ORDER BY 1"""
READ = ["schedules", "plans", "calls", "run_calls", "tickers", "parked", "epoch"]

EMPTY_READS = """SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = 'jobmanager' AND c.relkind = 'r' AND c.relrowsecurity AND row_security_active(c.oid) ORDER BY 1"""

# What a superuser sees besides: entries like ours that another role owns, after a restore or a change of the role.
STRANGERS = """SELECT DISTINCT username::text FROM cron.job WHERE database = current_database() AND username <> %s AND active
  AND jobname ~ '^jm_([0-9a-f]{24}|dispatch|sweep|http)$' AND username IN (SELECT rolname::text FROM pg_roles) ORDER BY 1"""
# One entry of such a role, whosever it was, ends pg_cron's launcher each time that it starts.
ROLES_GONE = """SELECT DISTINCT username::text, quote_literal(username) FROM cron.job
 WHERE username NOT IN (SELECT rolname::text FROM pg_roles) ORDER BY 1"""

ELSEWHERE = """SELECT c.jobname::text, c.command::text, c.active, c.nodeport = current_setting('port')::int
    AND c.nodename = coalesce((SELECT setting FROM pg_settings WHERE name = 'cron.host'), c.nodename) AS here, (SELECT d.return_message FROM cron.job_run_details d
    WHERE d.jobid = c.jobid AND d.status IN ('succeeded', 'failed') AND d.runid > (SELECT max(runid) - 2000 FROM cron.job_run_details)
    ORDER BY d.runid DESC LIMIT 1) AS said
  FROM cron.job c WHERE c.database = %s AND c.jobname ~ '^jm_(dispatch|sweep|http)@'"""


class Questions:
    """Asked of one database, each in a transaction of its own on a connection that is made when the first is asked."""

    def __init__(self, database: PgCronDatabase) -> None:
        self._database = database
        self._connection: Connection | None = None

    def one(self, kind: type[T], query: str, *values: Any, **named: Any) -> T | None:
        """Return the first row, as a value of that class."""
        with self._transaction() as connection, connection.cursor(row_factory=class_row(kind)) as cursor:
            return cursor.execute(query.encode(), named or values or None).fetchone()

    def all(self, kind: type[T], query: str, *values: Any) -> list[T]:
        """Every row, as values of that class."""
        with self._transaction() as connection, connection.cursor(row_factory=class_row(kind)) as cursor:
            return cursor.execute(query.encode(), values or None).fetchall()

    def column(self, query: str, *values: Any, **named: Any) -> list[Any]:
        """Return the first value of every row."""
        with self._transaction() as connection:
            return [row[0] for row in connection.execute(query.encode(), named or values or None)]

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Every row as it comes."""
        with self._transaction() as connection:
            return connection.execute(query.encode(), values or None).fetchall()

    def lacking(self) -> list[str]:
        """Rights that a process of ours needs here, and this role has not."""
        functions = [signature.partition("(")[0] for signature in objects.FOR_THE_APPLICATION]
        return self.column(LACKING, functions=functions, tables=list(objects.OF_THE_STORE), read=READ)

    def hears_itself(self) -> bool:
        """Return whether a notification comes back: behind a transaction pooler none does, and no error says so."""
        channel = "jobmanager_examination"
        with self._database.translated_errors():
            connection = self._connected()
            connection.execute(f"LISTEN {channel}".encode())
            connection.execute(f"NOTIFY {channel}".encode())
            heard = any(True for _ in connection.notifies(timeout=WITHIN, stop_after=1))
            connection.execute(f"UNLISTEN {channel}".encode())
        return heard

    @property
    def host(self) -> str:
        """Where the database is, by the name that was given."""
        return self._connected().info.host

    def close(self) -> None:
        """Give the connection up."""
        if self._connection is not None:
            self._connection.close()

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._database.connect(patience=WITHIN)
        return self._connection

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._database.translated_errors():
            connection = self._connected()
            with self._database.pinned(connection):
                connection.execute("SET TRANSACTION READ ONLY")
                connection.execute("SELECT set_config('statement_timeout', %s, true)", (f"{WITHIN}s",))
                yield connection
