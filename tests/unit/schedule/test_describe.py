"""The English of schedules, above all where "and" and "or" differ."""

from datetime import UTC, datetime, timedelta

import pytest

from jobmanager.schedule import At, Cron, Every


@pytest.mark.parametrize(
    ("expression", "english"),
    [
        ("* * * * *", "every minute"),
        ("*/15 * * * *", "every 15 minutes"),
        ("0 * * * *", "every hour"),
        ("@hourly", "every hour"),
        ("0 */2 * * *", "every 2 hours"),
        ("* * * * * *", "every second"),
        ("*/30 * * * * *", "every 30 seconds"),
        ("0 * * * * *", "every minute"),
        ("0 2 * * *", "at 02:00 every day"),
        ("15 30 9 * * *", "at 09:30:15 every day"),
        ("0,30 9,17 * * *", "at 09:00, 09:30, 17:00 and 17:30 every day"),
        ("5 * * * *", "at minute 5 of every hour"),
        ("*/7 * * * *", "at minute 0, 7, 14, 21, 28, 35, 42, 49 and 56 of every hour"),
        ("*/15 9-17 * * MON-FRI", "every 15 minutes of the hours 9 to 17 on Monday to Friday"),
        ("* 3 * * *", "every minute of the hour 3"),
        ("15,25 * * * * *", "at second 15 and 25 of every minute"),
        ("15,25 * 3 * * *", "at second 15 and 25 of every minute of the hour 3"),
        ("*/10 0 9-11 * * *", "every 10 seconds of the minute 0 of the hours 9 to 11"),
        ("0 9 * * MON-FRI", "at 09:00 on Monday to Friday"),
        ("0 9 * * FRI-SUN", "at 09:00 on Friday to Sunday"),
        ("0 9 * * 0,3,6", "at 09:00 on Wednesday, Saturday and Sunday"),
        ("0 9 * * MON#1,FRIL", "at 09:00 on the first Monday of the month and the last Friday of the month"),
        ("0 9 * * 2,1#5", "at 09:00 on Tuesday and the fifth Monday of the month"),
        ("0 9 1,15 * *", "at 09:00 on day 1 and 15 of the month"),
        ("0 9 L * *", "at 09:00 on the last day of the month"),
        ("0 9 1,L * *", "at 09:00 on day 1 and the last day of the month"),
        ("0 9 13 * 5", "at 09:00 on day 13 of the month or on Friday"),
        ("0 9 */15 * 5", "at 09:00 on Friday if it is day 1, 16 or 31 of the month"),
        ("0 9 1-7 * */7", "at 09:00 on Sunday if it is day 1 to 7 of the month"),
        ("0 9 1-31 * 1", "at 09:00 every day"),
        ("0 9 13 * 0-7", "at 09:00 every day"),
        ("0 9 *,10 * 1", "at 09:00 on Monday"),
        ("0 0 1 1 *", "at 00:00 on day 1 of the month in January"),
        ("*/5 * * MAR-MAY,12 *", "every 5 minutes in March to May and December"),
        ("0 0 30 2 *", "at 00:00 on day 30 of the month in February (no such date)"),
    ],
)
def test_cron_in_english(expression, english):
    assert Cron(expression).describe() == english


def test_the_zone_is_named_when_it_is_not_utc():
    assert Cron("0 2 * * *", "Europe/Berlin").describe() == "at 02:00 every day, Europe/Berlin"


@pytest.mark.parametrize(
    ("interval", "english"),
    [
        (1, "every second"),
        (30, "every 30 seconds"),
        (60, "every minute"),
        (5_400, "every 90 minutes"),
        (timedelta(hours=2), "every 2 hours"),
        (timedelta(weeks=1), "every 7 days"),
    ],
)
def test_intervals_in_english(interval, english):
    assert Every(interval).describe() == english


def test_an_anchor_is_named():
    anchor = datetime(2026, 1, 1, 5, tzinfo=UTC)
    assert Every(3_600, anchor).describe() == "every hour, counted from 2026-01-01 at 05:00:00 UTC"


def test_a_moment_in_english():
    assert At(datetime(2026, 1, 1, tzinfo=UTC)).describe() == "once, on 2026-01-01 at 00:00:00 UTC"
