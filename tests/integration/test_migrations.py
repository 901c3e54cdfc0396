"""The tables and their versions: made once by whoever comes first, changed by revisions, the same both ways."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import op

from jobmanager import JobManager, Settings
from jobmanager.cli import main
from jobmanager.clock import SystemClock
from jobmanager.errors import SchemaError, StoreError
from jobmanager.stores import store_for
from jobmanager.stores.sql import migrations, schema
from jobmanager.stores.sql.migrations.versions import v0001_first_tables
from jobmanager.stores.sql.store import SqlStore
from jobmanager.testing import FakeClock

TODAY = schema.SCHEMA_VERSION

NEXT = f"""
import sqlalchemy as sa
from alembic import op

revision = "9001"
down_revision = "{TODAY}"

def upgrade():
    on_postgresql = op.get_context().dialect.name == "postgresql"
    where = dict(schema="jobmanager") if on_postgresql else dict()
    op.add_column("meta" if on_postgresql else "jobmanager_meta", sa.Column("news", sa.Text), **where)
"""


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.servers)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.db"
    return request.getfixturevalue("postgres_url")


def store_of(url: str) -> Any:
    store = store_for(Settings(database_url=url), SystemClock())
    assert isinstance(store, SqlStore)
    return store


@pytest.fixture
def next_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the library were the next one: its tables have one column more."""
    folder = tmp_path / "next%version"
    (folder / "versions").mkdir(parents=True)
    ours = Path(migrations.__file__).parent
    for source in [ours / "env.py", *(ours / "versions").glob("v*.py")]:
        (folder / source.relative_to(ours)).write_text(source.read_text())
    (folder / "versions" / "v9001_news.py").write_text(NEXT)
    monkeypatch.setattr(migrations, "FOLDER", folder)
    monkeypatch.setattr(schema, "SCHEMA_VERSION", "9001")


def shape(store: Any) -> list[tuple[Any, ...]]:
    """Every table, column, constraint and index, as the database tells it; spaces are of no account."""
    on_sqlite = """SELECT type, name, tbl_name, replace(replace(replace(sql, char(9), ''), char(10), ''), ' ', '')
        FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY 1, 2"""
    on_postgres = """
        SELECT 'column', table_name, column_name, ordinal_position, data_type, is_nullable, column_default
          FROM information_schema.columns WHERE table_schema = 'jobmanager'
        UNION ALL SELECT 'index', tablename, indexname, 0, indexdef, '', '' FROM pg_indexes WHERE schemaname = 'jobmanager'
        UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, 0, pg_get_constraintdef(oid), '', ''
          FROM pg_constraint WHERE connamespace = 'jobmanager'::regnamespace
        UNION ALL SELECT 'function', oid::regprocedure::text, proacl::text, 0, md5(pg_get_functiondef(oid)), '', ''
          FROM pg_proc WHERE pronamespace = 'jobmanager'::regnamespace ORDER BY 1, 2, 3"""
    with store.database.reading() as connection:
        return [
            tuple(row) for row in connection.exec_driver_sql(on_postgres if store.schema.name else on_sqlite)
        ]


def install_by_revisions(store: Any) -> None:
    with store.database.changing_tables() as connection:
        if store.schema.name:
            connection.execute(sa.schema.CreateSchema(store.schema.name))
        migrations.upgrade(connection)


def test_the_revisions_lead_to_the_tables_that_an_empty_database_gets(url, request, tmp_path):
    fresh = store_of(url)
    fresh.install()
    wanted = shape(fresh)
    fresh.close()
    other = f"sqlite:///{tmp_path}/other.db"
    if fresh.schema.name:
        with fresh.database.changing_tables() as connection:
            connection.exec_driver_sql("DROP SCHEMA jobmanager CASCADE")
        other = url
    by_revisions = store_of(other)
    install_by_revisions(by_revisions)

    assert shape(by_revisions) == wanted
    assert by_revisions.schema.version() == schema.SCHEMA_VERSION
    assert by_revisions.schema.differences() == []
    by_revisions.install()
    assert by_revisions.jobs.change_seq() == 0
    for store in (fresh, by_revisions):
        store.close()


