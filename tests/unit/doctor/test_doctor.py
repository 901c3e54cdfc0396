"""What the doctor finds: nothing where all is well, and each injected fault by name, with its fix."""

import os
import re
import shutil
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobmanager import JobManager, RunStatus, Settings
from jobmanager.doctor import examine, examine_environment, surroundings
from jobmanager.explain import explain_now, utc
from jobmanager.stores.values import Instance
from jobmanager.testing import FakeClock

HOUR = timedelta(hours=1)


class Patient:
    """An application on a SQLite file of its own."""

    def __init__(self, folder: Path):
        self.file = folder / "jobs.db"
        self.settings = Settings(backend="local", database_url=f"sqlite:///{self.file}", drain_seconds=1)
        self.managers = []

    def known(self, manager):
        """The same manager, which is ended with the test."""
        self.managers.append(manager)
        return manager

    def manager(self, function=lambda days=1: None, *, settings=None, job="work", **declared):
        manager = self.known(JobManager(settings or self.settings))
        manager.job(job, **{"every": 3600, **declared})(function)
        return manager

    def living(self, **how):
        return self.manager(**how).start()

    def sql(self, statement, *values):
        with sqlite3.connect(self.file) as database:
            database.execute(statement, values)
        database.close()


@pytest.fixture
def patient(tmp_path):
    made = Patient(tmp_path)
    yield made
    for manager in made.managers:
        manager.stop()
        if "store" in vars(manager._parts):
            manager.store.close()


def faults(jobs):
    found = [finding for finding in examine(jobs) if finding.level in ("warning", "failing")]
    assert all(finding.fix for finding in found)
    return found


def only(jobs):
    [found] = faults(jobs)
    return found.check, found.level, found.text


def micros(moment):
    return int(moment.timestamp() * 1_000_000)


# ---------------------------------------------------------------- healthy


def test_nothing_is_wrong_before_the_first_start(patient):
    assert faults(patient.manager()) == []
    assert not patient.file.exists()


def test_nothing_is_wrong_while_it_runs(patient):
    assert faults(patient.living()) == []
    assert faults(patient.manager()) == []


def test_nothing_is_wrong_with_jobs_started_by_hand_only(patient):
    jobs = patient.manager(every=None)
    jobs.sync()
    assert faults(jobs) == []


def test_nothing_is_wrong_on_the_memory_store():
    jobs = JobManager(Settings(backend="local", database_url="memory://"))
    jobs.job("work", every=60)(print)
    assert faults(jobs) == []


def test_nothing_is_wrong_with_an_empty_environment():
    assert {finding.level for finding in examine_environment({})} == {"ok"}


# ---------------------------------------------------------------- the environment


@pytest.mark.parametrize(
    ("environ", "level", "says"),
    [
        ({"JOBMANAGER_BAKEND": "local"}, "failing", "Did you mean JOBMANAGER_BACKEND?"),
        ({"JOBMANAGER_WORKERS": "many"}, "failing", "JOBMANAGER_WORKERS='many'"),
        ({"JOBMANAGER_SECRET": "short"}, "failing", "JOBMANAGER_SECRET cannot be used"),
        (
            {"JOBMANAGER_COLOUR_OF_THE_SKY": "blue"},
            "warning",
            "JOBMANAGER_COLOUR_OF_THE_SKY is set but is no setting",
        ),
    ],
)
def test_a_variable_that_cannot_be_meant(environ, level, says):
    [found] = [finding for finding in examine_environment(environ) if finding.level != "ok"]
    assert (found.check, found.level) == ("settings", level)
    assert says in found.text
    assert found.fix
    assert "short" not in found.text


def test_the_names_of_other_systems_are_told_with_ours():
    """Fails if a variable that another system reads is taken for set here."""
    environ = {"TRIGGER_DEV_API_KEY": "tr_dev_0123456789", "DISABLE_AUTO_SYNC": "true", "QSTASH_TOKEN": "t"}
    told = [finding.text for finding in examine_environment(environ) if finding.level == "note"]
    assert told == [
        f"{name} is set and is not read here; jobmanager reads {ours}."
        for name, ours in (
            ("TRIGGER_DEV_API_KEY", "JOBMANAGER_TRIGGER_DEV_API_KEY"),
            ("DISABLE_AUTO_SYNC", "JOBMANAGER_DISABLED"),
            ("QSTASH_TOKEN", "JOBMANAGER_QSTASH_TOKEN"),
        )
    ]
    assert len(examine_environment({**environ, "JOBMANAGER_DISABLED": "true"})) == len(told) + 1


