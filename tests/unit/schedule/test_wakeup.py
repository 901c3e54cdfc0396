"""Wake-up texts: every instant is matched, few other moments are, and every cron can read them."""

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import examples
from tests.unit.schedule import calendar_oracle as oracle

from jobmanager.schedule import At, Cron, Every
from jobmanager.schedule.wakeup import local_wakeup, wakeup

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
START = datetime(2026, 11, 22, 10, 20, tzinfo=UTC)


def matched(text, minute):
    """Whether a five-field text of numbers matches a minute, as any cron reads it."""
    values = minute.minute, minute.hour, minute.day, minute.month, minute.isoweekday() % 7
    fields = [
        None if field == "*" else {int(number) for number in field.split(",")} for field in text.split()
    ]
    assert fields[2] is None or fields[4] is None
    return all(field is None or value in field for field, value in zip(fields, values, strict=True))


def full_minute(instant):
    """The first full minute from an instant on."""
    return instant + (MINUTE - timedelta(seconds=instant.second) if instant.second else timedelta(0))


# --- in UTC


@pytest.mark.parametrize(
    ("expression", "zone", "text"),
    [
        ("0 * * * *", "Asia/Kathmandu", "15 * * * *"),
        ("0 0 1 * *", "Asia/Kathmandu", "15 18 28,29,30,31 * *"),
        ("30 23 * * FRI", "America/New_York", "30 3,4 * * 6"),
        ("30 2 * * *", "America/New_York", "0,30 6,7 * * *"),
        ("*/15 2 * * *", "America/New_York", "0,15,30,45 6,7 * * *"),
        ("0 9 13 * FRI", "UTC", "0 9 * * *"),  # either: pg_cron's releases differ in that
        ("0 9 */2 * MON", "UTC", "0 9 * * *"),
        ("0 9 1-31 * MON", "UTC", "0 9 * * *"),  # every day
        ("0 9 * * MON-FRI", "UTC", "0 9 * * 1,2,3,4,5"),
        ("0 9 * 6 1#2", "UTC", "0 9 * 6 1"),
        ("0 0 1 1 *", "Asia/Tokyo", "0 15 28,29,30,31 12 *"),
        ("0 23 31 12 *", "America/New_York", "0 3,4 1 1 *"),
        ("0 12 29 2 *", "UTC", "0 12 * * *"),
        ("@yearly", "UTC", "0 0 1 1 *"),
        ("30 0 9 * * *", "UTC", "1 9 * * *"),
        ("0,30 59 23 * * FRI", "UTC", "0,59 0,23 * * 5,6"),
        ("*/15 * * * * *", "Asia/Kathmandu", "* * * * *"),
    ],
)
def test_wake_ups_are_few_and_written_in_numbers(expression, zone, text):
    assert wakeup(Cron(expression, zone), START) == text


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (Every(15), "* * * * *"),
        (Every(60), "* * * * *"),
        (Every(420), "* * * * *"),
        (Every(300), "0,5,10,15,20,25,30,35,40,45,50,55 * * * *"),
        (Every(900, datetime(2026, 1, 1, 0, 4, 1, tzinfo=UTC)), "5,20,35,50 * * * *"),
        (Every(28_800), "0 0,8,16 * * *"),
        (Every(86_400, datetime(2026, 1, 1, 23, 59, 59, tzinfo=UTC)), "0 0 * * *"),
        (Every(604_800, datetime(2026, 1, 1, 23, 59, 59, tzinfo=UTC)), "0 0 * * 5"),
        (At(datetime(2026, 12, 31, 23, 59, tzinfo=UTC)), "59 23 31 12 *"),
        (At(datetime(2026, 12, 31, 23, 59, 1, tzinfo=UTC)), "0 0 1 1 *"),
    ],
)  # fmt: skip
def test_wake_ups_of_intervals_and_single_instants_are_never_early(schedule, text):
    assert wakeup(schedule, START) == text


@settings(max_examples=examples(300, sample=50), deadline=None)
@given(
    st.integers(0, 10**9),
    st.sampled_from([change for change in oracle.CHANGES if change[1] > "1973"]),
    st.integers(-4000, 2000),
)
def test_every_instant_is_woken_for_also_those_with_seconds(seed, change, minutes):
    zone, day = change
    schedule = Cron(oracle.Expressions(random.Random(seed)).one(), zone)
    start = datetime.fromisoformat(day).replace(tzinfo=UTC) + minutes * MINUTE
    text = wakeup(schedule, start, 40)
    upcoming = [instant for instant in schedule.upcoming(start, 200) if instant < start + 39 * DAY]
    assert [instant for instant in upcoming if not matched(text, full_minute(instant))] == []


# --- on the clock of the zone


@settings(max_examples=examples(300, sample=50), deadline=None)
@given(
    st.integers(0, 10**9),
    st.sampled_from([change for change in oracle.CHANGES if change[1] > "1973"]),
    st.integers(-4000, 2000),
)
def test_a_local_text_wakes_for_every_instant_or_there_is_none(seed, change, minutes):
    zone, day = change
    schedule = Cron(oracle.Expressions(random.Random(seed)).one(), zone)
    start = datetime.fromisoformat(day).replace(tzinfo=UTC) + minutes * MINUTE
    text = local_wakeup(schedule, start, 40)
    if text is None:
        return
    upcoming = [instant for instant in schedule.upcoming(start, 200) if instant < start + 39 * DAY]
    assert [
        instant for instant in upcoming if not matched(text, full_minute(instant).astimezone(ZoneInfo(zone)))
    ] == []


@pytest.mark.parametrize(
    ("expression", "zone", "text"),
    [
        ("0 9 * * MON-FRI", "America/New_York", "0 9 * * 1,2,3,4,5"),
        ("59 1 * * *", "America/New_York", None),  # is shown twice in November
        ("30 2 * * *", "America/New_York", None),  # is left out in March
        ("0 3 * * *", "America/New_York", "0 3 * * *"),
        ("0 * * * *", "America/New_York", None),
        ("0 * * * *", "Asia/Kathmandu", "0 * * * *"),
        ("30 59 1 * * *", "Europe/Berlin", None),  # a second too late for 02:00
        ("0 9 L * *", "Asia/Tokyo", "0 9 28,29,30,31 * *"),
        ("0 9 13 * FRI", "UTC", "0 9 * * *"),
    ],
)
def test_a_local_text_is_given_where_no_change_of_the_clock_touches_its_times(expression, zone, text):
    assert local_wakeup(Cron(expression, zone), START) == text
