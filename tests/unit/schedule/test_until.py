"""Schedules that end: no instant after `until`, in every answer, in the text, in words, and in a plan of pg_cron."""

from datetime import UTC, date, datetime, timedelta

import pytest
from tests.unit.backends.pg_cron.test_plan import instants as planned

from jobmanager import At, Cron, CronError, Every
from jobmanager.backends.pg_cron.plans.plan import plan_of
from jobmanager.job import make_job
from jobmanager.schedule import parse

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
DAILY = Cron("0 13 * * *", until=NOON + 2 * DAY)


@pytest.mark.parametrize(
    ("schedule", "count"),
    [
        (DAILY, 2),
        (Cron("0 13 * * *", until=NOON + 2 * DAY + timedelta(hours=1)), 3),
        (Cron("0 13 * * *", until=NOON + 2 * DAY + timedelta(minutes=59, seconds=59)), 2),
        (Every(DAY, NOON + SECOND, until="2026-03-12T12:00:01Z"), 3),
        (Every(DAY, NOON + SECOND, until="2026-03-12T12:00:00Z"), 2),
    ],
)
def test_the_last_instant_is_not_after_the_end(schedule, count):
    upcoming = schedule.upcoming(NOON, 10)

    assert len(upcoming) == count
    assert schedule.next_after(upcoming[-1]) is None
    assert schedule.previous_before(NOON + 99 * DAY) == upcoming[-1]
    assert (schedule.ended(upcoming[-1] - SECOND), schedule.ended(upcoming[-1])) == (False, True)
    assert parse(schedule.text) == schedule


def test_text_and_words_say_the_end():
    assert DAILY.text == "cron 0 13 * * * in UTC until 2026-03-12T12:00:00Z"
    assert DAILY.describe() == "at 13:00 every day, until 2026-03-12 at 12:00:00 UTC"
    late = Every(30, until="2026-03-12T13:00+01:00")
    assert late.text == "every 30s until 2026-03-12T12:00:00Z"
    assert late.describe() == "every 30 seconds, until 2026-03-12 at 12:00:00 UTC"
    both = Cron("0 13 * * *", "Europe/Berlin", dst="skip", until=NOON)
    assert both.text == "cron 0 13 * * * in Europe/Berlin dst skip,first until 2026-03-10T12:00:00Z"
    assert parse(both.text) == both
    assert not At(NOON).ended(NOON - SECOND)


@pytest.mark.parametrize("days", [1, 2, 3, 30])
def test_a_plan_ends_with_its_schedule_and_holds_for_ever_then(days):
    plan = plan_of(DAILY, NOON, days)

    assert planned(plan, NOON, NOON + 60 * DAY) == DAILY.upcoming(NOON, 10)
    assert plan.planned_until == date.max


def test_a_job_says_its_end_beside_its_line_or_interval():
    assert make_job("one", "work", {"cron": "0 13 * * *", "until": NOON}).schedule == Cron(
        "0 13 * * *", until=NOON
    )
    assert make_job("one", "work", {"every": "5m", "until": "2026-03-10T12:00Z"}).schedule == Every(
        300, until=NOON
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"at": NOON, "until": NOON}, "belongs to cron= or every="),
        ({"until": NOON}, "belongs to cron= or every="),
        (
            {"every": 5, "until": "tomorrow"},
            "until='tomorrow': 'tomorrow' is not a moment with its zone. Write it as 2026",
        ),
        ({"every": 5, "until": "2026-03-10"}, "is not a moment with its zone"),
        ({"every": 5, "until": datetime(2026, 3, 10)}, "does not say in which zone"),
        ({"every": 5, "until": 3}, "3 is not a moment"),
    ],
)
def test_an_end_that_cannot_be_meant_is_refused(options, sentence):
    with pytest.raises(ValueError, match="until=") as refused:
        make_job("one", "work", options)
    assert sentence in str(refused.value)
    if "belongs" not in sentence:
        assert isinstance(refused.value, CronError)
