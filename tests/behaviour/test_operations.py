"""What operators do: override, backfill, dead letters, retention."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobmanager import CronError, JobManager, Retry, RunContext, RunStatus, Settings
from jobmanager.errors import ConfigurationError, JobDisabledError, JobNotFoundError, RunNotFoundError
from jobmanager.testing import FakeClock

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


class Application:
    """The same code again and again, as deployments bring it; `fails` decides what its handler does."""

    def __init__(self, folder: Path, clock: FakeClock) -> None:
        self.fails = False
        self.seen: list[tuple[int, float | None]] = []
        self._folder = folder
        self._clock = clock

    def deploy(self, cron: str = "*/10 * * * *", **options: object) -> JobManager:
        jobs = JobManager(Settings(database_url=f"sqlite:///{self._folder}/jobs.db"), clock=self._clock)

        def work(context: RunContext, days: int = 30) -> int:
            self.seen.append((days, context.job.timeout and context.job.timeout.total_seconds()))
            if self.fails:
                raise OSError("no")
            return days

        jobs.add_job("work", work, cron=cron, config={"days": 7}, **options)  # type: ignore[arg-type]
        return jobs


@pytest.fixture
def application(tmp_path: Path, clock: FakeClock) -> Application:
    return Application(tmp_path, clock)


@pytest.fixture
def jobs(application: Application) -> Iterator[JobManager]:
    manager = application.deploy()
    manager.start()
    yield manager
    manager.stop()


def instants(jobs: JobManager, *statuses: str) -> list[datetime]:
    runs = jobs.runs("work", statuses or None, limit=1000)
    return sorted(run.scheduled_for for run in runs if run.scheduled_for)


# ---------------------------------------------------------------- overrides


def test_an_override_changes_schedule_config_and_policies_at_once_and_fires_nothing(
    jobs: JobManager, clock: FakeClock, application: Application
) -> None:
    clock.advance(minutes=15)
    jobs.override_job("work", cron="0 * * * *", config={"days": 90}, timeout=5, by="ana")
    fired = len(jobs.runs("work"))
    clock.advance(hours=2)

    assert fired == 1
    assert instants(jobs) == [START + timedelta(minutes=minutes) for minutes in (10, 60, 120)]
    assert application.seen == [(7, None), (90, 5.0), (90, 5.0)]


def test_who_overrode_a_job_is_kept_and_so_is_who_gave_it_back(jobs: JobManager, clock: FakeClock) -> None:
    """Fails if `by` of override_job or reset_job is dropped."""

    def overridden() -> tuple[str | None, datetime | None]:
        row = jobs.store.jobs.get("work")
        assert row is not None
        return row.override_by, row.override_at

    assert overridden() == (None, None)
    jobs.override_job("work", timeout=5, by="ana")
    first = clock.now()
    assert overridden() == ("ana", first)
    clock.advance(seconds=1)
    jobs.override_job("work", timeout=5, by="ben")  # it is so already
    assert overridden() == ("ana", first)
    jobs.reset_job("work", by="cem")
    assert overridden() == ("cem", clock.now())


def test_a_deployment_never_overwrites_an_override_and_reset_gives_the_code_the_word(
    jobs: JobManager, clock: FakeClock, application: Application
) -> None:
    jobs.override_job("work", timezone="Asia/Kathmandu", cron="0 9 * * *")
    jobs.stop()
    again = application.deploy(cron="*/5 * * * *")
    assert [(change.action, change.detail) for change in again.sync(plan=True)] == []
    again.start()
    clock.advance(days=1)
    overridden = instants(again)
    again.reset_job("work")
    clock.advance(minutes=11)
    again.stop()

    assert overridden == [datetime(2026, 3, 2, 3, 15, tzinfo=UTC)]
    assert instants(again)[1:] == [START + timedelta(days=1, minutes=minutes) for minutes in (5, 10)]


def test_overrides_add_up_and_other_processes_follow(
    jobs: JobManager, clock: FakeClock, application: Application
) -> None:
    other = application.deploy()
    other.start()
    other.override_job("work", max_attempts=3)
    other.override_job("work", overlap="queue")
    clock.advance()
    row = jobs.store.jobs.get("work")

    assert row is not None
    assert row.override == {"max_attempts": 3, "overlap": "queue"}
    assert (row.max_attempts, row.overlap) == (3, "queue")
    assert jobs.registry.job("work").retry == Retry(max_attempts=3)
    assert jobs.registry.job("work").overlap == "queue"
    other.stop()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ({"corn": "* * * * *"}, ConfigurationError),
        ({"cron": "61 * * * *"}, CronError),
        ({"cron": "* * * * *", "every": 5}, ConfigurationError),
        ({"timezone": "Mars/Olympus"}, CronError),
        ({"overlap": "sometimes"}, ConfigurationError),
        ({"config": {"x": object()}}, ConfigurationError),
    ],
)
def test_an_override_that_cannot_be_meant_changes_nothing(
    jobs: JobManager, words: dict[str, object], error: type[Exception]
) -> None:
    before = jobs.store.jobs.get("work")
    with pytest.raises(error):
        jobs.override_job("work", **words)
    assert jobs.store.jobs.get("work") == before


# ---------------------------------------------------------------- backfill and dead letters


def test_backfill_says_first_and_then_makes_up_what_did_not_succeed(
    jobs: JobManager, clock: FakeClock, application: Application
) -> None:
    clock.advance(minutes=10)
    application.fails = True
    clock.advance(minutes=10)
    application.fails = False
    jobs.stop_job("work")
    clock.advance(minutes=20)
    jobs.resume_job("work")
    clock.advance(minutes=25)
    since, until = START - timedelta(minutes=20), START + timedelta(hours=1)
    planned = jobs.backfill("work", since, until, dry_run=True)
    untouched = len(jobs.runs("work"))
    done = jobs.backfill("work", since, until, by="ana")

    assert [item.action for item in planned] == [
        "open",  # before the job existed
        "open",
        "done",
        "redrive",  # failed
        "folded",  # the pause is one row
        "folded",
        "done",
        "done",
    ]
    assert untouched == 5
    assert [item.action for item in done] == [item.action for item in planned]
    made_up = [jobs.run(item.run_id or "") for item in done if item.action in ("open", "redrive")]
    assert {run.status for run in made_up} == {RunStatus.SUCCEEDED}
    assert [run.requested_by for run in made_up] == ["ana", "ana", None]
    clock.advance()
    assert sum(run.ticks for run in jobs.runs("work", limit=100) if run.trigger != "backfill") == 6


def test_backfill_refuses_what_it_cannot_do(jobs: JobManager) -> None:
    jobs.add_job("by-hand", lambda: None)
    jobs.sync()
    for job_id, since in (("by-hand", START - timedelta(hours=1)), ("work", START - timedelta(days=90))):
        with pytest.raises(ConfigurationError):
            jobs.backfill(job_id, since, START)


def test_dead_letters_are_listed_until_they_are_redriven_or_discarded(
    jobs: JobManager, clock: FakeClock, application: Application
) -> None:
    application.fails = True
    clock.advance(minutes=30)
    dead = jobs.dead_letters("work")
    discarded = jobs.discard(dead[0].id)
    application.fails = False
    redriven = jobs.redrive_all("work")

    assert len(dead) == 3
    assert discarded.status is RunStatus.FAILED
    assert discarded.discarded_at == clock.now()
    assert jobs.dead_letters() == []
    assert [jobs.run(run.id).status for run in redriven] == [RunStatus.SUCCEEDED] * 2
    assert [run.scheduled_for for run in redriven] == instants(jobs)[:2]


def test_a_disabled_job_is_neither_backfilled_nor_redriven(
    jobs: JobManager, clock: FakeClock, application: Application
) -> None:
    application.fails = True
    clock.advance(minutes=10)
    jobs.stop()
    gone = application.deploy(enabled_when=False)
    gone.start()

    with pytest.raises(JobDisabledError):
        gone.backfill("work", START - timedelta(hours=1), START)
    assert gone.redrive_all() == []
    assert len(gone.dead_letters()) == 1
    gone.stop()


# ---------------------------------------------------------------- retention and liveness


def test_retention_by_age_and_by_rows_per_job(clock: FakeClock, tmp_path: Path) -> None:
    jobs = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db", retention_days=2), clock=clock)
    jobs.add_job("plain", lambda: None, every=3600)
    jobs.add_job("short", lambda: None, every=3600, retention=3600 * 5)
    jobs.add_job("few", lambda: None, every=3600, keep_runs=3)
    jobs.start()
    clock.advance(days=4)
    clock.advance(hours=1)

    counts = {job_id: len(jobs.runs(job_id, limit=1000)) for job_id in ("plain", "short", "few")}
    assert 48 <= counts["plain"] <= 50
    assert 5 <= counts["short"] <= 6
    assert counts["few"] == 3
    assert jobs.get_job_metrics().last_cleanup is not None
    clock.advance(hours=3)
    assert len(jobs.runs("plain", "succeeded", limit=1000)) == counts["plain"]
    jobs.stop()


def test_failed_and_missed_runs_are_kept_longer_and_of_too_many_or_too_large_the_oldest_go(
    clock: FakeClock, tmp_path: Path
) -> None:
    def work() -> None:
        if clock.now().hour % 2:
            raise ValueError("odd hours")

    settings = {"database_url": f"sqlite:///{tmp_path}/jobs.db", "retention_days_succeeded": 1}
    jobs = JobManager(Settings(**settings, retention_days=3), clock=clock)
    jobs.add_job("work", work, every=3600)
    open_one = jobs.trigger_job("work", delay=timedelta(days=300), scope="later")
    jobs.start()
    clock.advance(days=4)
    clock.advance(hours=1)

    def count(*statuses: str) -> int:
        return len(jobs.runs("work", statuses or None, limit=1000))

    assert 12 <= count("succeeded") <= 13
    assert 36 <= count("failed") <= 37
    assert jobs.purge(older_than=timedelta(hours=12), dry_run=True) == count("succeeded", "failed") - 13
    assert jobs.purge(dry_run=True) == 0
    jobs.stop()

    few = JobManager(Settings(**settings, retention_days=3, max_runs=10), clock=clock)
    few.add_job("work", work, every=3600)
    before = count()
    assert few.purge(dry_run=True) == before - 11
    assert few.purge() == before - 11
    assert count() == 11  # the newest ten, and the open one, which was opened before them all
    assert few.run(open_one.id).status == "pending"
    assert few.purge() == 0
    few.stop()

    small = JobManager(Settings(**settings, retention_days=3, retention_max_bytes=1), clock=clock)
    small.add_job("work", work, every=3600)
    assert small.purge() == 9  # the newest tick is not accounted for yet
    assert small.run(open_one.id).status == "pending"
    small.stop()


def test_a_living_process_tells_its_last_tick_and_how_late_it_was(jobs: JobManager, clock: FakeClock) -> None:
    clock.advance(minutes=10)

    (instance,) = jobs.store.processes.living()
    assert (instance.last_tick_at, instance.lag_seconds) == (START + timedelta(minutes=10), 0.0)


def test_a_job_declared_after_the_first_use_can_be_started_by_hand() -> None:
    jobs = JobManager(Settings(database_url="memory://", backend="noop"))
    jobs.add_job("first", lambda: 1)
    assert jobs.trigger_job("first").output == 1

    jobs.add_job("second", lambda: 2)

    assert jobs.trigger_job("second").output == 2


def test_a_scheduled_job_that_could_never_be_called_is_refused_at_start() -> None:
    jobs = JobManager(Settings(database_url="memory://"), clock=FakeClock(START))
    jobs.add_job("by-hand", lambda days: days)
    jobs.check()
    jobs.add_job("every-day", lambda days: days, cron="0 2 * * *")

    with pytest.raises(ConfigurationError, match=r"'every-day'.*needs days"):
        jobs.start()


def test_what_cannot_be_called_is_no_handler() -> None:
    jobs = JobManager(Settings(database_url="memory://"))

    with pytest.raises(ConfigurationError, match="'x' is 5, which cannot be called"):
        jobs.add_job("x", 5)  # type: ignore[arg-type]


def test_an_error_about_something_unknown_carries_its_id(jobs: JobManager) -> None:
    with pytest.raises(JobNotFoundError) as no_job:
        jobs.trigger_job("wurk")
    with pytest.raises(RunNotFoundError) as no_run:
        jobs.run("nonsense")

    assert (no_job.value.job_id, no_run.value.run_id) == ("wurk", "nonsense")
