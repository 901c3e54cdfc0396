"""Who may do what in the database of pg_cron: nobody but the owner, the application what it needs, and no path leads around it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("psycopg", reason="needs psycopg: pip install psycopg[binary]")

import psycopg
from psycopg import errors, sql
from tests.faults.conftest import until
from tests.security.roles import (
    ANYBODY,
    APPLICATION,
    NEIGHBOUR,
    OWNER,
    QUIET,
    ROLES,
    Connection,
    install,
    owned,
    session,
    url_of,
)
from tests.servers import PgCron

from jobmanager import JobManager, RunContext, RunStatus, Settings
from jobmanager.backends.pg_cron import schema as objects
from jobmanager.errors import ConfigurationError
from jobmanager.stores.sql.postgres import PostgresStore
from jobmanager.stores.values import JobRow
from jobmanager.testing import FakeClock, RunStoreContract

pytestmark = [pytest.mark.servers, pytest.mark.slow]

COMMITTING = {"sweep_minute", "fire_http", "call_by_http"}  # a SET clause forbids COMMIT
TRIGGERS = {"edited_in_sql", "entry_follows"}
FOR_DEPLOYERS = {
    "put_key",
    "new_signing_key",
    "retire_signing_keys",
}  # an owner may grant them; nobody has them
KEPT_FROM_THE_APPLICATION = {
    *("fire", "sweep", "sweep_minute", "fire_http", "post", "announce", "open_call", "label", "prune"),
    *("signature", "live_keys", "headers_of", "put_key", "new_signing_key", "retire_signing_keys"),
}
READ_ONLY = {"schedules", "plans", "calls", "run_calls", "tickers", "parked", "epoch"}

FUNCTIONS = """
SELECT p.oid::int, p.proname, p.prokind, p.prosecdef, coalesce(p.proconfig, '{}'), p.proacl::text,
    p.oid::regprocedure::text, p.prorettype = 'trigger'::regtype
  FROM pg_proc p WHERE p.pronamespace = 'jobmanager'::regnamespace ORDER BY 2"""
RELATIONS = """
SELECT c.oid::int, c.relname, c.relkind, c.relacl::text FROM pg_class c
 WHERE c.relnamespace = 'jobmanager'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') ORDER BY 2"""


@pytest.fixture(scope="module")
def server() -> Iterator[PgCron]:
    pg_cron = PgCron(QUIET)
    try:
        yield pg_cron.start()
    finally:
        pg_cron.remove()


@pytest.fixture(scope="module")
def untouched(server: PgCron) -> str:
    """An installed database that tests only look at."""
    return owned(server)


@pytest.fixture
def url(server: PgCron) -> str:
    """An installed database of the test's own. Tests that share one stand above those that do not."""
    return owned(server)


def granted() -> set[str]:
    """The names of the functions meant for the application."""
    return {function.partition("(")[0] for function in objects.FOR_THE_APPLICATION}


# ---------------------------------------------------------------- the catalogue


def test_every_function_has_a_pinned_path_but_the_two_that_commit(untouched: str) -> None:
    with session(untouched) as connection:
        for _, name, kind, _, settings, *_ in connection.execute(FUNCTIONS):
            if name in COMMITTING:
                assert kind == "p"
                assert settings == []
            else:
                own = ["client_encoding=SQL_ASCII"] if name == "readable" else []
                assert settings == ["search_path=pg_catalog, pg_temp", *own], name


def test_definer_rights_only_where_the_application_needs_them(untouched: str) -> None:
    with session(untouched) as connection:
        definers = {name for _, name, _, definer, *_ in connection.execute(FUNCTIONS) if definer}
    assert definers >= TRIGGERS
    assert definers <= granted() | TRIGGERS | FOR_DEPLOYERS
    assert not granted() & KEPT_FROM_THE_APPLICATION


def test_nothing_is_anybodys(untouched: str) -> None:
    """Functions without an access list are anybody's, tables without one the owner's."""
    with session(untouched) as connection:
        for _, name, _, _, _, rights, *_ in connection.execute(FUNCTIONS):
            assert rights is not None, name
        public = connection.execute(
            "SELECT proname FROM pg_proc, aclexplode(proacl) WHERE pronamespace = 'jobmanager'::regnamespace AND grantee = 0"
            " UNION ALL SELECT relname FROM pg_class, aclexplode(relacl) WHERE relnamespace = 'jobmanager'::regnamespace AND grantee = 0"
            " UNION ALL SELECT attname FROM pg_attribute a, aclexplode(attacl) WHERE a.attrelid IN"
            " (SELECT oid FROM pg_class WHERE relnamespace = 'jobmanager'::regnamespace)"
            " UNION ALL SELECT nspname FROM pg_namespace, aclexplode(nspacl) WHERE nspname = 'jobmanager' AND grantee = 0"
        ).fetchall()
    assert public == []


