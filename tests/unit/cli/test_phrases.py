"""Values in words: lengths of time, distances, moments."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from jobmanager.present.phrases import both, clock, compact, count, distance, iso, length, tail

NOW = datetime(2026, 3, 10, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def in_berlin(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0 ms"), (0.0004, "0 ms"), (0.34, "340 ms"), (0.9999, "1.0 s"), (2.44, "2.4 s"), (9.96, "10 s"), (59.6, "1 min"),
     (200, "3 min 20 s"), (3600, "1 h"), (7500, "2 h 5 min"), (90_000, "1 d 1 h"), (30 * 86_400, "30 d")],
)  # fmt: skip
def test_a_length_of_time_reads_well(seconds, told):
    assert length(timedelta(seconds=seconds)) == told


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.4, "now"), (1, "in 1 s"), (119, "in 119 s"), (120, "in 2 min"), (-3600, "60 min ago"), (7200, "in 2 h"), (-90_000, "25 h ago"),
     (200_000, "in 2 d")],
)  # fmt: skip
def test_a_distance_is_told_in_one_unit(seconds, told):
    assert distance(NOW + timedelta(seconds=seconds), NOW) == told


def test_nothing_is_told_of_nothing():
    assert (length(None), distance(None, NOW), clock(None, NOW), compact(None), iso(None)) == (
        "",
        "",
        "",
        "",
        None,
    )


def test_a_moment_is_told_in_the_readers_zone_and_in_utc(in_berlin):
    assert clock(NOW + timedelta(hours=1), NOW) == "14:00:00 CET"
    assert clock(NOW + timedelta(days=30), NOW) == "9 Apr 14:00:00 CEST"
    assert clock(NOW - timedelta(days=365), NOW) == "2025-03-10 13:00:00 CET"
    assert both(NOW) == "Tue 2026-03-10 13:00:00 CET (2026-03-10 12:00:00 UTC)"


def test_machines_get_utc_with_a_z(in_berlin):
    assert iso(NOW) == "2026-03-10T12:00:00Z"
    assert iso(NOW.astimezone()) == "2026-03-10T12:00:00Z"


def test_ends_and_counts():
    assert tail("01a20637-f420-775c-8000-012edca94b78") == "dca94b78"
    assert [count(1, "run"), count(2, "run"), count(1000, "run")] == ["1 run", "2 runs", "1,000 runs"]
