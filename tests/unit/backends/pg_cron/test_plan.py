"""Plans against the cron daemon's answers and the calendar: a tiny evaluator stands for the SQL."""

import json
import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import examples
from tests.unit.schedule import calendar_oracle as oracle
from tests.unit.schedule.test_wakeup import full_minute, matched

from jobmanager.backends.pg_cron.plans.plan import plan_of, unsupported
from jobmanager.schedule import At, Cron, Every, zones

GOLDEN = json.loads(Path(oracle.__file__).with_name("golden.json").read_text())["cases"]
FIVE_FIELDS = [
    case for case in GOLDEN if case["expect"] not in ("error", "never") and len(case["expr"].split()) != 6
]
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
START = datetime(2026, 11, 22, 10, 20, tzinfo=UTC)


def minutes_of(row):
    """The minutes of a row's day, read from the text that PostgreSQL gets."""
    bits = f"{int(row.minutes_text.removeprefix('x'), 16):01440b}"
    assert len(bits) == 1440
    return [minute for minute, bit in enumerate(bits) if bit == "1"]


def midnight(day):
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def instants(plan, start, end):
    """The instants of a plan after `start` up to and including `end`."""
    found = set()
    for row in plan.rows:
        minutes = minutes_of(row)
        for first, no_more in row.days:
            day = max(first, start.date())
            while day < no_more and day <= end.date():
                found.update(midnight(day) + minute * MINUTE for minute in minutes)
                day += DAY
    return sorted(instant for instant in found if start < instant <= end)


# --- cron


@pytest.mark.parametrize("case", FIVE_FIELDS, ids=lambda case: f"{case['id']}-{case['group']}")
def test_golden_cases_of_the_cron_daemon_through_a_plan(case):
    start, expected = datetime.fromisoformat(case["start"]), list(map(datetime.fromisoformat, case["expect"]))
    plan = plan_of(Cron(case["expr"], case["tz"]), start, 100)
    if plan.planned_until <= expected[-1].date():
        plan = plan_of(Cron(case["expr"], case["tz"]), start, (expected[-1] - start).days + 2)
    assert instants(plan, start, expected[-1]) == expected
    assert all(matched(plan.wakeup, instant) for instant in expected)


def test_the_golden_set_has_its_five_field_cases():
    assert len(FIVE_FIELDS) >= 142


CHANGES = [
    ("Asia/Baku", "2015-03-29"), ("Asia/Baku", "2015-03-29"),  # at midnight of UTC
    ("Asia/Kathmandu", "2026-03-01"), ("Pacific/Apia", "2011-12-30"), ("Pacific/Apia", "2011-12-28"),
    ("America/New_York", "2026-03-08"), ("America/New_York", "2026-11-01"),
    *(change for change in oracle.CHANGES if change[1] > "1973"),
]  # fmt: skip


def five_fields(seed):
    expressions = oracle.Expressions(random.Random(seed))
    while len((expression := expressions.one()).split()) == 6:
        pass
    return expression


@settings(max_examples=examples(400, sample=50), deadline=None)
@given(
    st.builds(five_fields, st.integers(0, 10**9)),
    st.sampled_from(CHANGES),
    st.integers(-10 * 1440, 2 * 1440),
    st.integers(1, 12),
)
def test_a_plan_has_the_calendars_instants_and_no_other(expression, change, minutes, days):
    zone, day = change
    start = datetime.fromisoformat(day).replace(tzinfo=UTC) + minutes * MINUTE
    schedule = Cron(expression, zone)
    if schedule.never_matches:
        return
    plan = plan_of(schedule, start, days)
    # From the midnight before: the whole of the first day is planned.
    first = midnight(start.date()) - timedelta(seconds=1)
    end = min(midnight(plan.planned_until), midnight(start.date()) + 13 * DAY) - timedelta(seconds=1)
    expected = list(schedule.between(first, end))
    assert instants(plan, first, end) == expected
    assert all(matched(plan.wakeup, instant) for instant in expected)


