"""The entries of pg_cron through the manager: what they show, that each change is audited in its transaction, and who may do what."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from tests.servers import FreshDatabases

from jobmanager import JobManager, Settings
from jobmanager.access.acting import acting
from jobmanager.access.principal import Principal
from jobmanager.backends.base import PurgedEntries, RawEntry
from jobmanager.backends.pg_cron import changing
from jobmanager.cli import main
from jobmanager.errors import (
    EntryNotFoundError,
    JobDisabledError,
    JobNotFoundError,
    PermissionDeniedError,
    SecretConflictError,
    StoreUnavailableError,
)

pytestmark = [pytest.mark.servers, pytest.mark.slow]

SECRET = "whsec_c2VjcmV0IG9mIHRoZSBlbnRyaWVzIDAxMjM0NTY3ODk="
ORPHAN = "SELECT cron.schedule(jobmanager.entry_name('gone'), '0 7 * * 1', format('SELECT jobmanager.fire(%L)', jobmanager.entry_name('gone')))"
NOTED = """INSERT INTO cron.job_run_details (jobid, runid, database, username, command, status, return_message, start_time, end_time)
 SELECT jobid, %s, database, username, command, %s, %s, clock_timestamp() - %s::interval, clock_timestamp() - %s::interval
   FROM cron.job WHERE jobname = 'jm_dispatch'"""


class Shop:
    """A manager whose time a database keeps, and that database."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.url = settings.get("pg_cron_url", url)
        self.jobs = JobManager(
            Settings(database_url=url, backend="pg_cron", pg_cron_transport="notify", **settings)
        )
        self.jobs.add_job("work", lambda: 1, cron="*/10 * * * *")
        self.jobs.sync()

    def ask(self, query: str, *values: object) -> Any:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(query, values or None)
            row = cursor.fetchone() if cursor.description else None
            return None if row is None else row[0]

    def entry(self, name: str) -> RawEntry:
        return next(entry for entry in self.jobs.entries() if entry.name == name)

    def audited(self) -> list[tuple[str, str, str, str | None, str]]:
        """What was done to what, by whom, oldest first."""
        entries = reversed(self.jobs.audit(limit=100))
        return [(one.action, one.target, one.target_id, one.by, one.outcome) for one in entries]

    def close(self) -> None:
        self.jobs.stop()
        self.jobs.store.close()


@pytest.fixture(params=["here", "elsewhere"])
def shop(
    request: pytest.FixtureRequest, pg_cron_url: str, pg_cron_databases: FreshDatabases
) -> Iterator[Shop]:
    """With pg_cron in the database of the jobs, and in another."""
    if request.param == "here":
        made = Shop(pg_cron_url)
    else:
        made = Shop(pg_cron_databases.make(), pg_cron_url=pg_cron_url)
    yield made
    made.close()


@pytest.fixture
def here(still_pg_cron_url: str) -> Iterator[Shop]:
    """On a server whose entries never run by themselves."""
    made = Shop(still_pg_cron_url)
    yield made
    made.close()


def test_entries_tell_what_is_there_beside_what_should_be(shop: Shop) -> None:
    shop.ask("UPDATE cron.job SET schedule = '7 4 * * *' WHERE jobname LIKE 'jm_sweep%'")

    entries = {entry.name: entry for entry in shop.jobs.entries()}

    assert {name: (entry.schedule, entry.active, entry.drift) for name, entry in entries.items()} == {
        "jm_dispatch": ("* * * * *", True, ""),
        "jm_sweep": ("7 4 * * *", True, "scheduled differently"),
    }
    assert entries["jm_dispatch"].command == "SELECT jobmanager.fire(NULL)"
    shop.jobs.sync()


def test_entries_tell_how_their_wake_ups_ended(here: Shop) -> None:
    """Fails if an older note than a day is counted, a running one, or if an error shows a secret."""
    here.ask("UPDATE cron.job SET active = false WHERE jobname = 'jm_dispatch'")
    for note in (
        (90_000_001, "succeeded", "1 row", "25:00", "25:00"),
        (90_000_002, "succeeded", "1 row", "2:00", "2:00"),
        (90_000_003, "failed", "ERROR: refused, token=hunter2hunter2", "1:00", "1:00"),
        (90_000_004, "running", None, "0:01", "0:00"),
    ):
        here.ask(NOTED, *note)

    entry = here.entry("jm_dispatch")

    assert (entry.runs_24h, entry.succeeded_24h, entry.last_status) == (2, 1, "failed")
    assert entry.last_error == "ERROR: refused, token=***"
    assert entry.last_ended_at is not None
    here.ask("DELETE FROM cron.job_run_details WHERE runid >= 90000000")