@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_execute_what_is_meant_for_it(untouched: str, role: str) -> None:
    with session(untouched) as connection:
        for oid, name, *_ in connection.execute(FUNCTIONS).fetchall():
            row = connection.execute(
                "SELECT has_function_privilege(%s, %s::oid, 'EXECUTE')", (role, oid)
            ).fetchone()
            wanted = role == OWNER or (role == APPLICATION and name in granted())
            assert row == (wanted,), f"{role} {name}"


@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_do_with_each_table_what_is_meant_for_it(untouched: str, role: str) -> None:
    with session(untouched) as connection:
        for oid, name, kind, _ in connection.execute(RELATIONS).fetchall():
            rights = ("USAGE", "SELECT", "UPDATE") if kind == "S" else (
                *("SELECT", "INSERT", "UPDATE", "DELETE"), *("TRUNCATE", "REFERENCES", "TRIGGER"),
            )  # fmt: skip
            asked = "sequence" if kind == "S" else "table"
            allowed = {
                right
                for right in rights
                if connection.execute(f"SELECT has_{asked}_privilege(%s, %s::oid, %s)", (role, oid, right)).fetchone() == (True,)
            }  # fmt: skip
            assert allowed == _wanted(role, name, kind, set(rights)), f"{role} {name}"


def _wanted(role: str, name: str, kind: str, all_rights: set[str]) -> set[str]:
    if role == OWNER:
        return all_rights
    if role != APPLICATION:
        return set()
    if kind == "S":
        return {"USAGE"} if name == "run_logs_seq_seq" else set()
    if name in objects.OF_THE_STORE:
        return {"SELECT", "INSERT", "UPDATE", "DELETE"}
    return {"SELECT"} if name in READ_ONLY else set()


@pytest.mark.parametrize("role", [APPLICATION, NEIGHBOUR, ANYBODY])
def test_the_schema_may_be_used_but_nothing_made_in_it(untouched: str, role: str) -> None:
    with session(untouched) as connection:
        row = connection.execute(
            "SELECT has_schema_privilege(%(role)s, 'jobmanager', 'USAGE'), has_schema_privilege(%(role)s, 'jobmanager', 'CREATE'),"
            " has_schema_privilege(%(role)s, 'cron', 'USAGE')",
            {"role": role},
        ).fetchone()
    assert row == (role != ANYBODY, False, role == NEIGHBOUR)


@pytest.mark.parametrize("role", [APPLICATION, NEIGHBOUR, ANYBODY])
def test_what_is_not_granted_is_refused_when_it_is_called(untouched: str, role: str) -> None:
    with session(untouched, OWNER) as connection:
        functions = connection.execute(FUNCTIONS).fetchall()
    refused = 0
    with session(untouched, role) as connection:
        for _, name, kind, _, _, _, signature, is_trigger in functions:
            if is_trigger or (role == APPLICATION and name in granted()):
                continue
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(call_of(signature, procedure=kind == "p").encode())
            refused += 1
    assert refused >= len(KEPT_FROM_THE_APPLICATION)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM jobmanager.signing_keys",
        "SELECT count(*) FROM jobmanager.signing_keys",
        "TABLE jobmanager.paused_entries",
        "INSERT INTO jobmanager.signing_keys (namespace, ipad, opad) VALUES ('default', '', '')",
        "SELECT nextval('jobmanager.signing_keys_id_seq')",
        "UPDATE jobmanager.tickers SET url = 'http://elsewhere'",
        "UPDATE jobmanager.plans SET days = '{}'",
        "DELETE FROM jobmanager.calls",
        "TRUNCATE jobmanager.runs",
        "ALTER TABLE jobmanager.jobs DISABLE TRIGGER ALL",
        "DROP TRIGGER edited_in_sql ON jobmanager.jobs",
        "CREATE TABLE jobmanager.mine ()",
        "CREATE OR REPLACE FUNCTION jobmanager.fire(text, timestamptz) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "SET ROLE jm_owner",
        "SELECT cron.schedule('mine', '* * * * *', 'SELECT 1')",
        "SELECT cron.unschedule('jm_dispatch')",
        "SELECT * FROM cron.job",
        "SELECT * FROM cron.job_run_details",
    ],
)  # fmt: skip
def test_the_application_is_refused(untouched: str, statement: str) -> None:
    with session(untouched, APPLICATION) as connection, pytest.raises(errors.InsufficientPrivilege):
        connection.execute(statement.encode())


