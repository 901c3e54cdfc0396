"""The entries of real Celery apps as jobs, and a remark where the meaning changes."""

import sys
from datetime import UTC, datetime, timedelta
from types import ModuleType

import pytest

pytest.importorskip("celery")

from celery import Celery
from celery.schedules import BaseSchedule, crontab, schedule, solar

from jobmanager import JobManager, Settings
from jobmanager.bridge import celery_beat

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)


@pytest.fixture
def shop(monkeypatch):
    """A module of an application in Berlin, with tasks, and a way to bring one entry over."""
    module = ModuleType("bridge_shop")
    monkeypatch.setitem(sys.modules, "bridge_shop", module)
    app = Celery("bridge_shop", broker="redis://nowhere.invalid:1", set_as_current=False)
    app.conf.timezone = "Europe/Berlin"

    def task(name, function, **options):
        function.__module__, function.__name__, function.__qualname__ = "bridge_shop", name, name
        setattr(module, name, app.task(function, name=f"bridge_shop.{name}", shared=False, **options))

    def report(days: int, kind: str = "pdf"):
        """Anything."""

    def bound(self, shop):
        """Anything."""

    def tidy():
        """Anything."""

    task("report", report)
    task("tidy", tidy)
    task("bound", bound, bind=True)
    task("retried", lambda: None, autoretry_for=(ValueError,), time_limit=5)
    task("contextual", lambda context: None)
    task("many", lambda *names: None)
    module.app = app
    return app


def bring(app, **entries):
    app.conf.beat_schedule = {
        name: entry if "task" in entry else {"task": "bridge_shop.tidy", **entry}
        for name, entry in entries.items()
    }
    return celery_beat.bring(celery_beat.of_app(app), NOW)


def one(app, when, **entry):
    (brought,) = bring(app, job={"schedule": when, **entry})
    return brought


def marks(brought):
    return {remark.mark for remark in brought.remarks}


def told(brought):
    return "\n".join(f"{remark.mark}: {remark.text}" for remark in brought.remarks)


def job_of(brought):
    jobs = JobManager(Settings(database_url="memory://"))
    exec(brought.source, {"jobs": jobs})  # noqa: S102 - what we printed is what is pasted
    return jobs.registry.job(brought.job_id)


def test_an_entry_becomes_a_job_with_zone_config_and_the_plain_function_of_its_task(shop):
    (brought,) = bring(
        shop,
        **{
            "Nightly report": {
                "task": "bridge_shop.report",
                "schedule": crontab(minute=0, hour=12),
                "args": (7,),
                "kwargs": {"kind": "csv"},
            }
        },
    )

    job = job_of(brought)
    assert brought.unchanged
    assert (job.id, job.name) == ("nightly-report", "Nightly report")
    assert job.schedule.text == "cron 0 12 * * * in Europe/Berlin"
    assert job.config == {"days": 7, "kind": "csv"}
    assert job.overlap == "allow"
    assert '"bridge_shop:report.run"' in brought.source


@pytest.mark.parametrize(
    ("when", "line"),
    [
        (crontab(minute="0", hour=9, day_of_week="monday,fri-sun"), "0 9 * * MON,FRI-SUN"),
        (crontab(minute=0, hour="22-2"), "0 0-2,22,23 * * *"),
        (crontab(minute=[0, 20, 40], hour={6, 7}, month_of_year="january"), "0,20,40 6,7 * JAN *"),
        (crontab(minute=0, hour=9, day_of_week="mon", day_of_month="1-7"), "0 9 * * MON#1"),
        (crontab(minute=0, hour=9, day_of_week="mon,tue", day_of_month="1-7,15-21"), "0 9 * * MON#1,MON#3,TUE#1,TUE#3"),
        (crontab(minute=0, hour=9, day_of_week="fri", day_of_month="*/2"), "0 9 */2 * fri"),
        (crontab(minute=0, hour="*/6", day_of_month="1, 15"), "0 */6 1,15 * *"),
    ],
)  # fmt: skip
def test_a_crontab_that_can_be_said_is_said_exactly(shop, when, line):
    shop.conf.timezone = "UTC"
    brought = one(shop, when)

    assert brought.unchanged, told(brought)
    assert job_of(brought).schedule.text == f"cron {line} in UTC"


