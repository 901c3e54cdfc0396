"""`Cron.next_after` against the executed cron daemon, a walk minute by minute, and another library."""

import json
import random
import sys
import threading
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import examples
from tests.unit.schedule import calendar_oracle as oracle

from jobmanager.errors import CronError
from jobmanager.schedule import Cron, parse

GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text())["cases"]
HOUR = timedelta(hours=1)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['id']}-{case['group']}")
def test_golden_cases_of_the_cron_daemon(case):
    if case["expect"] == "error":
        with pytest.raises(CronError):
            Cron(case["expr"], case["tz"])
        return
    schedule, start = Cron(case["expr"], case["tz"]), datetime.fromisoformat(case["start"])
    if case["expect"] == "never":
        assert schedule.never_matches
        assert schedule.next_after(start) is None
        return
    expected = [datetime.fromisoformat(instant) for instant in case["expect"]]
    assert schedule.upcoming(start, len(expected)) == expected


def test_the_golden_set_is_complete():
    assert len(GOLDEN) == 174


# --- random cases around offset changes, against a walk minute by minute and against cronsim


@cache
def window(zone, day):
    return oracle.Window.around(zone, day)


def random_cases(seed):
    """Without end: (expression, window, start), the same for every run of a seed."""
    rng = random.Random(seed)
    expressions = oracle.Expressions(rng)
    while True:
        near = window(*rng.choice(oracle.CHANGES))
        yield expressions.one(), near, near.start_near_change(rng)


def differences_to_the_walk(seed, count):
    found = []
    for expression, near, start in islice(random_cases(seed), count):
        expected, end = near.fires(expression, start, limit=40)
        got = list(Cron(expression, near.zone).between(start, end))
        if got != expected:
            found.append((expression, near.zone, start, got[:5], expected[:5]))
    return found


def differences_to_cronsim(seed, count):
    found = []
    for expression, near, start in islice(filter(cronsim_keeps_the_rule, random_cases(seed)), count):
        got = Cron(expression, near.zone).upcoming(start, 5)
        simulated = CronSim(expression, start.astimezone(ZoneInfo(near.zone)))
        expected = [next(simulated).astimezone(UTC) for _ in range(5)]
        if got != expected:
            found.append((expression, near.zone, start, got, expected))
    return found


def cronsim_keeps_the_rule(case):
    """False where cronsim 2.8 is known to leave Debian's rule or our dialect."""
    expression, near, start = case
    upcoming = Cron(expression, near.zone).upcoming(start, 5)
    if not upcoming:
        return False
    around = start - timedelta(days=2), upcoming[-1] + timedelta(days=2)
    changes = list(oracle.changes_between(near.zone, *around))
    six_fields = len(expression.split()) == 6
    wildcard = any(field.startswith("*") for field in expression.split()[:2])
    midnight_skipped = any(jump >= HOUR and (wall - jump).hour == 0 for wall, jump in changes)
    return not (
        any(
            jump % HOUR or wall.minute for wall, jump in changes
        )  # steps by whole hours: loses and repeats fires
        or any(abs(jump) > 3 * HOUR for _, jump in changes)  # knows no limit of three hours
        or (changes and six_fields)  # gives them no treatment of clock changes
        or (wildcard and midnight_skipped)  # fires at 01:00 instead, or a day later
        or start.astimezone(ZoneInfo(near.zone)).fold  # started in a repeated hour it goes back in time
        or "-SUN" in expression  # refuses FRI-SUN
    )


@pytest.mark.slow
def test_two_thousand_random_cases_equal_the_walk_minute_by_minute():
    assert differences_to_the_walk(seed=1, count=examples(2_000, sample=200)) == []


def test_two_thousand_random_cases_equal_cronsim_where_it_keeps_the_rule():
    assert differences_to_cronsim(seed=2, count=examples(2_000, sample=300)) == []


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_twenty_thousand_random_cases_equal_both_oracles():
    assert differences_to_the_walk(seed=3, count=20_000) == []
    assert differences_to_cronsim(seed=4, count=20_000) == []


