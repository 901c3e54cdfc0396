"""What the dialect takes, what it means, and how it refuses the rest."""

import pytest

from jobmanager.errors import CronError
from jobmanager.schedule import Cron
from jobmanager.schedule.dialect import read
from jobmanager.schedule.fields import Fields


def sets(**given):
    """The sets of `0 0 * * *` with changes."""
    daily = {
        "seconds": (0,), "minutes": (0,), "hours": (0,), "days": tuple(range(1, 32)), "last_day": False,
        "months": tuple(range(1, 13)), "weekdays": tuple(range(7)), "nth": (), "last_weekdays": (),
        "either": False, "wildcard": False, "with_seconds": False,
    }  # fmt: skip
    return Fields(**daily | given)


@pytest.mark.parametrize(
    ("expression", "meant"),
    [
        ("0 0 * * *", sets()),
        ("*/15 * * * *", sets(minutes=(0, 15, 30, 45), hours=tuple(range(24)), wildcard=True)),
        ("5/15 0 * * *", sets(minutes=(5, 20, 35, 50))),
        ("59/15 0 * * *", sets(minutes=(59,))),
        ("*/60 0 * * *", sets(wildcard=True)),
        ("10-12/30 0 * * *", sets(minutes=(10,))),
        ("007 0 * * *", sets(minutes=(7,))),
        ("0 9-9 * * *", sets(hours=(9,))),
        ("0 20/2 * * *", sets(hours=(20, 22))),
        ("0 1,2 */10 * *", sets(hours=(1, 2), days=(1, 11, 21, 31))),
        ("0 0 1,L * *", sets(days=(1,), last_day=True)),
        ("0 0 l * *", sets(days=(), last_day=True)),
        ("0 0 * jan,Mar-MAY,12 *", sets(months=(1, 3, 4, 5, 12))),
        ("0 0 * */5 *", sets(months=(1, 6, 11))),
        ("0 0 * OCT/2 *", sets(months=(10, 12))),
        ("0 0 * * 0", sets(weekdays=(0,))),
        ("0 0 * * 7", sets(weekdays=(0,))),
        ("0 0 * * SUN", sets(weekdays=(0,))),
        ("0 0 * * 5-7", sets(weekdays=(0, 5, 6))),
        ("0 0 * * FRI-SUN", sets(weekdays=(0, 5, 6))),
        ("0 0 * * 0-7", sets()),
        ("0 0 * * sun-tue", sets(weekdays=(0, 1, 2))),
        ("0 0 * * SUN-SUN", sets(weekdays=(0,))),
        ("0 0 * * 1-1", sets(weekdays=(1,))),
        ("0 0 * * 1-5/2", sets(weekdays=(1, 3, 5))),
        ("0 0 * * */2", sets(weekdays=(0, 2, 4, 6))),
        ("0 0 * * MON/2", sets(weekdays=(0, 1, 3, 5))),  # a/s runs to 7, which is Sunday
        ("0 0 * * MON#1,3#2,5", sets(weekdays=(5,), nth=((1, 1), (3, 2)))),
        ("0 0 * * 7#5", sets(weekdays=(), nth=((0, 5),))),
        ("0 0 * * 5L", sets(weekdays=(), last_weekdays=(5,))),
        ("0 0 * * fril,L0", sets(weekdays=(), last_weekdays=(0, 5))),
        ("0 0 13 * 5", sets(days=(13,), weekdays=(5,), either=True)),
        ("0 0 1-31 * 5", sets(weekdays=(5,), either=True)),
        ("0 0 10,* * 5", sets(weekdays=(5,), either=True)),
        ("0 0 *,10 * 5", sets(weekdays=(5,))),
        ("0 0 */15 * 5", sets(days=(1, 16, 31), weekdays=(5,))),
        ("0 0 1-7 * */7", sets(days=tuple(range(1, 8)), weekdays=(0,))),
        ("0 0 0 * * *", sets(with_seconds=True)),
        ("*/20 0 0 * * *", sets(seconds=(0, 20, 40), with_seconds=True, wildcard=True)),
        ("5,1 2 3 * * *", sets(seconds=(1, 5), minutes=(2,), hours=(3,), with_seconds=True)),
        ("\t0  0 * *\t* ", sets()),
    ],
)  # fmt: skip
def test_an_expression_is_these_sets(expression, meant):
    assert read(expression) == meant


