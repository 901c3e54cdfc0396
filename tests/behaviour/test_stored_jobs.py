"""Jobs that operators make: they name a handler, fire without a restart, survive deployments, and each change is on record."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobmanager import Dst, JobManager, Retry, RunStatus, Settings
from jobmanager.errors import (
    ConfigurationError,
    CronError,
    DuplicateJobError,
    EditConflictError,
    HandlerNotFoundError,
    JobDisabledError,
    JobNotFoundError,
    PayloadError,
)
from jobmanager.explain import explain_now
from jobmanager.present.jobs import job_record
from jobmanager.testing import FakeClock

pytestmark = pytest.mark.slow

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
Calls = list[Mapping[str, Any]]


class Application:
    """An application with one handler, and processes of it on one SQLite file and one clock."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock(NOON)
        self.calls: Calls = []
        self._url = f"sqlite:///{folder / 'jobs.db'}"
        self.managers: list[JobManager] = []

    def process(
        self, *, handler: str | None = "export", namespace: str = "default", start: bool = True
    ) -> JobManager:
        """Return a manager that has the handler, if one is named."""
        settings = Settings(database_url=self._url, backend="local", namespace=namespace)
        jobs = JobManager(settings, clock=self.clock)
        if handler is not None:
            jobs.handler(handler)(self._export)
        self.managers.append(jobs)
        return jobs.start() if start else jobs

    def _export(self, region: str = "all", days: int = 1) -> None:
        """Export the orders of a region."""
        self.calls.append({"region": region, "days": days})


@pytest.fixture
def application(tmp_path: Path) -> Any:
    found = Application(tmp_path)
    yield found
    for jobs in found.managers:
        jobs.stop()
        jobs.store.close()


def instants(jobs: JobManager, job_id: str) -> list[tuple[datetime | None, RunStatus]]:
    return [(run.scheduled_for, run.status) for run in reversed(jobs.runs(job_id))]


def test_a_stored_job_fires_in_every_process_that_has_its_handler(application: Application) -> None:
    """Fails if only the process that made the job learns of it, or if a restart is needed."""
    here, elsewhere = application.process(), application.process()
    elsewhere.create_job("nightly", handler="export", cron="* * * * *", config={"region": "eu"}, by="ann")
    elsewhere.stop()
    for _ in range(3):
        application.clock.advance(MINUTE)
    assert instants(here, "nightly") == [(NOON + MINUTE * n, RunStatus.SUCCEEDED) for n in (1, 2, 3)]
    assert application.calls == [{"region": "eu", "days": 1}] * 3


def test_a_job_made_while_nothing_runs_fires_from_then_on(application: Application) -> None:
    """Fails if a start reads declared jobs alone, retires stored ones, or fires instants before the job was made."""
    application.process(start=False).create_job("nightly", handler="export", every=60)
    jobs = application.process()
    application.clock.advance(timedelta(minutes=10))
    assert len(instants(jobs, "nightly")) == 10
    jobs.stop()
    again = application.process()
    application.clock.advance(timedelta(minutes=2))
    assert len(instants(again, "nightly")) == 12


def test_an_edit_holds_from_the_next_instant_on_and_can_be_undone(application: Application) -> None:
    jobs = application.process()
    jobs.create_job("nightly", handler="export", cron="* * * * *", timeout="5m", by="ann")
    application.clock.advance(MINUTE * 2)
    jobs.update_job("nightly", cron="*/10 * * * *", config={"days": 7}, by="ben")
    application.clock.advance(MINUTE * 10)
    assert instants(jobs, "nightly")[2:] == [(NOON + MINUTE * 10, RunStatus.SUCCEEDED)]
    assert application.calls[-1] == {"region": "all", "days": 7}
    edit, made = jobs.history("nightly")
    assert (made.action, made.by, edit.action, edit.by) == ("create", "ann", "edit", "ben")
    assert edit.before is not None
    assert edit.after is not None
    assert (edit.before["schedule"], edit.after["schedule"]) == (
        "cron * * * * * in UTC",
        "cron */10 * * * * in UTC",
    )
    jobs.update_job("nightly", **edit.before["definition"], by="ann")
    assert (
        jobs.update_job("nightly", config=None, by="ann").schedule == jobs.registry.jobs["nightly"].schedule
    )
    application.clock.advance(MINUTE * 2)
    assert len(instants(jobs, "nightly")) == 5


