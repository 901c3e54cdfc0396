"""PgCronBackend: the seam's promises kept by PostgreSQL. Ticks are rows that SQL announced; here they are brought in."""

from __future__ import annotations

import base64
import hashlib
import hmac
import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from jobmanager.backends.base import (
    AuditRow,
    Backend,
    Capabilities,
    Deliver,
    Entry,
    Found,
    Health,
    OutsideAdmin,
)
from jobmanager.backends.pg_cron import schema as objects
from jobmanager.backends.pg_cron.database import Connection, PgCronDatabase, is_here
from jobmanager.backends.pg_cron.listener import Listener
from jobmanager.backends.pg_cron.plans.installing import Planning
from jobmanager.backends.pg_cron.plans.plan import unsupported
from jobmanager.backends.timetable import ScheduledJob
from jobmanager.clock import Clock, SystemClock
from jobmanager.errors import ConfigurationError, JobManagerError, StoreUnavailableError, UnsupportedError
from jobmanager.job import Job
from jobmanager.schedule import Schedule
from jobmanager.settings import Settings, key_of, percent_encoded
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

Transport = Literal["pg_net", "http", "notify"]
Layout = Literal["dispatcher", "entries"]

FEW_JOBS = 50  # so many may have an entry each: more would start one after the other
SILENT_AFTER = timedelta(minutes=3)
CALL_TIMEOUT, WAIT_TIMEOUT = (
    5_000,
    25_000,
)  # milliseconds; in `wait` mode the response comes after the handlers

LONGEST_NAME = 63  # bytes: PostgreSQL cuts what is longer

_OURS_ELSEWHERE = r"""username = current_user AND jobname ~ '^jm_([0-9a-f]{24}|dispatch|sweep|http)@'
   AND command ~ '^(SELECT jobmanager\.fire|CALL jobmanager\.(sweep_minute|fire_http))\('"""
# The last column: where an entry fires if not on this server, '' if there.
OURS_ELSEWHERE = rf"""SELECT jobname::text, schedule::text, command::text, active, CASE
  WHEN nodeport <> current_setting('port')::int OR nodename <> coalesce(%(host)s::text, cron_host, nodename) THEN 'of another server' ELSE '' END
 FROM cron.job, (SELECT (SELECT setting FROM pg_settings WHERE name = 'cron.host') AS cron_host) AS known
 WHERE {_OURS_ELSEWHERE} AND database = %(database)s AND substr(jobname, strpos(jobname, '@')) = %(ending)s"""  # noqa: S608 - constants
# After ALTER DATABASE RENAME: they fail each minute.
OURS_OF_NO_DATABASE = f"""SELECT jobname::text FROM cron.job
 WHERE {_OURS_ELSEWHERE} AND database NOT IN (SELECT datname::text FROM pg_database) ORDER BY 1"""  # noqa: S608 - constants

# By the catalogue: to_regclass fails for a role that has no right in the schema, and the application's needs none.
PROBE = """SELECT EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'net'
  AND p.proname = 'http_post' AND oidvectortypes(p.proargtypes) = 'text, jsonb, jsonb, jsonb, integer'),
 EXISTS (SELECT FROM pg_extension WHERE extname = 'http'), EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_cron'),
 EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_cron'), current_database(),
 current_setting('server_version_num')::int"""


@dataclass(frozen=True, slots=True)
class DatabaseFeatures:
    """The extensions that the database has, found by looking."""

    pg_net: bool
    http: bool
    pg_cron: bool
    could_have_pg_cron: bool
    database: str
    version: int