def test_secrets_are_not_told():
    secret = "0123456789abcdefghijklmnopqrstuvwxyz"
    told = repr(
        examine_environment(
            {"JOBMANAGER_SECRET": secret, "JOBMANAGER_DATABASE_URL": "postgresql://ana:hunter2@db/x"}
        )
    )
    assert "JOBMANAGER_SECRET=***" in told
    assert secret not in told
    assert "hunter2" not in told


def test_the_old_distribution_of_that_name(monkeypatch):
    monkeypatch.setattr(surroundings, "version", lambda _: "0.4.8")
    [found] = [finding for finding in examine_environment({}) if finding.level == "failing"]
    assert "jobmanager 0.4.8 is installed" in found.text
    assert "pip uninstall jobmanager" in found.fix


# ---------------------------------------------------------------- the application


def test_nothing_fires_by_choice(patient):
    settings = replace(patient.settings, disabled=True)
    assert only(patient.manager(settings=settings)) == (
        "backend", "warning", "noop, because JOBMANAGER_DISABLED=true: nothing fires by itself.",
    )  # fmt: skip


def test_a_backend_that_is_configured_and_not_active(patient):
    settings = replace(patient.settings, celery_broker_url="redis://localhost:6379/0")
    check, level, text = only(patient.manager(settings=settings))
    assert (check, level) == ("backend", "warning")
    assert text == "celery is not active: configured but not active: JOBMANAGER_BACKEND=local."


def test_a_backend_that_is_configured_in_part(patient):
    settings = replace(patient.settings, public_url="https://example.org")
    assert "configured in part only" in only(patient.manager(settings=settings))[2]


def test_a_backend_that_nobody_knows(patient):
    jobs = patient.known(JobManager(replace(patient.settings, backend="lokal")))
    check, level, text = only(jobs)
    assert (check, level) == ("backend", "failing")
    assert "Did you mean 'local'?" in text


def test_a_handler_that_cannot_be_imported(patient):
    check, level, text = only(patient.manager("not_there:at_all"))
    assert (check, level) == ("handlers", "failing")
    assert "'not_there:at_all' cannot be imported" in text


def test_a_handler_that_nobody_registered(patient):
    jobs = patient.manager()
    del jobs.registry.handlers["work"]
    assert only(jobs)[:2] == ("handlers", "failing")


def test_a_config_that_does_not_fit(patient):
    check, level, text = only(patient.manager(config={"dayz": 3}))
    assert (check, level) == ("handlers", "failing")
    assert "'dayz' is unknown. Did you mean 'days'?" in text


def test_a_scheduled_job_whose_config_leaves_an_argument_open(patient):
    def work(days: int) -> None: ...

    check, level, text = only(patient.manager(work))
    assert (check, level) == ("handlers", "failing")
    assert "'work' needs days: give it in config" in text


def test_a_job_by_hand_may_leave_its_arguments_to_the_payload(patient):
    def work(days: int) -> None: ...

    assert faults(patient.manager(work, every=None)) == []


def test_a_moment_that_has_passed(patient):
    text = only(patient.manager(every=None, at=datetime(2020, 1, 1, tzinfo=UTC)))[2]
    assert text == "Job 'work' was due once, at 2020-01-01 00:00:00 UTC; it will never be due again."


def test_a_gate_is_worth_a_note(patient, monkeypatch):
    monkeypatch.delenv("WITH_WORK", raising=False)
    jobs = patient.manager(enabled_when="WITH_WORK")
    assert faults(jobs) == []
    assert any("Set WITH_WORK=true" in finding.text for finding in examine(jobs) if finding.level == "note")