def test_both_day_fields_that_no_line_can_say_are_flagged_with_the_first_date(shop):
    brought = one(shop, crontab(minute=0, hour=9, day_of_week="fri", day_of_month="13"))

    assert 'cron="0 9 13 * *"' in brought.source
    assert "manual: there a date has to fit both day of month and day of week" in told(brought)
    assert "leaves out the weekday (fri)" in told(brought)
    # 13 February 2026 is a Friday, 13 April a Monday: the first that only we fire.
    assert "changed: it fires at other times, first on Mon 2026-04-13: 09:00 CEST only here." in told(brought)


def test_the_rarer_of_two_day_fields_is_kept(shop):
    brought = one(shop, crontab(minute=0, hour=9, day_of_week="fri", day_of_month="1-20"))

    assert 'cron="0 9 * * fri"' in brought.source
    assert "leaves out the day of the month (1-20)" in told(brought)


def test_a_time_that_clocks_skip_is_flagged_with_both_times(shop):
    brought = one(shop, crontab(minute=30, hour=2))

    assert told(brought) == (
        "changed: when clocks change it fires at other times, "
        "first on Sun 2026-03-29: 03:30 CEST only there; 03:00 CEST only here."
    )


def test_the_hour_that_comes_twice_is_flagged(shop):
    assert "first on Sun 2026-10-25: 02:00 CET only here." in told(one(shop, crontab(minute=0)))


def test_in_utc_nothing_differs(shop):
    shop.conf.timezone = "UTC"
    brought = one(shop, crontab(minute=30, hour=2))

    assert brought.unchanged
    assert "timezone" not in brought.source


@pytest.mark.parametrize("when", [30.0, 30, timedelta(seconds=30), schedule(30)])
def test_an_interval_is_flagged_as_counted_from_elsewhere(shop, when):
    brought = one(shop, when)

    assert job_of(brought).schedule.text == "every 30s"
    assert told(brought) == (
        "changed: Celery counts from the last run and from beat's start, here from fixed instants, next 12:00:30 UTC."
    )


def test_a_relative_interval_is_compared(shop):
    assert one(shop, schedule(timedelta(hours=1), relative=True)).unchanged
    daily = one(shop, schedule(timedelta(days=1), relative=True))  # midnight in Berlin there, in UTC here
    assert "changed: it fires at other times, first on Fri 2026-01-16: 00:00 CET only there" in told(daily)
    assert "manual: relative" in told(one(shop, timedelta(hours=1), relative=True))


def test_the_sun_cannot_be_followed(shop):
    sunset = solar.__new__(solar)  # its constructor asks for a library that is not needed to say no
    sunset.event, sunset.lat, sunset.lon = "sunset", -37, 144
    brought = one(shop, sunset)

    assert (brought.source, marks(brought)) == ("", {"manual"})
    assert "sunset at -37, 144" in told(brought)


class Odd(BaseSchedule):
    pass


class Zoned(crontab):
    """As django-celery-beat's: it may have a zone of its own."""


@pytest.mark.parametrize(
    ("when", "says"),
    [
        (Odd(), "a schedule of the kind Odd is not known"),
        (Zoned(), "a schedule of the kind Zoned is not known"),
        (0.5, "An interval is at least 1 s"),
        (None, "the kind NoneType is not known"),
    ],
)
def test_a_schedule_that_cannot_be_carried_over_says_why_and_the_others_go_on(shop, when, says):
    bad, good = bring(shop, bad={"schedule": when}, good={"schedule": crontab(minute=0, hour=12)})

    assert bad.source == ""
    assert says in told(bad)
    assert good.unchanged


@pytest.mark.parametrize(
    "entry", ["text", {"schedule": 3}, {"task": "bridge_shop.tidy"}, {"task": 3, "schedule": 3}]
)
def test_what_is_no_entry_is_said(shop, entry):
    shop.conf.beat_schedule = {"bad": entry}
    (brought,) = celery_beat.bring(celery_beat.of_app(shop), NOW)

    assert "it is no entry" in told(brought)


def test_options_become_what_a_job_can_say_and_the_rest_is_flagged(shop):
    options = {"expires": 20, "queue": "fast", "priority": 3, "headers": {"a": 1}, "exchange": None}
    brought = one(shop, crontab(minute=0, hour=12), options=options)

    assert job_of(brought).start_deadline == timedelta(seconds=20)
    assert "queue" in brought.source + told(brought)
    assert "manual: priority=3: here the higher one goes first" in told(brought)
    assert "manual: headers={'a': 1} has no equivalent." in told(brought)
    assert "exchange" not in told(brought)
    assert "manual: expires=datetime" in told(one(shop, 30, options={"expires": NOW}))


