"""What `exclude=` excludes: dates, cron lines and calendars on the wall clock of the schedule, in answers, text and words."""

from datetime import UTC, date, datetime, timedelta

import pytest

from jobmanager import At, Cron, CronError, Every, calendars
from jobmanager.job import make_job
from jobmanager.ledger.definition import defined, edited, job_of
from jobmanager.ledger.overrides import added, checked, in_force
from jobmanager.schedule import parse
from jobmanager.schedule.exclusion import Exclusion

BERLIN = "Europe/Berlin"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("exclude", "instant", "zone", "excluded"),
    [
        (None, "2026-12-24T09:00", "UTC", False),
        ("", "2026-12-24T09:00", "UTC", False),
        ("2026-12-24", "2026-12-24T09:00", "UTC", True),
        (date(2026, 12, 24), "2026-12-24T09:00", "UTC", True),
        ([date(2026, 12, 24), "2026-12-26"], "2026-12-25T09:00", "UTC", False),
        (calendars.dates("2026-12-24/2027-01-06"), "2027-01-06T23:59:59", "UTC", True),
        ("2026-12-24/2027-01-06", "2027-01-07T00:00", "UTC", False),
        # The day is that of the schedule's zone.
        ("2026-12-24", "2026-12-23T23:30", BERLIN, True),
        ("2026-12-24", "2026-12-24T23:30", BERLIN, False),
        ("weekends", "2026-11-28T09:00", "UTC", True),
        ("weekends", "2026-11-30T09:00", "UTC", False),
        (calendars.weekdays(), "2026-11-30T09:00", "UTC", True),
        (~calendars.weekdays(), "2026-11-29T09:00", "UTC", True),
        (~~calendars.weekends(), "2026-11-29T09:00", "UTC", True),
        ("weekends", "2026-11-29T23:30", BERLIN, False),  # Monday there
        # A line of five fields means whole minutes, one of six single seconds.
        ("* 12 * * *", "2026-11-30T12:59:59", "UTC", True),
        ("* 12 * * *", "2026-11-30T13:00", "UTC", False),
        ("* 12 * * *", "2026-11-30T11:30", BERLIN, True),
        ("30 * 12 * * *", "2026-11-30T12:00:30", "UTC", True),
        ("30 * 12 * * *", "2026-11-30T12:00:31", "UTC", False),
        ("* * L * *", "2026-11-30T12:00", "UTC", True),
        ("* * 1 * MON", "2026-11-30T12:00", "UTC", True),  # either is enough, as in cron
        ("* * 1 * MON", "2026-11-29T12:00", "UTC", False),
        ("weekends; 2026-11-30", "2026-11-30T12:00", "UTC", True),
        # The repeated hour of a clock change is shown twice, and both times are excluded.
        ("* 2 * * *", "2026-10-25T00:30", BERLIN, True),
        ("* 2 * * *", "2026-10-25T01:30", BERLIN, True),
        ("* 2 * * *", "2026-10-25T02:30", BERLIN, False),
    ],
)
def test_an_instant_is_excluded_on_the_wall_clock_of_its_schedule(exclude, instant, zone, excluded):
    schedule = Cron("* * * * * *", zone, exclude=exclude)

    assert (schedule.excluded(at(instant)) is not None) is excluded
    assert parse(schedule.text) == schedule


@pytest.mark.parametrize(
    ("calendar", "day", "excluded"),
    [
        (calendars.holidays("DE"), "2026-12-25", True),
        (calendars.holidays("DE"), "2026-01-06", False),
        (calendars.holidays("DE", "BY"), "2026-01-06", True),
        ("holidays DE-BY", "2026-01-07", False),
        (calendars.business_days("DE", "BY"), "2026-01-06", False),
        (~calendars.business_days("DE", "BY"), "2026-01-06", True),
        (~calendars.business_days("DE", "BY"), "2026-01-07", False),
        (~calendars.business_days("DE"), "2026-01-10", True),
        (~calendars.business_days(), "2026-01-06", False),
        ("not business days DE", "2026-12-25", True),
    ],
)
def test_holidays_and_business_days_of_a_place(calendar, day, excluded):
    schedule = Cron("0 9 * * *", exclude=calendar)

    assert (schedule.excluded(at(f"{day}T09:00")) is not None) is excluded
    assert parse(schedule.text) == schedule