# --- particular rules


def berlin(expression, start):
    return Cron(expression, "Europe/Berlin").next_after(datetime.fromisoformat(start).replace(tzinfo=UTC))


def test_a_moment_within_a_second_counts_as_its_second():
    start = datetime(2026, 1, 1, 8, 59, 59, 999_999, tzinfo=UTC)
    assert Cron("0 9 * * *").next_after(start) == datetime(2026, 1, 1, 9, tzinfo=UTC)


def test_moments_of_any_zone_are_taken_and_utc_is_given_back():
    start = datetime(2026, 1, 1, 12, 0, tzinfo=ZoneInfo("Asia/Tokyo"))
    instant = Cron("0 * * * *").next_after(start)
    assert instant == datetime(2026, 1, 1, 4, tzinfo=UTC)
    assert instant.tzinfo is UTC


def test_naive_moments_are_refused():
    with pytest.raises(CronError) as caught:
        Cron("0 9 * * *").next_after(datetime(2026, 1, 1))
    assert caught.value.kind == "bad_moment"


def test_six_fields_at_a_particular_time_follow_the_same_rule_as_five():
    for start in ("2026-03-28T12:00", "2026-10-24T12:00"):
        assert berlin("0 30 2 * * *", start) == berlin("30 2 * * *", start)


def test_several_skipped_times_fire_once():
    gap_end = datetime(2026, 3, 29, 1, tzinfo=UTC)
    schedule = Cron("0,15,30,45 2,3 * * *", "Europe/Berlin")
    assert schedule.upcoming(gap_end - timedelta(minutes=1), 2) == [gap_end, gap_end + timedelta(minutes=15)]


def test_a_day_lived_twice_is_no_repeated_hour():
    # Kwajalein went from 11 hours ahead of UTC to 12 behind: 23 hours came again.
    schedule = Cron("0 20 * * *", "Pacific/Kwajalein")
    first, second, third = schedule.upcoming(datetime(1969, 9, 30, 0, tzinfo=UTC), 3)
    assert (second - first, third - second) == (23 * HOUR, 24 * HOUR)


@pytest.mark.parametrize("expression", ["0 0 30 2 *", "0 0 31 4,6 *", "0 0 31 2 */2"])
def test_dates_that_do_not_exist_give_nothing(expression):
    schedule = Cron(expression)
    assert schedule.never_matches
    assert schedule.next_after(datetime(2026, 1, 1, tzinfo=UTC)) is None
    assert schedule.previous_before(datetime(2026, 1, 1, tzinfo=UTC)) is None


@pytest.mark.parametrize(
    "expression", ["0 0 31 2 1", "0 0 29 2 *", "0 0 L 2 *", "0 0 31 2 1#5", "0 0 L * */7"]
)
def test_dates_that_are_rare_or_half_impossible_exist(expression):
    schedule = Cron(expression)
    assert not schedule.never_matches
    assert schedule.next_after(datetime(2026, 1, 1, tzinfo=UTC))


def test_the_last_weekday_of_a_short_month_may_be_its_22nd():
    assert Cron("0 0 * 2 SUNL").next_after(datetime(2026, 1, 1, tzinfo=UTC)) == datetime(
        2026, 2, 22, tzinfo=UTC
    )


def test_the_rarest_date_is_found_across_a_common_year_of_the_century():
    assert Cron("0 0 29 2 */7").next_after(datetime(2088, 3, 1, tzinfo=UTC)) == datetime(
        2128, 2, 29, tzinfo=UTC
    )


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Pacific/Auckland"])
@pytest.mark.parametrize("expression", ["* * * * *", "0 0 29 2 *", "0 0 L * FRI"])
def test_the_ends_of_the_calendar_raise_nothing(expression, zone):
    schedule = Cron(expression, zone)
    least, most = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    assert schedule.next_after(least).year >= 1899
    assert schedule.next_after(most) is None
    assert schedule.previous_before(least) is None
    assert schedule.previous_before(most) is None
    assert schedule.next_after(datetime(9899, 12, 31, tzinfo=UTC)).year < 9910