def test_without_queues_a_queue_is_flagged(shop, monkeypatch):
    monkeypatch.setattr(celery_beat, "KNOWN_OPTIONS", celery_beat.KNOWN_OPTIONS - {"queue"})

    assert "manual: queue='fast'" in told(one(shop, 30, options={"queue": "fast"}))


@pytest.mark.parametrize(
    ("task", "arguments", "says"),
    [
        ("report", {"args": (1, 2, 3)}, "do not fit: too many positional arguments"),
        ("report", {"args": ("seven",)}, "refuses days='seven'"),
        ("report", {}, "missing a required argument: 'days'"),
        ("report", {"kwargs": {"days": 1, "kind": {1}}}, "refuses kind={1}"),
        ("many", {"args": ("a",)}, "names takes ('a',) by position"),
        ("contextual", {"kwargs": {"context": 1}}, "rename its parameter 'context'"),
        ("bound", {"args": ("berlin",)}, "it is bound"),
        ("retried", {}, "autoretry_for, time_limit of the task"),
        ("gone", {"args": (1,)}, "name its arguments [1] in config"),
        ("gone", {"kwargs": {"since": NOW}}, "is no JSON value"),
        ("gone", {}, "no task 'bridge_shop.gone' was found"),
    ],
)
def test_what_does_not_fit_the_function_is_flagged(shop, task, arguments, says):
    brought = one(shop, crontab(minute=0, hour=12), task=f"bridge_shop.{task}", **arguments)

    assert says in told(brought)
    assert "manual" in marks(brought)
    assert brought.source


def test_bound_arguments_are_named_without_self(shop):
    assert job_of(one(shop, 30, task="bridge_shop.bound", args=("berlin",))).config == {"shop": "berlin"}


def test_a_task_without_a_name_in_its_module_is_flagged(shop):
    del sys.modules["bridge_shop"].tidy

    assert "its function has no name in bridge_shop" in told(one(shop, 30))


def test_entries_that_are_added_after_configuring_and_finalizing_are_found(shop):
    @shop.on_after_configure.connect(weak=False)
    def configured(sender, **_):
        sender.add_periodic_task(crontab(minute=0, hour=12), sender.tasks["bridge_shop.tidy"].s(), name="one")

    @shop.on_after_finalize.connect(weak=False)
    def finalized(sender, **_):
        sender.add_periodic_task(crontab(minute=0, hour=13), sender.tasks["bridge_shop.tidy"].s(), name="two")

    assert {b.entry for b in celery_beat.bring(celery_beat.of_app(shop), NOW)} == {"one", "two"}


def test_a_schedule_that_raises_says_so(shop, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("no idea")

    monkeypatch.setattr(crontab, "remaining_estimate", fails)

    assert "manual: its schedule cannot be carried over: no idea" in told(one(shop, crontab()))


def test_ids_are_slugs_and_differ(shop):
    first, second = bring(shop, **{"Ä b!": {"schedule": 30}, "b": {"schedule": 40}})

    assert (first.job_id, second.job_id) == ("b", "b-2")


def test_the_machine_s_zone_is_flagged(shop):
    shop.conf.update(timezone=None, enable_utc=False)
    whole, _ = bring(shop, job={"schedule": 30})

    assert "enable_utc is off and no timezone is set" in told(whole)


def test_a_dict_alone_does_not_say_its_zone():
    settings = ModuleType("settings")
    entries = {"noon": {"task": "shop.tidy", "schedule": crontab(minute=0, hour=12)}}
    whole, noon = celery_beat.bring(celery_beat.of_dict(entries, settings), NOW)
    settings.CELERY_TIMEZONE = "Europe/Berlin"
    (zoned,) = celery_beat.bring(celery_beat.of_dict(entries, settings), NOW)

    assert "UTC was taken" in told(whole)
    assert job_of(noon).schedule.text == "cron 0 12 * * * in UTC"
    assert job_of(zoned).schedule.text == "cron 0 12 * * * in Europe/Berlin"
