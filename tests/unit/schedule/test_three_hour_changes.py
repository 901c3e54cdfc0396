"""A clock that changes by exactly three hours, as Antarctica/Casey did: the last change that cron makes good."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from jobmanager.schedule import Cron
from jobmanager.schedule.wakeup import wakeup

CASEY = "Antarctica/Casey"
FORWARD = datetime(2016, 10, 21, 16, tzinfo=UTC)  # 00:00 became 03:00
BACK = datetime(2018, 3, 10, 17, tzinfo=UTC)  # 04:00 became 01:00
DAY = timedelta(days=1)


def instants(expression: str, around: datetime) -> list[datetime]:
    return list(Cron(expression, timezone=CASEY).between(around - DAY, around + DAY))


@pytest.mark.parametrize(("change", "hours"), [(FORWARD, 3), (BACK, -3)])
def test_the_zone_changed_by_three_hours(change: datetime, hours: int) -> None:
    before, after = (moment.astimezone(ZoneInfo(CASEY)).utcoffset() for moment in (change - DAY, change))

    assert before is not None
    assert after is not None
    assert after - before == timedelta(hours=hours)


def test_a_time_that_three_skipped_hours_swallowed_fires_at_their_end() -> None:
    assert instants("30 1 * * *", FORWARD) == [
        FORWARD + timedelta(hours=-22, minutes=-30),
        FORWARD,
        FORWARD + timedelta(hours=22, minutes=30),
    ]


def test_a_time_that_three_repeated_hours_show_twice_fires_once() -> None:
    first_pass = BACK - timedelta(minutes=90)

    assert instants("30 2 * * *", BACK) == [first_pass]
    assert Cron("30 2 * * *", timezone=CASEY).next_after(first_pass) == first_pass + timedelta(hours=27)


def test_a_wildcard_schedule_fires_whenever_the_clock_shows_a_match() -> None:
    assert len(instants("30 * * * *", FORWARD)) == len(instants("30 * * * *", BACK)) == 48


def test_a_ticker_outside_wakes_at_the_end_of_three_skipped_hours() -> None:
    schedule = Cron("30 1 * * *", timezone=CASEY)
    woken = Cron(wakeup(schedule, FORWARD - 30 * DAY, days=60))

    for instant in schedule.between(FORWARD - 20 * DAY, FORWARD + 20 * DAY):
        assert woken.next_after(instant - timedelta(seconds=1)) == instant