@pytest.mark.parametrize(
    ("zone", "first", "last"),
    [
        ("Africa/Freetown", 1939, 1940),  # another offset for four days, the shortest there is
        ("America/Boa_Vista", 1999, 2001),  # summer time for a week
        ("America/Argentina/Tucuman", 2003, 2005),  # another offset for twelve days
        ("Asia/Gaza", 2040, 2041),  # winter time for a week
        ("Asia/Gaza", 2054, 2055),
        ("Asia/Gaza", 2072, 2073),
        ("Africa/Casablanca", 2022, 2026),
        ("Europe/Berlin", 1969, 1981),
    ],
)
def test_no_offset_change_is_overlooked(zone, first, last):
    from jobmanager.schedule import calendar

    start, end = datetime(first, 1, 1, tzinfo=UTC), datetime(last, 1, 1, tzinfo=UTC)
    expected = [wall.timestamp() for wall, _ in oracle.changes_between(zone, start, end)]
    found, shift = [], calendar._shift_after(zone, int(start.timestamp()))
    while shift.instant < end.timestamp():
        if shift.before != shift.after:
            found.append(shift.instant)
        shift = calendar._shift_after(zone, shift.instant)
    assert found == expected


def test_threads_that_share_an_expression_do_not_disturb_each_other():
    from jobmanager.schedule import calendar

    days = range(20_000, 20_800)
    expected = {day: calendar._croniter_day("0 0 13 * 5", day) for day in days}
    found = []

    def ask(first):
        mine = [*days[first:], *days[:first]]
        found.append({day: calendar._croniter_day("0 0 13 * 5", day) for day in mine})

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        workers = [threading.Thread(target=ask, args=(first,)) for first in range(0, 800, 200)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(interval)
    assert found == [expected] * 4


# --- properties


moments = st.datetimes(datetime(1980, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))
zones = st.sampled_from(sorted({zone for zone, _ in oracle.CHANGES}))
crons = st.builds(
    lambda seed, zone: Cron(oracle.Expressions(random.Random(seed)).one(), zone), st.integers(0, 10**9), zones
)


@settings(max_examples=examples(500, sample=80), deadline=None)
@given(crons, moments)
def test_next_is_strictly_later_whole_and_monotone(schedule, moment):
    first = schedule.next_after(moment)
    if first is None:
        assert schedule.never_matches
        return
    assert first > moment
    assert first.microsecond == 0
    assert first.tzinfo is UTC
    # Whoever asks earlier, or between, gets nothing that lies further ahead.
    assert schedule.next_after(moment - timedelta(hours=7)) <= first
    assert schedule.next_after(moment + (first - moment) / 2) == first
    assert schedule.next_after(first) > first


@settings(max_examples=examples(300, sample=50), deadline=None)
@given(crons, moments)
def test_between_is_next_after_repeated(schedule, moment):
    upcoming = schedule.upcoming(moment, 4)
    if not upcoming:
        return
    assert list(schedule.between(moment, upcoming[-1])) == upcoming
    assert list(schedule.between(moment, upcoming[-1] - timedelta(seconds=1))) == upcoming[:-1]
    assert list(schedule.between(upcoming[0], upcoming[-1])) == upcoming[1:]


@settings(max_examples=examples(300, sample=50), deadline=None)
@given(crons, moments)
def test_previous_is_the_instant_before_which_nothing_else_comes(schedule, moment):
    previous = schedule.previous_before(moment)
    if previous is None:
        assert schedule.never_matches
        return
    assert previous < moment
    following = schedule.next_after(previous)
    assert following is None or following >= moment
    assert schedule.previous_before(previous + timedelta(microseconds=1)) == previous


@settings(max_examples=examples(100, sample=30), deadline=None)
@given(crons)
def test_the_text_reads_back_as_the_same_schedule(schedule):
    assert parse(schedule.text) == schedule
    assert hash(parse(schedule.text)) == hash(schedule)