def call_of(signature: str, **how: bool) -> str:
    """A call of this function with NULL for everything, or with something likely where a text is wanted."""
    name, _, types = signature.rstrip(")").partition("(")
    arguments = [
        f"NULL::{kind}" if kind != "text" else "'default'::text" for kind in types.split(",") if kind
    ]
    return f"{'CALL' if how.get('procedure') else 'SELECT * FROM'} {name}({', '.join(arguments)})"


# ---------------------------------------------------------------- an application with these rights


@contextmanager
def application(
    url: str, schedule: str = "0 * * * *", layout: str = "dispatcher", **options: Any
) -> Iterator[JobManager]:
    """A started application with one job, for the limited role."""
    environment = {
        "JOBMANAGER_BACKEND": "pg_cron",
        "JOBMANAGER_DATABASE_URL": url_of(url, APPLICATION),
        "JOBMANAGER_PG_CRON_TRANSPORT": "notify",
        "JOBMANAGER_PG_CRON_LAYOUT": layout,
    }
    jobs = JobManager(Settings.from_env(environment))
    jobs.job("regular", cron=schedule, overlap="allow", **options)(_work)
    try:
        with jobs:
            yield jobs
    finally:
        jobs.store.close()


def _work(context: RunContext) -> None:
    context.log.info("at work")
    if context.scheduled_for is None:
        raise RuntimeError("not by hand")


@pytest.mark.parametrize("layout", ["dispatcher", "entries"])
def test_an_application_runs_with_the_rights_it_is_granted(url: str, layout: str) -> None:
    with application(url, "* * * * *", layout) as jobs, session(url, OWNER) as owner:
        assert owner.execute("SELECT count(*) FROM cron.job").fetchone() == (2,)
        owner.execute(
            "UPDATE jobmanager.jobs SET next_due_at = date_trunc('minute', now()),"
            " accounted_until = date_trunc('minute', now()) - interval '1 second'"
        )
        fired = owner.execute("SELECT jobmanager.fire(NULL)").fetchone()
        assert fired in ((1,), (2,))  # another minute may have begun
        until(lambda: {run.status for run in jobs.runs("regular")} == {RunStatus.SUCCEEDED})
        run = jobs.trigger_job("regular")
        assert jobs.wait(run.id).status == RunStatus.FAILED
        jobs.redrive(run.id)
        until(lambda: jobs.run(run.id).status == RunStatus.FAILED)
        jobs.discard(run.id)
        jobs.stop_job("regular", reason="a rest")
        jobs.resume_job("regular")
        jobs.override_job("regular", cron="15 * * * *")
        jobs.reset_job("regular")
        jobs.stop_all_jobs()
        jobs.resume_all_jobs()
        jobs.sync()
        assert jobs.get_job_metrics()
        assert len(jobs.get_all_job_statuses()) == 1
        assert jobs.store.history.lines(run.id)


def test_an_application_may_look_after_the_entries(url: str) -> None:
    with application(url), session(url, APPLICATION) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM jobmanager.list_entries()")]
        assert names == ["jm_dispatch", "jm_sweep"]
        assert connection.execute("SELECT jobmanager.set_active('jm_dispatch', false)").fetchone() == (True,)
        assert connection.execute("SELECT jobmanager.set_active('jm_dispatch', true)").fetchone() == (True,)
        assert connection.execute("SELECT jobmanager.purge_orphans()").fetchone() == (
            {"purged": 0, "failed": 0},
        )
        assert connection.execute("SELECT jobmanager.unschedule('jm_sweep')").fetchone() == (True,)
        assert connection.execute("SELECT jobmanager.stats()->>'entries'").fetchone() == ("2",)
        assert connection.execute("SELECT jobmanager.remove_entries()").fetchone() == (1,)


def test_an_application_of_another_release_is_told_who_may_help(url: str) -> None:
    """It may not replace what it does not own, and does not begin with functions of another release."""
    with session(url, OWNER) as owner:
        owner.execute(f"COMMENT ON FUNCTION {objects.STAMP} IS 'another'")
    with (
        pytest.raises(ConfigurationError, match="`jobmanager pg-cron install --sql` prints"),
        application(url),
    ):
        pass
    with session(url, OWNER) as owner, owner.transaction():
        assert objects.install(owner)
    with application(url) as jobs:
        assert jobs.started


# ---------------------------------------------------------------- attacks by names