class PgCronBackend(Backend):
    """Ticks from pg_cron, executed by the process that the database calls, or by any that listens.

    `run_url` is what the database calls; without it, and on a database that cannot call, processes are notified over their
    own connections (`notify`). `cron_url` names the database that has pg_cron, if it is not the one with the jobs.
    """

    name: ClassVar[str] = "pg_cron"
    capabilities: ClassVar[Capabilities] = Capabilities(smallest_interval=timedelta(minutes=1))

    def __init__(
        self,
        database_url: str,
        *,
        cron_url: str | None = None,
        namespace: str = "default",
        run_url: str | None = None,
        secrets: Sequence[str] = (),
        auth: Literal["signature", "bearer"] = "signature",
        wait: bool = False,
        transport: Transport | Literal["auto"] = "auto",
        layout: Layout | Literal["auto"] = "dispatcher",
        clock: Clock = SystemClock(),  # noqa: B008 - it has no state
    ) -> None:
        self.database = PgCronDatabase(database_url)
        self.cron_database = None if cron_url in (None, database_url) else PgCronDatabase(cron_url or "")
        self.namespace = namespace
        self.run_url = run_url
        self.auth = auth
        self.wait = wait
        self.clock = clock
        self._secrets = tuple(secrets)
        self._may_call = run_url is not None and bool(secrets)
        self.transport = transport
        self.layout = layout
        self._planning = Planning(clock)
        self._scheduled: tuple[ScheduledJob, ...] | None = None
        self._is_ready = False
        self._deliver: Deliver | None = None
        self._listener: Listener | None = None
        self._notified = False

    @classmethod
    def from_settings(cls, settings: Settings, *, clock: Clock = SystemClock()) -> PgCronBackend:  # noqa: B008
        if not settings.database_url.startswith("postgresql"):
            raise ConfigurationError(
                "Backend 'pg_cron' needs JOBMANAGER_DATABASE_URL=postgresql://...: the database that keeps the time keeps the runs."
            )
        return cls(
            settings.database_url,
            cron_url=settings.pg_cron_url,
            namespace=settings.namespace,
            run_url=settings.run_url,
            secrets=settings.secrets,
            auth=settings.auth,
            wait=settings.wait,
            transport=settings.pg_cron_transport,
            layout=settings.pg_cron_layout,
            clock=clock,
        )

    @classmethod
    def check(cls, job: Job) -> None:
        reason = None if job.schedule is None else unsupported(job.schedule)
        if reason is not None:
            raise UnsupportedError(f"Job {job.id!r}: backend 'pg_cron' cannot keep its time. {reason}")
        super().check(job)

    # ---------------------------------------------------------------- the seam

    def sync(self, jobs: Sequence[ScheduledJob]) -> None:
        scheduled = tuple(jobs)
        schedules = {item.job.schedule for item in scheduled if item.job.schedule is not None}
        try:
            found = self._found_right(schedules, len(scheduled)) or self._put_right(schedules, len(scheduled))
        except StoreUnavailableError as error:
            if self.run_url is not None:
                logger.warning(
                    "event=cron_url_sync_failed category=jobs url=%s error=%s", self.run_url, error
                )
            raise
        transport, url, keys = found
        if transport != "notify" and not keys:
            logger.warning(
                "pg_cron: no signing key, so the application will refuse every call; run `jobmanager init`"
            )
        if not self._is_ready and self.run_url not in (None, url):
            logger.info("event=cron_url_sync_skipped category=jobs url=%s stays", url)
        self._notified = transport == "notify"
        self._scheduled = scheduled
        self._is_ready = True
        if self._deliver is not None:
            self._listen(self._deliver)

    def _found_right(self, schedules: Collection[Schedule], jobs: int) -> tuple[str, str | None, int] | None:
        """Transport, URL and number of keys, if all is as it should be: one question, for every process asks it at every start."""
        if self.cron_database is not None and not self._is_ready:
            return None
        try:
            with self.database.transaction() as connection:
                drift = self._planning.drift(connection, self.namespace, schedules, PROBE)
        except ConfigurationError:  # functions that are missing, or older ones
            return None
        can = DatabaseFeatures(*drift.able)
        self._refuse(can)
        ticker = drift.ticker
        if ticker is None or objects.is_older(drift.release) or self._wanted(can, ticker, jobs) is not None:
            return None
        if drift.unplanned or drift.unready or drift.entries:
            return None
        return ticker["transport"], ticker["url"], drift.keys

    def _put_right(self, schedules: Collection[Schedule], jobs: int) -> tuple[str, str | None, int]:
        """Make it as it should be, in one transaction; return as `_found_right`."""
        with self.database.transaction() as connection:
            can = self.look(connection)
            self._refuse(can)
            if objects.install(connection):
                logger.info("pg_cron: functions of release %s are installed", objects.release())
            drift = self._planning.drift(connection, self.namespace, schedules, PROBE)
            wanted = self._wanted(can, drift.ticker, jobs)
            if wanted is not None:
                connection.execute("SELECT jobmanager.put_ticker(%s, %s, %s, %s, %s, %s)", wanted)
            if drift.unplanned:
                unplanned = frozenset(drift.unplanned)
                self._planning.put(connection, [s for s in schedules if s.text in unplanned])
            if drift.unready:
                connection.execute("SELECT jobmanager.go_on(%s)", (self.namespace,))
            connection.execute("SELECT jobmanager.sync_entries()")
            if self.cron_database is not None:
                self.sync_elsewhere(connection)
        before = drift.ticker
        if wanted is None:
            assert before is not None  # noqa: S101 - then it is as wanted
            return before["transport"], before["url"], drift.keys
        if before is not None and before["url"] != wanted[4]:
            logger.info("event=cron_url_sync_done category=jobs from=%s to=%s", before["url"], wanted[4])
        return wanted[1], wanted[4], drift.keys

    def prepare(self, schedule: Schedule) -> None:
        # Committed before the job is: SQL meets no job without a plan. A plan without a job, as a crash between the two leaves it, does
        # nothing: plans are read by the jobs of their schedule alone, and never removed while our objects are there.
        with self.database.transaction() as connection:
            if objects.is_older(objects.installed(connection)):
                logger.info(
                    "pg_cron: %s is planned by the next start, which installs our objects", schedule.text
                )
                return
            self._planning.put(connection, [schedule])

    def start(self, deliver: Deliver) -> None:
        if self._deliver is None:
            self._deliver = deliver
            self._listen(deliver)
            self._announce_what_is_due()

    def _announce_what_is_due(self) -> None:
        """Bring at once what came due while no process, or another backend, kept the time; the next wake-up may be a minute away."""
        if not isinstance(self.clock, SystemClock):
            return  # the database has a clock of its own: what is due by it is not due by one that is moved by hand
        try:
            with self.database.transaction() as connection:
                connection.execute("SELECT jobmanager.run_due()")
        except JobManagerError as error:
            logger.info("pg_cron: what is due already is left to the next minute: %s", error)

    def stop(self, timeout: timedelta) -> None:
        self._deliver = None
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.stop(timeout)

    def _listen(self, deliver: Deliver) -> None:
        """Where the database cannot call, listen; elsewhere the calls come in by `jobmanager.web`."""
        if self._notified and self._listener is None:
            self._listener = Listener(self.database, self.namespace, deliver)
            self._listener.start()

    def entries(self) -> list[Entry]:
        if self._scheduled is None:
            return []
        with self.database.transaction() as connection:
            jobs = connection.execute(
                "SELECT j.id, jobmanager.entry_name(j.id), j.next_due_at FROM jobmanager.jobs j"
                " WHERE j.namespace = %s AND j.state = 'active' AND j.schedule <> 'none' ORDER BY j.id",
                (self.namespace,),
            ).fetchall()
            outside = {
                row[0]: row
                for row in connection.execute(
                    "SELECT name, job_id, orphan, drift FROM jobmanager.list_entries()"
                )
            }
        found = [
            Entry(
                name=name if name in outside else "jm_dispatch",
                job_id=job_id,
                next_due_at=None if due is None else due.astimezone(UTC),
                drift=outside[name][3]
                if name in outside
                else outside.get("jm_dispatch", ("", "", "", ""))[3],
            )
            for job_id, name, due in jobs
        ]
        orphans = (name for name, _, orphan, _ in outside.values() if orphan)
        return [
            *found,
            *(Entry(name=name, job_id=None, next_due_at=None, drift="of no job") for name in orphans),
        ]

    def admin(self, *, actor: str, audit: AuditRow) -> OutsideAdmin:
        from jobmanager.backends.pg_cron.admin import PgCronAdmin  # noqa: PLC0415 - only operators need it

        return PgCronAdmin(self, actor=actor, audit=audit)

    def health(self) -> Health:
        if self._deliver is None:
            return Health(ok=False, detail="not started in this process")
        try:
            with self.database.transaction(limit=5) as connection:
                row = connection.execute(
                    "SELECT swept_at, clock_timestamp() - swept_at FROM jobmanager.epoch"
                ).fetchone()
        except JobManagerError as error:
            return Health(ok=False, detail=str(error))
        if row is None or row[0] is None:
            return Health(
                ok=True, detail="the database has not swept yet; its first pass comes with a full minute"
            )
        if row[1] > SILENT_AFTER:
            return Health(
                ok=False,
                detail=f"pg_cron is silent since {row[0].astimezone(UTC).isoformat(timespec='seconds')}",
            )
        return Health(ok=True, detail=f"the database swept {row[1].total_seconds():.0f} s ago")

    def findings(self, jobs: Sequence[Job]) -> Iterable[Found]:
        from jobmanager.backends.pg_cron.diagnostics.examine import examine  # noqa: PLC0415 - only `doctor` needs it

        return examine(self, jobs)

    @classmethod
    def left_behind(cls, settings: Settings) -> Iterable[Found]:
        if not settings.database_url.startswith("postgresql"):
            return ()
        from jobmanager.backends.pg_cron.diagnostics.examine import going_on  # noqa: PLC0415 - only `doctor` needs it

        return going_on(cls.from_settings(settings))

    @property
    def run_path(self) -> str:
        """The path that the database calls."""
        return urlsplit(self.run_url or "").path or "/jobs/run"

    def signatures(self, message: bytes) -> list[str]:
        """Return the signatures of this message, one for each secret that the application takes, as the database would make them."""
        signed = (hmac.digest(key_of(secret), message, "sha256") for secret in self._secrets)
        return ["v1," + base64.b64encode(one).decode() for one in signed]

    def after_fork(self) -> None:
        """In a forked child: the thread and its connection stayed behind."""
        self._deliver = None
        self._listener = None

    # ---------------------------------------------------------------- how the application is reached

    def look(self, connection: Connection) -> DatabaseFeatures:
        """Return what this database is able to do."""
        row = connection.execute(PROBE).fetchone()
        assert row is not None  # noqa: S101 - it has no FROM
        return DatabaseFeatures(*row)

    def _refuse(self, can: DatabaseFeatures) -> None:
        if not can.pg_cron and self.cron_database is None:
            missing = (
                "run `jobmanager init`, or let a superuser run CREATE EXTENSION pg_cron"
                if can.could_have_pg_cron
                else "install pg_cron on the server and add it to shared_preload_libraries (docs/howto/pg-cron.md)"
            )
            raise ConfigurationError(
                f"Backend 'pg_cron': database {can.database!r} has no extension pg_cron; {missing}, "
                "or name the database that has it in JOBMANAGER_PG_CRON_URL."
            )
        lacking = {"pg_net": not can.pg_net, "http": not can.http}
        if lacking.get(self.transport):
            raise ConfigurationError(
                f"JOBMANAGER_PG_CRON_TRANSPORT={self.transport}, and the database does not have that extension: "
                f"CREATE EXTENSION {self.transport}, or choose auto."
            )
        if self.transport in lacking and not self._may_call:
            raise ConfigurationError(
                f"JOBMANAGER_PG_CRON_TRANSPORT={self.transport} needs JOBMANAGER_PUBLIC_URL, where the database reaches "
                "this application, and JOBMANAGER_SECRET; `jobmanager init` makes the secret."
            )

    def _wanted(
        self, can: DatabaseFeatures, ticker: dict[str, Any] | None, jobs: int
    ) -> tuple[str, str, str, str, str | None, int] | None:
        """How this application should be reached, if that is not on file already."""
        transport: str = self.transport
        if transport == "auto":
            transport = "notify"
            if self._may_call and (can.pg_net or can.http):
                transport = "pg_net" if can.pg_net else "http"
        layout: str = self.layout
        if layout == "auto":
            layout = "entries" if jobs <= FEW_JOBS and can.pg_cron else "dispatcher"
        if layout == "entries" and not can.pg_cron:
            raise ConfigurationError(
                "JOBMANAGER_PG_CRON_LAYOUT=entries needs pg_cron in the database of the jobs; choose dispatcher."
            )
        wanted = (
            transport,
            layout,
            self.auth,
            self._url_for(ticker),
            WAIT_TIMEOUT if self.wait else CALL_TIMEOUT,
        )
        on_file = ("transport", "layout", "auth", "url", "timeout_ms")
        if ticker is not None and tuple(ticker[name] for name in on_file) == wanted:
            return None
        return self.namespace, *wanted

    def _url_for(self, ticker: dict[str, Any] | None) -> str | None:
        """Return the URL to keep in the database: a developer's machine never overwrites that of a server."""
        stored: str | None = None if ticker is None else ticker["url"]
        if stored is None or self.run_url is None:
            return self.run_url or stored
        return stored if is_local(self.run_url) and not is_local(stored) else self.run_url

    def sync_elsewhere(self, connection: Connection) -> None:
        """pg_cron lives in another database: its entries are made there, and command what is here."""
        assert self.cron_database is not None  # noqa: S101 - asked before
        database: str = connection.execute("SELECT current_database()").fetchone()[0]  # type: ignore[index]  # it has no FROM
        wanted = {
            (name_elsewhere(name, database), schedule, command)
            for name, schedule, command in connection.execute(
                "SELECT name, schedule, command FROM jobmanager.wanted_entries()"
            )
        }
        with self.cron_database.transaction() as elsewhere:
            elsewhere.execute("SELECT pg_advisory_xact_lock(hashtextextended('jobmanager.sync', 0))")
            rows = ours_elsewhere(elsewhere, database, host=_host_of_new_entries(elsewhere))
            dead = {name for (name,) in elsewhere.execute(OURS_OF_NO_DATABASE.encode())}
            right = wanted & {
                (name, schedule, command)
                for name, schedule, command, active, place in rows
                if active and not place
            }
            # One that was switched off, or fires elsewhere, stays so when it is scheduled again: it goes first.
            for name in dead | {row[0] for row in rows} - {entry[0] for entry in right}:
                elsewhere.execute("SELECT cron.unschedule(%s)", (name,))
            for entry in wanted - right:
                elsewhere.execute("SELECT cron.schedule_in_database(%s, %s, %s, %s)", (*entry, database))