def test_a_seed_that_is_gated_on_and_missing(patient, monkeypatch):
    """Fails if a seed that was left out for its gate is forgotten."""
    monkeypatch.delenv("WITH_SEEDS", raising=False)
    jobs = patient.living()
    seeds = {
        name: {"handler": "work", "every": 3600, "enabled_when": gate}
        for name, gate in (("off", False), ("later", "WITH_SEEDS"), ("on", True), ("gone", True))
    }
    assert jobs.seed(seeds) == ["on", "gone"]
    jobs.delete_job("gone")
    assert faults(jobs) == []
    assert any(
        "an operator deleted it" in finding.text for finding in examine(jobs) if finding.level == "note"
    )
    monkeypatch.setenv("WITH_SEEDS", "true")
    check, level, text = only(jobs)
    assert (check, level) == ("seeds", "warning")
    assert text.startswith("Job 'later' is seeded and its gate is on")
    assert jobs.seed(seeds) == ["later"]
    assert faults(jobs) == []


# ---------------------------------------------------------------- the store


def test_a_folder_that_is_not_there(tmp_path):
    jobs = JobManager(Settings(backend="local", database_url=f"sqlite:///{tmp_path}/not/there/jobs.db"))
    check, level, _ = only(jobs)
    assert (check, level) == ("store", "failing")
    assert faults(jobs)[0].fix == f"mkdir -p {tmp_path}/not/there"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(patient):
    patient.file.parent.chmod(0o500)
    try:
        assert only(patient.manager())[:2] == ("store", "failing")
    finally:
        patient.file.parent.chmod(0o700)


def test_a_file_that_is_no_database(patient):
    patient.file.write_bytes(b"not a database" * 1000)
    check, level, text = only(patient.manager())
    assert (check, level) == ("store", "failing")
    assert "not a database" in text


def test_a_schema_of_another_version(patient):
    patient.manager().sync()
    patient.sql("UPDATE jobmanager_alembic SET version_num = '9999'")
    check, level, text = only(patient.manager())
    assert (check, level) == ("store", "failing")
    assert "9999" in text


def test_a_store_that_is_locked(patient, monkeypatch):
    patient.manager().sync()
    jobs = patient.manager()
    jobs.store.database._patience = 0.05
    jobs.store.database._engine = jobs.store.database._make_engine()
    holder = sqlite3.connect(patient.file, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        check, level, text = only(jobs)
    finally:
        holder.close()
    assert (check, level) == ("store", "failing")
    assert "locked" in text


def test_a_disk_that_is_almost_full(patient, monkeypatch):
    jobs = patient.living()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 4096, 4096))
    assert only(jobs)[2].startswith("Only 4 KiB are free beside")


def test_a_store_that_this_version_does_not_have(patient):
    jobs = JobManager(Settings(backend="local", database_url="postgresql://nobody@127.0.0.1:1/none"))
    assert only(jobs)[:2] == ("store", "failing")


# ---------------------------------------------------------------- the account and its keepers


def test_clocks_that_disagree():
    jobs = JobManager(
        Settings(backend="local", database_url="memory://"), clock=FakeClock(datetime.now(UTC) + HOUR)
    )
    jobs.job("work")(print)
    jobs.sync()
    check, level, text = only(jobs)
    assert (check, level) == ("clock", "warning")
    assert re.search(r"\+3,(600|59\d)\.\d s off", text)  # the real clock goes on meanwhile


def test_a_clock_that_was_ahead_once(patient):
    jobs = patient.living()
    with jobs.store.jobs.lock("work") as page:
        page.save(replace(page.job, accounted_until=page.now + HOUR))
    check, level, text = only(jobs)
    assert (check, level) == ("clock", "failing")
    assert "'work' is closed up to" in text


def test_a_paused_job(patient):
    jobs = patient.living()
    jobs.stop_job("work", reason="moving house", by="ana")
    check, level, text = only(jobs)
    assert (check, level) == ("jobs", "warning")
    assert "by ana: moving house" in text
    assert faults(jobs)[0].fix == "jobmanager jobs resume work"


def test_a_job_that_only_others_declare(patient):
    patient.living()
    text = only(patient.living(job="other"))[2]
    assert text == "Job 'work' is stored and open, but not declared in this process."


def test_a_job_of_two_namespaces(patient):
    patient.manager().sync()
    shop = patient.manager(settings=replace(patient.settings, namespace="shop"))
    assert "in namespace 'default'" in next(
        finding.text for finding in faults(shop) if finding.check == "jobs"
    )