HIT = """
CREATE SCHEMA attacker;
CREATE FUNCTION attacker.hit(what pg_catalog.text) RETURNS pg_catalog.bool LANGUAGE plpgsql AS
  $$BEGIN RAISE WARNING 'shadowed: % as %', what, current_user; RETURN true; END$$;
GRANT USAGE ON SCHEMA attacker TO PUBLIC;
"""
CARELESS = """
CREATE FUNCTION jobmanager.careless() RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
  found int;
BEGIN
  PERFORM entry_name(encode(sha256('x'), 'hex') || 'y'::text);
  PERFORM ('1'::text)::jsonb;
  PERFORM * FROM jobs;
  RETURN 1;
EXCEPTION WHEN others THEN
  RAISE WARNING 'careless: %', SQLERRM;
  RETURN 0;
END $$;
GRANT EXECUTE ON FUNCTION jobmanager.careless() TO jm_application;
"""

# Every signature that pg_catalog has of a name our functions call.
CALLED = """
SELECT DISTINCT p.proname, pg_get_function_identity_arguments(p.oid), pg_get_function_result(p.oid), p.prokind
  FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind IN ('f', 'a') AND p.proname = ANY (%s)
   AND NOT ARRAY['internal'::regtype, 'cstring', '"any"'] && (p.proargtypes::oid[]::regtype[] || p.prorettype::regtype)"""
OPERATORS = """
SELECT o.oprname, o.oprleft::regtype::text, o.oprright::regtype::text, o.oprresult::regtype::text FROM pg_operator o
 WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprkind = 'b' AND o.oprresult::regtype::text !~ 'any'
   AND o.oprname IN ('=', '<>', '<', '<=', '>', '>=', '||', '~', '~~', '+', '-', '*', '/', '%%', '@>', '->', '->>', '?', '#', '<<')
   AND (o.oprleft::regtype::text || o.oprright::regtype::text) !~ 'any|internal|cstring|pg_node_tree|pg_ddl|"'"""


def shadow_functions(attacker: Connection) -> int:
    """Functions of pg_catalog that ours call, with the same arguments."""
    sources = " ".join(
        row[0]
        for row in attacker.execute(
            "SELECT prosrc FROM pg_proc WHERE pronamespace = 'jobmanager'::regnamespace"
        )
    )
    called = sorted(set(re.findall(r"\b([a-z_0-9]+)\(", sources)))
    made = 0
    for name, arguments, result, _ in attacker.execute(CALLED, (called,)).fetchall():
        made += _tried(
            attacker,
            f'CREATE FUNCTION attacker."{name}"({arguments}) RETURNS {result} LANGUAGE plpgsql AS'
            f" $$BEGIN PERFORM attacker.hit('function {name}'); RETURN {'' if result == 'void' or 'SETOF' in result else 'NULL'}; END$$",
        )
    return made


def shadow_operators(attacker: Connection) -> int:
    """Operators with the very types of those in pg_catalog."""
    made = 0
    for number, (name, left, right, result) in enumerate(
        attacker.execute(OPERATORS.replace("%%", "%")).fetchall()
    ):
        made += _tried(
            attacker,
            f"CREATE FUNCTION attacker.op_{number}({left}, {right}) RETURNS {result} LANGUAGE plpgsql AS"
            f" $$BEGIN PERFORM attacker.hit('operator'); RETURN NULL; END$$;"
            f" CREATE OPERATOR attacker.{name} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = attacker.op_{number})",
        )
    return made


def shadow_tables(attacker: Connection) -> int:
    """Temporary views named as every table that ours ask."""
    made = 0
    names = "SELECT DISTINCT relname FROM pg_class WHERE relnamespace IN ('jobmanager'::regnamespace, 'pg_catalog'::regnamespace)"
    names += " AND relkind IN ('r', 'v') AND (relnamespace = 'jobmanager'::regnamespace OR relname IN"
    names += " ('pg_class', 'pg_namespace', 'pg_roles', 'pg_depend', 'pg_extension', 'pg_proc'))"
    for (name,) in [*attacker.execute(names).fetchall(), ("job",), ("job_run_details",)]:
        made += _tried(
            attacker,
            f"CREATE TEMP VIEW {name} AS SELECT 'x'::text AS id, attacker.hit('table {name}') AS hit; GRANT SELECT ON {name} TO PUBLIC",
        )
    return made


