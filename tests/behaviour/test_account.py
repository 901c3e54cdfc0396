"""No silent tick: whatever happened, every instant the schedule demanded has its row."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobmanager import JobManager, RunStatus, Settings
from jobmanager.errors import JobDisabledError, TransitionError
from jobmanager.testing import FakeClock

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def jobs(clock: FakeClock, tmp_path: Path) -> Iterator[JobManager]:
    manager = another(clock, tmp_path)
    yield manager
    manager.stop()


def another(clock: FakeClock, tmp_path: Path) -> JobManager:
    """A manager as another process would have it: own connections, own instance, the same file."""
    manager = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db"), clock=clock)

    @manager.job("minutely", cron="* * * * *")
    def minutely() -> None: ...

    return manager


def minutes(count: int, first: int = 1) -> list[datetime]:
    return [START + timedelta(minutes=minute) for minute in range(first, first + count)]


def account(jobs: JobManager, job_id: str = "minutely") -> list[tuple[datetime | None, str, str | None, int]]:
    """(instant, status, reason, ticks) of every tick on record, in order."""
    rows = [run for run in jobs.runs(job_id, limit=10_000) if run.scheduled_for]
    return [
        (run.scheduled_for, str(run.status), run.reason, run.ticks)
        for run in sorted(rows, key=lambda run: run.scheduled_for or START)
    ]


def test_every_instant_on_time_is_one_succeeded_run(jobs: JobManager, clock: FakeClock) -> None:
    jobs.start()
    clock.advance(minutes=5)

    assert account(jobs) == [(instant, "succeeded", None, 1) for instant in minutes(5)]


def test_after_a_downtime_the_newest_instant_runs_and_the_others_are_missed(
    jobs: JobManager, clock: FakeClock, tmp_path: Path
) -> None:
    jobs.start()
    clock.advance(minutes=2)
    jobs.stop()
    clock.advance(minutes=10, seconds=30)
    later = another(clock, tmp_path)
    later.start()
    clock.advance(minutes=2)
    later.stop()

    # 12:11 is caught up, 12:12 was still on time at the start, 12:13 and 12:14 are the timetable's again.
    assert [(status, reason) for _, status, reason, _ in account(jobs)] == [
        *[("succeeded", None)] * 2,
        *[("missed", "downtime")] * 8,
        *[("succeeded", None)] * 4,
    ]
    caught_up = [run.scheduled_for for run in jobs.runs("minutely", limit=50) if run.trigger == "catch_up"]
    assert caught_up == [START + timedelta(minutes=11)]


def test_with_nothing_on_time_the_newest_hole_is_caught_up_inside_the_window(
    clock: FakeClock, tmp_path: Path
) -> None:
    def hourly(tmp_path: Path) -> JobManager:
        manager = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db"), clock=clock)

        @manager.job("hourly", cron="0 * * * *", catch_up_window=1800)
        def run() -> None: ...

        return manager

    first = hourly(tmp_path)
    first.start()
    first.stop()
    clock.advance(hours=3, minutes=20)
    second = hourly(tmp_path)
    second.start()
    clock.advance()
    second.stop()
    clock.advance(minutes=75)
    third = hourly(tmp_path)
    third.start()
    clock.advance()

    assert [(status, reason) for _, status, reason, _ in account(third, "hourly")] == [
        ("missed", "downtime"),
        ("missed", "downtime"),
        ("succeeded", None),  # 15:00 was 20 minutes ago, inside the window
        ("missed", "downtime"),  # 16:00 was 35 minutes ago
    ]
    assert third.runs("hourly", "succeeded")[0].trigger == "catch_up"
    third.stop()


def test_a_long_downtime_is_a_hundred_rows_and_one_for_all_older_instants(
    jobs: JobManager, clock: FakeClock, tmp_path: Path
) -> None:
    jobs.start()
    jobs.stop()
    clock.advance(days=2, seconds=30)
    later = another(clock, tmp_path)
    later.start()
    clock.advance()
    later.stop()

    rows = account(jobs)
    assert sum(ticks for *_, ticks in rows) == 2 * 24 * 60
    assert rows[0] == (rows[0][0], "missed", "downtime", 2 * 24 * 60 - 102)
    assert len(rows) == 1 + 100 + 2
    oldest = jobs.runs("minutely", "missed", limit=10_000)[-1]
    assert min(run.first_for for run in jobs.runs("minutely", limit=10_000) if run.first_for) == minutes(1)[0]
    assert oldest.status is RunStatus.MISSED


def test_a_pause_is_one_growing_row_and_resuming_makes_up_nothing(jobs: JobManager, clock: FakeClock) -> None:
    jobs.start()
    clock.advance(minutes=1)
    jobs.stop_job("minutely", reason="maintenance", by="ana")
    for _ in range(3):
        clock.advance(minutes=5)
    jobs.resume_job("minutely")
    clock.advance(minutes=2)

    assert account(jobs) == [
        (minutes(1)[0], "succeeded", None, 1),
        (START + timedelta(minutes=16), "skipped", "paused", 15),
        *[(instant, "succeeded", None, 1) for instant in minutes(2, first=17)],
    ]


def test_a_pause_whose_schedule_is_edited_is_a_row_per_schedule(
    jobs: JobManager, clock: FakeClock, tmp_path: Path
) -> None:
    jobs.start()
    jobs.stop_job("minutely")
    clock.advance(minutes=5)
    jobs.stop()
    edited = JobManager(jobs.settings, clock=clock)
    edited.add_job("minutely", lambda: None, cron="*/2 * * * *")
    with edited:
        clock.advance(minutes=5)
        edited.resume_job("minutely")

    assert account(jobs) == [
        (START + timedelta(minutes=5), "skipped", "paused", 5),
        (START + timedelta(minutes=10), "skipped", "paused", 3),
    ]


def test_a_pause_is_remembered_and_start_says_so(
    jobs: JobManager, clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jobs.start()
    jobs.stop_job("minutely", by="ana")
    jobs.stop()
    later = another(clock, tmp_path)
    with caplog.at_level(logging.WARNING):
        later.start()
    clock.advance(minutes=3)

    assert "job=minutely is paused since" in caplog.text
    assert "by ana" in caplog.text
    status = later.get_job_status("minutely")
    assert status is not None
    assert (status.status, status.next_run) == ("stopped", None)
    assert {status for _, status, _, _ in account(later)} <= {"skipped"}
    assert later.trigger_job("minutely").status is RunStatus.SUCCEEDED
    later.stop()


def test_another_process_learns_of_a_pause_and_a_resume(
    jobs: JobManager, clock: FakeClock, tmp_path: Path
) -> None:
    other = another(clock, tmp_path)
    jobs.start()
    other.start()
    other.stop_job("minutely")
    clock.advance(minutes=3)
    jobs.resume_job("minutely")
    clock.advance(minutes=3)
    other.stop()

    assert [(status, ticks) for _, status, _, ticks in account(jobs)] == [
        ("skipped", 3),
        *[("succeeded", 1)] * 3,
    ]


def test_editing_the_schedule_settles_the_old_rule_and_fires_nothing(
    clock: FakeClock, tmp_path: Path
) -> None:
    def with_cron(expression: str) -> JobManager:
        manager = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db"), clock=clock)

        @manager.job("edited", cron=expression)
        def run() -> None: ...

        return manager

    before = with_cron("*/10 * * * *")
    before.start()
    clock.advance(minutes=10)
    before.stop()
    clock.advance(minutes=25)
    after = with_cron("0 * * * *")
    after.start()
    fired_at_once = after.runs("edited", ["succeeded", "running", "pending"])
    clock.advance(minutes=30)
    after.stop()

    assert len(fired_at_once) == 1
    assert [(instant, status) for instant, status, _, _ in account(after, "edited")] == [
        (START + timedelta(minutes=10), "succeeded"),
        (START + timedelta(minutes=20), "missed"),
        (START + timedelta(minutes=30), "missed"),
        (START + timedelta(hours=1), "succeeded"),
    ]


def test_a_job_that_leaves_the_code_is_disabled_and_comes_back_without_a_flood(
    jobs: JobManager, clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jobs.start()
    clock.advance(minutes=1)
    jobs.stop()
    without = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db"), clock=clock)
    without.add_job("other", lambda: None)
    without.start()
    clock.advance(minutes=2)
    assert "job=minutely is declared by no living process" in caplog.text
    clock.advance(hours=1)
    without.stop()
    again = another(clock, tmp_path)
    again.start()
    clock.advance(minutes=1)
    again.stop()

    row = again.store.jobs.get("minutely")
    assert row is not None
    assert row.state == "active"
    statuses = [status for _, status, _, _ in account(again)]
    assert statuses.count("succeeded") == 2
    assert len(statuses) <= 4


def test_a_gate_that_is_closed_disables_the_job_and_opening_it_fires_nothing(
    clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gated() -> JobManager:
        manager = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db"), clock=clock)
        manager.add_job("billing", lambda: None, cron="* * * * *", enabled_when="BILLING_ENABLED")
        return manager

    closed = gated()
    closed.start()
    clock.advance(minutes=3)
    with pytest.raises(JobDisabledError):
        closed.trigger_job("billing")
    closed.stop()
    monkeypatch.setenv("BILLING_ENABLED", "true")
    opened = gated()
    opened.start()
    clock.advance(minutes=1)
    opened.stop()

    assert [(status, ticks) for _, status, _, ticks in account(opened, "billing")] == [("succeeded", 1)]


@pytest.mark.parametrize("jump", [timedelta(hours=1), timedelta(days=1)])
def test_a_clock_set_forward_catches_up_once_and_records_what_it_jumped_over(
    jobs: JobManager, clock: FakeClock, jump: timedelta
) -> None:
    jobs.start()
    clock.advance(minutes=2)
    clock.step(jump)
    clock.advance(minutes=2)

    rows = account(jobs)
    assert sum(ticks for *_, ticks in rows) == jump // timedelta(minutes=1) + 4
    assert [status for _, status, _, _ in rows].count("succeeded") == 2 + 1 + 2
    assert len({instant for instant, *_ in rows}) == len(rows)


def test_a_clock_set_back_repeats_nothing_and_goes_on_when_time_has_passed(
    jobs: JobManager, clock: FakeClock
) -> None:
    jobs.start()
    clock.advance(hours=1)
    clock.step(-timedelta(hours=1))
    clock.advance(minutes=30)
    assert len(account(jobs)) == 60
    clock.advance(minutes=35)

    rows = account(jobs)
    assert [instant for instant, *_ in rows] == minutes(65)
    assert {status for _, status, _, _ in rows} == {"succeeded"}


def test_a_start_by_hand_consumes_no_tick(jobs: JobManager, clock: FakeClock) -> None:
    jobs.start()
    clock.advance(seconds=30)
    by_hand = jobs.trigger_job("minutely")
    clock.advance(minutes=1)

    assert by_hand.scheduled_for is None
    assert account(jobs) == [(minutes(1)[0], "succeeded", None, 1)]


def test_a_failed_run_is_redriven_and_a_succeeded_one_is_not(clock: FakeClock, tmp_path: Path) -> None:
    jobs = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db"), clock=clock)
    broken = [True]

    @jobs.job("repaired", every=60)
    def repaired() -> str:
        if broken[0]:
            raise OSError("not yet")
        return "well"

    jobs.start()
    clock.advance(minutes=1)
    failed = jobs.runs("repaired")[0]
    broken[0] = False
    again = jobs.redrive(failed.id)

    assert failed.status is RunStatus.FAILED
    assert (again.id, again.status, again.attempt, again.output) == (
        failed.id,
        RunStatus.SUCCEEDED,
        2,
        "well",
    )
    assert [attempt.outcome for attempt in jobs.store.history.attempts(failed.id)] == ["failed"]
    with pytest.raises(TransitionError):
        jobs.redrive(failed.id)
    jobs.stop()


def test_simulate_tells_exactly_what_then_happens() -> None:
    start = datetime(2026, 3, 26, tzinfo=UTC)
    clock = FakeClock(start)
    jobs = JobManager(Settings(database_url="memory://", retention_days=90), clock=clock)
    jobs.add_job("hourly", lambda: None, cron="0 * * * *")

    @jobs.job("berlin", cron="30 2 * * *", timezone="Europe/Berlin")
    def berlin() -> None: ...

    jobs.start()
    until = start + timedelta(days=7)  # over the change to summer time
    planned = jobs.simulate(start, until)
    clock.advance_to(until)

    fired = [(run.scheduled_for, run.job_id) for run in jobs.runs(limit=100_000) if run.scheduled_for]
    assert [(item.scheduled_for, item.job_id) for item in planned] == sorted(fired)  # type: ignore[type-var]
    assert datetime(2026, 3, 29, 1, 0, tzinfo=UTC) in {instant for instant, job in fired if job == "berlin"}


def test_sync_says_what_would_change_and_then_changes_it(
    jobs: JobManager, clock: FakeClock, tmp_path: Path
) -> None:
    assert [(change.job_id, change.action) for change in jobs.sync(plan=True)] == [("minutely", "create")]
    jobs.sync()
    assert jobs.sync(plan=True) == []
    edited = JobManager(jobs.settings, clock=clock)
    edited.add_job("minutely", lambda: None, cron="*/2 * * * *")
    assert [(change.action, change.detail) for change in edited.sync(plan=True)] == [("update", "schedule")]


def test_a_year_of_seconds_is_settled_in_bites(
    clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobmanager.ledger.reconciliation.BITE", 10_000)

    def secondly() -> JobManager:
        manager = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db"), clock=clock)
        manager.add_job("secondly", lambda: None, every=1)
        return manager

    before = secondly()
    before.start()
    before.stop()
    clock.advance(hours=12)
    after = secondly()
    after.start()

    rows = after.runs("secondly", limit=1000)
    settled = [
        run for run in rows if run.scheduled_for and run.scheduled_for <= clock.now() - timedelta(seconds=60)
    ]
    assert sum(run.ticks for run in settled) == 12 * 3600 - 60
    assert len(settled) == 4 + 1 + 100 + 1  # bites, what was older in the last one, single rows, the catch-up
    after.stop()
