"""`Dst`: every policy in every kind of zone against its definition, and as a value."""

from datetime import UTC, datetime, timedelta

import pytest
from tests.unit.backends.pg_cron.test_plan import instants as planned
from tests.unit.backends.pg_cron.test_plan import midnight
from tests.unit.schedule.dst_by_definition import FOLDS, GAPS, POLICIES, TRANSITIONS, ZONES, walk
from tests.unit.schedule.test_wakeup import matched

from jobmanager import Cron, CronError, Dst
from jobmanager.backends.pg_cron.plans.plan import plan_of
from jobmanager.schedule import parse
from jobmanager.schedule.wakeup import local_wakeup, wakeup

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
every_policy = pytest.mark.parametrize(("gap", "fold"), POLICIES)
every_transition = pytest.mark.parametrize(("zone", "day"), TRANSITIONS)


def test_each_policy_differs_from_the_others_in_each_zone():
    for zone, _, skips, repeats in ZONES:
        assert len({tuple(walk(zone, skips).instants(gap, "first")) for gap in GAPS}) == 3, zone
        assert len({tuple(walk(zone, repeats).instants("end", fold)) for fold in FOLDS}) == 3, zone


@every_policy
@every_transition
def test_the_instants_are_those_of_the_definition(zone, day, gap, fold):
    near = walk(zone, day)
    schedule = Cron(near.line, zone, dst=Dst(gap, fold))
    expected = near.instants(gap, fold)

    assert list(schedule.between(near.start, near.end)) == expected
    later = [instant + SECOND for instant in expected[:-1]]
    assert [schedule.next_after(instant - SECOND) for instant in expected] == expected
    assert [schedule.next_after(instant) for instant in later] == expected[1:]
    assert [schedule.previous_before(instant) for instant in expected[1:]] == expected[:-1]


@every_policy
@every_transition
def test_a_plan_of_pg_cron_has_the_same_instants_and_every_one_is_woken_for(zone, day, gap, fold):
    near = walk(zone, day)
    schedule = Cron(near.line, zone, dst=Dst(gap, fold))
    expected = near.instants(gap, fold)

    assert planned(plan_of(schedule, near.start, 10), near.start, near.end) == expected
    text = wakeup(schedule, near.start, 10)
    assert all(matched(text, instant) for instant in expected)
    for ahead in range(3):  # a change on the first or the last day of a plan
        first = midnight((near.start + ahead * DAY).date())
        expected = list(schedule.between(first - SECOND, first + DAY - SECOND))
        assert planned(plan_of(schedule, first, 1), first - SECOND, first + DAY - SECOND) == expected


@every_policy
def test_no_text_on_the_clock_of_a_zone_stands_for_times_that_a_change_touches(gap, fold):
    assert local_wakeup(Cron("30 2 * * *", "Europe/Berlin", dst=Dst(gap, fold)), datetime.now(UTC)) is None


@every_policy
@every_transition
def test_a_wildcard_schedule_follows_the_clock_whatever_the_policy(zone, day, gap, fold):
    near = walk(zone, day)
    schedule = Cron("*/5 * * * *", zone, dst=Dst(gap, fold))

    expected = [at for at, wall in near.minutes if near.start < at <= near.end and wall.minute % 5 == 0]
    assert list(schedule.between(near.start, near.end)) == expected
    assert schedule.describe() == f"every 5 minutes, {zone}"


@every_policy
def test_a_change_of_a_day_is_a_correction_whatever_the_policy(gap, fold):
    schedule = Cron("30 12 * * *", "Pacific/Apia", dst=Dst(gap, fold))
    start = datetime(2011, 12, 29, tzinfo=UTC)

    assert schedule.upcoming(start, 3) == [
        datetime(2011, 12, 29, 22, 30, tzinfo=UTC),
        datetime(2011, 12, 30, 22, 30, tzinfo=UTC),
        datetime(2011, 12, 31, 22, 30, tzinfo=UTC),
    ]


