"""A pause and the ticks that were due and on time, but not opened yet, when it began."""

from datetime import UTC, datetime, timedelta

from jobmanager import JobManager, Settings
from jobmanager.testing import FakeClock


def test_ticks_that_a_pause_overtakes_are_skipped_as_paused_in_one_growing_row():
    clock = FakeClock(datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC))
    jobs = JobManager(Settings(backend="local", database_url="memory://"), clock=clock)
    jobs.job("heartbeat", every=10)(lambda: None)
    jobs.sync()
    clock.advance(seconds=30)  # nobody was started, so nobody opened 12:00:10, :20 and :30

    jobs.stop_job("heartbeat")
    clock.advance(seconds=30)
    jobs.resume_job("heartbeat")

    [row] = jobs.runs("heartbeat")
    assert (row.status, row.reason, row.ticks) == ("skipped", "paused", 6)
    assert row.scheduled_for - row.first_for == timedelta(seconds=50)


def test_ticks_that_disabling_overtakes_are_skipped_as_disabled():
    clock = FakeClock(datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC))
    jobs = JobManager(Settings(backend="local", database_url="memory://"), clock=clock)
    jobs.job("heartbeat", every=10)(lambda: None)
    jobs.sync()
    clock.advance(seconds=10)

    jobs._assembly.account.change("heartbeat", state="disabled", by="ana")

    assert [(run.status, run.reason) for run in jobs.runs("heartbeat")] == [("skipped", "disabled")]