def shadow_our_functions(attacker: Connection) -> int:
    """Functions named as ours, with the same arguments."""
    made = 0
    for _, name, kind, _, _, _, signature, is_trigger in attacker.execute(FUNCTIONS).fetchall():
        if kind == "f" and not is_trigger:
            types = signature.partition("(")[2]
            made += _tried(
                attacker,
                f"CREATE FUNCTION attacker.{name}({types} RETURNS text LANGUAGE plpgsql AS"
                f" $$BEGIN PERFORM attacker.hit('our {name}'); RETURN NULL; END$$",
            )
    return made


def shadow_types(attacker: Connection) -> int:
    """Domains named as the types of pg_catalog, that check with a function."""
    names = [
        "int",
        "int4",
        "int8",
        "bigint",
        "text",
        "uuid",
        "jsonb",
        "timestamptz",
        "interval",
        "boolean",
        "bool",
        "date",
        "float8",
        "bytea",
        "bit",
        "datemultirange",
        "name",
    ]
    return sum(
        _tried(
            attacker,
            f'CREATE DOMAIN attacker."{name}" AS pg_catalog.{ {"int": "int4", "bigint": "int8", "boolean": "bool"}.get(name, name) }'
            f" CHECK (attacker.hit('type {name}'))",
        )
        for name in names
    )


def shadow_casts(attacker: Connection) -> int:
    """A type of the attacker's own that becomes text by a function of its own, given as an argument."""
    return _tried(
        attacker,
        "CREATE TYPE attacker.sly AS (word pg_catalog.text);"
        "CREATE FUNCTION attacker.to_text(attacker.sly) RETURNS pg_catalog.text LANGUAGE plpgsql AS"
        " $$BEGIN PERFORM attacker.hit('cast'); RETURN 'default'; END$$;"
        "CREATE CAST (attacker.sly AS pg_catalog.text) WITH FUNCTION attacker.to_text(attacker.sly) AS IMPLICIT",
    )


KINDS = {
    "functions": (shadow_functions, 80),
    "operators": (shadow_operators, 150),
    "temporary tables": (shadow_tables, 20),
    "our own functions": (shadow_our_functions, 40),
    "types": (shadow_types, 15),
    "casts": (shadow_casts, 1),
}


def _tried(connection: Connection, statement: str) -> int:
    try:
        with connection.transaction():
            connection.execute(statement.encode())
    except psycopg.Error:
        return 0
    return 1


