"""What `doctor` says on pg_cron: each fault is made in a real database, and named first, with its fix; without one it says nothing."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import psycopg
import pytest
from tests.faults.conftest import until
from tests.pg_net.stand_in import StandIn
from tests.pg_net.target import Received, Reply, Target, redirect
from tests.servers import FreshDatabases, PgCron, Pooler, free_port

from jobmanager import JobManager, Settings
from jobmanager.backends.pg_cron import PgCronBackend
from jobmanager.backends.pg_cron import schema as objects
from jobmanager.clock import SystemClock
from jobmanager.doctor import Finding, examine
from jobmanager.web import wsgi

pytestmark = [pytest.mark.servers, pytest.mark.slow]

SECRET = "whsec_" + base64.b64encode(os.urandom(32)).decode()
ANOTHER = "whsec_" + base64.b64encode(os.urandom(32)).decode()
NEVER = "0 0 29 2 *"  # next to

# ---------------------------------------------------------------- ground


def endpoint(signed: Reply | None = None) -> Callable[[Received], Reply]:
    """Answers as ours does: 401 to the unsigned, and 202 to the others unless told otherwise."""

    def answer(received: Received) -> Reply:
        if received.header("webhook-signature") is None:
            return Reply(status=401, headers={"WWW-Authenticate": "Signature"})
        return signed or Reply(status=202, body=b'{"call":%d}' % received.json()["call"])

    return answer


class Prerequisites:
    """A database that a superuser's session breaks, and managers whose jobs it keeps the time of."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.target = Target().start()
        self.target.reply = endpoint()
        self.made: list[JobManager] = []
        self._stand_in: StandIn | None = None
        self.pg_net: str | None = None  # its version, if it is on record
        self._sessions: list[psycopg.Connection[Any]] = []
        self.session = self.connect()

    def connect(self, url: str | None = None, **options: Any) -> psycopg.Connection[Any]:
        """A session that ends with the test."""
        self._sessions.append(psycopg.connect(url or self.url, autocommit=True, **options))
        return self._sessions[-1]

    def do(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """As a superuser; the rows, if there are any."""
        cursor = self.session.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []

    @property
    def stand_in(self) -> StandIn:
        """pg_net's stand-in, which is at work once it was asked for."""
        if self._stand_in is None:
            self._stand_in = StandIn(self.url, self.pg_net)
            self._stand_in.install()
            self._stand_in.start()
        return self._stand_in

    def manager(
        self,
        url: str | None = None,
        *,
        jobs: int = 1,
        clock: Any = None,
        backend: Any = None,
        name: str = "pg_cron",
        **settings: Any,
    ) -> JobManager:
        """One with some jobs that are hardly ever due, not started and not carried over."""
        made = JobManager(
            Settings(
                **{
                    "database_url": url or self.url,
                    "backend": name,
                    "pg_cron_transport": "notify",
                    **settings,
                }
            ),
            clock=clock,
            backend=backend,
        )
        for number in range(jobs):
            made.job(f"work-{number}", cron=NEVER)(print)
        self.made.append(made)
        return made

    def notified(self, **options: Any) -> JobManager:
        """One whose processes listen, carried over."""
        made = self.manager(**options)
        made.sync()
        return made

    def called(self, *, key: str | None = SECRET, **options: Any) -> JobManager:
        """One that the database calls by pg_net, carried over."""
        self.stand_in  # noqa: B018 - it is there from now on
        made = self.manager(**{**self.by_pg_net, **options})
        made.sync()
        if key is not None:
            self.do("SELECT jobmanager.put_key('default', %s)", key)
        return made

    @property
    def by_pg_net(self) -> dict[str, Any]:
        return {"pg_cron_transport": "pg_net", "public_url": self.target.url, "secret": SECRET}

    def call(self, *, later: timedelta = timedelta(0), answered: bool = True) -> None:
        """Let the database call the application, and have a look what became of that."""
        moment = datetime.now(UTC) + later
        [(call,)] = self.do("SELECT max(id) FROM jobmanager.calls") or [(None,)]
        self.do("SELECT jobmanager.post('default', 'plan', '{}', clock_timestamp())")
        if answered:
            request = "SELECT 1 FROM net._http_response r JOIN jobmanager.calls c ON c.request_id = r.id WHERE c.id > %s"
            until(lambda: self.do(request, call or 0), 15)
        self.do("SELECT jobmanager.sweep(%s)", max(moment, datetime.now(UTC)))

    def role(self, name: str = "app") -> str:
        """The URL for a role that may do nothing."""
        self.do(f'CREATE ROLE "{name}" LOGIN')
        return self.url.replace("postgres@", f"{name}@")

    def owner(self) -> str:
        """The URL for a role that may own everything."""
        url = self.role()
        self.do("GRANT CREATE ON DATABASE postgres TO app; GRANT USAGE ON SCHEMA cron TO app")
        return url

    def close(self) -> None:
        for made in self.made:
            made.stop(drain=0.2)
            made.store.close()
        for session in self._sessions:
            session.close()
        if self._stand_in is not None:
            self._stand_in.close()
        self.target.stop()


@pytest.fixture
def ground(pg_cron_url: str) -> Iterator[Prerequisites]:
    made = Prerequisites(pg_cron_url)
    try:
        yield made
    finally:
        made.close()


def bad(jobs: JobManager) -> list[Finding]:
    """What is a warning or worse; each says what helps, and none a secret."""
    found = [finding for finding in examine(jobs) if finding.level in ("warning", "failing")]
    assert all(finding.fix for finding in found)
    assert not any(secret in repr(found) for secret in (SECRET, ANOTHER, SECRET[6:], "hunter2"))
    return found


# ---------------------------------------------------------------- the server and the rights


def unreachable(ground: Prerequisites) -> JobManager:
    return ground.manager(f"postgresql://postgres:hunter2@127.0.0.1:{free_port()}/postgres")


def no_extension(ground: Prerequisites) -> JobManager:
    jobs = ground.notified()
    ground.do("DROP EXTENSION pg_cron CASCADE")
    return jobs


def functions_gone(ground: Prerequisites) -> JobManager:
    jobs = ground.notified()
    ground.do("DROP FUNCTION jobmanager.fire")
    return jobs


def another_release(ground: Prerequisites) -> JobManager:
    jobs = ground.notified()
    ground.do(f"COMMENT ON FUNCTION {objects.STAMP} IS 'of last year'")
    return jobs


def nothing_may_be_installed(ground: Prerequisites) -> JobManager:
    return ground.manager(ground.role())


def no_usage(ground: Prerequisites) -> JobManager:
    ground.notified()
    return ground.manager(ground.role())


def no_execute(ground: Prerequisites) -> JobManager:
    ground.notified()
    url = ground.role()
    ground.do(objects.grants("app"))
    ground.do("REVOKE EXECUTE ON FUNCTION jobmanager.announced_runs(text) FROM app")
    return ground.manager(url)


def no_table(ground: Prerequisites) -> JobManager:
    ground.notified()
    url = ground.role()
    ground.do(objects.grants("app"))
    ground.do("REVOKE UPDATE ON jobmanager.runs FROM app")
    return ground.manager(url)


def empty_read(ground: Prerequisites) -> JobManager:
    ground.notified()
    url = ground.role()
    ground.do(objects.grants("app"))
    ground.do("ALTER TABLE jobmanager.jobs ENABLE ROW LEVEL SECURITY")
    return ground.manager(url)


def owner_may_not_log_in(ground: Prerequisites) -> JobManager:
    ground.notified(url=ground.owner())
    ground.do("ALTER ROLE app NOLOGIN")
    return ground.manager()


def owner_may_not_use_cron(ground: Prerequisites) -> JobManager:
    jobs = ground.notified(url=ground.owner())
    ground.do("REVOKE USAGE ON SCHEMA cron FROM app")
    return jobs


def owner_may_not_schedule(ground: Prerequisites) -> JobManager:
    jobs = ground.notified(url=ground.owner())
    ground.do("REVOKE EXECUTE ON FUNCTION cron.schedule(text, text, text) FROM PUBLIC")
    return jobs


def entries_of_an_earlier_owner(ground: Prerequisites) -> JobManager:
    ground.notified(url=ground.owner())
    ground.do("SELECT cron.schedule('jm_dispatch', '* * * * *', 'SELECT jobmanager.fire(NULL)')")
    return ground.manager()


def entries_of_a_role_that_is_gone(ground: Prerequisites) -> JobManager:
    jobs = ground.notified()
    url = ground.role("o'hara")
    ground.do('GRANT USAGE ON SCHEMA cron TO "o\'hara"')
    with psycopg.connect(url, autocommit=True) as theirs:
        theirs.execute("SELECT cron.schedule('theirs', '0 0 1 1 *', 'SELECT 1')")
    ground.do('DROP OWNED BY "o\'hara"')
    ground.do('DROP ROLE "o\'hara"')
    return jobs


# ---------------------------------------------------------------- pg_cron's entries


def entries_of_another_server(ground: Prerequisites) -> JobManager:
    jobs = ground.notified()
    ground.do("UPDATE cron.job SET nodename = 'old.example.com'")
    return jobs


def entries_of_another_database(ground: Prerequisites) -> JobManager:
    jobs = ground.notified()
    ground.do("UPDATE cron.job SET database = 'before'")
    return jobs


def entry_missing(ground: Prerequisites) -> JobManager:
    jobs = ground.notified()
    ground.do("SELECT cron.unschedule('jm_dispatch')")
    return jobs


def entry_of_a_job_missing(ground: Prerequisites) -> JobManager:
    jobs = ground.notified(pg_cron_layout="entries")
    ground.do("SELECT cron.unschedule(jobmanager.entry_name('work-0'))")
    return jobs


def entry_switched_off(ground: Prerequisites) -> JobManager:
    jobs = ground.notified()
    ground.do("UPDATE cron.job SET active = false WHERE jobname = 'jm_dispatch'")
    return jobs


def entry_rescheduled(ground: Prerequisites) -> JobManager:
    jobs = ground.notified()
    ground.do("SELECT cron.schedule('jm_dispatch', '0 * * * *', 'SELECT jobmanager.fire(NULL)')")
    return jobs


def failed(ground: Prerequisites, entry: str, message: str) -> None:
    """What pg_cron notes when an entry failed."""
    ground.do(
        "INSERT INTO cron.job_run_details (jobid, runid, database, username, command, status, return_message, start_time, end_time)"
        " SELECT jobid, 1000000, database, username, command, 'failed', %s, now(), now() FROM cron.job WHERE jobname = %s",
        message,
        entry,
    )


def second_statement(ground: Prerequisites) -> JobManager:
    jobs = ground.notified()
    command = "CALL jobmanager.sweep_minute(1); SELECT 1"
    ground.do("SELECT cron.schedule('jm_sweep', '* * * * *', %s)", command)
    with pytest.raises(psycopg.errors.InvalidTransactionTermination) as error:
        ground.do(command)
    failed(ground, "jm_sweep", f"ERROR:  {error.value}")
    return jobs


def connection_failed(ground: Prerequisites) -> JobManager:
    jobs = ground.notified()
    failed(ground, "jm_dispatch", "connection failed")
    return jobs


def no_background_worker(ground: Prerequisites) -> JobManager:
    jobs = ground.notified()
    failed(ground, "jm_dispatch", "could not start background process; more details may be available")
    return jobs


def failed_otherwise(ground: Prerequisites) -> JobManager:
    jobs = ground.notified()
    failed(ground, "jm_dispatch", "ERROR:  something new")
    return jobs


def paused(ground: Prerequisites) -> JobManager:
    jobs = ground.notified()
    ground.do("SELECT jobmanager.set_active('jm_dispatch', false)")
    return jobs


def orphan(ground: Prerequisites) -> JobManager:
    jobs = ground.notified(pg_cron_layout="entries")
    ground.do(
        "SELECT cron.schedule(name, '0 0 1 1 *', jobmanager.command_of(name)) FROM jobmanager.entry_name('gone') AS name"
    )
    return jobs


def held(ground: Prerequisites) -> JobManager:
    """No sweep from now on."""
    jobs = ground.notified()
    ground.do("SELECT pg_advisory_lock(hashtextextended('jobmanager.sweep', 0))")
    return jobs


def silent(ground: Prerequisites) -> JobManager:
    jobs = held(ground)
    ground.do("SELECT jobmanager.current_epoch()")
    ground.do("UPDATE jobmanager.epoch SET swept_at = now() - interval '10 minutes'")
    return jobs


def never_started(ground: Prerequisites) -> JobManager:
    ground.notified(namespace="other")
    return ground.manager()


def calls_itself(ground: Prerequisites) -> JobManager:
    jobs = ground.notified()
    ground.do(
        "SELECT cron.schedule('old', '0 0 1 1 *', $$SELECT net.http_post('https://x/jobs/run', headers := '{\"Authorization\":"
        ' "Bearer hunter2-hunter2"}\')$$)'
    )
    return jobs


def calls_itself_with_a_query(ground: Prerequisites) -> JobManager:
    jobs = ground.notified()
    ground.do(
        "SELECT cron.schedule('0 0 1 1 *', $$SELECT net.http_post('https://x/jobs/run?secret=hunter2')$$)"
    )
    return jobs


def large_details(ground: Prerequisites) -> JobManager:
    jobs = ground.notified()
    ground.do("ALTER TABLE cron.job_run_details ALTER return_message SET STORAGE EXTERNAL")
    ground.do(
        "INSERT INTO cron.job_run_details (jobid, runid, status, return_message, start_time)"
        " SELECT 0, n, 'succeeded', repeat('x', 20 * 1024 * 1024), now() FROM generate_series(1, 6) n"
    )
    return jobs


# ---------------------------------------------------------------- the means


def no_pg_net(ground: Prerequisites) -> JobManager:
    jobs = ground.called()
    ground.do("DROP SCHEMA net CASCADE")
    return jobs


def no_http(ground: Prerequisites) -> JobManager:
    jobs = ground.called()
    ground.do("UPDATE jobmanager.tickers SET transport = 'http'")
    ground.do("SELECT jobmanager.sync_entries()")
    return jobs


def no_worker(ground: Prerequisites) -> JobManager:
    jobs = ground.called()
    ground.stand_in.stop()
    return jobs


def worker_elsewhere(ground: Prerequisites) -> JobManager:
    jobs = ground.called()
    ground.stand_in.stop()
    ground.do("CREATE DATABASE elsewhere")
    ground.connect(ground.url.removesuffix("postgres") + "elsewhere", application_name="pg_net 0.20.4")
    return jobs


def old_pg_net(ground: Prerequisites) -> JobManager:
    """Its worker has no name, and that it does not run must not be said."""
    ground.pg_net = "0.13.0"
    return ground.called()


def pg_net_whose_responses_may_not_be_read(ground: Prerequisites) -> JobManager:
    ground.pg_net = "0.11.0"
    url = ground.owner()
    ground.stand_in  # noqa: B018 - it is there from now on
    return ground.called(url=url)


def no_key(ground: Prerequisites) -> JobManager:
    return ground.called(key=None)


def another_key(ground: Prerequisites) -> JobManager:
    return ground.called(key=ANOTHER)


def no_secret_here(ground: Prerequisites) -> JobManager:
    ground.called()
    return ground.manager(backend=PgCronBackend(ground.url, run_url=f"{ground.target.url}/jobs/run"))


def rotation_not_finished(ground: Prerequisites) -> JobManager:
    jobs = ground.called()
    ground.do("SELECT jobmanager.put_key('default', %s)", ANOTHER)
    ground.do("UPDATE jobmanager.signing_keys SET created_at = now() - interval '2 days'")
    return jobs


def no_token(ground: Prerequisites) -> JobManager:
    return ground.called(auth="bearer")


def bearer(ground: Prerequisites) -> JobManager:
    jobs = ground.called(auth="bearer", key=None)
    ground.do("SELECT jobmanager.put_key('default', %s, true)", SECRET)
    return jobs


class TenMinutesSlow(SystemClock):
    def now(self) -> datetime:
        return super().now() - timedelta(minutes=10)


def clock_skew(ground: Prerequisites) -> JobManager:
    ground.called()
    return ground.manager(**ground.by_pg_net, clock=TenMinutesSlow())


def another_layout(ground: Prerequisites) -> JobManager:
    ground.notified()
    return ground.manager(pg_cron_layout="entries")


def wait_mode(ground: Prerequisites) -> JobManager:
    return ground.called(jobs=2, wait=True)


# ---------------------------------------------------------------- the URL


def another_url(ground: Prerequisites) -> JobManager:
    ground.called()
    return ground.manager(**{**ground.by_pg_net, "public_url": "https://jobs.invalid"})


def remote_database(ground: Prerequisites) -> JobManager:
    ground.called()
    url = ground.url.replace("127.0.0.1", "db.example.com") + "?hostaddr=127.0.0.1"
    return ground.manager(url, **ground.by_pg_net)


def in_the_clear(ground: Prerequisites) -> JobManager:
    return ground.called(public_url="http://jobs.invalid")


def secret_in_the_query(ground: Prerequisites) -> JobManager:
    jobs = ground.called()
    ground.do("UPDATE jobmanager.tickers SET url = url || '?secret=hunter2'")
    return jobs


def answering(reply: Reply) -> Callable[[Prerequisites], JobManager]:
    """Somebody else answers there."""

    def fault(ground: Prerequisites) -> JobManager:
        ground.target.reply = reply
        return ground.called()

    return fault


def nobody_there(ground: Prerequisites) -> JobManager:
    jobs = ground.called()
    ground.target.stop()
    return jobs


# ---------------------------------------------------------------- what became of calls


def called_and(signed: Reply) -> Callable[[Prerequisites], JobManager]:
    """A call went out and was answered so."""

    def fault(ground: Prerequisites) -> JobManager:
        jobs = ground.called()
        ground.target.reply = endpoint(signed)
        ground.call()
        return jobs

    return fault


def refused(ground: Prerequisites) -> JobManager:
    jobs = nobody_there(ground)
    ground.call()
    return jobs


def dns(ground: Prerequisites) -> JobManager:
    jobs = ground.called(public_url="https://jobs.invalid")
    ground.call()
    return jobs


def timed_out(ground: Prerequisites) -> JobManager:
    jobs = ground.called()
    ground.target.reply = endpoint(Reply(delay=3))
    ground.do("UPDATE jobmanager.tickers SET timeout_ms = 1000")
    ground.call()
    return jobs


def sent_late(ground: Prerequisites) -> JobManager:
    jobs = ground.called()
    ground.target.reply = endpoint(Reply(status=401))
    ground.do("SELECT pg_advisory_lock(hashtextextended('jobmanager.sweep', 0))")
    ground.do("SELECT jobmanager.post('default', 'plan', '{}', clock_timestamp())")
    ground.do("UPDATE jobmanager.calls SET sent_at = sent_at - interval '400 seconds'")
    until(lambda: ground.do("SELECT 1 FROM net._http_response"), 15)
    ground.do("SELECT jobmanager.read_answers(clock_timestamp())")
    return jobs


def lost(ground: Prerequisites) -> JobManager:
    jobs = ground.called()
    ground.stand_in.drop = 1
    ground.do("SELECT jobmanager.post('default', 'plan', '{}', clock_timestamp())")
    until(lambda: not ground.do("SELECT 1 FROM net.http_request_queue"), 15)
    ground.do("SELECT jobmanager.sweep(now() + interval '1 minute')")
    return jobs


def worker_stalled(ground: Prerequisites) -> JobManager:
    jobs = ground.called()
    ground.stand_in.delay = 30
    ground.call(later=timedelta(minutes=1), answered=False)
    return jobs


def crashed(ground: Prerequisites) -> JobManager:
    jobs = ground.called()
    ground.stand_in.delay = 30
    ground.do("SELECT jobmanager.post('default', 'plan', '{}', clock_timestamp())")
    ground.do("TRUNCATE jobmanager.epoch")
    ground.do("SELECT jobmanager.sweep()")
    return jobs


def nobody_listens(ground: Prerequisites) -> JobManager:
    jobs = ground.notified()
    ground.call(later=timedelta(minutes=1), answered=False)
    return jobs


def open_for_long(ground: Prerequisites) -> JobManager:
    jobs = held(ground)
    ground.do("SELECT jobmanager.post('default', 'plan', '{}', clock_timestamp() - interval '10 minutes')")
    return jobs


# ---------------------------------------------------------------- the plans


def plan_exhausted(ground: Prerequisites) -> JobManager:
    jobs = ground.notified()
    ground.do("UPDATE jobmanager.schedules SET planned_until = current_date - 1")
    ground.do("UPDATE jobmanager.jobs SET next_due_at = NULL")
    return jobs


def plan_ends_soon(ground: Prerequisites) -> JobManager:
    jobs = ground.notified()
    ground.do("UPDATE jobmanager.schedules SET planned_until = current_date + 7")
    return jobs


def edited_in_sql(ground: Prerequisites) -> JobManager:
    jobs = ground.notified()
    ground.do("UPDATE jobmanager.jobs SET schedule = 'cron 5 5 * * * in UTC'")
    return jobs


def parked(ground: Prerequisites) -> JobManager:
    jobs = ground.manager()
    jobs.job("poisoned", every=3600)(print)
    jobs.sync()
    ground.do("UPDATE jobmanager.schedules SET first_at = '-infinity' WHERE kind = 'every'")
    ground.do("UPDATE jobmanager.jobs SET next_due_at = now() - interval '1 second' WHERE id = 'poisoned'")
    ground.do("SELECT jobmanager.fire(NULL)")
    return jobs


FAULTS: list[tuple[Callable[[Prerequisites], JobManager], str, str]] = [
    (unreachable, "cannot be used", "JOBMANAGER_DATABASE_URL"),
    (no_extension, "has no extension pg_cron", "CREATE EXTENSION pg_cron"),
    (functions_gone, "are not in database", "pg-cron install"),
    (another_release, "another release (of last year", "pg-cron install"),
    (nothing_may_be_installed, "may not do it", "GRANT CREATE ON DATABASE"),
    (no_usage, "may not use the schema jobmanager", "pg-cron install --role app"),
    (no_execute, "EXECUTE ON FUNCTION jobmanager.announced_runs", "pg-cron install --role app"),
    (no_table, "UPDATE, DELETE ON jobmanager.runs", "pg-cron install --role app"),
    (empty_read, "makes jobs look empty", "DISABLE ROW LEVEL SECURITY"),
    (owner_may_not_log_in, "may not log in", 'ALTER ROLE "app" LOGIN'),
    (owner_may_not_use_cron, "may not use the schema cron", "GRANT USAGE ON SCHEMA cron"),
    (owner_may_not_schedule, "may not call cron.schedule", "GRANT EXECUTE"),
    (entries_of_an_earlier_owner, "belong to postgres, not to 'app'", "cron.unschedule"),
    (entries_of_a_role_that_is_gone, "belong to o'hara, no role", "DELETE FROM cron.job WHERE username IN ('o''hara')"),
    (entries_of_another_server, "jm_dispatch, jm_sweep: of another server", "jobmanager init"),
    (entries_of_another_database, "jm_dispatch, jm_sweep: of another database", "jobmanager init"),
    (entry_missing, "jm_dispatch: not in pg_cron", "jobmanager init"),
    (entry_of_a_job_missing, ": not in pg_cron", "jobmanager init"),
    (entry_switched_off, "jm_dispatch: switched off", "jobmanager init"),
    (entry_rescheduled, "jm_dispatch: scheduled differently", "jobmanager init"),
    (second_statement, "invalid transaction termination", "the only statement"),
    (connection_failed, "jm_dispatch failed last: connection failed", "pg_hba.conf"),
    (no_background_worker, "could not start background process", "max_worker_processes"),
    (failed_otherwise, "something new", "cron.job_run_details"),
    (paused, "jm_dispatch is paused", "jobmanager pg-cron resume jm_dispatch"),
    (orphan, "of no job", "jobmanager pg-cron purge"),
    (silent, "silent since", "cron.max_running_jobs"),
    (never_started, "keeps no time for namespace 'default'", "Start the application"),
    (calls_itself, "'old'", "jobmanager secret rotate"),
    (calls_itself_with_a_query, "with a secret in its text", "cron.unschedule("),
    (large_details, "cron.job_run_details has 1", "DELETE FROM cron.job_run_details"),
    (no_pg_net, "pg_net, which the database does not have", "CREATE EXTENSION pg_net"),
    (no_http, "http, which the database does not have", "CREATE EXTENSION http"),
    (no_worker, "pg_net's worker does not run", "net.worker_restart()"),
    (worker_elsewhere, "serves database elsewhere", "pg_net.database_name = 'postgres'"),
    (old_pg_net, "pg_net is 0.13.0; the oldest that is supported is 0.14", "ALTER EXTENSION pg_net UPDATE"),
    (pg_net_whose_responses_may_not_be_read, "may not read pg_net's responses", "GRANT SELECT ON net._http_response, net.http_request_queue"),
    (no_key, "no signing key", "jobmanager init"),
    (another_key, "is not the secret that the database signs with", "jobmanager secret rotate"),
    (no_secret_here, "JOBMANAGER_SECRET is not set here", "jobmanager secret rotate"),
    (rotation_not_finished, "2 keys sign since", "jobmanager secret retire"),
    (no_token, "keeps no token", "jobmanager init"),
    (bearer, "net.http_request_queue", "JOBMANAGER_AUTH=signature"),
    (clock_skew, "s off this host's", "NTP"),
    (another_layout, "JOBMANAGER_PG_CRON_LAYOUT is entries here", "Restart the application"),
    (wait_mode, "JOBMANAGER_WAIT is set and there are 2 jobs", "Unset JOBMANAGER_WAIT"),
    (another_url, "JOBMANAGER_PUBLIC_URL makes that https://jobs.invalid", "Restart the application"),
    (remote_database, "The database is on db.example.com", "JOBMANAGER_PUBLIC_URL"),
    (in_the_clear, "in the clear", "https://"),
    (secret_in_the_query, "secret in its query", "Take it out of the URL"),
    (answering(redirect("https://elsewhere.invalid/")), "redirects to https://elsewhere.invalid/", "the final URL"),
    (answering(Reply(status=404)), "unsigned POST with 404", "mount jobmanager.web"),
    (answering(Reply(status=405)), "unsigned POST with 405", "takes no POST"),
    (answering(Reply(status=200)), "unsigned POST with 200", "login page"),
    (answering(Reply(status=401)), "not as the endpoint does", "let that path through"),
    (answering(Reply(status=403)), "unsigned POST with 403", "let that path through"),
    (answering(Reply(status=503)), "unsigned POST with 503", "JOBMANAGER_SECRET is not set there"),
    (nobody_there, "does not answer from here", "Start the application"),
    (refused, "ended as refused", "Nobody listens there"),
    (dns, "ended as dns", "cannot resolve"),
    (timed_out, "ended as timeout", "too slowly"),
    (called_and(Reply(status=401)), "ended as unauthorized", "the same secret"),
    (called_and(Reply(status=404)), "ended as wrong_path", "mount jobmanager.web"),
    (called_and(Reply(status=405)), "ended as wrong_method", "takes no POST"),
    (called_and(Reply()), "ended as not_ours", "login page"),
    (called_and(Reply(status=413)), "ended as too_large", "64 KiB"),
    (called_and(Reply(status=429)), "ended as rate_limited", "limits"),
    (called_and(Reply(status=500)), "ended as server_error", "its log"),
    (called_and(Reply(hang_up=True)), "ended as network", "firewalls"),
    (sent_late, "ended as worker_stalled", "5 minutes late"),
    (lost, "ended as lost", "truncated"),
    (worker_stalled, "ended as worker_stalled", "net.worker_restart()"),
    (crashed, "ended as lost_crash", "crashed"),
    (nobody_listens, "ended as no_listener", "start the application"),
    (open_for_long, "is still open", "jm_sweep"),
    (plan_exhausted, "plan is exhausted of work-0", "Start a process"),
    (plan_ends_soon, "The plan ends at", "Start a process"),
    (edited_in_sql, "edited in SQL", "Start a process"),
    (parked, "Job 'poisoned' is parked", "plans it anew"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "told", "fix"), FAULTS, ids=[told for _, told, _ in FAULTS])
def test_a_fault_is_named_first(
    ground: Prerequisites, fault: Callable[[Prerequisites], JobManager], told: str, fix: str
) -> None:
    first = bad(fault(ground))[0]
    assert (told in first.text, fix in first.fix) == (True, True), first
    assert first.check == "backend"


# ---------------------------------------------------------------- servers that are set up otherwise


@pytest.mark.parametrize("extension", ["none", "elsewhere"])
def test_a_database_without_pg_cron_beside_one_that_has_it(
    ground: Prerequisites, pg_cron_databases: FreshDatabases, extension: str
) -> None:
    url = pg_cron_databases.make()
    if extension == "elsewhere":
        jobs = ground.manager(url, pg_cron_url=ground.url)
        jobs.sync()
        ground.do("SELECT cron.unschedule(jobname) FROM cron.job WHERE jobname LIKE 'jm_sweep@%'")
        first = bad(jobs)[0]
        assert "no active entry jm_sweep" in first.text
    else:
        first = bad(ground.manager(url))[0]
        assert "pg_cron lives in database 'postgres'" in first.text
        assert "JOBMANAGER_PG_CRON_URL" in first.fix


def test_entries_in_the_other_database_that_fire_nowhere_or_elsewhere(
    ground: Prerequisites, pg_cron_databases: FreshDatabases
) -> None:
    jobs = ground.manager(pg_cron_databases.make(), pg_cron_url=ground.url)
    jobs.sync()
    ground.do("UPDATE cron.job SET nodeport = 1")
    ground.do(
        "SELECT cron.schedule('jm_sweep@gone', '* * * * *', 'CALL jobmanager.sweep_minute(4)');"
        "UPDATE cron.job SET database = 'gone' WHERE jobname LIKE '%@gone'"
    )
    told = [finding.text for finding in bad(jobs)]
    assert any("of another server" in text for text in told)
    assert any("jm_sweep@gone: of a database that does not exist" in text for text in told)
    ground.manager(jobs.settings.database_url, pg_cron_url=ground.url).sync()
    assert ground.do("SELECT nodeport = current_setting('port')::int FROM cron.job") == [(True,), (True,)]
    ground.do("UPDATE cron.job SET username = 'gone'")
    first = bad(jobs)[0]
    assert "belong to gone, no role of this server" in first.text
    assert "DELETE FROM cron.job WHERE username IN ('gone')" in first.fix


def test_what_doctor_prints_for_a_role_that_is_gone_brings_pg_cron_back(ground: Prerequisites) -> None:
    """As the launcher ends each second, and with it the entries of everybody."""
    jobs = entries_of_a_role_that_is_gone(ground)
    scheduler = "SELECT pid FROM pg_stat_activity WHERE application_name = 'pg_cron scheduler'"
    until(lambda: not ground.do(scheduler), 30)
    ground.do("CREATE ROLE app LOGIN; GRANT pg_read_all_settings TO app")
    ground.do(objects.grants("app"))
    without_right = bad(ground.manager(ground.url.replace("postgres@", "app@")))
    for finding in (bad(jobs)[0], without_right[0]):
        assert "DELETE FROM cron.job WHERE username" in finding.fix
    ground.do("DELETE " + bad(jobs)[0].fix.partition("DELETE ")[2].partition(";")[0])
    until(lambda: ground.do(scheduler), 30)
    pid = ground.do(scheduler)
    assert [finding for finding in bad(jobs) if finding.check == "backend"] == []
    assert ground.do(scheduler) == pid


def test_the_other_database_that_cannot_be_asked(
    ground: Prerequisites, pg_cron_databases: FreshDatabases
) -> None:
    url = pg_cron_databases.make()
    ground.manager(url, pg_cron_url=ground.url).sync()
    nobody = f"postgresql://postgres:hunter2@127.0.0.1:{free_port()}/postgres"
    first = bad(ground.manager(url, pg_cron_url=nobody))[0]
    assert "JOBMANAGER_PG_CRON_URL cannot be read" in first.text


def test_pg_cron_that_is_not_loaded(postgres_url: str) -> None:
    jobs = JobManager(Settings(database_url=postgres_url, backend="pg_cron", pg_cron_transport="notify"))
    first = bad(jobs)[0]
    jobs.store.close()
    assert "pg_cron" in first.text
    assert "shared_preload_libraries" in first.fix


def test_a_transaction_pooler_before_notify(ground: Prerequisites) -> None:
    ground.notified()
    pooler = Pooler(ground.url)
    try:
        first = bad(ground.manager(pooler.url(ground.url)))[0]
    finally:
        pooler.remove()
    assert "transaction pooler" in first.text
    assert "JOBMANAGER_DATABASE_URL" in first.fix


# Its settings are read at the start alone, so a server of its own is restarted for each.
BOUNDS = [
    ({"cron.max_running_jobs": "1"}, "cron.max_running_jobs is 1", "passes = 1"),
    ({"cron.max_running_jobs": "3"}, "cron.max_running_jobs lets 3", "JOBMANAGER_PG_CRON_LAYOUT=dispatcher"),
    ({"max_worker_processes": "12"}, "max_worker_processes is 12", "Raise max_worker_processes to 13"),
    (
        {"cron.use_background_workers": "off", "max_connections": "7"},
        "max_connections is 7",
        "Raise max_connections to 8",
    ),
]


@pytest.mark.slow
def test_what_bounds_pg_cron_and_a_scheduler_that_died() -> None:
    server = PgCron()
    try:
        server.start()
        server.clear()
        with closing(Prerequisites(server.url)) as ground:
            ground.notified(jobs=4, pg_cron_layout="entries")
        for settings, told, fix in BOUNDS:
            with closing(Prerequisites(server.url)) as ground:
                ground.do("ALTER SYSTEM RESET ALL")
                for name, value in settings.items():
                    ground.do(f"ALTER SYSTEM SET {name} = '{value}'")
            server.stop()
            server.start()
            with closing(Prerequisites(server.url)) as ground:
                first = bad(ground.manager(pg_cron_layout="entries"))[0]
            assert (told in first.text, fix in first.fix) == (True, True), first
        with closing(Prerequisites(server.url)) as ground:
            ground.do(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'pg_cron scheduler'"
            )
            first = bad(ground.manager(pg_cron_layout="entries"))[0]
        assert "scheduler does not run" in first.text
        assert "Restart the server" in first.fix
    finally:
        server.remove()


@pytest.fixture(scope="module", autouse=True)
def asks_for_a_password() -> Iterator[PgCron]:
    """A server that pg_cron may not log in to; it tries at the next full minute, while the other tests run."""
    pytest.importorskip("psycopg", reason="needs psycopg: pip install psycopg[binary]")
    server = PgCron({"cron.use_background_workers": "off"})
    try:
        hba = server.folder / "data" / "pg_hba.conf"
        hba.write_text("host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        server.start()
        server.clear()
        with closing(Prerequisites(server.url)) as ground:
            ground.owner()
            ground.do("ALTER ROLE app PASSWORD 'hunter2'")
            ground.notified(url=server.url.replace("postgres@", "app:hunter2@"))
        yield server
    finally:
        server.remove()


@pytest.mark.slow
def test_pg_cron_that_may_not_log_in(asks_for_a_password: PgCron) -> None:
    with closing(Prerequisites(asks_for_a_password.url)) as ground:
        until(lambda: ground.do("SELECT 1 FROM cron.job_run_details WHERE status = 'failed'"), 70)
        first = bad(ground.manager(asks_for_a_password.url.replace("postgres@", "app:hunter2@")))[0]
    assert "failed last: connection failed" in first.text
    assert "host postgres app 127.0.0.1/32 trust" in first.fix
    assert "cron.use_background_workers = on" in first.fix


# ---------------------------------------------------------------- health


class SilentHandler(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(jobs: Callable[[int], JobManager]) -> Iterator[JobManager]:
    """Our own endpoint, before the manager that is made for its port."""
    port = free_port()
    made = jobs(port)
    server = make_server("127.0.0.1", port, wsgi(made), handler_class=SilentHandler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_nothing_is_wrong_with_notify(ground: Prerequisites) -> None:
    jobs = ground.manager().start()
    ground.do("SELECT jobmanager.sweep()")
    assert bad(jobs) == []
    assert any("layout dispatcher, transport notify" in finding.text for finding in examine(jobs))


def test_nothing_is_wrong_with_pg_net_and_our_endpoint(ground: Prerequisites) -> None:
    with served(lambda port: ground.called(public_url=f"http://127.0.0.1:{port}")) as jobs:
        jobs.start()
        ground.call()
        assert ground.do("SELECT outcome FROM jobmanager.calls ORDER BY id DESC LIMIT 1") == [("accepted",)]
        assert bad(jobs) == []
        assert any("refuses an unsigned call" in finding.text for finding in examine(jobs))


@pytest.mark.parametrize("version", ["0.14.0", "0.20.4"])
def test_nothing_is_wrong_with_a_pg_net_that_is_supported(ground: Prerequisites, version: str) -> None:
    ground.pg_net = version
    jobs = ground.called()
    assert [finding.text for finding in bad(jobs) if "pg_net" in finding.text] == []


def test_nothing_is_wrong_with_an_entry_for_each_job(ground: Prerequisites) -> None:
    jobs = ground.manager(jobs=3, pg_cron_layout="entries").start()
    assert bad(jobs) == []


def test_one_pass_a_minute_is_a_note(ground: Prerequisites) -> None:
    jobs = ground.notified()
    extension = ground.do("SELECT extversion FROM pg_extension WHERE extname = 'pg_cron'")[0][0]
    told = [finding.text for finding in examine(jobs) if "one pass a minute" in finding.text]
    assert len(told) == (extension in ("1.3", "1.4", "1.4-1")), told


def test_nothing_is_wrong_for_an_owner_without_other_rights(ground: Prerequisites) -> None:
    jobs = ground.manager(ground.owner()).start()
    assert bad(jobs) == []


def test_nothing_is_wrong_for_a_role_that_owns_nothing(ground: Prerequisites) -> None:
    ground.called()
    url = ground.role()
    ground.do(objects.grants("app"))
    jobs = ground.manager(url, **ground.by_pg_net).start()
    assert bad(jobs) == []


def test_nothing_is_wrong_with_pg_cron_in_another_database(
    ground: Prerequisites, pg_cron_databases: FreshDatabases
) -> None:
    jobs = ground.manager(pg_cron_databases.make(), pg_cron_url=ground.url).start()
    assert bad(jobs) == []


def test_nothing_is_wrong_with_what_went_wrong_before(ground: Prerequisites) -> None:
    jobs = ground.called()
    ground.target.reply = endpoint(Reply(status=500))
    ground.call()
    assert "ended as server_error" in bad(jobs)[0].text
    ground.target.reply = endpoint()
    ground.call()
    failed(ground, "jm_dispatch", "connection failed")
    assert "connection failed" in bad(jobs)[0].text
    ground.do("UPDATE cron.job_run_details SET status = 'succeeded' WHERE runid = 1000000")
    assert [finding for finding in bad(jobs) if finding.check == "backend"] == []
    assert any(
        "1 of 2 calls in the last hour did not get through" in finding.text for finding in examine(jobs)
    )


def test_nothing_is_wrong_while_a_secret_is_replaced(ground: Prerequisites) -> None:
    jobs = ground.called(secret=f"{SECRET} {ANOTHER}")
    ground.do("SELECT jobmanager.put_key('default', %s)", ANOTHER)
    assert [finding for finding in bad(jobs) if finding.check == "backend"] == []


def test_nothing_is_wrong_before_the_first_start(ground: Prerequisites) -> None:
    assert bad(ground.manager()) == []


# ---------------------------------------------------------------- another backend


@pytest.mark.parametrize("transport", ["notify", "pg_net"])
def test_a_database_that_goes_on_although_another_backend_is_chosen(
    ground: Prerequisites, transport: str
) -> None:
    _ = ground.notified() if transport == "notify" else ground.called()
    jobs = ground.manager(name="local", pg_cron_transport="auto")
    first = bad(jobs)[0]
    assert "pg_cron still keeps the time of namespace 'default'" in first.text
    assert ("announces" if transport == "notify" else f"calls {ground.target.url}/jobs/run") in first.text
    assert "jobmanager pg-cron uninstall" in first.fix
    ground.do(
        "INSERT INTO jobmanager.keepers VALUES ('default', 'local', now()) ON CONFLICT (namespace) DO UPDATE SET backend = 'local'"
    )
    assert [finding for finding in bad(jobs) if finding.check == "backend"] == []
    assert any(
        "they do nothing while backend 'local' keeps its time" in finding.text for finding in examine(jobs)
    )
    ground.do("SELECT jobmanager.forget_ticker('default')")
    assert not any("they do nothing" in finding.text for finding in examine(jobs))


def test_another_backend_on_a_database_that_pg_cron_never_saw(
    ground: Prerequisites, postgres_url: str
) -> None:
    for url in (postgres_url, ground.url, f"postgresql://postgres:hunter2@127.0.0.1:{free_port()}/postgres"):
        found = bad(ground.manager(url, name="local", pg_cron_transport="auto"))
        assert [finding for finding in found if finding.check == "backend"] == []


# ---------------------------------------------------------------- how it looks


def test_a_fault_does_not_hide_the_others(ground: Prerequisites) -> None:
    jobs = ground.called(key=ANOTHER)
    ground.stand_in.stop()
    ground.do("SELECT cron.unschedule('jm_dispatch')")
    ground.target.reply = Reply(status=404)
    told = " ".join(finding.text for finding in bad(jobs))
    for fault in ("not in pg_cron", "worker does not run", "signs with", "with 404"):
        assert fault in told


def test_a_check_that_fails_is_a_finding_and_the_others_go_on(ground: Prerequisites) -> None:
    jobs = ground.called()
    ground.do("DROP FUNCTION jobmanager.examined_keys")
    ground.target.reply = Reply(status=404)
    found = bad(jobs)
    assert any(finding.text.startswith("The keys could not be looked at: ") for finding in found)
    assert any("with 404" in finding.text for finding in found)


def test_a_table_that_somebody_locked_is_given_up(ground: Prerequisites) -> None:
    jobs = ground.notified()
    with ground.session.transaction():
        ground.do("LOCK TABLE jobmanager.tickers")
        began = SystemClock().monotonic()
        found = list(jobs.backend.findings(tuple(jobs.registry.jobs.values())))
        assert SystemClock().monotonic() - began < 12
    assert any("could not be looked at" in finding.text for finding in found)


def test_looking_changes_nothing(ground: Prerequisites) -> None:
    jobs = ground.called()
    ground.do("SELECT pg_advisory_lock(hashtextextended('jobmanager.sweep', 0))")  # no sweep meanwhile
    written = (
        "SELECT array_agg(j ORDER BY jobid) FROM cron.job j",
        "SELECT count(*) FROM net.http_request_queue",
        "SELECT array_agg(t) FROM jobmanager.tickers t",
        "SELECT count(*) FROM jobmanager.calls",
    )
    before = [ground.do(question) for question in written]
    list(jobs.backend.findings(tuple(jobs.registry.jobs.values())))
    assert [ground.do(question) for question in written] == before
