"""The jobs of real APScheduler schedulers, not started, and a remark where the meaning changes."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.base import BaseScheduler
from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from jobmanager import JobManager, Settings
from jobmanager.bridge import apscheduler as bridge

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)


def work(n: int = 1):
    """Anything."""


class Mailer:
    def send(self):
        """Anything."""


def one(trigger=None, function=work, *, zone="UTC", **options):
    scheduler = BackgroundScheduler(timezone=zone)
    scheduler.add_job(function, trigger, **{"id": "job", **options})
    (brought,) = bridge.bring(scheduler, NOW)
    return brought


def told(brought):
    return "\n".join(f"{remark.mark}: {remark.text}" for remark in brought.remarks)


def job_of(brought):
    jobs = JobManager(Settings(database_url="memory://"))
    exec(brought.source, {"jobs": jobs, "datetime": datetime})  # noqa: S102 - what we printed is what is pasted
    return jobs.registry.job(brought.job_id)


def test_a_cron_job_carries_over_with_its_arguments_and_lateness():
    brought = one("cron", day_of_week="mon-fri", hour=9, args=[3], misfire_grace_time=120)

    job = job_of(brought)
    assert brought.unchanged
    assert job.schedule.text == "cron 0 9 * * MON-FRI in UTC"
    assert (job.config, job.start_deadline, job.catch_up) == ({"n": 3}, timedelta(seconds=120), "latest")
    assert f'"{work.__module__}:work"' in brought.source


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"hour": "8-18/2", "minute": "5/20"}, "5/20 8-18/2 * * *"),
        ({"second": "*/10"}, "*/10 * * * * *"),
        ({"second": 30, "minute": 5}, "30 5 * * * *"),
        ({"day": "last", "hour": 6}, "0 6 L * *"),
        ({"day": "1,last", "hour": 6}, "0 6 1,L * *"),
        ({"day": "1st mon, last fri", "hour": 6}, "0 6 * * MON#1,FRIL"),
        ({"day": "1-7", "day_of_week": "mon", "hour": 6}, "0 6 * * MON#1"),
        ({"month": "jan-mar,dec", "day": 1}, "0 0 1 jan-mar,dec *"),
        ({"day_of_week": "sat,sun", "hour": 6}, "0 6 * * SAT,SUN"),
        ({"day_of_week": "fri-sun", "hour": 6}, "0 6 * * FRI-SUN"),
    ],
)
def test_a_cron_trigger_that_can_be_said_is_said_exactly(fields, line):
    brought = one("cron", **fields)

    assert brought.unchanged, told(brought)
    assert job_of(brought).schedule.text == f"cron {line} in UTC"


@pytest.mark.parametrize(
    ("numbers", "names"), [("0", "MON"), ("0-4", "MON-FRI"), ("6", "SUN"), ("*/2", "MON,WED,FRI,SUN")]
)
def test_weekday_numbers_become_names_and_are_flagged(numbers, names):
    brought = one(CronTrigger.from_crontab(f"0 9 * * {numbers}", timezone="UTC"))

    assert f'cron="0 9 * * {names}"' in brought.source
    assert f"manual: day_of_week={numbers!r} counts from Monday = 0 there" in told(brought)
    assert "same: it fires at the same instants" in told(brought)


def test_both_day_fields_that_no_line_can_say_are_flagged_with_the_first_date():
    brought = one("cron", day=13, day_of_week="fri", hour=6)

    assert 'cron="0 6 13 * *"' in brought.source
    assert "manual: there a date has to fit both" in told(brought)
    assert "first on Mon 2026-04-13: 06:00 UTC only here." in told(brought)


@pytest.mark.parametrize("field", ["year", "week"])
def test_fields_that_a_line_does_not_have_are_flagged(field):
    value = {"year": 2027, "week": 5}[field]
    brought = one("cron", hour=1, **{field: value})

    assert f"manual: there is no field for {field}='{value}'" in told(brought)
    assert "changed: it fires at other times" in told(brought)


@pytest.mark.parametrize(
    ("hour", "minute", "says"),
    [
        (2, 30, "first on Sun 2026-03-29: 03:30 CEST only there; 03:00 CEST only here."),
        (0, 0, "first on Mon 2026-03-30: 00:00 CEST only here."),  # APScheduler skips the day after
    ],
)
def test_clock_changes_are_flagged(hour, minute, says):
    brought = one("cron", hour=hour, minute=minute, zone="Europe/Berlin")

    assert f"changed: when clocks change it fires at other times, {says}" in told(brought)


def test_the_scheduler_s_zone_is_the_job_s():
    brought = one("cron", hour=12, zone="Europe/Berlin")

    assert brought.unchanged
    assert job_of(brought).schedule.timezone == "Europe/Berlin"


def test_an_offset_is_no_zone():
    brought = one("cron", hour=12, zone=timezone(timedelta(hours=2)))

    assert (brought.source, told(brought)) == ("", "manual: its zone UTC+02:00 has no IANA name: choose one.")


@pytest.mark.parametrize(
    ("interval", "anchor", "when"),
    [
        ({"minutes": 5}, "03:30:00", "every 300s"),
        ({"minutes": 5}, "03:32:00", "cron 2-59/5 * * * * in UTC"),
        ({"minutes": 5}, "03:32:10", "cron 10 2-59/5 * * * * in UTC"),
        ({"hours": 6}, "03:30:00", "cron 30 3-23/6 * * * in UTC"),
        ({"days": 1}, "03:30:00", "cron 30 3 * * * in UTC"),
        ({"weeks": 1}, "03:30:00", "cron 30 3 * * THU in UTC"),
    ],
)
def test_an_interval_keeps_its_anchor(interval, anchor, when):
    start = datetime.fromisoformat(f"2026-01-01T{anchor}+00:00")
    brought = one("interval", start_date=start, **interval)

    assert brought.unchanged, told(brought)
    assert job_of(brought).schedule.text == when


@pytest.mark.parametrize("interval", [{"hours": 7}, {"minutes": 90, "seconds": 1}, {"days": 2}])
def test_an_anchor_that_cannot_be_said_is_flagged(interval):
    brought = one("interval", start_date=datetime(2026, 1, 1, 3, 30, tzinfo=UTC), **interval)

    assert "changed: it counts from 2026-01-01 03:30:00 UTC" in told(brought)
    assert "changed: it fires at other times" in told(brought)


def test_an_interval_without_a_start_is_flagged():
    brought = one("interval", minutes=5)

    assert job_of(brought).schedule.text == "every 300s"
    assert "changed: it names no start_date" in told(brought)


def test_a_date_is_one_moment():
    brought = one("date", run_date=datetime(2027, 7, 1, 3, 30), zone="Europe/Berlin")

    assert brought.unchanged
    assert job_of(brought).schedule.text == "at 2027-07-01T01:30:00Z"
    assert "it lies in the past" in told(one("date", run_date=datetime(2025, 1, 1)))


def test_bounds_are_flagged():
    brought = one("cron", hour=1, start_date="2030-01-01", end_date="2031-01-01")

    assert "manual: it does not fire before 2030-01-01" in told(brought)
    assert "manual: it ends on 2031-01-01" in told(brought)
    assert "same: it fires at the same instants" in told(brought)
    assert one("cron", hour=1, start_date="2020-01-01").unchanged


def test_jitter_stays():
    brought = one("cron", hour=1, jitter=30)

    assert brought.unchanged
    assert job_of(brought).jitter == timedelta(seconds=30)


def test_policies_become_ours():
    job = job_of(one("cron", hour=1, coalesce=False, misfire_grace_time=7200))
    lenient = one("cron", hour=1, misfire_grace_time=None)
    crowded = one("cron", hour=1, max_instances=3)

    assert (job.catch_up, job.start_deadline, job.catch_up_window) == (
        "all",
        timedelta(hours=2),
        timedelta(hours=2),
    )
    assert job.overlap == "skip"
    assert job_of(one("cron", hour=1)).start_deadline == timedelta(seconds=1)
    assert "changed: it ran however late it was" in told(lenient)
    assert job_of(lenient).start_deadline is None
    assert "changed: max_instances=3" in told(crowded)
    assert job_of(crowded).overlap == "allow"


def test_the_scheduler_s_own_defaults_are_taken():
    scheduler = BackgroundScheduler(
        timezone="UTC", job_defaults={"misfire_grace_time": 50, "coalesce": False}
    )
    scheduler.add_job(work, "cron", hour=1, id="job")
    (brought,) = bridge.bring(scheduler, NOW)

    assert (job_of(brought).start_deadline, job_of(brought).catch_up) == (timedelta(seconds=50), "all")


def test_what_a_job_cannot_say_is_flagged():
    assert "it is paused there" in told(one("cron", hour=1, next_run_time=None))
    assert job_of(one("cron", hour=1, next_run_time=None)).enabled_when is False
    assert "next_run_time=2026-02-01" in told(one("cron", hour=1, next_run_time=datetime(2026, 2, 1)))
    assert "executor 'processes'" in told(one("cron", hour=1, executor="processes"))
    either = one(OrTrigger([IntervalTrigger(minutes=1)]))
    assert (either.source, told(either)) == (
        "",
        "manual: OrTrigger has no equivalent: write what it means as one job or several.",
    )
    assert "An interval is at least 1 s and whole seconds" in told(
        one("interval", seconds=1.5, start_date="2026-01-01")
    )


@pytest.mark.parametrize(
    ("function", "says"),
    [(lambda: None, "no module names <lambda>"), (Mailer().send, "no module names Mailer.send")],
)
def test_a_function_that_cannot_be_named_is_flagged(function, says):
    assert f"{says}" in told(one("cron", function, hour=1))


class Own(CronTrigger):
    pass


def test_a_trigger_of_one_s_own_is_not_taken_for_its_parent():
    assert told(one(Own(hour=1, timezone="UTC"))).startswith("manual: Own has no equivalent")


class Caller:
    def __call__(self):
        """Anything."""


def test_a_callable_object_does_not_stop_the_others():
    scheduler = BackgroundScheduler(timezone="UTC")
    scheduler.add_job(Caller(), "cron", hour=1, id="odd", name="odd")
    scheduler.add_job(work, "cron", hour=1, id="good")

    odd, good = bridge.bring(scheduler, NOW)
    assert "manual: no module names odd" in told(odd)
    assert good.unchanged


def test_arguments_that_do_not_fit_are_flagged():
    brought = one("cron", hour=1, args=["many"])

    assert "manual: its arguments do not fit: Handler 'work' refuses n='many'" in told(brought)


def test_an_id_that_was_made_up_gives_way_to_the_function_s_name():
    scheduler = BackgroundScheduler(timezone="UTC")
    scheduler.add_job(work, "cron", hour=1)
    scheduler.add_job(work, "cron", hour=2)

    assert [brought.job_id for brought in bridge.bring(scheduler, NOW)] == ["work", "work-2"]


@pytest.mark.parametrize("kind", [BackgroundScheduler, BlockingScheduler])
def test_a_scheduler_that_is_held_does_not_start(kind, tmp_path):
    store = {"type": "sqlalchemy", "url": f"sqlite:///{tmp_path}/jobs.db"}
    start = BaseScheduler.start
    with bridge.held():
        scheduler = kind(timezone="UTC", jobstores={"default": store})
        scheduler.add_job(work, "cron", hour=1)
        scheduler.start()

    assert len(bridge.bring(scheduler, NOW)) == 1
    assert not scheduler.running
    assert not list(tmp_path.iterdir())
    assert BaseScheduler.start is start