# What is worth saying to each; others are called with something likely.
ARGUMENTS = {
    "create_job": "'another', 'regular', '0 3 * * *', 'Europe/Berlin', '{}', 'default'",
    "enqueue": "'regular', '{}', delay => '1 hour', key => 'default', scope => 'default'",
    "sync_entries": "NULL",
    "set_active": "'jm_dispatch', false",
    "unschedule": "'jm_sweep'",
    "drift": "'default', ARRAY['cron 0 * * * * in UTC'], 'x', '2030-01-01'",
    "put_plans": """'[{"schedule": "every 60s", "kind": "every", "first_at": "2020-01-01", "step": 60, "wakeup": "* * * * *",
        "planned_until": "infinity", "tzdata": "", "rows": 0}]', '[]'""",
    "put_ticker": "'default', 'notify', 'entries', 'signature', NULL, 5000",
    "is_signed": "'default', 'message', 'v1,x'",
    "put_key": "'default', 'whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY='",
    "entry_name": "'default'",
    "next_tick": "'cron 0 * * * * in UTC', '2026-11-25'",
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_name_that_the_caller_planted_is_used_with_the_owners_rights(url: str, kind: str) -> None:
    """Fails if a function's path is not pinned: the careless one, made for that, is caught by every kind but the cast."""
    with application(url, layout="entries"):
        pass
    _let_the_application_attack(url)
    warnings: list[str] = []
    shadow, least = KINDS[kind]
    with session(url, APPLICATION) as attacker:
        attacker.execute(HIT)
        assert shadow(attacker) >= least
        attacker.add_notice_handler(lambda said: warnings.append(said.message_primary or ""))
        attacker.execute("SET search_path = attacker, pg_temp, jobmanager, pg_catalog")
        definers = _definers(url)
        for name, signature in definers.items():
            given = ARGUMENTS.get(name)
            call = f"SELECT * FROM jobmanager.{name}({given})" if given else call_of(signature)
            if kind == "casts":
                call = call.replace("'default'::text", "'default'").replace(
                    "'default'", "ROW('x')::attacker.sly"
                )
            attacker.execute(call.encode())
        attacker.execute(
            "UPDATE jobmanager.jobs SET state = 'paused' WHERE id OPERATOR(pg_catalog.=) 'regular'"
        )
        attacker.execute(
            "UPDATE jobmanager.jobs SET schedule = 'every 60s', state = 'active' WHERE id OPERATOR(pg_catalog.=) 'regular'"
        )
        attacker.execute("DELETE FROM jobmanager.jobs WHERE id OPERATOR(pg_catalog.=) 'regular'")
        as_owner = [text for text in warnings if text.endswith(f"as {OWNER}")]
        assert as_owner == []
        attacker.execute("SELECT jobmanager.careless()")
        if kind == "casts":
            assert any(text.endswith(f"as {APPLICATION}") for text in warnings)
        else:
            assert any(text.endswith(f"as {OWNER}") for text in warnings), warnings


def _let_the_application_attack(url: str) -> None:
    """More than it is ever granted: it may make schemas, and call what is kept for deployers."""
    with session(url) as connection:
        connection.execute(f"GRANT CREATE ON DATABASE postgres TO {APPLICATION}")
    with session(url, OWNER) as owner:
        owner.execute(CARELESS)
        owner.execute("UPDATE jobmanager.instances SET dead_at = NULL")  # a living one has the handler
        for _, name, _, _, _, _, signature, _ in owner.execute(FUNCTIONS).fetchall():
            if name in FOR_DEPLOYERS:
                owner.execute(f"GRANT EXECUTE ON FUNCTION {signature} TO {APPLICATION}".encode())


def _definers(url: str) -> dict[str, str]:
    """Every definer function that can be called, with its signature."""
    with session(url, OWNER) as owner:
        return {
            name: signature
            for _, name, _, definer, _, _, signature, is_trigger in owner.execute(FUNCTIONS)
            if definer and not is_trigger and name != "careless"
        }


def test_settings_of_the_session_change_no_answer(url: str) -> None:
    with application(url, "15 2 * * *", timezone="Asia/Kathmandu"):
        pass
    questions = [
        "SELECT jobmanager.next_tick(schedule, '2026-11-25T00:00:00Z') = '2026-11-25T20:30:00Z' FROM jobmanager.jobs",
        "SELECT (jobmanager.drift('default', ARRAY['cron 15 2 * * * in Asia/Kathmandu'], 'other', '2026-12-01')).unplanned",
        "SELECT name, schedule, command FROM jobmanager.list_entries()",
        "SELECT jobmanager.sync_entries()",
        "SELECT jobmanager.entry_name('regular')",
    ]
    with session(url, APPLICATION) as connection:
        plain = [connection.execute(question.encode()).fetchall() for question in questions]
        for setting in (
            *(
                "TimeZone = 'Australia/Lord_Howe'",
                "DateStyle = 'SQL, DMY'",
                "IntervalStyle = 'sql_standard'",
                "bytea_output = 'escape'",
            ),
            *(
                "transform_null_equals = on",
                "array_nulls = off",
                "extra_float_digits = -15",
                "standard_conforming_strings = off",
            ),
            *(
                "quote_all_identifiers = on",
                "client_encoding = 'LATIN1'",
                "default_transaction_isolation = 'serializable'",
            ),
            *("xmlbinary = 'hex'", "search_path = ''"),
        ):
            connection.execute(f"SET {setting}".encode())
        assert [connection.execute(question.encode()).fetchall() for question in questions] == plain


PLANTED = """
CREATE SCHEMA {schema};
CREATE FUNCTION {schema}.hit(what text) RETURNS bool LANGUAGE plpgsql AS
  $$BEGIN RAISE WARNING 'shadowed: % as %', what, current_user; RETURN true; END$$;
GRANT USAGE ON SCHEMA {schema} TO PUBLIC;
"""
PLANTED_OBJECTS = {
    "cron": """
CREATE VIEW cron.job AS SELECT 1::bigint AS jobid, '* * * * *' AS schedule, 'CALL jobmanager.sweep_minute(4)' AS command, 'jm_sweep' AS jobname,
  'jm_owner' AS username, current_database() AS database, cron.hit('job') AS active;
CREATE VIEW cron.job_run_details AS SELECT 'jm_owner' AS username, now() AS start_time, cron.hit('details')::text AS command;
CREATE FUNCTION cron.schedule(text, text, text) RETURNS bigint LANGUAGE sql AS 'SELECT cron.hit(''schedule'')::int::bigint';
CREATE FUNCTION cron.unschedule(text) RETURNS bool LANGUAGE sql AS 'SELECT cron.hit(''unschedule'')';
GRANT SELECT ON ALL TABLES IN SCHEMA cron TO PUBLIC;""",
    "net": """
CREATE TABLE net.http_request_queue (id bigint);
CREATE VIEW net._http_response AS SELECT 1::bigint AS id, 200 AS status_code, ''::text AS content, net.hit('response') AS timed_out,
  ''::text AS error_msg, now() AS created;
CREATE FUNCTION net.http_post(url text, body jsonb, params jsonb DEFAULT '{}', headers jsonb DEFAULT '{}', timeout_milliseconds int DEFAULT 1)
  RETURNS bigint LANGUAGE sql AS 'SELECT net.hit(''post '' || headers::text)::int::bigint';
GRANT SELECT ON ALL TABLES IN SCHEMA net TO PUBLIC;""",
    "vault": """
CREATE VIEW vault.decrypted_secrets AS SELECT gen_random_uuid() AS id, 'jobmanager_signing_key' AS name, vault.hit('secret')::text AS decrypted_secret;
CREATE FUNCTION vault.create_secret(text, text) RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid() WHERE vault.hit($1)';
CREATE FUNCTION vault.update_secret(uuid, text) RETURNS void LANGUAGE sql AS 'SELECT vault.hit($2)::text::void';
GRANT SELECT ON ALL TABLES IN SCHEMA vault TO PUBLIC;""",
}  # fmt: skip


@pytest.mark.parametrize("schema", PLANTED_OBJECTS)
def test_a_schema_that_somebody_planted_in_place_of_an_extensions_is_not_used(url: str, schema: str) -> None:
    """Where the extension is missing, whoever may make schemas could give its name to one, and be called by the owner."""
    with session(url) as connection:
        connection.execute(f"GRANT CREATE ON DATABASE postgres TO {APPLICATION}")
        if schema == "cron":
            connection.execute("DROP EXTENSION pg_cron")
    warnings: list[str] = []
    with session(url, APPLICATION) as attacker, session(url, OWNER) as owner:
        attacker.execute(PLANTED.format(schema=schema).encode())
        attacker.execute(PLANTED_OBJECTS[schema].split("CREATE FUNCTION vault.update")[0].encode())
        for connection in (attacker, owner):
            connection.add_notice_handler(lambda said: warnings.append(said.message_primary or ""))
        attacker.execute(
            "SELECT jobmanager.put_ticker('default', 'pg_net', 'entries', 'signature', 'http://127.0.0.1:9', 5000)"
        )
        owner.execute(
            "SELECT jobmanager.put_key('default', 'whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=')"
        )
        for name in ("sync_entries", "list_entries", "stats", "purge_orphans"):
            _tried(attacker, f"SELECT * FROM jobmanager.{name}()")
        _tried(attacker, "SELECT * FROM jobmanager.drift('default', '{}', 'x', '2030-01-01')")
        _tried(owner, "SELECT jobmanager.post('default', 'plan', '{}', now())")
        _tried(owner, "SELECT jobmanager.sweep()")
        _tried(owner, "SELECT jobmanager.retire_signing_keys('default')")
        assert [text for text in warnings if text.endswith(f"as {OWNER}")] == []
        assert owner.execute("SELECT count(*) FROM jobmanager.signing_keys").fetchone() == (1,)


def test_a_role_is_quoted_where_it_is_granted() -> None:
    role = 'x"; DROP TABLE jobs; --'
    assert sql.Identifier(role).as_string(None) in objects.grants(role)
    assert "TO x" not in objects.grants(role)


class TestTheStoreWithTheseRights(RunStoreContract):
    """Every statement of the store does what it promises for a role that owns nothing, the triggers of this backend in place."""

    @pytest.fixture(autouse=True)
    def _fresh_store(self, server: PgCron, template: str, tmp_path: Path) -> Iterator[None]:
        self.server, self.template, self.number = server, template, 0
        self.open(tmp_path)
        yield
        self.close()

    test_exists_creates_nothing = None  # here they are there already

    def change(self, job_id: str = "job", **fields: Any) -> JobRow:
        # As the library does: a change of state that moves no revision was made by somebody in SQL, and means more.
        if "state" in fields:
            fields.setdefault("schedule_rev", self.stored_job(job_id).schedule_rev + 1)
        return super().change(job_id, **fields)

    def make_store(self, _clock: FakeClock, _tmp_path: Path) -> PostgresStore:
        self.number += 1
        name = f"jm_store_{self.number}"
        url = self.server.url.removesuffix("postgres") + name
        try:
            with session(self.server.url) as connection:
                connection.execute(f"CREATE DATABASE {name} TEMPLATE {self.template}".encode())
        except psycopg.errors.DuplicateDatabase:
            with session(url) as connection:
                connection.execute(EMPTY)
        return PostgresStore(url_of(url, APPLICATION))


# A copy for each test would be a gigabyte in all.
EMPTY = """
TRUNCATE jobmanager.requests, jobmanager.once, jobmanager.run_steps, jobmanager.events, jobmanager.audit, jobmanager.keys, jobmanager.jobs, jobmanager.runs, jobmanager.attempts, jobmanager.run_logs, jobmanager.instances, jobmanager.declarations,
  jobmanager.roles, jobmanager.notifications, jobmanager.stats, jobmanager.stats_hours, jobmanager.webhooks RESTART IDENTITY;
UPDATE jobmanager.meta SET change_seq = 0, swept_at = NULL, last_purge_at = NULL"""


@pytest.fixture
def template(server: PgCron) -> str:
    """A database with everything installed and granted, to be copied; other tests may have cleared it away."""
    url = server.url.removesuffix("postgres") + "jm_template"
    with session(server.url) as connection:
        there = connection.execute("SELECT FROM pg_database WHERE datname = 'jm_template'").fetchone()
    if there is None:
        owned(server)
        with session(server.url) as connection:
            connection.execute(f"CREATE DATABASE jm_template OWNER {OWNER}")
        install(url)
        with session(url, OWNER) as owner:
            owner.execute(objects.grants(APPLICATION))
    return "jm_template"


# ---------------------------------------------------------------- where a secret may be sent

GOOD, ELSEWHERE = "http://127.0.0.1:9/jobs/run", "http://127.0.0.1:10/jobs/run"
A_SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
PUT = "SELECT jobmanager.put_ticker(%s, 'pg_net', 'dispatcher', %s, %s, 5000)"
SENT = "SELECT jobmanager.headers_of('default', 1, '{}', now()) ->> 'Authorization'"


def keep_in_vault(url: str) -> None:
    from tests.pg_net.loop import VAULT

    with session(url) as superuser:
        superuser.execute(VAULT)
        superuser.execute(
            f"GRANT USAGE ON SCHEMA vault TO {OWNER}; GRANT ALL ON ALL TABLES IN SCHEMA vault TO {OWNER}"
        )


@pytest.mark.parametrize("kept_in", ["table", "vault"])
def test_the_application_cannot_have_a_secret_sent_anywhere(url: str, kept_in: str) -> None:
    """Whatever it does first: signatures may go elsewhere, which shows nobody the secret."""
    if kept_in == "vault":
        keep_in_vault(url)
    with session(url, OWNER) as owner, session(url, APPLICATION) as attacker:
        owner.execute("SELECT jobmanager.put_key('default', %s, false)", (A_SECRET,))
        owner.execute(PUT, ("default", "signature", GOOD))
        for namespace in ("default", "another"):
            with pytest.raises(
                errors.InsufficientPrivilege, match="only role jm_owner may have bearer tokens"
            ):
                attacker.execute(PUT, (namespace, "bearer", GOOD))
        attacker.execute(PUT, ("default", "signature", ELSEWHERE))
        with pytest.raises(errors.InsufficientPrivilege):
            attacker.execute(PUT, ("default", "bearer", ELSEWHERE))
        attacker.execute("SELECT jobmanager.forget_ticker('default')")
        with pytest.raises(errors.InsufficientPrivilege):
            attacker.execute(PUT, ("default", "bearer", ELSEWHERE))
        # Even were the namespace switched, a key that was stored to sign is no token.
        owner.execute(PUT, ("default", "bearer", GOOD))
        assert owner.execute(SENT).fetchone() == (None,)


@pytest.mark.parametrize("kept_in", ["table", "vault"])
def test_a_token_goes_where_the_owner_said_and_the_application_sends_it_nowhere_else(
    url: str, kept_in: str
) -> None:
    if kept_in == "vault":
        keep_in_vault(url)
    with session(url, OWNER) as owner, session(url, APPLICATION) as application:
        owner.execute("SELECT jobmanager.put_key('default', %s, true)", (A_SECRET,))
        owner.execute(PUT, ("default", "bearer", GOOD))
        assert owner.execute(SENT).fetchone() == (f"Bearer {A_SECRET}",)
        application.execute(PUT, ("default", "bearer", GOOD))  # as each start may
        with pytest.raises(errors.InsufficientPrivilege):
            application.execute(PUT, ("default", "bearer", ELSEWHERE))
        application.execute(PUT, ("default", "signature", ELSEWHERE))
        with pytest.raises(errors.InsufficientPrivilege):
            application.execute(PUT, ("default", "bearer", ELSEWHERE))