@pytest.mark.parametrize(
    ("alias", "spelled_out"),
    [
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * 0"),
        ("@DAILY", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        (" @Hourly\t", "0 * * * *"),
    ],
)
def test_an_alias_is_its_expression(alias, spelled_out):
    assert read(alias) == read(spelled_out)


@pytest.mark.parametrize(
    ("expression", "kind", "field", "value", "hint"),
    [
        # The number of fields
        ("", "field_count", None, "", "minute hour day-of-month month day-of-week"),
        ("* * * *", "field_count", None, "* * * *", "minute hour"),
        ("0 0 12 * * ? 2026", "field_count", None, "0 0 12 * * ? 2026", "no year field"),
        ("@daily 5", "field_count", None, "5", "alone"),
        # Values
        ("1.5 * * * *", "bad_value", "minute", "1.5", "0 to 59"),
        ("5;x * * * *", "bad_value", "minute", "5;x", "0 to 59"),
        ("*x * * * *", "bad_value", "minute", "*x", "0 to 59"),
        ("+5 * * * *", "bad_value", "minute", "+5", "0 to 59"),
        ("-5 * * * *", "bad_value", "minute", "-5", "0 to 59"),
        ("5- * * * *", "bad_value", "minute", "5-", "0 to 59"),
        ("1-2-3 * * * *", "bad_value", "minute", "2-3", "0 to 59"),
        ("1,,2 * * * *", "bad_value", "minute", "", "missing"),
        (",1 * * * *", "bad_value", "minute", "", "missing"),
        ("1, * * * *", "bad_value", "minute", "", "missing"),
        ("MON * * * *", "bad_value", "minute", "MON", "day-of-week"),
        ("0 0 * * JAN", "bad_value", "day-of-week", "JAN", "month"),
        ("0 9 * * FUNDAY", "bad_value", "day-of-week", "FUNDAY", "SUN to SAT"),
        ("0 9 * * sunday", "bad_value", "day-of-week", "sunday", "Write SUN"),
        ("0 9 * * MON-Thursday", "bad_value", "day-of-week", "Thursday", "Write THU"),
        ("0 0 1 JANUARY *", "bad_value", "month", "JANUARY", "Write JAN"),
        ("0 0 1 Sept *", "bad_value", "month", "Sept", "Write SEP"),
        ("0 L * * *", "bad_value", "hour", "L", "day-of-month"),
        ("0 0 1#2 * *", "bad_value", "day-of-month", "1#2", "1 to 31"),
        ("0 0 * * 1-5#2", "bad_value", "day-of-week", "1-5", "0 to 7"),
        ("0 0 * * 1#x", "bad_value", "day-of-week", "x", "1 to 5"),
        ("0 0 * * 5L/2", "bad_value", "day-of-week", "5L", "0 to 7"),
        ("\u0665 * * * *", "bad_value", "minute", "\u0665", "Write the digit 5"),
        ("0 0 * * \u017fun", "bad_value", "day-of-week", "\u017f", "ASCII"),  # its capital is an S
        ("0 0 * * 1\n", "bad_value", "day-of-week", "\n", "one line"),
        ("0\u00a00 * * *", "bad_value", None, "\u00a0", "ASCII"),
        # Ranges
        ("60 * * * *", "out_of_range", "minute", "60", "0 to 59"),
        ("60 0 0 * * *", "out_of_range", "second", "60", "0 to 59"),
        ("0 24 * * *", "out_of_range", "hour", "24", "0 to 23"),
        ("0 0 32 * *", "out_of_range", "day-of-month", "32", "1 to 31"),
        ("0 0 0 * *", "out_of_range", "day-of-month", "0", "1 to 31"),
        ("0 0 * 13 *", "out_of_range", "month", "13", "JAN to DEC"),
        ("0 0 * 0 *", "out_of_range", "month", "0", "1 to 12"),
        ("0 9 * * 8", "out_of_range", "day-of-week", "8", "0 to 7"),
        ("0 9 * * 8L", "out_of_range", "day-of-week", "8", "0 to 7"),
        ("0 9 * * 1#6", "out_of_range", "day-of-week", "6", "FRIL"),
        ("0 9 * * 1#0", "out_of_range", "day-of-week", "0", "FRIL"),
        ("0 12 * * 1 2026", "out_of_range", "day-of-week", "2026", "no year field"),
        ("9" * 5_000 + " * * * *", "out_of_range", "minute", "9" * 5_000, "0 to 59"),
        # Steps
        ("*/0 * * * *", "bad_step", "minute", "0", "*/15"),
        ("*/-5 * * * *", "bad_step", "minute", "-5", "*/15"),
        ("*/5/2 * * * *", "bad_step", "minute", "5/2", "*/15"),
        ("1/ * * * *", "bad_step", "minute", "", "*/15"),
        # Ranges that run backwards
        ("50-10 * * * *", "reversed_range", "minute", "50-10", "Write 50-59,0-10."),
        ("0 22-2 * * *", "reversed_range", "hour", "22-2", "Write 22-23,0-2."),
        ("0 22-3/2 * * *", "reversed_range", "hour", "22-3/2", "Write 22,0,2."),
        ("0 0 28-3 * *", "reversed_range", "day-of-month", "28-3", "Write 28-31,1-3."),
        ("0 0 1 NOV-FEB *", "reversed_range", "month", "NOV-FEB", "Write NOV-DEC,JAN-FEB."),
        ("0 0 1 12-1 *", "reversed_range", "month", "12-1", "Write 12,1."),
        ("0 0 * * FRI-MON", "reversed_range", "day-of-week", "FRI-MON", "Write FRI-SUN,MON."),
        ("0 0 * * SAT-TUE/2", "reversed_range", "day-of-week", "SAT-TUE/2", "Write SAT,MON."),
        ("0 0 * * 5-1", "reversed_range", "day-of-week", "5-1", "Write 5-7,1."),
        ("0 0 * * 6-0", "reversed_range", "day-of-week", "6-0", "Write 6-7."),
        # Other dialects
        ("0 0 ? * MON", "unsupported_token", "day-of-month", "?", "1 = Sunday"),
        ("0 0 15W * *", "unsupported_token", "day-of-month", "15W", "working day"),
        ("0 0 LW * *", "unsupported_token", "day-of-month", "LW", "working day"),
        ("0 0 L-3 * *", "unsupported_token", "day-of-month", "L-3", "L is the last day"),
        ("0 0 $ * *", "unsupported_token", "day-of-month", "$", "written L"),
        ("0 0 last * *", "unsupported_token", "day-of-month", "last", "written L"),
        ("0 0 * * L", "unsupported_token", "day-of-week", "L", "FRIL"),
        ("0 0 * * Lfri", "unsupported_token", "day-of-week", "Lfri", "FRIL"),
        ("H * * * *", "unsupported_token", "minute", "H", "jitter"),
        ("H(0-29)/10 * * * *", "unsupported_token", "minute", "H(0-29)/10", "jitter"),
        ("R * * * *", "unsupported_token", "minute", "R", "jitter"),
        ("0~30 * * * *", "unsupported_token", "minute", "0~30", "jitter"),
        ("CRON_TZ=Asia/Tokyo 0 9 * * *", "unsupported_token", None, "CRON_TZ=Asia/Tokyo", "timezone="),
        ("TZ=Asia/Tokyo 0 9 * * *", "unsupported_token", None, "TZ=Asia/Tokyo", "timezone="),
        ("0 9 * * 1 # weekly", "unsupported_token", None, "#", "Comments"),
        ("0 0 * * @daily", "unsupported_token", "day-of-week", "@daily", "alone"),
        ("@reboot", "unknown_alias", None, "@reboot", "trigger_job"),
        ("@every 5m", "unknown_alias", None, "@every", "Every"),
        ("@dayly", "unknown_alias", None, "@dayly", "@daily"),
        ("@wee\u212aly", "bad_value", None, "\u212a", "ASCII"),  # its small letter is a k
        ("@", "unknown_alias", None, "@", "@hourly"),
    ],
)
def test_everything_else_is_refused_with_the_place_and_a_hint(expression, kind, field, value, hint):
    with pytest.raises(CronError) as caught:
        Cron(expression)
    error = caught.value
    assert (error.kind, error.field, error.value) == (kind, field, value)
    assert hint in error.hint
    assert error.hint in str(error)
    if error.position is None:
        assert error.value == expression
    else:
        assert expression[error.position :].startswith(error.value)


@pytest.mark.parametrize(
    ("backwards", "field"),
    [("22-2", 1), ("23-0", 1), ("50-10/7", 0), ("30-1", 2), ("DEC-JAN", 3), ("11-2/3", 3), ("SAT-TUE", 4), ("FRI-MON/3", 4), ("6-0", 4)],
)  # fmt: skip
def test_the_suggested_rewrite_of_a_range_is_valid(backwards, field):
    fields = ["0", "0", "1", "*", "*"]
    fields[field] = backwards
    with pytest.raises(CronError) as caught:
        Cron(" ".join(fields))
    fields[field] = caught.value.hint.removeprefix("Write ").removesuffix(".")
    Cron(" ".join(fields))


def test_a_position_counts_from_the_text_as_given():
    with pytest.raises(CronError) as caught:
        Cron("  0\t9 * * MON,TUE-99")
    assert (caught.value.position, caught.value.value) == (18, "99")


@pytest.mark.parametrize("expression", [None, 5, b"0 9 * * *", ["0", "9"]])
def test_something_other_than_text_is_refused(expression):
    with pytest.raises(CronError) as caught:
        Cron(expression)
    assert caught.value.kind == "bad_value"


# --- the value


def test_equal_expressions_in_one_zone_are_equal_values():
    assert Cron("0 9 * * 1") == Cron(" 0  9 * *\t1 ", "UTC")
    assert hash(Cron("0 9 * * 1")) == hash(Cron("0 9 * * 1"))
    assert Cron("0 9 * * 1") != Cron("0 9 * * 1", "Europe/Berlin")


def test_a_schedule_cannot_be_changed():
    with pytest.raises(AttributeError):
        Cron("0 9 * * 1").timezone = "Europe/Berlin"


@pytest.mark.parametrize(
    ("expression", "seconds"),
    [
        ("* * * * *", 60),
        ("0 9 * * *", 60),
        ("30 0 9 * * *", 60),
        ("* * * * * *", 1),
        ("*/15 * * * * *", 15),
        ("*/25 * * * * *", 10),  # 50 to 0
        ("5,50 * * * * *", 15),  # 50 to 5, around the minute
    ],
)
def test_resolution_is_the_smallest_gap_the_seconds_ask_for(expression, seconds):
    assert Cron(expression).resolution.total_seconds() == seconds


# --- zones


@pytest.mark.parametrize(
    ("zone", "hint"),
    [
        ("Europe/Berln", "Europe/Berlin"),
        ("europe/berlin", "Did you mean Europe/Berlin?"),
        ("utc", "Did you mean UTC?"),
        ("Tokyo", "Asia/Tokyo"),
        ("New York", "America/New_York"),
        ("../../etc/passwd", "IANA"),
        ("/usr/share/zoneinfo/UTC", "IANA"),
        ("posix/UTC", "IANA"),
        ("posixrules", "IANA"),
        ("localtime", "IANA"),
        ("Factory", "IANA"),
        ("", "IANA"),
        (None, "Europe/Berlin"),
        (b"UTC", "Europe/Berlin"),
    ],
)
def test_only_exact_names_of_zones_are_taken(zone, hint):
    with pytest.raises(CronError) as caught:
        Cron("0 9 * * *", zone)
    assert (caught.value.kind, caught.value.field) == ("bad_timezone", "timezone")
    assert hint in caught.value.hint


@pytest.mark.parametrize("zone", ["UTC", "Etc/GMT+2", "EST", "America/Argentina/Buenos_Aires", "US/Eastern"])
def test_zones_and_their_old_names_are_taken(zone):
    assert Cron("0 9 * * *", timezone=zone).timezone == zone


# --- cost
