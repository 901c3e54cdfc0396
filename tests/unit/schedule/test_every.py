"""`Every`, `At` and the texts that schedules are kept as."""

import pickle
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmanager.errors import CronError
from jobmanager.schedule import At, Cron, Every, parse

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
moments = st.datetimes(datetime(1950, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
intervals = st.builds(
    Every,
    st.integers(1, 10**7),
    st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
)


def test_intervals_count_from_1970_so_that_everybody_agrees():
    assert Every(90).next_after(NOON + timedelta(seconds=1)) == NOON + timedelta(seconds=90)
    assert Every(timedelta(days=7)).next_after(NOON).weekday() == 3  # 1 January 1970 was a Thursday


def test_an_anchor_of_ones_own_moves_the_instants_before_it_too():
    schedule = Every(timedelta(hours=1), anchor=NOON + timedelta(minutes=5))
    assert schedule.next_after(NOON - timedelta(days=1)) == NOON - timedelta(hours=23, minutes=55)


def test_the_anchor_may_be_of_any_zone():
    anchor = datetime(2026, 1, 1, 0, 0, 7, 500_000, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert Every(60, anchor).anchor == datetime(2025, 12, 31, 18, 30, 7, tzinfo=UTC)


def test_seconds_and_timedelta_make_the_same_value():
    assert Every(30) == Every(30.0) == Every(timedelta(seconds=30))
    assert Every(30).interval == Every(30).resolution == timedelta(seconds=30)


@pytest.mark.parametrize(
    "interval",
    [
        0,
        -1,
        0.5,
        1.5,
        True,
        "30",
        None,
        float("nan"),
        float("inf"),
        10**30,
        timedelta(0),
        timedelta(milliseconds=1500),
    ],
)
def test_intervals_are_whole_seconds_from_one(interval):
    with pytest.raises(CronError, match="whole seconds") as caught:
        Every(interval)
    assert (caught.value.kind, caught.value.field) == ("bad_interval", "interval")


@given(intervals, moments)
def test_next_lies_on_the_grid_and_within_one_interval(schedule, moment):
    instant = schedule.next_after(moment)
    assert (instant - schedule.anchor) % schedule.interval == timedelta(0)
    assert timedelta(0) < instant - moment <= schedule.interval
    assert list(schedule.between(moment, instant)) == [instant]
    previous = schedule.previous_before(moment)
    assert timedelta(0) < moment - previous <= schedule.interval
    assert (previous - schedule.anchor) % schedule.interval == timedelta(0)


def test_intervals_end_with_the_year_9999():
    end = datetime.max.replace(tzinfo=UTC)
    assert Every(60).next_after(end) is None
    assert Every(60).upcoming(end - timedelta(seconds=70), 5) == [end.replace(second=0, microsecond=0)]


def test_at_is_one_instant():
    schedule = At(NOON + timedelta(microseconds=999_999))
    assert schedule.moment == NOON
    assert schedule.next_after(NOON - timedelta(microseconds=1)) == NOON
    assert schedule.next_after(NOON) is None
    assert list(schedule.between(NOON - timedelta(days=1), NOON)) == [NOON]
    assert schedule.previous_before(NOON) is None
    assert schedule.previous_before(NOON + timedelta(days=9_000)) == NOON
    assert schedule.previous_before(NOON + timedelta(days=30_000)) is None  # further back than 50 years
    assert schedule.resolution == timedelta(minutes=1)


@pytest.mark.parametrize(
    "make", [At, lambda moment: Every(60, moment), At(NOON).next_after, Every(60).next_after]
)
def test_moments_without_a_zone_are_refused(make):
    with pytest.raises(CronError, match="zone") as caught:
        make(datetime(2026, 1, 1))
    assert caught.value.kind == "bad_moment"


def test_a_moment_of_any_zone_is_kept_in_utc():
    schedule = At(datetime(2026, 1, 1, 21, tzinfo=timezone(timedelta(hours=9))))
    assert schedule.moment.tzinfo is UTC
    assert schedule == At(NOON)
    assert schedule.text == "at 2026-01-01T12:00:00Z"


def test_intervals_and_moments_always_come():
    assert not Every(60).never_matches
    assert not At(NOON).never_matches


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (Every(30), "every 30s"),
        (Every(timedelta(days=1), NOON), "every 86400s from 2026-01-01T12:00:00Z"),
        (At(NOON), "at 2026-01-01T12:00:00Z"),
        (At(datetime(1, 1, 1, tzinfo=UTC)), "at 0001-01-01T00:00:00Z"),
        (Cron(" 0 2  * * *"), "cron 0 2 * * * in UTC"),
        (Cron("@daily", "Europe/Berlin"), "cron @daily in Europe/Berlin"),
        (Cron("*/30 * * * * MON#1,FRIL"), "cron */30 * * * * MON#1,FRIL in UTC"),
    ],
)
def test_a_schedule_is_kept_as_one_line_and_read_back(schedule, text):
    assert schedule.text == text
    assert parse(text) == schedule
    assert pickle.loads(pickle.dumps(schedule)) == schedule


@given(intervals)
def test_the_text_of_an_interval_reads_back(schedule):
    assert parse(schedule.text) == schedule


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "bad_value"),
        ("0 2 * * *", "bad_value"),
        ("every", "bad_value"),
        ("every 5 minutes", "bad_value"),
        ("every 30s from noon", "bad_value"),
        ("every 0s", "bad_interval"),
        ("at noon", "bad_value"),
        ("at 2026-01-01T00:00:00", "bad_moment"),
        ("cron 0 2 * * *", "field_count"),
        ("cron 0 25 * * * in UTC", "out_of_range"),
        ("cron 0 2 * * * in Paris", "bad_timezone"),
    ],
)
def test_other_texts_are_refused(text, kind):
    with pytest.raises(CronError) as caught:
        parse(text)
    assert caught.value.kind == kind