@pytest.mark.parametrize(
    "words",
    [
        {"cron": "5 4 * * *", "timezone": "Europe/Berlin"},
        {"every": "90s", "jitter": "10s", "catch_up": "all", "catch_up_window": "2h"},
        {"at": NOON + timedelta(days=1)},
        {"retry": Retry(max_attempts=4, delays=[1, 3, 9], on_crash=False), "overlap": "queue"},
        {"retry": 3, "timeout": 30, "priority": 5, "keep_runs": 7, "name": "A title", "locale": "de"},
        {},
    ],
)
def test_a_stored_job_has_every_policy_of_a_declared_one(
    application: Application, words: dict[str, Any]
) -> None:
    """Fails if an option is lost between the call, the row and the process that reads it."""
    application.process(start=False).create_job("made", handler="export", **words)
    reading = application.process()
    declared = JobManager(Settings(database_url="memory://")).add_job("made", "export", **words)
    assert reading.registry.jobs["made"] == declared


@pytest.mark.parametrize(
    ("words", "schedule"),
    [
        ({"cron": "0 4 * * *"}, "cron 0 4 * * * in Europe/Berlin"),
        ({"timezone": "Asia/Tokyo"}, "cron 0 3 * * * in Asia/Tokyo"),
        ({"every": 60}, "every 60s"),
        ({"at": NOON}, "at 2026-03-02T12:00:00Z"),
        ({"priority": 3}, "cron 0 3 * * * in Europe/Berlin"),
        ({"cron": None, "timezone": None}, None),
    ],
)
def test_an_edit_of_the_schedule_changes_what_it_names(
    application: Application, words: dict[str, Any], schedule: str | None
) -> None:
    """Fails if a new cron line loses its zone, or if a new kind of schedule keeps a part of the old one."""
    jobs = application.process()
    jobs.create_job("nightly", handler="export", cron="0 3 * * *", timezone="Europe/Berlin")
    edited = jobs.update_job("nightly", **words)
    assert (edited.schedule and edited.schedule.text) == schedule


def test_two_edits_at_once_and_the_second_is_told(application: Application) -> None:
    jobs = application.process()
    jobs.create_job("nightly", handler="export", cron="0 3 * * *")
    rev = jobs.history("nightly")[0].rev
    jobs.update_job("nightly", cron="0 4 * * *", if_rev=rev)
    with pytest.raises(EditConflictError, match="revision 2, not 1"):
        jobs.update_job("nightly", cron="0 5 * * *", if_rev=rev)
    assert [entry.action for entry in jobs.history("nightly")] == ["edit", "create"]


def test_a_deleted_job_fires_no_more_and_its_id_may_be_made_again(application: Application) -> None:
    """Fails if a pending run is left behind, if the history goes, or if instants between the two are caught up."""
    jobs, other = application.process(), application.process()
    jobs.create_job("nightly", handler="export", cron="* * * * *", catch_up="all")
    application.clock.advance(MINUTE)
    jobs.trigger_job("nightly", delay=3600)
    jobs.delete_job("nightly", by="ann")
    jobs.delete_job("nightly", by="ann")
    application.clock.advance(MINUTE * 5)
    assert [run.status for run in jobs.runs("nightly")].count(RunStatus.SUCCEEDED) == 1
    assert not jobs.runs("nightly", status="pending")
    assert jobs.get_all_job_statuses() == other.get_all_job_statuses()
    assert "nightly" not in {status.id for status in jobs.get_all_job_statuses()}
    for refused in (jobs.trigger_job, other.update_job):
        with pytest.raises(JobNotFoundError):
            refused("nightly")
    jobs.create_job("nightly", handler="export", cron="* * * * *", catch_up="all")
    made_again = jobs.store.jobs.get("nightly")
    assert made_again is not None
    assert made_again.next_due_at == application.clock.now() + MINUTE  # what pg_cron's SQL goes by
    application.clock.advance(MINUTE)
    assert [run.status for run in jobs.runs("nightly")].count(RunStatus.SUCCEEDED) == 2
    assert [entry.action for entry in jobs.history("nightly")] == ["create", "delete", "create"]