def test_each_change_of_an_entry_is_one_row_of_the_audit(shop: Shop) -> None:
    jobs = shop.jobs
    ana = Principal("ana", "admin")
    with acting(ana, address="192.0.2.7", request_id="req-1"):
        assert jobs.set_entry_active("jm_sweep", active=False)
        assert not jobs.set_entry_active("jm_sweep", active=False)
        assert jobs.set_entry_active("jm_sweep", active=True)
        jobs.unschedule_entry("jm_dispatch")
    assert {entry.name: entry.drift for entry in jobs.entries()} == {
        "jm_dispatch": "not in pg_cron",
        "jm_sweep": "",
    }
    assert jobs.set_entry_active("work", active=False, by="bob")

    assert shop.audited() == [
        ("pause", "entry", "jm_sweep", "ana", "done"),
        ("resume", "entry", "jm_sweep", "ana", "done"),
        ("unschedule", "entry", "jm_dispatch", "ana", "done"),
        ("pause", "job", "work", "bob", "done"),
    ]
    newest, gone, *_ = jobs.audit()
    assert (newest.job_id, newest.before, newest.after) == ("work", {"state": "active"}, {"state": "paused"})
    assert (gone.address, gone.request_id) == ("192.0.2.7", "req-1")
    assert gone.before == {"schedule": "* * * * *", "command": "SELECT jobmanager.fire(NULL)", "active": True}


def test_orphans_are_counted_before_they_are_purged(here: Shop) -> None:
    here.ask(ORPHAN)
    name = here.ask("SELECT jobmanager.entry_name('gone')")

    assert here.jobs.purge_orphans(dry_run=True, by="ana") == PurgedEntries(removed=(name,))
    assert here.audited() == []
    assert here.entry(name).orphan
    assert here.jobs.purge_orphans(by="ana") == PurgedEntries(removed=(name,))
    assert here.jobs.purge_orphans(by="ana") == PurgedEntries()

    assert here.audited() == [("purge", "entries", "default", "ana", "done")]
    (entry,) = here.jobs.audit()
    assert list(entry.before or {}) == [name]
    assert entry.after == {"removed": [name], "failed": []}


def test_a_rotation_is_audited_and_no_secret_is(here: Shop) -> None:
    with pytest.raises(SecretConflictError, match="no secret to replace"):
        here.jobs.rotate_secret(by="ana")
    here.ask("SELECT jobmanager.put_key('default', %s)", SECRET)
    made = here.jobs.rotate_secret(by="ana")
    with pytest.raises(SecretConflictError, match="The last rotation was not ended"):
        here.jobs.rotate_secret(by="ana")
    assert here.jobs.retire_secrets(by="ana") == 1
    assert here.jobs.retire_secrets(by="ana") == 0

    assert here.audited() == [
        ("rotate", "secret", "default", "ana", "refused"),
        ("rotate", "secret", "default", "ana", "done"),
        ("rotate", "secret", "default", "ana", "refused"),
        ("retire", "secret", "default", "ana", "done"),
    ]
    told = repr(here.jobs.audit())
    assert made not in told
    assert SECRET not in told


