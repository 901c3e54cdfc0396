"""What people type: lengths of time, moments, payloads; and what is answered to what cannot be read."""

import io
import time
from datetime import UTC, datetime, timedelta

import pytest

from jobmanager.cli.arguments import duration, moment, payload
from jobmanager.cli.output.failures import UsageError

NOW = datetime(2026, 3, 10, 12, 30, 15, tzinfo=UTC)


@pytest.fixture(autouse=True)
def in_new_york(monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("30s", 30), ("5m", 300), ("5min", 300), ("1h30m", 5400), ("90d", 7_776_000), ("2w", 1_209_600),
     ("1.5h", 5400), (" 250ms ", 0.25), ("1h 5s", 3605), ("0", 0)],
)  # fmt: skip
def test_a_length_of_time_is_read(text, seconds):
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "soon", "5 parsecs", "-5m", "h", "1e9w", "99999999999w", "5mm"])
def test_no_length_of_time_says_how_to_write_one(text):
    with pytest.raises(UsageError) as caught:
        duration(text)
    assert "is not a length of time" in str(caught.value)
    assert "1h30m" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("today", datetime(2026, 3, 10, 4, tzinfo=UTC)),
        ("tomorrow", datetime(2026, 3, 11, 4, tzinfo=UTC)),
        ("+2h", NOW + timedelta(hours=2)),
        ("-30m", NOW - timedelta(minutes=30)),
        ("14:30", datetime(2026, 3, 10, 18, 30, tzinfo=UTC)),
        ("2:05", datetime(2026, 3, 10, 6, 5, tzinfo=UTC)),
        ("14:30:05", datetime(2026, 3, 10, 18, 30, 5, tzinfo=UTC)),
        ("2026-03-12", datetime(2026, 3, 12, 4, tzinfo=UTC)),
        ("2026-03-12T08:00", datetime(2026, 3, 12, 12, tzinfo=UTC)),
        ("2026-03-12 08:00", datetime(2026, 3, 12, 12, tzinfo=UTC)),
        ("2026-03-12T08:00Z", datetime(2026, 3, 12, 8, tzinfo=UTC)),
        ("2026-03-12T08:00+01:00", datetime(2026, 3, 12, 7, tzinfo=UTC)),
        ("2026-01-12T08:00", datetime(2026, 1, 12, 13, tzinfo=UTC)),
    ],
)
def test_a_moment_without_a_zone_is_the_readers(text, expected):
    assert moment(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "soon", "25:00", "2026-13-01", "+soon", "9999-12-31T23:59"])
def test_no_moment_says_how_to_write_one(text):
    with pytest.raises(UsageError):
        moment(text, NOW)


def test_a_payload_is_text_a_file_or_standard_input(tmp_path, monkeypatch):
    file = tmp_path / "payload.json"
    file.write_text('{"days": 1}')
    monkeypatch.setattr("sys.stdin", io.StringIO('{"days": 2}'))
    assert payload(f"@{file}") == {"days": 1}
    assert payload("-") == {"days": 2}
    assert payload('{"days": 3}') == {"days": 3}
    assert payload(None) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{days: 7}", "line 1, column 2"),
        ("[1, 2]", "a JSON array, not an object"),
        ('"text"', "a JSON string, not an object"),
        ("null", "a JSON null, not an object"),
        ("@/nowhere/payload.json", "cannot be read"),
    ],
)
def test_no_payload_says_what_is_wrong_with_it(text, says):
    with pytest.raises(UsageError, match=says):
        payload(text)