def test_instants_stay_and_the_next_run_passes_over_what_is_excluded():
    friday = at("2026-11-27T12:00")
    schedule = Cron("0 9 * * *", exclude=["weekends", "2026-11-30"], until="2026-12-02T09:00Z")

    assert schedule.next_after(friday) == at("2026-11-28T09:00")
    assert schedule.next_run_after(friday) == at("2026-12-01T09:00")
    assert schedule.runs_after(friday, 9) == [at("2026-12-01T09:00"), at("2026-12-02T09:00")]
    assert schedule.excluded(at("2026-11-30T09:00")) == "2026-11-30"
    assert Every(60, exclude="* * * * *").next_run_after(friday) is None
    assert At(friday).next_run_after(friday - timedelta(1)) == friday


def test_text_and_words_say_it():
    schedule = Cron(
        "0 9 * * *",
        BERLIN,
        dst="skip",
        exclude=[~calendars.business_days(), "2026-12-24, 2026-12-31", "* * * 8 *"],
        until="2027-01-01T00:00Z",
    )

    assert schedule.text == (
        "cron 0 9 * * * in Europe/Berlin dst skip,first except not business days; 2026-12-24,2026-12-31; * * * 8 *"
        " until 2027-01-01T00:00:00Z"
    )
    assert schedule.describe() == (
        "at 09:00 every day, Europe/Berlin, a skipped time not at all, but not outside business days nor on 2026-12-24, 2026-12-31 "
        "nor when '* * * 8 *' matches, until 2027-01-01 at 00:00:00 UTC"
    )
    assert Every(30, exclude="weekends").text == "every 30s except weekends"
    assert parse(schedule.text) == schedule


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("tomorrow", "'tomorrow' is no exclusion"),
        ("2026-13-01", "'2026-13-01' is no exclusion"),
        ("2026-12-24/2026-12-01", "ends after its begin"),
        (datetime(2026, 12, 24, tzinfo=UTC), "is no exclusion"),
        (7, "7 is no exclusion"),
        ("61 * * * *", "61"),
        ("holidays XX", "XX not available"),
        ("holidays DE-ZZ", "ZZ"),
        ([f"2026-01-{day:02}/2027-01-{day:02}" for day in range(1, 29)] * 2, None),
        (",".join(f"2{year:03}-01-01" for year in range(200)), "Name ranges"),
    ],
)
def test_what_is_no_exclusion_is_refused_with_what_to_write(value, sentence):
    if sentence is None:
        assert len(Exclusion.read(value).items) == 28
        return
    with pytest.raises(CronError, match="exclude=") as refused:
        make_job("one", "work", {"cron": "0 9 * * *", "exclude": value})
    assert sentence in str(refused.value)


def test_it_belongs_to_a_line_or_an_interval():
    for words in ({"at": at("2026-12-24T09:00")}, {}):
        with pytest.raises(Exception, match="belongs to cron= or every="):
            make_job("one", "work", {**words, "exclude": "weekends"})
    assert make_job("one", "work", {"every": "5m", "exclude": calendars.weekends()}).schedule == Every(
        300, exclude="weekends"
    )


def test_a_stored_job_and_an_override_say_it_as_text():
    words = {"cron": "0 9 * * *", "exclude": [date(2026, 12, 24), calendars.weekends()]}
    kept = defined("one", "work", words)
    assert kept == {"handler": "work", "cron": "0 9 * * *", "exclude": "2026-12-24; weekends"}
    assert job_of("one", kept).schedule == Cron("0 9 * * *", exclude="2026-12-24; weekends")
    assert edited(kept, {"cron": "0 8 * * *"})[1] == {"cron": "0 8 * * *", "exclude": "2026-12-24; weekends"}
    assert edited(kept, {"exclude": None})[1] == {"cron": "0 9 * * *"}

    declared = make_job("one", "work", {"cron": "0 9 * * *", "exclude": "weekends"})
    override = added({}, checked({"exclude": "2026-12-24"}))
    assert in_force(declared, override).schedule == Cron("0 9 * * *", exclude="2026-12-24")
    assert in_force(declared, added({}, checked({"cron": "0 8 * * *"}))).schedule == Cron(
        "0 8 * * *", exclude="weekends"
    )
    assert in_force(declared, added({}, checked({"exclude": ""}))).schedule == Cron("0 9 * * *")
    assert in_force(declared, added(override, {"exclude": None})).schedule == declared.schedule