def ours_elsewhere(
    elsewhere: Connection, database: str, *, host: str | None = None
) -> list[tuple[str, str, str, bool, str]]:
    """Return our entries for a database in the one that has pg_cron: name, schedule, command, whether active, and where each fires.

    `host` is what pg_cron writes into a new entry, where our role may not read that setting.
    """
    values = {"database": database, "ending": name_elsewhere("", database), "host": host}
    return elsewhere.execute(OURS_ELSEWHERE.encode(), values).fetchall()


def _host_of_new_entries(elsewhere: Connection) -> str | None:
    """Return what pg_cron writes into a new entry, by one that is taken back at once; None where the setting can be read."""
    if elsewhere.execute("SELECT 1 FROM pg_settings WHERE name = 'cron.host'").fetchone():
        return None
    probe = f"jm_probe_{uuid.uuid4()}"
    with elsewhere.transaction(force_rollback=True):
        elsewhere.execute("SELECT cron.schedule(%s, '0 0 1 1 *', 'SELECT 1')", (probe,))
        row = elsewhere.execute("SELECT nodename FROM cron.job WHERE jobname = %s", (probe,)).fetchone()
    return None if row is None else str(row[0])


def name_elsewhere(name: str, database: str) -> str:
    """Return an entry's name in the database that has pg_cron: of one name there is one entry, whichever database it commands."""
    is_short = len(database.encode()) <= LONGEST_NAME - len("jm_0123456789abcdef01234567@")
    return f"{name}@{database if is_short else hashlib.sha256(database.encode()).hexdigest()[:24]}"


def is_local(url: str) -> bool:
    """Return whether only this machine, or its network, can reach the URL."""
    host = urlsplit(percent_encoded(url)).hostname
    return host is not None and is_here(host)
