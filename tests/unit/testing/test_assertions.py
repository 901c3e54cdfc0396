"""The assertion helpers: silent when it is so, with the record in the text when it is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from jobmanager import JobManager, Retry
from jobmanager.testing import (
    FakeClock,
    assert_fired,
    assert_fired_as_planned,
    assert_no_runs,
    assert_ran,
    assert_triggered,
    new_runs,
    run_due,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def jobs(jobmanager: JobManager) -> JobManager:
    jobmanager.add_job("hourly", lambda: "done", cron="0 * * * *")
    jobmanager.add_job("mail", lambda to: to)

    @jobmanager.job("broken")
    def broken() -> None:
        raise LookupError("no such row")

    return jobmanager.start()


def test_what_ran_is_answered_oldest_first(jobs: JobManager, jobmanager_clock: FakeClock) -> None:
    jobmanager_clock.advance(hours=3)

    runs = assert_ran(jobs, "hourly", times=3)

    assert [run.scheduled_for for run in runs] == [START + HOUR, START + 2 * HOUR, START + 3 * HOUR]
    assert assert_ran(jobs, "hourly") == runs


def test_what_did_not_run_is_said_with_the_record(jobs: JobManager, jobmanager_clock: FakeClock) -> None:
    jobs.trigger_job("broken")
    jobmanager_clock.advance(hours=25)

    with pytest.raises(AssertionError) as never:
        assert_ran(jobs, "broken")
    with pytest.raises(AssertionError) as twice:
        assert_ran(jobs, "hourly", times=2)
    with pytest.raises(
        AssertionError, match=r"'mail' succeeded never, expected once\.\n  Nothing is on record\."
    ):
        assert_ran(jobs, "mail", times=1)

    assert str(never.value) == (
        "Job 'broken' succeeded never, expected at least once.\n"
        "  On record:\n"
        "  broken manual at 2026-01-01T00:00:00+00:00: failed: no such row"
    )
    lines = str(twice.value).splitlines()
    assert lines[0] == "Job 'hourly' succeeded 25 times, expected twice."
    assert lines[2] == "  ... 5 older ones"
    assert lines[-1] == "  hourly schedule for 2026-01-02T01:00:00+00:00: succeeded"
    assert len(lines) == 23
    assert_ran(jobs, "broken", status="failed", times=1)


def test_no_runs_means_nothing_on_record(jobs: JobManager, jobmanager_clock: FakeClock) -> None:
    assert_no_runs(jobs)
    jobs.stop_job("hourly")
    jobmanager_clock.advance(hours=2)

    assert_no_runs(jobs, "mail")
    with pytest.raises(AssertionError, match=r"No run of any job .* there are 1\.\n.*\n.*skipped \(paused\)"):
        assert_no_runs(jobs)
    with pytest.raises(AssertionError, match="No run of job 'hourly'"):
        assert_no_runs(jobs, "hourly")


def test_starts_by_hand_are_told_by_their_payload(jobs: JobManager, jobmanager_clock: FakeClock) -> None:
    jobs.trigger_job("mail", {"to": "ana"})
    jobs.trigger_job("mail", {"to": "bo"})
    jobmanager_clock.advance(hours=1)

    [run] = assert_triggered(jobs, "mail", payload={"to": "bo"})

    assert run.output == "bo"
    assert_triggered(jobs, "mail", times=2)
    assert_triggered(jobs, "hourly", times=0)
    with pytest.raises(AssertionError, match=r"with payload \{'to': 'cy'\} never, expected once.*") as wrong:
        assert_triggered(jobs, "mail", payload={"to": "cy"})
    assert "{'to': 'bo'}: succeeded" in str(wrong.value)


def test_a_block_is_judged_by_its_own_runs(jobs: JobManager) -> None:
    jobs.trigger_job("mail", {"to": "before"})

    with new_runs(jobs) as runs:
        assert_no_runs(runs)
        jobs.trigger_job("mail", {"to": "ana"})

    assert_triggered(runs, "mail")
    assert_ran(runs, "mail", times=1)
    assert_no_runs(runs, "hourly")


def test_fired_instants_are_compared_one_by_one(jobs: JobManager, jobmanager_clock: FakeClock) -> None:
    jobmanager_clock.advance(hours=2)

    assert_fired(jobs, "hourly", [START + 2 * HOUR, START + HOUR])
    with pytest.raises(AssertionError) as wrong:
        assert_fired(jobs, "hourly", [START + HOUR, START + 3 * HOUR])
    assert str(wrong.value).splitlines()[:3] == [
        "Job 'hourly' did not fire as expected.",
        "  did not fire: 2026-01-01T03:00:00+00:00",
        "  fired unexpectedly: 2026-01-01T02:00:00+00:00",
    ]


def test_what_was_skipped_did_not_fire(jobs: JobManager, jobmanager_clock: FakeClock) -> None:
    jobs.stop_job("hourly")
    jobmanager_clock.advance(hours=2)

    assert_fired(jobs, "hourly", [])


def test_a_plan_that_was_kept_and_one_that_was_not(jobs: JobManager, jobmanager_clock: FakeClock) -> None:
    jobmanager_clock.advance(days=1)

    assert_fired_as_planned(jobs, START, jobmanager_clock.now())

    jobs.stop()
    jobmanager_clock.advance(hours=1)
    with pytest.raises(AssertionError, match="did not fire: hourly at 2026-01-02T01:00:00"):
        assert_fired_as_planned(jobs, START, jobmanager_clock.now())


def test_run_due_does_what_is_due_and_answers_it(jobs: JobManager, jobmanager_clock: FakeClock) -> None:
    assert run_due(jobs) == []
    jobmanager_clock.step(HOUR)

    assert [(run.job_id, run.output) for run in run_due(jobs)] == [("hourly", "done")]
    assert run_due(jobs) == []


@pytest.mark.jobmanager(backend="noop")
def test_run_due_takes_what_nobody_else_would(jobmanager: JobManager, jobmanager_clock: FakeClock) -> None:
    calls: list[int] = []

    @jobmanager.job("flaky", retry=Retry(max_attempts=2, delays=[60]))
    def flaky() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("not yet")
        return 7

    with jobmanager:
        jobmanager.trigger_job("flaky", delay=30)
        assert run_due(jobmanager) == []
        jobmanager_clock.advance(seconds=30)
        assert run_due(jobmanager) == []
        jobmanager_clock.advance(minutes=2)
        assert [run.output for run in run_due(jobmanager)] == [7]
