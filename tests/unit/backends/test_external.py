"""The external backend: what it refuses, and what it says of itself."""

from datetime import UTC, datetime, timedelta

import pytest

from jobmanager import Cron, JobManager, Settings
from jobmanager.backends.external import ExternalBackend
from jobmanager.doctor import examine
from jobmanager.errors import UnsupportedError
from jobmanager.explain import explain
from jobmanager.testing import FakeClock

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
SECRET = "k3JhWq0PzR7vXn5LsT1yBm9cDf4gHj2A"


def manager(**settings):
    given = {"database_url": "memory://", "secret": SECRET, **settings}
    return JobManager(Settings(backend="external", **given), clock=FakeClock(NOON))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"every": 30},
            "A ticker calls once a minute, and 'every 30s' asks for every 30 s. Choose an interval of 60 s or more",
        ),
        ({"cron": "*/10 * * * * *"}, "A ticker calls once a minute"),
        (
            {"cron": "30 0 2 * * *"},
            "A ticker calls at full minutes, and 'cron 30 0 2 * * * in UTC' asks for second 30. Write '0 2 * * *'",
        ),
        (
            {"cron": "0 2 * * *", "jitter": 60},
            "jitter=60 would let the run wait for a second call. Leave jitter out",
        ),
    ],
)
def test_what_a_clock_outside_cannot_keep_is_refused_when_it_is_declared(options, sentence):
    """Fails if a job is accepted whose instants no call would open."""
    jobs = manager()
    with pytest.raises(UnsupportedError) as refused:
        jobs.add_job("work", lambda: None, **options)
    assert "Job 'work': backend 'external' cannot keep its time. " in str(refused.value)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    "options",
    [
        {"every": 60},
        {"cron": "0 2 * * *", "timezone": "Europe/Berlin"},
        {"at": NOON + timedelta(seconds=7)},
    ],
)
def test_full_minutes_zones_and_single_moments_are_kept(options):
    """Fails if more is refused than has to be."""
    jobs = manager()
    jobs.add_job("work", lambda: None, **options)
    jobs.start()
    (entry,) = jobs.backend.entries()
    assert (entry.job_id, entry.next_due_at) == ("work", jobs.registry.jobs["work"].schedule.next_after(NOON))
    assert jobs.backend.health().ok
    jobs.stop()
    assert not jobs.backend.health().ok


def test_entries_show_what_is_due_next_also_after_calls():
    """Fails if an instant that has passed is shown as the next one."""
    clock = FakeClock(NOON)
    jobs = JobManager(Settings(backend="external", database_url="memory://"), clock=clock)
    jobs.add_job("work", lambda: None, cron="0 * * * *")
    with jobs:
        clock.step(timedelta(hours=3, minutes=1))
        (entry,) = jobs.backend.entries()
    assert entry.next_due_at == NOON + timedelta(hours=4)


def test_a_ticker_inside_the_process_brings_all_that_is_due():
    """Fails if ring() needs a call for each job, or opens an instant twice."""
    clock, ran = FakeClock(NOON), []
    jobs = JobManager(Settings(backend="external", database_url="memory://"), clock=clock)
    for name in ("a", "b"):
        jobs.add_job(name, lambda context: ran.append(context.job.id), cron="0 * * * *")
    backend = jobs.backend
    assert isinstance(backend, ExternalBackend)
    with jobs:
        clock.step(timedelta(hours=1))
        backend.ring()
        backend.ring()
    clock.step(timedelta(hours=1))
    backend.ring()
    assert sorted(ran) == ["a", "b"]


@pytest.mark.parametrize(
    ("secret", "level", "text"),
    [
        (None, "failing", "JOBMANAGER_SECRET is not set: the endpoint refuses every ticker"),
        (SECRET, "note", "an outside clock has to call"),
    ],
)
def test_doctor_says_whether_a_ticker_can_call(secret, level, text):
    """Fails if an application that refuses every call is well."""
    jobs = manager(secret=secret)
    jobs.add_job("work", lambda: None, cron="0 * * * *")
    (found,) = [one for one in examine(jobs) if one.level == level and text in one.text]
    assert bool(found.fix) == (level == "failing")


def test_where_a_call_starts_the_process_none_has_to_live(tmp_path):
    """Fails if doctor or explain ask for a process on a host that starts one for each call."""
    jobs = JobManager(
        Settings(backend="external", database_url=f"sqlite:///{tmp_path}/jobs.db", secret=SECRET, wait=True)
    )
    jobs.add_job("work", lambda: None, cron="0 2 * * *")
    jobs.sync()
    tomorrow = Cron("0 2 * * *").next_after(datetime.now(UTC))
    assert tomorrow is not None

    explained = explain(jobs, "work", tomorrow)

    assert (explained.verdict, explained.cause) == ("will_run", "as_planned")
    assert "each waits for a call" in explained.because
    assert [one.text for one in examine(jobs) if one.check == "processes"] == [
        "no process lives; with JOBMANAGER_WAIT the next call starts one"
    ]
    jobs.store.close()