@every_policy
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo"])
def test_walking_on_meets_the_same_instants_wherever_it_begins(zone, gap, fold):
    """Fails where a period of remembered shifts ends beside a change."""
    schedule = Cron("35 0-3 * * *", zone, dst=Dst(gap, fold))
    start, end = datetime(1996, 6, 1, tzinfo=UTC), datetime(1997, 12, 1, tzinfo=UTC)
    whole = list(schedule.between(start, end))

    assert all(schedule.next_after(instant - SECOND) == instant for instant in whole)
    assert sorted(set(whole)) == whole


# --- as a value


@pytest.mark.parametrize(("gap", "spring"), [("end", ["01:00"]), ("shift", ["01:30"]), ("skip", [])])
@pytest.mark.parametrize(
    ("fold", "autumn"), [("first", ["00:30"]), ("second", ["01:30"]), ("both", ["00:30", "01:30"])]
)
def test_half_past_two_in_berlin(gap, spring, fold, autumn):
    schedule = Cron("30 2 * * *", "Europe/Berlin", dst=Dst(gap=gap, fold=fold))

    def on(year, month, day):
        midnight = datetime(year, month, day, tzinfo=UTC)
        return [f"{instant:%H:%M}" for instant in schedule.between(midnight, midnight + DAY - SECOND)]

    assert on(2026, 3, 29) == spring
    assert on(2026, 10, 25) == autumn


@every_policy
def test_a_text_says_the_policy_and_is_read_back(gap, fold):
    schedule = Cron("30 2 * * *", "Europe/Berlin", dst=Dst(gap, fold))
    default = (gap, fold) == ("end", "first")

    assert parse(schedule.text) == schedule
    assert schedule.text == "cron 30 2 * * * in Europe/Berlin" + ("" if default else f" dst {gap},{fold}")


def test_the_default_is_the_rule_of_debian():
    assert Dst() == Dst(gap="end", fold="first")
    assert Cron("30 2 * * *") == Cron("30 2 * * *", dst=Dst())
    assert Cron("30 2 * * *") != Cron("30 2 * * *", dst=Dst("skip"))


@pytest.mark.parametrize(
    ("given", "policy"),
    [
        ("shift,both", Dst("shift", "both")),
        ("second, skip", Dst("skip", "second")),
        ("skip", Dst("skip")),
        ("both", Dst(fold="both")),
        ({"gap": "shift"}, Dst("shift")),
        ({"gap": None, "fold": "both"}, Dst(fold="both")),
        (Dst("shift"), Dst("shift")),
    ],
)
def test_a_policy_may_be_given_as_text_or_mapping(given, policy):
    assert Cron("30 2 * * *", dst=given).dst == policy
    assert Dst.read(policy.text) == policy


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("shft", "'shft' is no policy for changes of the clocks. Did you mean 'shift'?"),
        ("", "Use Dst(gap="),
        (3, "3 is no policy for changes of the clocks. Use Dst(gap="),
        (None, "None is no policy"),
        (
            {"gap": "later"},
            "gap='later' is no policy for changes of the clocks. Use one of end, shift, skip.",
        ),
        ({"spring": "end"}, "is no policy"),
    ],
)
def test_another_policy_is_refused_in_a_sentence(given, sentence):
    with pytest.raises(CronError) as refused:
        Cron("30 2 * * *", dst=given)
    assert sentence in str(refused.value)
    assert (refused.value.kind, refused.value.field) == ("bad_value", "dst")


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Dst(), "at 02:30 every day, Europe/Berlin"),
        (Dst("shift"), "at 02:30 every day, Europe/Berlin, a skipped time later by the gap"),
        (
            Dst("skip", "both"),
            "at 02:30 every day, Europe/Berlin, a skipped time not at all, a repeated time both times",
        ),
        (Dst(fold="second"), "at 02:30 every day, Europe/Berlin, a repeated time the second time"),
    ],
)
def test_the_words_say_what_differs_from_the_default(policy, words):
    assert Cron("30 2 * * *", "Europe/Berlin", dst=policy).describe() == words