def test_a_disabled_job_starts_by_nothing_until_it_is_enabled(application: Application) -> None:
    """Fails if a deployment enables what an operator disabled."""
    jobs = application.process()
    jobs.add_job("coded", "export", cron="* * * * *")
    jobs.sync()
    jobs.create_job("made", handler="export", cron="* * * * *")
    for job_id in ("coded", "made"):
        jobs.disable_job(job_id, reason="audit", by="ann")
        jobs.disable_job(job_id)
        with pytest.raises(JobDisabledError):
            jobs.trigger_job(job_id)
    jobs.stop()
    again = application.process(start=False)
    again.add_job("coded", "export", cron="* * * * *")
    again.start()
    application.clock.advance(MINUTE * 2)
    assert not application.calls
    for job_id in ("coded", "made"):
        again.enable_job(job_id, by="ann")
    application.clock.advance(MINUTE)
    assert len(application.calls) == 2
    assert [entry.action for entry in again.history("made")] == ["enable", "disable", "create"]


def test_a_declaration_of_the_same_id_wins_and_says_so(
    application: Application, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = application.process()
    jobs.create_job("nightly", handler="export", cron="* * * * *", config={"region": "eu"})
    jobs.stop()
    later = application.process(start=False)
    later.add_job("nightly", "export", every=120)
    with caplog.at_level(logging.WARNING):
        later.start()
    assert "job=nightly was made by an operator; from now on its declaration holds" in caplog.text
    application.clock.advance(MINUTE * 4)
    assert application.calls == [{"region": "all", "days": 1}] * 2
    with pytest.raises(ConfigurationError, match="declared by code and cannot be deleted"):
        later.delete_job("nightly")


def test_ids_are_one_for_all_namespaces(application: Application) -> None:
    jobs, stranger = application.process(), application.process(namespace="shop")
    jobs.create_job("nightly", handler="export", cron="0 3 * * *")
    with pytest.raises(DuplicateJobError, match="made by an operator in namespace 'default'"):
        stranger.create_job("nightly", handler="export", cron="0 3 * * *")
    third = application.process(namespace="shop", start=False)
    third.add_job("nightly", "export", cron="0 3 * * *")
    with pytest.raises(DuplicateJobError, match="in namespace 'default'"):
        third.start()
    assert not stranger.audit()
    assert [entry.job_id for entry in jobs.audit()] == ["nightly"]


def test_a_process_without_the_handler_leaves_the_runs_to_others(application: Application) -> None:
    """Fails if a job can name a handler that nobody has, or if a process takes a run that it cannot execute."""
    without = application.process(handler=None)
    with pytest.raises(HandlerNotFoundError, match="No living process has a handler 'export'"):
        without.create_job("nightly", handler="export", cron="* * * * *")
    having = application.process()
    without.create_job("nightly", handler="export", cron="* * * * *")
    application.clock.advance()
    application.clock.advance(MINUTE * 2)
    assert instants(having, "nightly") == [(NOON + MINUTE * n, RunStatus.SUCCEEDED) for n in (1, 2)]
    assert len(application.calls) == 2


def test_a_process_without_the_handler_starts_a_stored_job_and_another_executes_it(
    application: Application,
) -> None:
    """Fails if a web process that imports no handlers cannot start what it can make."""
    having, without = application.process(), application.process(handler=None)
    having.create_job("nightly", handler="export", config={"region": "eu"})
    run = without.trigger_job("nightly", {"days": 3})
    assert run.status is RunStatus.PENDING
    application.clock.advance(timedelta(seconds=10))
    assert having.run(run.id).status is RunStatus.SUCCEEDED
    assert application.calls == [{"region": "eu", "days": 3}]
    having.delete_job("nightly")
    with pytest.raises(JobNotFoundError):
        without.trigger_job("nightly")


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"handler": "exprot"}, HandlerNotFoundError, "Did you mean 'export'"),
    ({"handler": "os:system"}, ConfigurationError, "is no handler key"),
    ({"handler": 3}, ConfigurationError, "is no handler key"),
    ({"handler": "kept"}, ConfigurationError, "creatable=False"),
    ({"cron": "61 * * * *"}, CronError, "61"),
    ({"cron": "0 3 * * *", "every": 60}, ConfigurationError, "exclude each other"),
    ({"crn": "0 3 * * *"}, ConfigurationError, "Did you mean 'cron'"),
    ({"config": {"regoin": "eu"}}, PayloadError, "regoin"),
    ({"config": {"days": "many"}}, PayloadError, "days"),
    ({"config": {"days": object()}}, ConfigurationError, "kept as JSON"),
    ({"retry": Retry(max_attempts=2, retry_on=(OSError,))}, ConfigurationError, "names classes of code"),
    ({"enabled_when": "SOME_VARIABLE"}, ConfigurationError, "belongs to code"),
    ({"timeout": "soon"}, ConfigurationError, "timeout='soon'"),
    ({"by": 3}, PayloadError, "by=3"),
]