@settings(max_examples=examples(150, sample=10), deadline=None)
@given(
    st.builds(five_fields, st.integers(0, 10**9)),
    st.sampled_from([zone for zone, _ in CHANGES]),
    st.datetimes(datetime(1975, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)),
    st.sampled_from([5, 100]),
)
def test_a_long_plan_has_the_calendars_instants_wherever_it_is_looked_at(expression, zone, start, days):
    schedule = Cron(expression, zone)
    if schedule.never_matches:
        return
    plan = plan_of(schedule, start, days)
    until = midnight(plan.planned_until)
    upcoming = [instant for instant in schedule.upcoming(start, 300) if instant < until]
    assert len(upcoming) >= 8
    assert instants(plan, start, upcoming[-1]) == upcoming
    assert all(matched(plan.wakeup, instant) for instant in upcoming if instant < start + 400 * DAY)
    late = schedule.previous_before(until)
    assert instants(plan, late - MINUTE, until) == [late]


@pytest.mark.parametrize(
    "zone", ["UTC", "America/New_York", "Australia/Lord_Howe", "Antarctica/Troll", "Asia/Kathmandu"]
)
@pytest.mark.parametrize(
    "expression", ["*/30 */6 * * *", "*/15 1-3 * * *", "30 2 * * *", "0 0 1 * *", "30 23 * * FRI", "0 9 13 * 5", "0 0 L * *", "59 23 31 12 *"]
)  # fmt: skip
def test_a_year_of_instants_is_planned_and_woken_for(expression, zone):
    schedule = Cron(expression, zone)
    plan = plan_of(schedule, START, 400)
    expected = list(schedule.between(START, START + 370 * DAY))
    assert instants(plan, START, START + 370 * DAY) == expected
    assert all(matched(plan.wakeup, instant) for instant in expected)


def test_the_wake_up_holds_for_a_change_of_the_clock_behind_the_plan():
    plan = plan_of(Cron("30 2 * * *", "America/New_York"), datetime(2026, 1, 1, tzinfo=UTC), 10)
    assert plan.planned_until == date(2026, 1, 11)
    assert plan.wakeup == "0,30 6,7 * * *"


def test_the_wake_up_holds_for_a_clock_that_is_changed_as_the_plan_begins():
    change = datetime(2015, 3, 29, tzinfo=UTC)  # in Azerbaijan, from 04:00 to 05:00
    schedule = Cron("30 4 * * *", "Asia/Baku")
    plan = plan_of(schedule, change, 30)
    assert (
        instants(plan, change - MINUTE, change) == [change] == list(schedule.between(change - MINUTE, change))
    )
    assert matched(plan.wakeup, change)


@pytest.mark.parametrize(
    "expression", ["0 0 29 2 *", "0 0 29 2 SUN", "0 0 29 2 */7", "0 0 31 2 1", "0 12 L 2 */7", "0 0 31 12 *"]
)
def test_a_rare_schedule_is_planned_until_its_eighth_instant(expression):
    schedule = Cron(expression, "Europe/Berlin")
    plan = plan_of(schedule, START, 100)
    upcoming = schedule.upcoming(START, 8)
    assert midnight(plan.planned_until) > upcoming[-1]
    assert instants(plan, START, upcoming[-1]) == upcoming
    assert len(plan.rows) <= 4


def test_a_plan_ends_where_it_says_and_the_next_goes_on_from_there():
    schedule = Cron("*/20 * * * *", "America/Sao_Paulo")
    plan = plan_of(schedule, START, 10)
    assert plan.planned_until == date(2026, 12, 2)
    until = midnight(plan.planned_until)
    assert instants(plan, until - MINUTE, until + 40 * DAY) == []
    following = plan_of(schedule, until, 10)
    assert instants(following, until - DAY, until) == [until]