def test_many_install_at_once_and_one_does(url):
    stores = [store_of(url) for _ in range(8)]
    gate, errors = threading.Barrier(8), []

    def install(store):
        gate.wait()
        try:
            store.install()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=install, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert stores[0].schema.differences() == []
    with stores[0].database.reading() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(stores[0].database.tables.meta)) == 1
    for store in stores:
        store.close()


def test_an_older_sqlite_follows_by_itself_and_an_older_postgresql_when_told(url, next_version, monkeypatch):
    with monkeypatch.context() as before:
        before.setattr(schema, "SCHEMA_VERSION", TODAY)
        store = store_of(url)
        store.install()

    if store.database.upgrades_itself:
        store.install()
    else:
        with pytest.raises(SchemaError, match="`jobmanager db upgrade`"):
            store.install()
        assert store.schema.version() == TODAY
        assert "ADD COLUMN news" in store.schema.upgrade_sql(store.schema.version())
        assert store.schema.upgrade() == TODAY

    assert store.schema.version() == "9001"
    with store.database.reading() as connection:
        columns = sa.inspect(connection).get_columns(
            store.database.tables.meta.name, schema=store.schema.name
        )
    assert "news" in {column["name"] for column in columns}
    store.install()
    store.close()


def test_a_change_that_fails_half_way_leaves_the_tables_as_they_were(url, next_version, monkeypatch):
    with monkeypatch.context() as before:
        before.setattr(schema, "SCHEMA_VERSION", TODAY)
        store = store_of(url)
        store.install()
        old = shape(store)
    revision = migrations.FOLDER / "versions" / "v9001_news.py"
    revision.write_text(NEXT + "    raise ZeroDivisionError\n")
    with pytest.raises(ZeroDivisionError):
        store.schema.upgrade()

    assert store.schema.version() == TODAY
    assert shape(store) == old
    revision.write_text(NEXT)
    assert store.schema.upgrade() == TODAY
    assert store.schema.version() == "9001"
    store.close()


def test_eight_upgraders_at_once_upgrade_once(url, next_version, monkeypatch):
    with monkeypatch.context() as before:
        before.setattr(schema, "SCHEMA_VERSION", TODAY)
        store = store_of(url)
        store.install()
        store.close()
    stores, answers = [store_of(url) for _ in range(4)], []
    threads = [
        threading.Thread(target=lambda each=each: answers.append(each.schema.upgrade())) for each in stores
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answers) == [TODAY, "9001", "9001", "9001"]
    for store in stores:
        store.close()


def test_tables_of_a_newer_version_are_refused(url):
    store = store_of(url)
    store.install()
    with store.database.writing() as connection:
        connection.execute(sa.update(store.schema._versions).values(version_num="9999"))

    for act in (store.install, store.schema.upgrade):
        with pytest.raises(SchemaError, match=r"9999.*pip install --upgrade jobmanager-backends"):
            act()
    store.close()


def test_what_is_missing_is_named(url):
    store = store_of(url)
    store.install()
    where = "jobmanager." if store.schema.name else ""
    prefix = "" if store.schema.name else "jobmanager_"
    with store.database.writing() as connection:
        connection.exec_driver_sql(f"DROP INDEX {where}{prefix}runs_pending")
        connection.exec_driver_sql(f"DROP TABLE {where}{prefix}attempts")

    assert store.schema.differences() == [
        f"table {prefix}attempts is missing",
        f"index {prefix}runs_pending of table {prefix}runs is missing",
    ]
    store.close()


def test_the_sql_of_an_installation_can_be_run_by_somebody_else(url):
    store = store_of(url)
    script = store.schema.upgrade_sql(None)

    if store.schema.name:
        psycopg = pytest.importorskip("psycopg")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(script)
    else:
        with closing(sqlite3.connect(Settings(database_url=url).database_path)) as connection:
            connection.executescript(script)

    assert store.schema.version() == schema.SCHEMA_VERSION
    assert store.schema.differences() == []
    store.close()