def test_a_stored_schedule_that_cannot_be_read(patient):
    jobs = patient.living()
    patient.sql("UPDATE jobmanager_jobs SET schedule = 'whenever'")
    assert faults(jobs)[0].text.startswith("The stored schedule of 'work' cannot be read")


def test_nobody_lives(patient):
    patient.manager().sync()
    check, level, text = only(patient.manager())
    assert (check, level) == ("processes", "failing")
    assert text == "No process lives: nothing fires."


def test_where_celery_executes_a_beat_and_a_worker_are_what_is_missing(patient):
    celery = {"backend": "celery", "celery_broker_url": "memory://"}
    jobs = patient.manager(settings=replace(patient.settings, **celery))
    jobs.sync()
    [advice] = [finding.fix for finding in examine(jobs) if finding.check == "processes"]
    assert advice == "Start both: `jobmanager beat`, which keeps the time, and `jobmanager worker`."
    assert explain_now(jobs, "work")[-1].advice == advice


def silent(patient, jobs, pid):
    """A process that beat an hour ago, and a run of its own."""
    instance = jobs.store.processes.living()[0]
    jobs.store.processes.register(
        replace(instance, id="silent", pid=pid, seen_at=instance.seen_at - HOUR), ["work"]
    )
    run = jobs.trigger_job("work", delay=3600)
    patient.sql(
        "UPDATE jobmanager_runs SET status='running', owner='silent', turn='holds' WHERE id = ?", run.id
    )
    return run


def test_a_process_that_died_in_the_middle_of_a_run(patient):
    jobs = patient.living()
    run = silent(patient, jobs, 2**22 + 1)
    check, level, text = only(jobs)
    assert (check, level) == ("processes", "failing")
    assert f"running for it are work ({run.id[-8:]})" in text
    assert "It is gone." in faults(jobs)[0].fix


def test_a_process_that_hangs(patient):
    jobs = patient.living()
    silent(patient, jobs, os.getppid())
    assert f"kill {os.getppid()}" in faults(jobs)[0].fix


def test_an_account_that_is_behind(patient):
    jobs = patient.manager()
    jobs.sync()
    now = datetime.now(UTC)
    idle = Instance(
        id="idle", namespace="default", host="here", pid=1, executes=True, started_at=now - HOUR, seen_at=now
    )
    jobs.store.processes.register(idle, ["work"])
    patient.sql("UPDATE jobmanager_jobs SET next_due_at = ?", micros(now - HOUR))
    check, level, text = only(jobs)
    assert (check, level) == ("health", "failing")
    assert f"A tick is overdue since {utc(now - HOUR)} (1 job: work)" in text


def test_runs_that_wait_for_nobody(patient):
    jobs = patient.manager(every=None)
    run = jobs.trigger_job("work")
    patient.sql("UPDATE jobmanager_runs SET due_at = ?", micros(datetime.now(UTC) - HOUR))
    check, level, text = only(jobs)
    assert (check, level) == ("runs", "failing")
    assert "1 run of 'work' waiting since" in text
    assert run.id[-8:] in faults(jobs)[0].fix
    assert jobs.run(run.id).status is RunStatus.PENDING


def test_runs_that_wait_for_a_free_worker(patient):
    jobs = patient.living(job="other")
    tool = patient.manager(job="other")
    run = tool.trigger_job("other", delay=3600)
    patient.sql(
        "UPDATE jobmanager_runs SET due_at = ?, accepted_at = NULL WHERE id = ?",
        micros(datetime.now(UTC) - HOUR),
        run.id,
    )
    check, level, text = only(jobs)
    assert (check, level) == ("runs", "warning")
    assert text.endswith("for a free worker.")


def test_a_check_that_falls_ill_is_a_finding_and_stops_no_other(patient, monkeypatch):
    jobs = patient.living()
    monkeypatch.setattr(type(jobs), "health", lambda *_, **__: 1 / 0)
    check, level, text = only(jobs)
    assert (check, level, text) == (
        "health",
        "warning",
        "could not be looked at: ZeroDivisionError: division by zero",
    )