def test_the_whole_first_day_is_planned_and_the_hour_makes_no_difference():
    schedule = Cron("0 1 * * *", "Europe/Berlin")
    assert plan_of(schedule, START, 30) == plan_of(schedule, START.replace(hour=0, minute=0), 30)


def test_days_without_a_change_of_the_clock_take_one_row_or_two():
    assert len(plan_of(Cron("*/5 * * * *", "Asia/Kathmandu"), START, 400).rows) == 1
    assert len(plan_of(Cron("0 */6 * * MON", "Asia/Kathmandu"), START, 400).rows) == 2


def test_a_date_that_does_not_exist_is_planned_as_nothing():
    assert plan_of(Cron("0 0 30 2 *"), START, 100).rows == ()


def test_days_are_written_as_postgresql_reads_them():
    (row,) = plan_of(Cron("0 0 * * MON-FRI"), datetime(2026, 11, 20, tzinfo=UTC), 13).rows
    assert row.days_text == "{[2026-11-20,2026-11-21),[2026-11-23,2026-11-28),[2026-11-30,2026-12-03)}"
    assert minutes_of(row) == [0]


def test_a_plan_tells_the_zone_data_it_was_made_with():
    assert plan_of(Cron("0 1 * * *", "Europe/Berlin"), START, 30).tzdata == zones.version() != ""
    assert plan_of(Cron("0 1 * * *"), START, 30).tzdata == ""
    assert plan_of(Every(60), START, 30).tzdata == ""


# --- every and at


@settings(max_examples=examples(300, sample=50), deadline=None)
@given(
    st.one_of(
        st.integers(60, 10**6),
        st.sampled_from([60, 90, 300, 420, 2700, 5400, 7200, 86_400, 129_600, 604_800]),
    ),
    st.datetimes(datetime(1960, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    st.booleans(),
)
def test_an_interval_is_counted_from_one_instant_and_woken_for(seconds, anchor, whole):
    schedule = Every(seconds, anchor.replace(second=0) if whole else anchor)
    plan = plan_of(schedule, START, 100)
    assert (plan.kind, plan.rows, plan.planned_until) == ("every", (), date.max)
    upcoming = schedule.upcoming(START, 50)
    first = -(-(START + timedelta(seconds=1) - plan.first_at) // plan.step)
    assert [plan.first_at + (first + n) * plan.step for n in range(50)] == upcoming
    assert all(matched(plan.wakeup, full_minute(instant)) for instant in upcoming)


def test_an_interval_has_begun_before_anybody_asks():
    assert plan_of(Every(3600, datetime(2099, 1, 1, 0, 7, tzinfo=UTC)), START, 1).first_at == datetime(
        1970, 1, 1, 0, 7, tzinfo=UTC
    )


def test_a_single_instant_is_its_own_plan():
    moment = datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)
    plan = plan_of(At(moment), START, 100)
    assert (plan.kind, plan.first_at, plan.step, plan.rows, plan.planned_until) == (
        "at",
        moment,
        None,
        (),
        date.max,
    )


# --- what is not planned


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        (Every(59), "every 59 s"),
        (Cron("*/15 * * * * *"), "every 15 s"),
        (Cron("0,30 0 9 * * *", "Asia/Tokyo"), "every 30 s"),
        (Cron("30 0 9 * * *"), "Write '0 9 * * *'"),
    ],
)
def test_what_asks_for_seconds_is_refused_with_a_way_out(schedule, said):
    assert said in unsupported(schedule)
    with pytest.raises(ValueError, match="The database is woken"):
        plan_of(schedule, START, 100)


@pytest.mark.parametrize(
    "schedule", [Every(60), Every(90), At(START.replace(second=7)), Cron("0 0 9 * * *"), Cron("*/60 0 9 * * *"), Cron("* * * * *")]
)  # fmt: skip
def test_what_is_due_at_full_minutes_or_in_closed_form_is_planned(schedule):
    assert unsupported(schedule) is None
    assert plan_of(schedule, START, 100).schedule == schedule.text
