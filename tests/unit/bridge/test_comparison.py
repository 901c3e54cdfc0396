"""What the comparison sees: late differences, differences around clock changes only, and values as fields."""

from datetime import UTC, datetime, timedelta

import pytest

from jobmanager.bridge.brought import arguments, call, titled
from jobmanager.bridge.comparison import best, clock_changes, compare, field_text, listed
from jobmanager.errors import CronError
from jobmanager.schedule import Cron, Every
from jobmanager.schedule.dialect import read

NOW = datetime(2026, 1, 15, 12, 0, 30, 250_000, tzinfo=UTC)
DAILY = Cron("0 12 * * *", "Europe/Berlin")


def without(schedule, instant):
    """The schedule, but for one of its instants."""

    def following(moment):
        found = schedule.next_after(moment)
        return schedule.next_after(found) if found == instant else found

    return following


def test_the_same_schedule_does_not_differ_from_itself():
    outcome = compare(DAILY.next_after, DAILY, "Europe/Berlin", NOW)

    assert (outcome.calendar, outcome.clocks) == ("", "")
    assert outcome.until >= NOW + timedelta(days=390)
    assert outcome.changes == 4


def test_one_instant_of_the_400_is_enough():
    late = DAILY.upcoming(NOW, 390)[-1]
    outcome = compare(without(DAILY, late), DAILY, "Europe/Berlin", NOW)

    assert outcome.calendar == "on Tue 2027-02-09: 12:00 CET only here"


def test_an_hour_that_is_left_out_at_a_clock_change_is_found_far_beyond_the_400():
    minutely = Cron("* * * * *", "Europe/Berlin")
    second_pass = datetime(2027, 10, 31, 1, 0, tzinfo=UTC)
    outcome = compare(without(minutely, second_pass), minutely, "Europe/Berlin", NOW)

    assert outcome.calendar == ""
    assert outcome.clocks == "on Sun 2027-10-31: 02:00 CET only here"


def test_a_second_that_is_left_out_at_a_clock_change_is_found_too():
    secondly = Every(1)
    change = datetime(2026, 3, 29, 1, 0, tzinfo=UTC)

    assert compare(without(secondly, change), secondly, "Europe/Berlin", NOW).clocks


def test_a_schedule_that_ends_differs_from_one_that_goes_on():
    outcome = compare(lambda _: None, DAILY, "Europe/Berlin", NOW)

    assert outcome.calendar == "on Fri 2026-01-16: 12:00 CET only here"


def test_clock_changes_are_found_to_the_minute():
    first, second, *_ = clock_changes("Australia/Lord_Howe", NOW.date().toordinal())

    assert first == datetime(2026, 4, 4, 15, 0, tzinfo=UTC)
    assert second == datetime(2026, 10, 3, 15, 30, tzinfo=UTC)
    assert clock_changes("UTC", NOW.date().toordinal()) == ()


def test_the_first_line_that_fires_alike_is_taken_and_the_last_one_if_none_does():
    exact, _, alike = best(
        DAILY.next_after, ["bad", "0 13 * * *", "0 12 * * *", "0 12 * * 1"], "Europe/Berlin", NOW
    )
    last, outcome, none = best(DAILY.next_after, ["0 13 * * *", "0 14 * * *"], "Europe/Berlin", NOW)

    assert (exact.expression, alike) == ("0 12 * * *", True)
    assert (last.expression, none) == ("0 14 * * *", False)
    assert outcome.calendar
    with pytest.raises(CronError, match="'bad'"):
        best(DAILY.next_after, ["bad bad bad bad bad"], "Europe/Berlin", NOW)


@pytest.mark.parametrize(
    ("place", "values", "text"),
    [
        (0, range(60), "*"),
        (0, range(3, 60, 7), "3-59/7"),
        (0, {0, 30}, "0,30"),
        (1, {22, 23, 0, 1, 2}, "0-2,22,23"),
        (2, {1, 2, 3, 9}, "1-3,9"),
        (3, {1, 2, 3, 12}, "JAN-MAR,DEC"),
        (4, {0, 5, 6}, "FRI-SUN"),
        (4, {0, 1}, "MON,SUN"),
    ],
)
def test_values_are_written_as_a_field_that_reads_back(place, values, text):
    assert listed(place, set(values)) == text
    fields = read(" ".join(["*"] * place + [text] + ["*"] * (4 - place)))
    found = (fields.minutes, fields.hours, fields.days, fields.months, fields.weekdays)[place]
    assert set(found) == set(values)


def test_a_text_is_kept_only_if_it_means_the_same():
    assert field_text(4, "mon-fri", {1, 2, 3, 4, 5}) == "mon-fri"
    assert field_text(4, "0-4", {1, 2, 3, 4, 5}) == "MON-FRI"
    assert field_text(2, "L", {31}) == "31"


def test_what_no_json_can_say_stays_out_of_config():
    def handler(rate, when):
        """Anything."""

    options, remarks = arguments(handler, (float("nan"),), {"when": NOW})

    assert options == {}
    assert [remark.mark for remark in remarks] == ["manual", "manual"]


def test_a_call_is_python_whatever_is_in_it():
    config = {"text": 'a "b"\n\\', "list": (1, None, True), "deep": {"x": [1.5]}}
    said = eval(  # noqa: S307 - our own output
        call("dict", (), {"name": "ä", "config": config, "at": NOW}), {"dict": dict, "datetime": datetime}
    )

    assert said == {"name": "ä", "config": {**config, "list": [1, None, True]}, "at": NOW}


@pytest.mark.parametrize(
    ("title", "job_id"),
    [("nightly", "nightly"), ("Größe & Co.", "gr-e-co"), ("???", "job"), ("x" * 300, "x" * 120)],
)
def test_every_title_makes_an_id(title, job_id):
    assert titled(title, set()) == (job_id, {} if title == job_id else {"name": title})
