"""The forms of a job: what they send as its policy for changes of the clocks, and what they show of it."""

from __future__ import annotations

import html
import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.unit.web.visitor import Visitor

from jobmanager import JobManager, Principal
from jobmanager.schedule import Cron
from jobmanager.web import dashboard

LINE = {"kind": "cron", "cron": "30 2 * * *", "timezone": "Europe/Berlin"}


@pytest.fixture
def ana(jobs: JobManager) -> Visitor:
    person = Principal("ana", ["admin"], authenticated_at=datetime.now(UTC))
    found = Visitor(dashboard(jobs, authorize=lambda request: person))
    found.get("/jobs/new")
    return found


def definition(jobs: JobManager) -> Any:
    row = jobs.store.jobs.get("made")
    assert row
    return row.definition


def test_a_policy_is_chosen_previewed_kept_and_changed(jobs: JobManager, ana: Visitor) -> None:
    new = {"id": "made", "handler": "greet", **LINE, "gap": "shift", "fold": "both"}
    preview = ana.send("/jobs/new", **new, preview="1").text
    assert "A time that the clocks skip" in preview
    assert "it runs at 03:30" in preview
    ana.send("/jobs/new", **new)
    assert definition(jobs)["dst"] == "shift,both"

    shown = ana.get("/jobs/made").text
    assert "a skipped time later by the gap, a repeated time both times" in shown
    form = ana.get("/jobs/made/edit").text
    assert '<option value="shift" selected>' in form
    assert '<option value="both" selected>' in form
    was = (
        '{"kind": "cron", "cron": "30 2 * * *", "timezone": "Europe/Berlin", "gap": "shift", "fold": "both"}'
    )
    ana.send("/jobs/made/edit", **LINE, gap="end", fold="first", was=was)
    assert "dst" not in definition(jobs)


def test_an_end_is_typed_kept_and_taken_back(jobs: JobManager, ana: Visitor) -> None:
    wrong = ana.send("/jobs/new", id="made", handler="greet", **LINE, until="2026-12-31")
    assert "is not a moment with its zone" in wrong.text
    ana.send("/jobs/new", id="made", handler="greet", **LINE, until="2036-12-31T23:59Z")
    assert definition(jobs)["until"] == "2036-12-31T23:59:00+00:00"

    form = ana.get("/jobs/made/edit").text
    assert 'value="2036-12-31T23:59:00+00:00"' in form
    assert "until 2036-12-31 at 23:59:00 UTC" in ana.get("/jobs/made").text
    was = '{"kind": "cron", "cron": "30 2 * * *", "timezone": "Europe/Berlin", "until": "2036-12-31T23:59:00+00:00"}'
    ana.send("/jobs/made/edit", **LINE, until="", was=was)
    assert "until" not in definition(jobs)


def instants_in(page: str) -> int:
    """Return how many instants the preview of a form lists."""
    table = page.partition("instants</caption>")[2].partition("</table>")[0]
    return table.count('<tr><th scope="row">')


def test_a_number_of_runs_ends_the_preview_and_is_counted_anew_by_an_edit(
    jobs: JobManager, ana: Visitor
) -> None:
    new = {"id": "made", "handler": "greet", **LINE, "max_runs": "3"}
    preview = ana.send("/jobs/new", **new, preview="1").text
    assert instants_in(preview) == 3
    assert instants_in(ana.send("/jobs/new", **{**new, "max_runs": "0"}, preview="1").text) == 5
    ana.send("/jobs/new", **new)
    first = jobs.get_job("made").schedule
    assert isinstance(first, Cron)
    assert first.until is not None

    form = ana.get("/jobs/made/edit").text
    assert instants_in(form) == 3
    assert f'value="{first.until.isoformat()}"' not in form
    was = html.unescape(re.search(r'name="was" value="([^"]*)"', form)[1])  # type: ignore[index]
    fields = {**json.loads(was), "cron": "30 2 1 * *", "was": was}
    assert instants_in(ana.send("/jobs/made/edit", **fields, preview="1").text) == 3
    ana.send("/jobs/made/edit", **fields)
    after = jobs.get_job("made").schedule
    assert isinstance(after, Cron)
    assert (after.expression, definition(jobs)["max_runs"]) == ("30 2 1 * *", 3)
    assert after.until == after.end_after(jobs.store.now(), 3) > first.until


def test_the_default_is_chosen_before_anybody_chooses(jobs: JobManager, ana: Visitor) -> None:
    form = ana.get("/jobs/new").text
    assert '<option value="end" selected>' in form
    assert '<option value="first" selected>' in form
    ana.send("/jobs/new", id="made", handler="greet", **LINE, gap="end", fold="first")
    assert "dst" not in definition(jobs)
