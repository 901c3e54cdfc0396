"""Charts as SVG: what is drawn, and where."""

from datetime import UTC, date, datetime, timedelta

import pytest

from jobmanager.web.pages.charts.axis import Dot, axis_chart
from jobmanager.web.pages.charts.calendar import Cell, calendar_chart, worst
from jobmanager.web.pages.charts.durations import Dot as Took
from jobmanager.web.pages.charts.durations import durations_chart, grid, percentile
from jobmanager.web.pages.charts.hours import Hour, hours_chart

NOW = datetime(2026, 11, 25, 13, 32, tzinfo=UTC)


def test_an_hour_is_a_bar_with_a_count_in_the_lane_of_its_trouble():
    hours = [Hour(4, due=82, failed=1, missed=12), Hour(5)]
    chart = hours_chart(hours, now=14 * 60 + 32, links=[["/f", "/m", "/l", "/s"]] * 2)

    assert "<title>04:00 to 05:00: 82 due, 1 failed, 12 missed</title>" in chart
    assert chart.count('class="vol"') == 1
    assert '<a class="failed" href="/f"' in chart
    assert '<a class="missed" href="/m"' in chart
    assert '<a class="late"' not in chart
    assert "now 14:32" in chart


@pytest.mark.parametrize(("most", "top"), [(0, "2"), (3, "4"), (82, "100"), (1200, "2,000")])
def test_the_scale_ends_at_a_round_number_whose_half_is_whole(most, top):
    assert f'text-anchor="end">{top}</text>' in hours_chart([Hour(4, due=most)], now=0, links=[[""] * 4])


def test_late_in_the_day_the_words_stand_before_the_line():
    assert '<text x="99.40%"' not in hours_chart([], now=1439, links=[])
    assert 'text-anchor="end">now 23:59' in hours_chart([], now=1439, links=[])


def test_instants_stand_at_the_logarithm_of_their_distance_and_above_each_other_if_they_are_near():
    dots = [Dot(NOW + timedelta(seconds=seconds), "x") for seconds in (1, 3600, 3610, 10**6)]
    chart = axis_chart(dots, NOW)

    assert [part.split('"')[0] for part in chart.split('cx="')[1:]] == ["0.0%", "60.1%", "60.1%", "100.0%"]
    assert [part.split('"')[0] for part in chart.split('cy="')[1:]] == ["22.5", "22.5", "13.5", "22.5"]


def test_what_a_chart_is_told_is_escaped():
    assert "&lt;b&gt;" in axis_chart([Dot(NOW, "<b>")], NOW)
    assert "&lt;b&gt;" in calendar_chart(
        [date(2026, 11, 25)], {(date(2026, 11, 25), 3): Cell("failed", 1, "<b>", "/x")}
    )


def test_an_hour_with_nothing_due_is_a_point_and_the_worst_outcome_is_drawn():
    day = date(2026, 11, 25)
    chart = calendar_chart([day], {(day, 3): Cell("failed", 1, "Wed 25 Nov 03:00: failed", "/runs/1")})

    assert chart.count('class="base"') == 23
    assert '<a href="/runs/1" tabindex="-1" class="failed"><title>Wed 25 Nov 03:00: failed</title>' in chart
    assert worst(["succeeded", "late", "missed", "skipped"]) == "missed"


def test_durations_are_dots_with_their_percentiles_and_a_near_timeout_as_lines():
    took = [timedelta(seconds=value) for value in (40, 50, 60, 200)]
    dots = [Took(value, value.seconds == 200, str(value)) for value in took]
    how = {
        "p50": percentile(took, 0.5),
        "p95": percentile(took, 0.95),
        "told": {-1.0: "5 min", 100.0: "100 s"},
    }
    near = durations_chart(dots, timeout=timedelta(minutes=5), **how)
    assert near.count("5 min") == 1  # at the line of the time-out, and not below the floor

    assert (near.count("<circle"), near.count("m-4-4 8 8")) == (3, 1)
    assert "timeout 5 min" in near
    assert "100 s</text>" in near
    assert "timeout" not in durations_chart(dots, timeout=timedelta(hours=5), **how)
    assert how["p50"] == timedelta(seconds=50)
    assert how["p95"] == timedelta(seconds=200)
    assert percentile([], 0.5) is None


@pytest.mark.parametrize(
    ("longest", "values"), [(250, [100, 200]), (0.34, [0.1, 0.2]), (5, [2.5, 5]), (90, [25, 50])]
)
def test_the_grid_has_round_values(longest, values):
    assert grid(timedelta(seconds=longest)) == values
