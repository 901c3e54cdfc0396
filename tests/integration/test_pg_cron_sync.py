"""pg_cron's entries and the jobs table in step: many at once, a second time for nothing, and never at the cost of others' entries."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

pytest.importorskip("psycopg", reason="needs psycopg: pip install psycopg[binary]")

import psycopg
from tests.faults.conftest import until
from tests.security.roles import (
    ANYBODY,
    APPLICATION,
    MAKE_ROLES,
    NEIGHBOUR,
    OWNER,
    QUIET,
    Connection,
    install,
    owned,
    session,
    url_of,
)
from tests.servers import PgCron

from jobmanager import Cron, JobManager, Settings
from jobmanager.backends.pg_cron import schema as objects
from jobmanager.backends.pg_cron.admin import REMOVE
from jobmanager.backends.pg_cron.backend import name_elsewhere

pytestmark = [pytest.mark.servers, pytest.mark.slow]

SUPERUSER = "postgres"
AT_ONCE = 16
SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


@pytest.fixture(scope="module")
def server() -> Iterator[PgCron]:
    pg_cron = PgCron(QUIET)
    try:
        yield pg_cron.start()
    finally:
        pg_cron.remove()


@pytest.fixture
def url(server: PgCron) -> str:
    """A database with everything installed, and no job."""
    return owned(server)


@contextmanager
def manager(
    url: str, role: str = OWNER, layout: str = "entries", jobs: int = 3, **settings: Any
) -> Iterator[JobManager]:
    """A manager that is not started, with jobs `job-0`, `job-1`, ...; each at a minute of its own of every hour."""
    made = JobManager(
        Settings(
            backend="pg_cron",
            database_url=url_of(url, role),
            pg_cron_transport="notify",
            pg_cron_layout=layout,
            **settings,
        )
    )
    for number in range(jobs):
        made.job(f"job-{number}", cron=f"{number % 60} * * * *", overlap="allow")(_work)
    try:
        yield made
    finally:
        made.stop(drain=0)
        made.store.close()


def _work() -> None: ...


def synced(url: str, role: str = OWNER, **options: Any) -> None:
    with manager(url, role, **options) as jobs:
        jobs.sync()


def entries(connection: Connection) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT jobname, schedule, command, username, database, active FROM cron.job ORDER BY jobname"
    ).fetchall()


def names(connection: Connection) -> list[str]:
    return [row[0] for row in entries(connection)]


def entry_of(connection: Connection, job_id: str) -> str:
    row = connection.execute("SELECT jobmanager.entry_name(%s)", (job_id,)).fetchone()
    assert row is not None
    return str(row[0])


def at_once(work: Callable[[], object], many: int = AT_ONCE) -> list[BaseException]:
    """Do the same on so many threads, all beginning together; what was raised."""
    ready, raised = threading.Barrier(many), list[BaseException]()

    def do() -> None:
        try:
            ready.wait(60)
            work()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=do) for _ in range(many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return raised


# ---------------------------------------------------------------- many at once, and again


@pytest.mark.parametrize(("layout", "wanted"), [("entries", 41), ("dispatcher", 2)])
def test_sixteen_first_syncs_at_once_make_each_entry_once(server: PgCron, layout: str, wanted: int) -> None:
    """Nothing is installed yet: tables, functions and entries are made once, whoever is first."""
    server.clear()
    with session(server.url) as connection:
        connection.execute(MAKE_ROLES)

    assert at_once(lambda: synced(server.url, layout=layout, jobs=40)) == []

    with session(server.url) as connection:
        found = names(connection)
        assert len(found) == wanted == len(set(found))
        assert {row[3] for row in entries(connection)} == {OWNER}
        # Numbers of entries that were made twice would be gone.
        assert connection.execute("SELECT max(jobid) FROM cron.job").fetchone() == (wanted,)


def test_sixteen_sessions_that_find_no_entry_make_each_once(url: str) -> None:
    """Fails without the lock: pg_cron runs into errors of its own where many sessions schedule at once."""
    synced(url, jobs=40)
    made: list[int] = []

    def sync() -> None:
        with session(url, OWNER) as owner:
            row = owner.execute("SELECT jobmanager.sync_entries()->>'scheduled'").fetchone()
            made.append(int(row[0]) if row else 0)

    with session(url, OWNER) as owner:
        for _ in range(3):
            assert owner.execute("SELECT jobmanager.remove_entries()").fetchone() == (41,)
            assert at_once(sync) == []
            assert sum(made) == 41
            made.clear()


# Every version of every row: rewriting one as it was changes it.
VERSIONS = """
SELECT format('SELECT %L, md5(coalesce(string_agg(t::text || xmin || ctid, '','' ORDER BY t::text), '''')) FROM %s t', c.oid::regclass, c.oid::regclass)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND n.nspname IN ('jobmanager', 'cron') ORDER BY 1"""
COUNTED = """
SELECT schemaname, relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_all_tables WHERE schemaname IN ('jobmanager', 'cron')
 AND n_tup_ins + n_tup_upd + n_tup_del > 0 ORDER BY 1, 2"""


def versions(url: str) -> list[Any]:
    with session(url) as connection:
        return [
            connection.execute(query.encode()).fetchone()
            for (query,) in connection.execute(VERSIONS).fetchall()
        ]


def counted(url: str) -> list[Any]:
    """What was written by now; a backend counts for others when it ends."""
    with session(url) as connection:
        until(
            lambda: (
                connection.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
                ).fetchone()
                == (1,)
            )
        )
        return connection.execute(COUNTED).fetchall()


@pytest.mark.parametrize("layout", ["entries", "dispatcher"])
@pytest.mark.parametrize("role", [OWNER, APPLICATION])
def test_a_second_sync_writes_nothing(url: str, layout: str, role: str) -> None:
    synced(url, role, layout=layout, jobs=10)
    before, rows = counted(url), versions(url)
    synced(url, role, layout=layout, jobs=10)
    assert at_once(lambda: synced(url, role, layout=layout, jobs=10), 4) == []
    assert versions(url) == rows
    assert counted(url) == before


def test_a_process_that_syncs_again_asks_one_question_of_the_backend(url: str, monkeypatch: Any) -> None:
    with manager(url) as jobs:
        jobs.sync()
        asked: list[str] = []
        execute = psycopg.Connection.execute
        monkeypatch.setattr(
            psycopg.Connection,
            "execute",
            lambda self, query, *rest, **how: asked.append(str(query)) or execute(self, query, *rest, **how),
        )
        jobs.sync()
    ours = [query for query in asked if "jobmanager." in query and "FROM jobmanager.jobs" not in query]
    assert [query for query in ours if "drift" in query] == ours


# ---------------------------------------------------------------- what is others'


def plant_foreign_entries(url: str, role: str, ours: Sequence[str]) -> None:
    """Fifty: of others under our very names, of ours under other names, and as ours but that they command something else."""
    with session(url, NEIGHBOUR) as neighbour:
        for name in [*ours, *(f"jm_{number:024x}" for number in range(14 - len(ours)))]:
            neighbour.execute(
                "SELECT cron.schedule(%s, '5 4 * * *', %s)", (name, f"SELECT jobmanager.fire('{name}')")
            )
        neighbour.execute("SELECT cron.schedule('0 0 1 1 *', 'SELECT 1')")
    with session(url, role) as owner:
        for number in range(10):
            owner.execute("SELECT cron.schedule(%s, '* * * * *', 'SELECT 1')", (f"backup {number}",))
        for number in range(10):
            owner.execute("SELECT cron.schedule(%s, '* * * * *', 'VACUUM')", (f"jm_{'ab' * 11}{number:02x}",))
        for name in (
            *("jm_dispatch2", "JM_DISPATCH", "jm_sweep ", "xjm_sweep", "jm_", "jm_backup", "jm_\n", "jm_dispatcher"),
            *("jm_" + "A" * 24, "jm_" + "0" * 23, "jm_" + "0" * 25, "jm_%", "jm_' OR true --"),
        ):  # fmt: skip
            owner.execute("SELECT cron.schedule(%s, '* * * * *', 'SELECT jobmanager.fire(NULL)')", (name,))
        owner.execute("SELECT cron.schedule('* * * * *', 'SELECT jobmanager.fire(NULL)')")
        owner.execute(
            "SELECT cron.schedule(%s, '* * * * *', %s)",
            ("jm_" + "c" * 24, "SELECT jobmanager.fire('jm_" + "d" * 24 + "')"),
        )


def foreign(connection: Connection) -> tuple[int, str]:
    """How many entries there are that were there before us, and their digest, versions of rows and all."""
    row = connection.execute(
        "SELECT count(*), md5(string_agg(j::text || xmin || ctid, ',' ORDER BY jobid)) FROM cron.job j"
        " WHERE jobid <= (SELECT max(jobid) FROM cron.job WHERE jobname = 'jm_' || repeat('c', 24))"
    ).fetchone()
    assert row is not None
    return row[0], row[1]


@pytest.mark.parametrize("role", [OWNER, SUPERUSER])
def test_fifty_foreign_entries_are_the_same_after_everything(server: PgCron, role: str) -> None:
    """To the bit, also for a superuser, from whom row security hides nothing."""
    server.clear()
    with session(server.url) as connection:
        connection.execute(MAKE_ROLES)
    install(server.url, role)
    with session(server.url, role) as owner:
        ours = [entry_of(owner, f"job-{number}") for number in range(3)]
    plant_foreign_entries(server.url, role, [*ours, "jm_dispatch", "jm_sweep", "jm_http"])
    with session(server.url) as superuser, session(server.url, role) as owner:
        before = foreign(superuser)
        assert before[0] == 50

        def same() -> bool:
            return foreign(superuser) == before

        synced(server.url, role)
        assert same()
        assert len(names(superuser)) == 54
        synced(server.url, role, layout="dispatcher")
        assert same()
        synced(server.url, role, layout="entries", jobs=1)
        assert same()
        for name in {*names(superuser)} - {None}:
            owner.execute("SELECT jobmanager.set_active(%s, false)", (name,))
            owner.execute("SELECT jobmanager.set_active(%s, true)", (name,))
            owner.execute("SELECT jobmanager.unschedule(%s)", (name,))
        assert same()
        synced(server.url, role)
        owner.execute("SELECT jobmanager.purge_orphans()")
        listed = owner.execute("SELECT count(*) FROM jobmanager.list_entries()").fetchone()
        assert listed == (4,)
        assert same()
        owner.execute("SELECT jobmanager.remove_entries()")
        assert same()
        assert len(names(superuser)) == 50


def test_the_layout_changes_both_ways_in_one_transaction(url: str) -> None:
    synced(url, layout="dispatcher", jobs=5)
    with session(url, OWNER) as owner, session(url) as watcher:
        assert names(watcher) == ["jm_dispatch", "jm_sweep"]
        with owner.transaction():
            owner.execute(
                "SELECT jobmanager.put_ticker('default', 'notify', 'entries', 'signature', NULL, 5000)"
            )
            owner.execute("SELECT jobmanager.sync_entries()")
            assert len(names(owner)) == 6
            assert names(watcher) == ["jm_dispatch", "jm_sweep"]
        assert len(names(watcher)) == 6
        assert "jm_dispatch" not in names(watcher)
        with owner.transaction(force_rollback=True):
            owner.execute(
                "SELECT jobmanager.put_ticker('default', 'notify', 'dispatcher', 'signature', NULL, 5000)"
            )
            owner.execute("SELECT jobmanager.sync_entries()")
            assert names(owner) == ["jm_dispatch", "jm_sweep"]
        assert len(names(watcher)) == 6
    synced(url, layout="dispatcher", jobs=5)
    with session(url) as watcher:
        assert names(watcher) == ["jm_dispatch", "jm_sweep"]


def test_what_was_bent_is_set_right(url: str) -> None:
    synced(url)
    with session(url) as superuser:
        good = entries(superuser)
        superuser.execute("UPDATE cron.job SET active = false WHERE jobname = 'jm_sweep'")
        superuser.execute(
            "UPDATE cron.job SET schedule = '1 1 1 1 *' WHERE jobname = %s", (entry_of(superuser, "job-0"),)
        )
        superuser.execute("DELETE FROM cron.job WHERE jobname = %s", (entry_of(superuser, "job-1"),))
        superuser.execute(
            "UPDATE cron.job SET command = 'SELECT 1' WHERE jobname = %s", (entry_of(superuser, "job-2"),)
        )
        synced(url)
        assert entries(superuser) == good


# pg_cron's own function takes entries out below every trigger.
REFUSE = """
CREATE OR REPLACE FUNCTION cron.unschedule(job_name name) RETURNS bool LANGUAGE plpgsql AS $$
BEGIN
  IF job_name = 'jm_000000000000000000000002' THEN
    RAISE 'not this one';
  END IF;
  RETURN cron.unschedule((SELECT jobid FROM cron.job WHERE jobname = job_name));
END $$"""


@pytest.mark.parametrize("role", [OWNER, SUPERUSER])
@pytest.mark.parametrize(
    ("change", "drift"),
    [
        ("nodeport = 1", "of another server"),
        ("nodename = 'old.example.com'", "of another server"),
        ("database = 'before'", "of another database"),
    ],
)
def test_entries_that_fire_elsewhere_are_made_anew(
    server: PgCron, role: str, change: str, drift: str
) -> None:
    """After a restore, a move or a rename pg_cron would go on logging in where they say. The owner may not read `cron.host`."""
    server.clear()
    with session(server.url) as connection:
        connection.execute(MAKE_ROLES)
    install(server.url, role)
    synced(server.url, role)
    with session(server.url) as superuser, session(server.url, role) as owner:
        before = superuser.execute(
            "SELECT jobname, nodename, nodeport, database FROM cron.job ORDER BY 1"
        ).fetchall()
        superuser.execute(f"UPDATE cron.job SET {change}".encode())
        if role == SUPERUSER or "nodename" not in change:
            drifts = owner.execute("SELECT DISTINCT drift FROM jobmanager.list_entries()").fetchall()
            assert drifts == [(drift,)]

        synced(server.url, role)

        after = superuser.execute(
            "SELECT jobname, nodename, nodeport, database FROM cron.job ORDER BY 1"
        ).fetchall()
        assert after == before
        rows = versions(server.url)
        synced(server.url, role)
        assert versions(server.url) == rows


def test_orphans_are_purged_and_those_that_cannot_be_are_counted(url: str) -> None:
    synced(url)
    with session(url) as superuser, session(url, OWNER) as owner:
        for number in (1, 2, 3):
            name = f"jm_{number:024x}"
            owner.execute(
                "SELECT cron.schedule(%s, '* * * * *', %s)", (name, f"SELECT jobmanager.fire('{name}')")
            )
        superuser.execute(REFUSE)
        listed = owner.execute("SELECT count(*) FROM jobmanager.list_entries() WHERE orphan").fetchone()
        assert listed == (3,)
        assert owner.execute("SELECT jobmanager.purge_orphans()").fetchone() == ({"purged": 2, "failed": 1},)
        superuser.execute(REFUSE.replace("= 'jm_", "= 'none_"))
        assert owner.execute("SELECT jobmanager.purge_orphans()").fetchone() == ({"purged": 1, "failed": 0},)
        assert len(names(superuser)) == 4


# ---------------------------------------------------------------- jobs edited in SQL


def job(connection: Connection, job_id: str = "job-0") -> dict[str, Any]:
    with connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        return dict(cursor.execute("SELECT * FROM jobmanager.jobs WHERE id = %s", (job_id,)).fetchone() or {})


@pytest.mark.parametrize("role", [OWNER, APPLICATION])
def test_an_edit_in_sql_takes_entry_revision_and_override_with_it(url: str, role: str) -> None:
    synced(url)
    with session(url, role) as editor, session(url) as watcher:
        before, entry = job(watcher), entry_of(watcher, "job-0")
        editor.execute("UPDATE jobmanager.jobs SET state = 'paused' WHERE id = 'job-0'")
        paused = job(watcher)
        assert entry not in names(watcher)
        assert (paused["schedule_rev"], paused["definition_rev"]) == (
            before["schedule_rev"] + 1,
            before["definition_rev"] + 1,
        )
        assert (paused["state_by"], paused["change_seq"]) == (role, before["change_seq"] + 1)

        editor.execute(
            "UPDATE jobmanager.jobs SET state = 'active', schedule = 'cron 1 * * * * in UTC' WHERE id = 'job-0'"
        )
        edited = job(watcher)
        assert edited["override"] == {"cron": "1 * * * *", "timezone": "UTC", "dst": "end,first"}
        assert edited["schedule_rev"] == before["schedule_rev"] + 2
        assert edited["next_due_at"].astimezone(UTC).minute == 1
        assert {row[0]: row[1] for row in entries(watcher)}[entry] == "1 * * * *"

        editor.execute("DELETE FROM jobmanager.jobs WHERE id = 'job-1'")
        assert entry_of(watcher, "job-1") not in names(watcher)


def test_an_edit_that_is_rolled_back_leaves_nothing(url: str) -> None:
    synced(url)
    before = versions(url)
    with session(url, OWNER) as owner, owner.transaction(force_rollback=True):
        owner.execute("UPDATE jobmanager.jobs SET state = 'disabled'")
        owner.execute("UPDATE jobmanager.jobs SET schedule = 'cron 1 * * * * in UTC', state = 'active'")
        owner.execute("DELETE FROM jobmanager.jobs WHERE id = 'job-2'")
        assert len(names(owner)) == 3
    assert versions(url) == before


def test_enabling_never_fires(url: str) -> None:
    """What came due while a job was switched off is not owed; fails if `next_due_at` stayed as it was."""
    synced(url, jobs=1)
    with session(url, OWNER) as owner:
        owner.execute("UPDATE jobmanager.jobs SET state = 'disabled' WHERE id = 'job-0'")
        assert job(owner)["next_due_at"] is None
        owner.execute(
            "UPDATE jobmanager.jobs SET accounted_until = accounted_until - interval '5 hours' WHERE id = 'job-0'"
        )
        owner.execute("UPDATE jobmanager.jobs SET state = 'active' WHERE id = 'job-0'")
        assert job(owner)["next_due_at"] > datetime.now(UTC)
        assert owner.execute("SELECT jobmanager.fire(NULL)").fetchone() == (0,)
        assert owner.execute("SELECT jobmanager.sweep()").fetchone() == (0,)
        assert owner.execute("SELECT count(*) FROM jobmanager.runs").fetchone() == (0,)


def test_an_override_made_in_sql_is_kept_by_those_that_live_and_those_that_come(url: str) -> None:
    with manager(url) as living:
        living.start()
        with session(url, OWNER) as owner:
            owner.execute(
                "UPDATE jobmanager.jobs SET schedule = 'cron 45 3 * * * in Asia/Tokyo dst skip,both' WHERE id = 'job-0'"
            )
            # Nobody has planned it yet: it stays due at the end of its account.
            planned = until(lambda: due if (due := job(owner)["next_due_at"]) > datetime.now(UTC) else None)
            assert living.registry.jobs["job-0"].schedule == Cron(
                "45 3 * * *", timezone="Asia/Tokyo", dst="skip,both"
            )
            assert planned.astimezone(UTC).strftime("%H:%M") == "18:45"
            until(lambda: "45 18 * * *" in {row[1] for row in entries(owner)})
            synced(url)
            kept = job(owner)
    assert kept["schedule"] == "cron 45 3 * * * in Asia/Tokyo dst skip,both"
    assert kept["override"] == {"cron": "45 3 * * *", "timezone": "Asia/Tokyo", "dst": "skip,both"}
    assert kept["next_due_at"] == planned


def test_a_schedule_written_in_sql_has_the_end_that_it_says(url: str) -> None:
    """The number of runs that the code or an operator gave counts no more."""
    synced(url, jobs=2)
    with session(url, OWNER) as owner:
        owner.execute(
            "UPDATE jobmanager.jobs SET declared = replace(declared, '\"max_runs\":null', '\"max_runs\":3') WHERE id = 'job-0'"
        )
        owner.execute("UPDATE jobmanager.jobs SET override = '{\"max_runs\": 5}' WHERE id = 'job-1'")
        owner.execute("UPDATE jobmanager.jobs SET schedule = 'every 60s'")
        assert job(owner, "job-0")["override"] == {"every": 60, "max_runs": None}
        assert job(owner, "job-1")["override"] == {"every": 60}


def test_a_schedule_written_in_sql_that_nobody_can_keep_stops_that_job_alone(url: str, caplog: Any) -> None:
    """No start fails for it, no other job waits for it, and the log names it; `reset` is the way back."""
    with session(url, OWNER) as owner:
        synced(url)
        for number, text in enumerate(("every 10s", "cron 61 * * * * in UTC", "cron 7 * * * * in UTC")):
            owner.execute("UPDATE jobmanager.jobs SET schedule = %s WHERE id = %s", (text, f"job-{number}"))
        caplog.clear()
        with manager(url) as jobs:
            jobs.sync()
            assert "'every 10s'" in caplog.text
            assert "job=job-1 has an override that cannot be used" in caplog.text
            due = [job(owner, f"job-{number}")["next_due_at"] for number in range(3)]
            assert due[0] == job(owner)["accounted_until"]
            assert due[2].minute in (7, 37)  # the server shows the time of a zone that is half an hour beside
            jobs.reset_job("job-0")
            jobs.sync()
            assert job(owner)["next_due_at"] > datetime.now(UTC)


INSERTED = """
INSERT INTO jobmanager.jobs (id, namespace, declared, state, schedule, accounted_until, next_due_at, history_from, overlap, queue_cap, catch_up,
  catch_up_cap, catch_up_window_seconds, jitter_seconds, max_attempts, retry_on_crash, change_seq)
SELECT 'sql-' || n, namespace, declared, state, schedule, accounted_until, next_due_at, history_from, overlap, queue_cap, catch_up,
  catch_up_cap, catch_up_window_seconds, jitter_seconds, max_attempts, retry_on_crash, change_seq
  FROM jobmanager.jobs, generate_series(%s::int, %s::int) n WHERE id = 'job-0'"""


@pytest.mark.parametrize("trouble", ["REVOKE USAGE ON SCHEMA cron FROM jm_owner", "DROP EXTENSION pg_cron"])
def test_a_job_without_pg_cron_is_kept_with_a_warning(url: str, trouble: str) -> None:
    synced(url)
    warnings: list[str] = []
    with session(url) as superuser, session(url, APPLICATION) as application:
        application.add_notice_handler(
            lambda said: warnings.append(f"{said.severity} {said.message_primary}")
        )
        superuser.execute(trouble.encode())
        application.execute(INSERTED, (1, 1))
        application.execute("UPDATE jobmanager.jobs SET state = 'paused' WHERE id = 'job-0'")
        application.execute("DELETE FROM jobmanager.jobs WHERE id = 'job-1'")
        kept = superuser.execute("SELECT id, state FROM jobmanager.jobs ORDER BY id").fetchall()
    assert kept == [("job-0", "paused"), ("job-2", "active"), ("sql-1", "active")]
    said = [text.partition(" is not up to date")[0] for text in warnings]
    assert said == [f"WARNING pg_cron's entry of job {job_id}" for job_id in ("sql-1", "job-0", "job-1")]


def test_ten_thousand_jobs_change_elsewhere_at_the_price_of_a_bare_table(url: str) -> None:
    """Fails if the triggers run for columns that are none of theirs: they made it a hundred times slower."""
    synced(url, layout="entries", jobs=1)
    with session(url, OWNER) as owner:
        with owner.transaction():
            owner.execute("SELECT set_config('jobmanager.defer_entries', 'on', true)")
            owner.execute(INSERTED, (1, 10_000))
        owner.execute("CREATE TABLE jobmanager.bare (LIKE jobmanager.jobs INCLUDING ALL)")
        owner.execute("INSERT INTO jobmanager.bare SELECT * FROM jobmanager.jobs")
        took = {
            table: min(_seconds(owner, f"UPDATE jobmanager.{table} SET state_reason = 'round {turn}'") for turn in range(3))
            for table in ("bare", "jobs")
        }  # fmt: skip
        assert len(names(owner)) == 2
    assert took["jobs"] < 3 * took["bare"] + 0.2, took


def _seconds(connection: Connection, statement: str) -> float:
    begun = time.perf_counter()
    connection.execute(statement.encode())
    return time.perf_counter() - begun


# ---------------------------------------------------------------- a schedule that cannot be worked with


def test_jobs_that_join_a_thousand_entries_are_looked_up_one_by_one(url: str) -> None:
    """Fails if the trigger looks through all entries for each: a deployment would run into its time limit of 5 s."""
    synced(url, jobs=1000)
    with session(url, OWNER) as connection:
        connection.execute("SET statement_timeout = '5s'")

        connection.execute(
            "INSERT INTO jobmanager.jobs SELECT (jsonb_populate_record(j, jsonb_build_object('id', 'more-' || n))).*"
            " FROM jobmanager.jobs j, generate_series(1, 200) n WHERE j.id = 'job-0'"
        )

        assert len(names(connection)) == 1201


POISON = {
    "a beginning at no time": "UPDATE jobmanager.schedules SET kind = 'every', first_at = 'infinity', step = 60 WHERE schedule = %s",
    "an overflow": "UPDATE jobmanager.schedules SET kind = 'every', first_at = '-infinity', step = 9223372036854775807 WHERE schedule = %s",
}  # fmt: skip


@pytest.mark.parametrize("poison", POISON)
def test_a_poisoned_schedule_stops_no_other_and_is_freed_by_the_next_plan(
    url: str, poison: str, caplog: Any
) -> None:
    with manager(url, layout="dispatcher", jobs=5) as jobs, session(url, OWNER) as owner:
        jobs.sync()
        schedule = job(owner, "job-3")["schedule"]
        good = owner.execute("SELECT * FROM jobmanager.schedules WHERE schedule = %s", (schedule,)).fetchall()
        owner.execute(POISON[poison].encode(), (schedule,))
        now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=3, minutes=30)
        warnings: list[str] = []
        owner.add_notice_handler(lambda said: warnings.append(said.message_primary or ""))
        owner.execute(
            "UPDATE jobmanager.jobs SET next_due_at = %s WHERE true", (now - timedelta(minutes=30),)
        )

        owner.execute("SELECT jobmanager.fire(NULL, %s)", (now,))

        opened = owner.execute("SELECT DISTINCT job_id FROM jobmanager.runs ORDER BY 1").fetchall()
        assert opened == [("job-0",), ("job-1",), ("job-2",), ("job-4",)]
        parked = owner.execute("SELECT job_id, error FROM jobmanager.parked").fetchall()
        assert [row[0] for row in parked] == ["job-3"]
        assert warnings == [f"job job-3 is parked until it is planned anew: {parked[0][1]}"]
        owner.execute("SELECT jobmanager.fire(NULL, %s)", (now + timedelta(minutes=1),))
        assert len(warnings) == 1
        assert owner.execute("SELECT jobmanager.needs_planning('default')").fetchone() == (True,)
        caplog.set_level(logging.ERROR)
        jobs.sync()
        assert owner.execute("SELECT count(*) FROM jobmanager.parked").fetchone() == (0,)
        assert (
            owner.execute("SELECT * FROM jobmanager.schedules WHERE schedule = %s", (schedule,)).fetchall()
            == good
        )
        owner.execute("SELECT jobmanager.fire(NULL, %s)", (now + timedelta(minutes=2),))
        assert owner.execute(
            "SELECT count(*) > 0 FROM jobmanager.runs WHERE job_id = 'job-3'"
        ).fetchone() == (True,)


NET = """
CREATE SCHEMA net; CREATE TABLE net.http_request_queue (id bigint); CREATE TABLE net._http_response (id bigint, status_code int, content text,
  timed_out bool, error_msg text, created timestamptz);
CREATE FUNCTION net.http_post(url text, body jsonb, params jsonb DEFAULT '{}', headers jsonb DEFAULT '{}', timeout_milliseconds int DEFAULT 1)
  RETURNS bigint LANGUAGE plpgsql AS $$BEGIN RAISE 'the queue is full'; END$$;"""


@pytest.mark.parametrize("usable", [True, False])
def test_an_application_that_cannot_be_called_stops_no_other(url: str, *, usable: bool) -> None:
    """What pg_net raises, or the right to use it that is gone, is the outcome of one call; every tick is announced."""
    synced(url, layout="dispatcher", jobs=1, namespace="other")
    with session(url) as superuser, session(url, OWNER) as owner:
        superuser.execute(NET)
        superuser.execute(f"GRANT USAGE ON SCHEMA net TO {OWNER if usable else ANYBODY}")
        owner.execute(
            "SELECT jobmanager.put_ticker('default', 'pg_net', 'dispatcher', 'signature', 'http://127.0.0.1:9/jobs/run', 5000)"
        )
        owner.execute(INSERTED, (1, 2))
        owner.execute("UPDATE jobmanager.jobs SET namespace = 'default' WHERE id LIKE 'sql-%'")
        owner.execute(
            "UPDATE jobmanager.jobs SET next_due_at = date_trunc('hour', now(), 'UTC'), accounted_until = now() - interval '2 hours',"
            " catch_up_window_seconds = 86400"
        )
        moment = "date_trunc('hour', now(), 'UTC') + interval '30 minutes'"
        assert owner.execute(f"SELECT jobmanager.fire(NULL, {moment})").fetchone() == (3,)
        called = owner.execute(
            "SELECT namespace, outcome, runs FROM jobmanager.calls ORDER BY namespace"
        ).fetchall()
        assert called == [("default", "network", 2), ("other", None, 1)]
        pending = owner.execute("SELECT count(*) FROM jobmanager.runs WHERE status = 'pending'").fetchone()
        assert pending == (3,)
        later = f"{moment} + interval '40 seconds'"
        assert owner.execute(f"SELECT jobmanager.sweep({later})").fetchone() == (3,)


def test_sixteen_who_edit_leave_the_entries_as_the_jobs_are(url: str) -> None:
    """Pausing, resuming and changing schedules at once: fails if a trigger works on what another has not committed."""
    synced(url, jobs=8)
    turn = itertools.count()

    def edit() -> None:
        number = next(turn)
        with session(url, APPLICATION) as editor:
            for step in range(6):
                state = "paused" if (number + step) % 3 else "active"
                editor.execute(
                    "UPDATE jobmanager.jobs SET state = %s WHERE id = %s",
                    (state, f"job-{(number + step) % 8}"),
                )

    assert at_once(edit) == []
    with session(url, OWNER) as owner:
        wrong = owner.execute(
            "SELECT name, drift FROM jobmanager.list_entries() WHERE drift <> ''"
        ).fetchall()
        assert wrong == []
        active = owner.execute("SELECT count(*) + 1 FROM jobmanager.jobs WHERE state = 'active'").fetchone()
        assert active == (len(names(owner)),)


# ---------------------------------------------------------------- pg_cron in another database


@pytest.fixture
def elsewhere(server: PgCron) -> tuple[str, str]:
    """The URLs of a database without pg_cron, whose name is long, and of the one that has it."""
    server.clear()
    with session(server.url) as connection:
        connection.execute(MAKE_ROLES)
        name = "jm_" + "d" * 57
        connection.execute(f"CREATE DATABASE {name} OWNER {OWNER}".encode())
        connection.execute(
            "GRANT EXECUTE ON FUNCTION cron.schedule_in_database(text, text, text, text, text, boolean) TO jm_owner"
        )
    return server.url.removesuffix("postgres") + name, server.url


def test_two_entries_in_the_database_that_has_pg_cron_command_the_one_that_has_not(
    elsewhere: tuple[str, str],
) -> None:
    here, there = elsewhere
    with session(there, OWNER) as connection:
        connection.execute("SELECT cron.schedule('jm_backup', '* * * * *', 'SELECT 1')")
        connection.execute(
            "SELECT cron.schedule_in_database('jm_backup@here', '* * * * *', 'SELECT 1', %s)",
            (here.rpartition("/")[2],),
        )
        connection.execute("SELECT cron.schedule('jm_dispatch', '* * * * *', 'SELECT jobmanager.fire(NULL)')")
    synced(here, layout="dispatcher", pg_cron_url=url_of(there, OWNER))
    database = here.rpartition("/")[2]
    with session(there) as superuser:
        found = [row for row in entries(superuser) if row[4] == database and row[0] != "jm_backup@here"]
        assert [(row[0], row[2]) for row in found] == [
            (name_elsewhere("jm_dispatch", database), "SELECT jobmanager.fire(NULL)"),
            (name_elsewhere("jm_sweep", database), "CALL jobmanager.sweep_minute(4)"),
        ]
        assert all(len(row[0].encode()) <= 63 for row in found)
        versions_before = superuser.execute(
            "SELECT j::text, xmin::text FROM cron.job j ORDER BY jobid"
        ).fetchall()
        synced(here, layout="dispatcher", pg_cron_url=url_of(there, OWNER))
        again = superuser.execute("SELECT j::text, xmin::text FROM cron.job j ORDER BY jobid").fetchall()
        assert again == versions_before
        superuser.execute("UPDATE cron.job SET active = false WHERE jobname = %s", (found[0][0],))
        synced(here, layout="dispatcher", pg_cron_url=url_of(there, OWNER))
        assert [
            row for row in entries(superuser) if row[4] == database and row[0] != "jm_backup@here"
        ] == found
        assert {"jm_backup", "jm_backup@here", "jm_dispatch"} <= set(names(superuser))


@pytest.mark.parametrize("change", ["nodeport = 1", "nodename = 'old.example.com'"])
def test_entries_for_another_database_that_fire_elsewhere_are_made_anew(
    elsewhere: tuple[str, str], change: str
) -> None:
    here, there = elsewhere
    synced(here, layout="dispatcher", pg_cron_url=url_of(there, OWNER))
    with session(there) as superuser:
        before = superuser.execute("SELECT jobname, nodename, nodeport FROM cron.job ORDER BY 1").fetchall()
        superuser.execute(f"UPDATE cron.job SET {change}".encode())
        synced(here, layout="dispatcher", pg_cron_url=url_of(there, OWNER))
        after = superuser.execute("SELECT jobname, nodename, nodeport FROM cron.job ORDER BY 1").fetchall()
        assert after == before


def test_entries_of_a_database_that_was_renamed_are_removed_by_the_next_sync(
    elsewhere: tuple[str, str],
) -> None:
    here, there = elsewhere
    synced(here, layout="dispatcher", pg_cron_url=url_of(there, OWNER))
    with session(there) as superuser:
        name = here.rpartition("/")[2]
        until(
            lambda: (
                not superuser.execute("SELECT 1 FROM pg_stat_activity WHERE datname = %s", (name,)).fetchall()
            )
        )
        superuser.execute(f"ALTER DATABASE {name} RENAME TO renamed".encode())
        synced(here.replace(name, "renamed"), layout="dispatcher", pg_cron_url=url_of(there, OWNER))
        assert [(row[0], row[4]) for row in entries(superuser)] == [
            ("jm_dispatch@renamed", "renamed"),
            ("jm_sweep@renamed", "renamed"),
        ]


def test_the_jobs_table_beside_another_databases_pg_cron_needs_no_entry_of_its_own(
    elsewhere: tuple[str, str],
) -> None:
    here, there = elsewhere
    synced(here, layout="dispatcher", pg_cron_url=url_of(there, OWNER))
    warnings: list[str] = []
    with session(here, OWNER) as owner:
        owner.add_notice_handler(lambda said: warnings.append(said.message_primary or ""))
        owner.execute("UPDATE jobmanager.jobs SET state = 'paused' WHERE id = 'job-0'")
        owner.execute(
            "UPDATE jobmanager.jobs SET next_due_at = now() - interval '5 seconds' WHERE id = 'job-1'"
        )
        assert owner.execute("SELECT jobmanager.fire(NULL)").fetchone() in ((0,), (1,))
        owner.execute("CALL jobmanager.sweep_minute(1)")
    assert warnings == []


def test_every_change_by_hand_writes_the_plan_before_the_job(url: str) -> None:
    """In a process that was not started, and by which nobody plans afterwards: SQL must know the next instant at once."""

    def planned(connection: Connection, job_id: str) -> bool:
        [(schedule, due)] = connection.execute(
            "SELECT schedule, jobmanager.next_tick(schedule, now()) = next_due_at FROM jobmanager.jobs WHERE id = %s",
            (job_id,),
        ).fetchall()
        assert due is not False
        return due is True and schedule != "none"

    with manager(url) as jobs, session(url) as connection:
        jobs.sync()
        jobs.create_job("made", handler="job-0", cron="1 1 * * *")
        assert planned(connection, "made")
        jobs.update_job("made", cron="2 2 * * *")
        assert planned(connection, "made")
        jobs.override_job("job-0", cron="3 3 * * *")
        assert planned(connection, "job-0")
        jobs.update_job("job-1", cron="4 4 * * *")
        assert planned(connection, "job-1")
        for stop, go_on in ((jobs.stop_job, jobs.resume_job), (jobs.disable_job, jobs.enable_job)):
            stop("made")
            connection.execute("DELETE FROM jobmanager.schedules")
            go_on("made")
            assert planned(connection, "made")


def test_a_job_is_made_before_the_backend_is_installed_and_planned_by_the_start(url: str) -> None:
    """Fails if the missing functions keep an operator from making a job."""
    with manager(url) as jobs, session(url) as connection:
        connection.execute("DROP FUNCTION jobmanager.put_plans")
        connection.execute("COMMENT ON FUNCTION jobmanager.fire(text, timestamptz) IS 'an earlier release'")
        jobs.create_job("made", handler="job-0", cron="1 1 * * *")
        jobs.sync()
        rows = connection.execute(
            "SELECT jobmanager.next_tick(schedule, now()) = next_due_at FROM jobmanager.jobs WHERE id = 'made'"
        )
        assert rows.fetchall() == [(True,)]


def test_a_job_made_in_sql_is_planned_by_the_next_sync(url: str) -> None:
    """A living process syncs within a second of the change, and the database calls for a plan each minute where none lives."""
    with manager(url) as jobs, session(url) as connection:
        jobs.sync()
        connection.execute(
            "INSERT INTO jobmanager.declarations VALUES ('d', '[]', '[\"job-0\"]');"
            "INSERT INTO jobmanager.instances (id, namespace, host, pid, executes, declares, beats, started_at, seen_at)"
            " VALUES ('other', 'default', 'h', 1, true, 'd', 1, now(), now())"
        )
        connection.execute("SELECT jobmanager.create_job('made', 'job-0', '1 1 * * *')")
        assert connection.execute("SELECT jobmanager.needs_planning('default')").fetchone() == (True,)
        jobs.sync()
        rows = connection.execute(
            "SELECT jobmanager.next_tick(schedule, now()) = next_due_at FROM jobmanager.jobs WHERE id = 'made'"
        )
        assert rows.fetchall() == [(True,)]
        assert connection.execute("SELECT count(*) FROM cron.job").fetchone() == (5,)


def test_uninstalling_leaves_the_functions_of_the_store(url: str) -> None:
    with manager(url) as jobs, session(url, OWNER) as connection:
        jobs.sync()
        connection.execute(REMOVE.encode())
        left = connection.execute(
            "SELECT proname FROM pg_proc WHERE pronamespace = 'jobmanager'::regnamespace"
        ).fetchall()
        assert {name for (name,) in left} == {*objects.FUNCTIONS_OF_THE_STORE}