def test_alembic_is_not_loaded_unless_there_is_something_to_change(tmp_path):
    code = f"""
import sys
from jobmanager import JobManager, Settings
from jobmanager.cli import main
jobs = JobManager(Settings(database_url="sqlite:///{tmp_path}/jobs.db"))
jobs.store.install()
print("alembic" in sys.modules)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "False\n"


@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection:sqlalchemy.exc.SAWarning")
def test_an_application_s_own_alembic_leaves_our_tables_alone(url):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    store = store_of(url)
    store.install()
    theirs = sa.MetaData()
    sa.Table("orders", theirs, sa.Column("id", sa.Integer, primary_key=True))
    with store.database.changing_tables() as connection:
        options = {"include_object": migrations.include_object, "include_schemas": True}
        context = MigrationContext.configure(connection, opts=options)
        [(verb, table)] = compare_metadata(context, theirs)

    assert (verb, table.name) == ("add_table", "orders")
    store.close()


@pytest.mark.servers
def test_a_role_that_may_not_create_is_told_who_may(postgres_url):
    owner = store_of(postgres_url)
    with owner.database.changing_tables() as connection:
        connection.exec_driver_sql("DROP ROLE IF EXISTS jm_guest")
        connection.exec_driver_sql("CREATE ROLE jm_guest LOGIN")
    guest = store_of(postgres_url.replace("://postgres@", "://jm_guest@"))

    with pytest.raises(StoreError, match="let the owner of the database run `jobmanager db upgrade`"):
        JobManager(store=guest).start()
    for store in (owner, guest):
        store.close()


@pytest.mark.servers
def test_a_role_with_another_isolation_is_told_how_to_change_it(postgres_url):
    store = store_of(f"{postgres_url}?options=-c%20default_transaction_isolation%3Dserializable")

    with pytest.raises(StoreError, match="ALTER ROLE postgres SET default_transaction_isolation"):
        store.install()
    store.close()


# ---------------------------------------------------------------- 0002: starts

IDS = [f"01900000-0000-7000-8000-{number:012d}" for number in range(4)]


def of_version_0001(url: str) -> Any:
    """A store with the first tables, and in it a closed, a retried, an open and a never started run."""
    store = store_of(url)
    with store.database.changing_tables() as connection:
        if store.schema.name:
            connection.execute(sa.schema.CreateSchema(store.schema.name))
        first = v0001_first_tables.tables("" if store.schema.name else "jobmanager_", store.schema.name)
        first.create_all(connection)
        tables = {table.name.removeprefix("jobmanager_"): table for table in first.sorted_tables}
        moment = FakeClock().now() if store.schema.name else 1_700_000_000_000_000
        connection.execute(sa.insert(tables["meta"]).values(id=1))
        store.schema._versions.create(connection)
        connection.execute(sa.insert(store.schema._versions).values(version_num="0001"))
        for run_id, status, attempt in zip(
            IDS, ("succeeded", "failed", "running", "pending"), (1, 3, 2, 0), strict=True
        ):
            run = {
                "id": run_id,
                "job_id": "job",
                "schedule_rev": 0,
                "ticks": 1,
                "status": status,
                "trigger": "manual",
                "notify": False,
                "due_at": moment,
                "attempt": attempt,
                "max_attempts": 3,
                "retry_on_crash": True,
                "owner": "me" if attempt else None,
                "concurrency_key": "job",
                "priority": 0,
                "opened_at": moment,
                "accepted_at": moment,
                "started_at": moment if attempt else None,
                "finished_at": moment if status in ("succeeded", "failed") else None,
            }
            connection.execute(sa.insert(tables["runs"]), run)
            for earlier in range(1, attempt):
                kept = {"run_id": run_id, "attempt": earlier, "ended_at": moment, "outcome": "failed"}
                connection.execute(sa.insert(tables["attempts"]), kept)
    return store


def check_starts(store: Any) -> None:
    """Hold that every start is counted, as the attempt it was, and that the new reasons are known."""
    assert store.schema.version() == TODAY
    assert store.schema.differences() == []
    assert [store.history.run(run_id).starts for run_id in IDS] == [1, 3, 2, 0]
    kept = [[(each.starts, each.attempt) for each in store.history.attempts(run_id)] for run_id in IDS]
    assert kept == [[], [(1, 1), (2, 2)], [(1, 1)], []]
    with store.database.writing() as connection:
        runs = store.database.tables.runs
        connection.execute(sa.update(runs).where(runs.c.id == IDS[3]).values(reason="returned"))
    with pytest.raises(StoreError), store.database.writing() as connection:
        connection.execute(sa.update(runs).where(runs.c.id == IDS[3]).values(reason="nonsense"))
    with pytest.raises(StoreError), store.database.writing() as connection:  # in the way of which run?
        connection.execute(sa.update(runs).where(runs.c.id == IDS[3]).values(reason="overlap"))


def test_the_starts_of_older_runs_are_their_attempts(url):
    store = of_version_0001(url)

    assert store.schema.upgrade() == "0001"

    check_starts(store)
    store.close()


def test_a_sqlite_that_lets_nobody_edit_its_schema_is_upgraded_too(tmp_path, monkeypatch):
    store = of_version_0001(f"sqlite:///{tmp_path}/jobs.db")
    wanted = shape(store)
    edit, execute = "UPDATE sqlite_master", op.execute

    def defensive(statement):
        if edit in str(statement):
            raise sa.exc.OperationalError(edit, {}, Exception("table sqlite_master may not be modified"))
        execute(statement)

    monkeypatch.setattr(op, "execute", defensive)
    assert store.schema.upgrade() == "0001"

    check_starts(store)
    later = (
        "jobmanager_keepers",
        "jobmanager_audit",
        "jobmanager_keys",
        "jobmanager_webhooks",
        "jobmanager_notifications",
        "jobmanager_stats",
        "jobmanager_stats_hours",
        "jobmanager_once",
        "jobmanager_run_steps",
        "jobmanager_requests",
        "jobmanager_events",
    )  # of versions 0003, 0005 and later
    indexes = (
        "jobmanager_runs_scope",
        "jobmanager_runs_trouble",
        "jobmanager_runs_children",
        "jobmanager_runs_resting",
        "jobmanager_jobs_on",
    )
    found = [row[:3] for row in shape(store) if row[2] not in later and row[1] not in indexes]
    assert found == [row[:3] for row in wanted]
    store.close()


@pytest.mark.slow
def test_processes_of_one_host_upgrade_a_sqlite_file_at_once_and_one_does(tmp_path):
    url = f"sqlite:///{tmp_path}/jobs.db"
    of_version_0001(url).close()
    code = f"import tests.integration.test_migrations as m; m.store_of({url!r}).install()"
    upgraders = [
        subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2]) for _ in range(4)
    ]

    assert [upgrader.wait(60) for upgrader in upgraders] == [0] * 4
    store = store_of(url)
    check_starts(store)
    store.close()


# ---------------------------------------------------------------- the command line


def test_the_command_line_tells_makes_and_checks_the_tables(url, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("JOBMANAGER_DATABASE_URL", url)

    def said(*words: str) -> tuple[int, str]:
        code = main(["db", *words])
        return code, capsys.readouterr().out

    assert "no tables yet" in said("current")[1]
    assert said("check")[0] == 1
    assert not (tmp_path / "jobs.db").exists()
    assert "CREATE TABLE" in said("sql")[1]
    assert f"made, now at version {TODAY}" in said("upgrade")[1]
    assert "nothing to do" in said("upgrade")[1]
    assert said("sql")[1] == "-- nothing to do\n"
    assert said("check")[0] == 0
    told = json.loads(said("current", "--json")[1])
    assert (told["version"], told["needed"]) == (TODAY, TODAY)


def test_the_command_line_knows_no_tables_of_somebody_else_s_store(tmp_path, monkeypatch, capsys):
    (tmp_path / "elsewhere.py").write_text(
        "from unittest.mock import create_autospec\nfrom jobmanager import JobManager\n"
        "from jobmanager.stores.base import RunStore\n"
        "jobs = JobManager(store=create_autospec(RunStore, instance=True, url='theirs://'))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    assert main(["db", "current", "--app", "elsewhere"]) == 1
    assert "theirs:// is no store of ours" in capsys.readouterr().err
