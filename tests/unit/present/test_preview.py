"""A schedule before it is kept: words, next instants, and what clock changes do to it."""

from datetime import UTC, datetime, timedelta

import pytest

from jobmanager.errors import ConfigurationError, CronError
from jobmanager.present.preview import preview_of, preview_record, schedule_of
from jobmanager.schedule import At, Cron, Dst, Every

NOW = datetime(2026, 11, 25, 13, 32, 8, tzinfo=UTC)
BERLIN = "Europe/Berlin"


def notes(expression: str, timezone: str = BERLIN) -> list[str]:
    return [change.note for change in preview_of(Cron(expression, timezone), NOW).clock_changes]


def test_a_cron_line_is_told_with_its_zone_and_its_next_five_instants():
    preview = preview_of(Cron("30 2 * * 1-5", BERLIN), NOW)

    assert preview.words == "at 02:30 on Monday to Friday, Europe/Berlin"
    assert (preview.text, preview.timezone) == ("30 2 * * 1-5", BERLIN)
    assert [moment.day for moment in preview.instants] == [26, 27, 30, 1, 2]
    assert preview.instants[0] == datetime(2026, 11, 26, 1, 30, tzinfo=UTC)


def test_each_clock_change_of_the_coming_year_is_named_with_what_the_wall_shows():
    forward, back = preview_of(Cron("30 2 * * *", BERLIN), NOW).clock_changes

    assert (forward.direction, back.direction) == ("forward", "back")
    assert forward.at == datetime(2027, 3, 28, 1, tzinfo=UTC)
    assert (forward.wall_before.hour, forward.wall_after.hour) == (2, 3)
    assert (back.wall_before.hour, back.wall_after.hour) == (3, 2)


@pytest.mark.parametrize(
    ("expression", "forward", "back"),
    [
        (
            "30 2 * * *",
            "02:30 is not on the clock that day: it runs at 03:00.",
            "02:30 comes twice that day: it runs once, the first time.",
        ),
        (
            "*/30 * * * *",
            "02:00 and 02:30 are left out that day: the job follows the clock.",
            "02:00 and 02:30 are there twice that day, and the job runs both times.",
        ),
        (
            "30 2 * * 1-5",
            "No instant lies in the time that is left out.",
            "No instant lies in the time that comes twice.",
        ),
    ],
    ids=["fixed", "wildcard", "rests-on-sunday"],
)
def test_what_a_clock_change_does_is_said_as_the_schedule_will_do_it(expression, forward, back):
    assert notes(expression) == [forward, back]


@pytest.mark.parametrize(
    ("policy", "forward", "back"),
    [
        (
            Dst("shift", "second"),
            "02:30 is not on the clock that day: it runs at 03:30.",
            "02:30 comes twice that day: it runs once, the second time.",
        ),
        (
            Dst("skip", "both"),
            "02:30 is not on the clock that day: the job leaves that out.",
            "02:30 is there twice that day, and the job runs both times.",
        ),
    ],
)
def test_what_a_clock_change_does_follows_the_policy_of_the_schedule(policy, forward, back):
    preview = preview_of(Cron("30 2 * * *", BERLIN, dst=policy), NOW)

    assert [change.note for change in preview.clock_changes] == [forward, back]
    assert preview.dst == policy
    assert preview_record(preview)["dst"] == {"gap": policy.gap, "fold": policy.fold}


def test_a_zone_without_clock_changes_has_none():
    assert notes("30 2 * * *", "UTC") == []


@pytest.mark.parametrize(
    ("schedule", "words", "text", "count"),
    [
        (Every(30), "every 30 seconds", "every 30 s", 5),
        (At(NOW + timedelta(hours=1)), "once, on 2026-11-25 at 14:32:08 UTC", "at 2026-11-25T14:32:08Z", 1),
        (None, "by hand", "", 0),
    ],
    ids=["every", "at", "by-hand"],
)
def test_other_schedules_are_previewed_without_clock_changes(schedule, words, text, count):
    preview = preview_of(schedule, NOW)

    assert (preview.words, preview.text, preview.timezone) == (words, text, None)
    assert (len(preview.instants), preview.clock_changes) == (count, ())


def test_a_preview_is_a_document():
    told = preview_record(preview_of(Cron("30 2 * * *", BERLIN), NOW))

    assert told["next"][0] == "2026-11-26T01:30:00Z"
    assert told["clock_changes"][0] == {
        "at": "2027-03-28T01:00:00Z",
        "direction": "forward",
        "clock_before": "2027-03-28T02:00:00",
        "clock_after": "2027-03-28T03:00:00",
        "met": True,
        "times": ["02:30"],
        "note": "02:30 is not on the clock that day: it runs at 03:00.",
    }


def test_words_become_the_schedule_that_a_declaration_would_have():
    assert schedule_of("job", cron="0 3 * * *", timezone=BERLIN) == Cron("0 3 * * *", BERLIN)
    assert schedule_of("job", every="5m") == Every(300)
    assert schedule_of("job") is None
    with pytest.raises(CronError, match="cron="):
        schedule_of("job", cron="61 * * * *")
    with pytest.raises(ConfigurationError, match="exclude each other"):
        schedule_of("job", cron="0 3 * * *", every=5)