@pytest.mark.parametrize(("words", "error", "text"), WRONG)
def test_what_cannot_be_meant_is_refused_and_nothing_is_written(
    application: Application, words: dict[str, Any], error: type[Exception], text: str
) -> None:
    jobs = application.process()
    jobs.handler("kept", creatable=False)(lambda: None)
    with pytest.raises(error, match=text):
        jobs.create_job("nightly", **{"handler": "export", **words})
    with pytest.raises(JobNotFoundError):
        jobs.history("nightly")
    jobs.create_job("nightly", handler="export")
    with pytest.raises(error, match=text):
        jobs.update_job("nightly", **words)
    assert [entry.action for entry in jobs.history("nightly")] == ["create"]


@pytest.mark.parametrize("job_id", ["", "UPPER", "a b", "a" * 129, None, "\0"])
def test_an_id_that_is_no_slug_is_refused(application: Application, job_id: Any) -> None:
    with pytest.raises(ConfigurationError, match="is not a slug"):
        application.process().create_job(job_id, handler="export")


def test_seeding_makes_what_is_missing_and_overwrites_nothing(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = application.process()
    wanted = {
        "nightly": {"handler": "export", "cron": "0 3 * * *"},
        "hourly": {"handler": "export", "every": 3600},
        "gated": {"handler": "export", "every": 3600, "enabled_when": "SEEDS_GATE"},
    }
    assert jobs.seed(wanted) == ["nightly", "hourly"]
    jobs.update_job("nightly", cron="0 5 * * *", by="ann")
    jobs.delete_job("hourly", by="ann")
    monkeypatch.setenv("SEEDS_GATE", "true")
    assert jobs.seed(wanted) == ["gated"]
    assert jobs.registry.jobs["nightly"].schedule == jobs.update_job("nightly", by="ann").schedule
    assert "hourly" not in jobs.registry.jobs
    with pytest.raises(CronError):
        jobs.seed({"good": {"handler": "export"}, "bad": {"handler": "export", "cron": "x"}})
    assert "good" not in jobs.registry.jobs


def test_a_handler_without_a_job_is_there_for_the_jobs_of_operators(application: Application) -> None:
    jobs = application.process(handler=None)
    jobs.handler("export", startable=False)(lambda region="all": {"region": region})
    assert "export" in {handler.key for handler in jobs.handlers() if handler.creatable}
    with pytest.raises(JobNotFoundError):
        jobs.trigger_job("export")
    jobs.create_job("export", handler="export", every=60)
    application.clock.advance(minutes=1)
    assert [run.output for run in jobs.runs("export")] == [{"region": "all"}]


def test_handlers_say_what_arguments_they_take(application: Application) -> None:
    jobs = application.process()
    (found,) = [handler for handler in jobs.handlers() if handler.key == "export"]
    assert (found.key, found.description) == ("export", "Export the orders of a region.")
    assert found.arguments == {
        "type": "object",
        "properties": {"region": {"type": "string"}, "days": {"type": "integer"}},
        "required": [],
        "additionalProperties": False,
    }


@pytest.mark.parametrize("change", ["pause", "resume", "override", "reset"])
def test_each_change_by_hand_is_audited_once(application: Application, change: str) -> None:
    """Fails if a change leaves no entry, or if repeating it leaves a second one."""
    jobs = application.process()
    jobs.add_job("coded", "export", cron="0 3 * * *")
    jobs.sync()
    act: Callable[[], object] = {
        "pause": lambda: jobs.stop_job("coded", reason="why", by="ann"),
        "resume": lambda: jobs.resume_job("coded", by="ann"),
        "override": lambda: jobs.override_job("coded", cron="0 4 * * *", by="ann"),
        "reset": lambda: jobs.reset_job("coded", by="ann"),
    }[change]
    {"resume": lambda: jobs.stop_job("coded"), "reset": lambda: jobs.override_job("coded", priority=3)}.get(
        change, lambda: None
    )()
    before = len(jobs.audit())
    act()
    act()
    entry, *_ = jobs.audit()
    assert len(jobs.audit()) == before + 1
    assert (entry.action, entry.by, entry.job_id, entry.at) == (change, "ann", "coded", NOON)


def test_the_audit_holds_no_secret_and_comes_in_pages(tmp_path: Path) -> None:
    secret = "s3cr3t-of-the-settings-0123456789abcdef"
    jobs = JobManager(Settings(database_url=f"sqlite:///{tmp_path / 'jobs.db'}", secret=secret))
    jobs.handler("export")(lambda **_: None)
    for number in range(5):
        config = {"password": "hunter22", "note": f"Bearer {secret}", "n": number}
        jobs.create_job(f"job-{number}", handler="export", config=config)
    first = jobs.audit(limit=3)
    rest = jobs.audit(limit=3, before=first[-1].id)
    assert [entry.job_id for entry in (*first, *rest)] == [f"job-{number}" for number in (4, 3, 2, 1, 0)]
    assert secret not in repr(first)
    assert "hunter22" not in repr(first)
    jobs.store.close()


# ---------------------------------------------------------------- clock changes

BERLIN = {"cron": "30 2 * * *", "timezone": "Europe/Berlin"}


def test_the_policy_for_clock_changes_is_a_part_of_the_schedule(application: Application) -> None:
    """A change of it is a change of the schedule: another revision, another text, and the audit says the word."""
    jobs = application.process()
    jobs.create_job("export-nightly", handler="export", **BERLIN, dst="skip,both")
    made = jobs.store.jobs.get("export-nightly")
    jobs.update_job("export-nightly", dst=Dst("shift"))
    moved = jobs.store.jobs.get("export-nightly")
    jobs.update_job("export-nightly", cron="45 2 * * *")
    later = jobs.store.jobs.get("export-nightly")
    jobs.update_job("export-nightly", dst=None)
    plain = jobs.store.jobs.get("export-nightly")

    assert made
    assert moved
    assert later
    assert plain
    assert [row.schedule for row in (made, moved, later, plain)] == [
        "cron 30 2 * * * in Europe/Berlin dst skip,both",
        "cron 30 2 * * * in Europe/Berlin dst shift,first",
        "cron 45 2 * * * in Europe/Berlin dst shift,first",
        "cron 45 2 * * * in Europe/Berlin",
    ]
    assert [row.schedule_rev for row in (made, moved, later, plain)] == [1, 2, 3, 4]
    assert made.definition == {"handler": "export", **BERLIN, "dst": "skip,both"}
    assert plain.definition == {"handler": "export", **BERLIN, "cron": "45 2 * * *"}
    entry = jobs.history("export-nightly")[2]
    assert entry.before
    assert entry.after
    assert (entry.before["definition"]["dst"], entry.after["definition"]["dst"]) == (
        "skip,both",
        "shift,first",
    )


def test_the_policy_of_a_declared_job_is_overridden_beside_its_line(application: Application) -> None:
    jobs = application.process(start=False)
    jobs.add_job("coded", "export", **BERLIN, dst=Dst("skip"))
    jobs.start()

    def schedule() -> str:
        row = jobs.store.jobs.get("coded")
        assert row
        return row.schedule

    assert schedule() == "cron 30 2 * * * in Europe/Berlin dst skip,first"
    jobs.override_job("coded", cron="45 2 * * *")
    assert schedule() == "cron 45 2 * * * in Europe/Berlin dst skip,first"
    jobs.override_job("coded", dst=Dst("end", "both"))
    assert schedule() == "cron 45 2 * * * in Europe/Berlin dst end,both"
    jobs.override_job("coded", every=60)
    assert schedule() == "every 60s"
    jobs.override_job("coded", dst="shift")
    assert schedule() == "cron 30 2 * * * in Europe/Berlin dst shift,first"
    jobs.reset_job("coded")
    assert schedule() == "cron 30 2 * * * in Europe/Berlin dst skip,first"
    with pytest.raises(CronError, match="dst='late': 'late' is no policy"):
        jobs.override_job("coded", dst="late")


def test_another_policy_in_the_code_is_another_schedule(application: Application) -> None:
    for policy in (Dst(), Dst("skip")):
        jobs = application.process(start=False)
        jobs.add_job("coded", "export", **BERLIN, dst=policy)
        jobs.start()
        row = jobs.store.jobs.get("coded")
        jobs.stop()
    assert row
    assert (row.schedule_rev, row.schedule) == (2, "cron 30 2 * * * in Europe/Berlin dst skip,first")


# ---------------------------------------------------------------- schedules that end


def test_a_schedule_ends_and_says_so(application: Application) -> None:
    jobs = application.process()
    jobs.create_job("campaign", handler="export", every=60, until=NOON + 2 * MINUTE)
    row = jobs.store.jobs.get("campaign")
    assert row
    assert row.definition == {"handler": "export", "every": 60.0, "until": "2026-03-02T12:02:00+00:00"}
    application.clock.advance(minutes=5)

    assert [run.scheduled_for for run in jobs.runs("campaign")] == [NOON + 2 * MINUTE, NOON + MINUTE]
    campaign = jobs.get_job("campaign")
    assert (campaign.next_run, campaign.ended, job_record(campaign)["ended"]) == (None, True, True)
    (told,) = explain_now(jobs, "campaign")
    assert told.because.endswith("No instant comes after that: the schedule ends at 2026-03-02 12:02:00 UTC.")
    assert jobs.trigger_job("campaign").scheduled_for is None

    jobs.update_job("campaign", until=None)
    assert not jobs.get_job("campaign").ended
    application.clock.advance(minutes=1)
    assert jobs.runs("campaign")[0].scheduled_for == NOON + 6 * MINUTE


def test_the_end_of_a_declared_job_is_moved_by_an_override(application: Application) -> None:
    jobs = application.process(start=False)
    jobs.add_job("coded", "export", cron="0 9 * * *", until="2026-04-01T00:00Z")
    jobs.add_job("often", "export", every=60)
    jobs.start()

    def schedule(job_id: str) -> str:
        row = jobs.store.jobs.get(job_id)
        assert row
        return row.schedule

    jobs.override_job("coded", cron="0 8 * * *")
    assert schedule("coded") == "cron 0 8 * * * in UTC until 2026-04-01T00:00:00Z"
    jobs.override_job("coded", until="2026-05-01T00:00Z")
    assert schedule("coded") == "cron 0 8 * * * in UTC until 2026-05-01T00:00:00Z"
    jobs.override_job("coded", every=300)
    assert schedule("coded") == "every 300s until 2026-05-01T00:00:00Z"
    jobs.override_job("often", until=NOON + MINUTE)
    assert schedule("often") == "every 60s until 2026-03-02T12:01:00Z"
    jobs.reset_job("often")
    assert schedule("often") == "every 60s"
    with pytest.raises(CronError, match="until='never': 'never' is not a moment"):
        jobs.override_job("often", until="never")