REFUSED: dict[str, tuple[Callable[[JobManager], object], type[Exception], tuple[str, str, str]]] = {
    "pause an unknown job": (
        lambda jobs: jobs.set_entry_active("nope", active=False),
        JobNotFoundError,
        ("pause", "entry", "nope"),
    ),
    "resume an orphan": (
        lambda jobs: jobs.set_entry_active("jm_" + "0" * 24, active=True),
        EntryNotFoundError,
        ("resume", "entry", "jm_" + "0" * 24),
    ),
    "unschedule what is not there": (
        lambda jobs: jobs.unschedule_entry("jm_http"),
        EntryNotFoundError,
        ("unschedule", "entry", "jm_http"),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_change_is_audited_and_changes_nothing(here: Shop, name: str) -> None:
    call, error, entry = REFUSED[name]
    before = here.ask("SELECT count(*) FROM cron.job")
    with acting(Principal("ana", "admin")), pytest.raises(error):
        call(here.jobs)
    assert here.audited() == [(*entry, "ana", "refused")]
    assert here.ask("SELECT count(*) FROM cron.job") == before


CHANGES: dict[str, Callable[[JobManager], object]] = {
    "pause": lambda jobs: jobs.set_entry_active("jm_sweep", active=False),
    "resume": lambda jobs: jobs.set_entry_active("jm_sweep", active=True),
    "unschedule": lambda jobs: jobs.unschedule_entry("jm_sweep"),
    "purge": lambda jobs: jobs.purge_orphans(),
    "rotate": lambda jobs: jobs.rotate_secret(),
    "retire": lambda jobs: jobs.retire_secrets(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_entries_are_for_admins_alone(here: Shop, name: str) -> None:
    with acting(Principal("olga", "operator")):
        with pytest.raises(PermissionDeniedError, match="jobs:admin"):
            here.jobs.entries()
        with pytest.raises(PermissionDeniedError, match="jobs:admin"):
            CHANGES[name](here.jobs)
    ((action, _, _, by, outcome),) = here.audited()
    assert (action, by, outcome) == (name, "olga", "refused")


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_whose_row_cannot_be_written_is_not_made(
    here: Shop, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if the audit is written in another transaction than the change."""
    here.ask(ORPHAN)
    for secret in (SECRET, SECRET[::-1]):
        here.ask("SELECT jobmanager.put_key('default', %s)", secret)
    if name == "rotate":
        here.jobs.retire_secrets()
    elif name == "resume":
        here.jobs.set_entry_active("jm_sweep", active=False)

    def state() -> list[Any]:
        return [
            here.ask("SELECT array_agg(jobname::text ORDER BY 1) FROM cron.job"),
            here.ask("SELECT count(*) FROM jobmanager.live_keys('default')"),
            here.ask("SELECT count(*) FROM jobmanager.audit"),
        ]

    before = state()
    with monkeypatch.context() as broken:
        broken.setattr(changing.Changing, "_write", _unwritable)
        with pytest.raises(StoreUnavailableError, match="no room"):
            CHANGES[name](here.jobs)
    assert state() == before
    CHANGES[name](here.jobs)
    assert state() != before


def _unwritable(_self: object, _change: object) -> None:
    raise StoreUnavailableError("there is no room for the audit")


@pytest.mark.parametrize("name", CHANGES)
def test_nothing_changes_while_the_switch_is_set(here: Shop, name: str) -> None:
    jobs = JobManager(Settings(database_url=here.url, backend="pg_cron", disabled=True))
    with pytest.raises(JobDisabledError, match="JOBMANAGER_DISABLED"):
        CHANGES[name](jobs)
    jobs.store.close()


def test_the_command_line_is_audited_as_the_manager_is(
    here: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOBMANAGER_DATABASE_URL", here.url)
    monkeypatch.setattr("getpass.getuser", lambda: "carl")
    here.ask("SELECT jobmanager.put_key('default', %s)", SECRET)
    here.ask(ORPHAN)
    for words in (
        ("pg-cron", "install", "--role", "pg_monitor"),
        ("pg-cron", "pause", "jm_sweep"),
        ("pg-cron", "resume", "jm_sweep"),
        ("pg-cron", "purge", "--yes"),
        ("pg-cron", "unschedule", "jm_dispatch", "--yes"),
        ("secret", "rotate"),
        ("secret", "retire", "--yes"),
        ("pg-cron", "uninstall", "--objects", "--yes"),
    ):
        assert main(list(words)) == 0, words

    assert [(action, target, by) for action, target, _, by, _ in here.audited()] == [
        ("install", "objects", "carl"),
        ("pause", "entry", "carl"),
        ("resume", "entry", "carl"),
        ("purge", "entries", "carl"),
        ("unschedule", "entry", "carl"),
        ("rotate", "secret", "carl"),
        ("retire", "secret", "carl"),
        ("uninstall", "objects", "carl"),
    ]
