"""The pages of jobs over ASGI: paging, what a visitor may see and do, and texts that are not ours."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from jobmanager import JobManager, Settings
from jobmanager.present.policy_fields import OF_DECLARED, OF_STORED
from jobmanager.web import Principal, dashboard
from jobmanager.web.pages.job import moment_of
from jobmanager.web.pages.times import Times

from .visitor import Visitor

HOSTILE = '<script>alert("x")</script>'
NOW = datetime.fromisoformat("2026-11-25T13:32:08+00:00")


@pytest.fixture
def many(tmp_path: Path) -> Iterator[JobManager]:
    """A manager with 120 jobs; one has a hostile name, and one is seen by administrators alone."""
    jobs = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db", backend="noop"))
    for number in range(118):
        jobs.add_job(f"job-{number:03}", print, name=f"Number {number}", every=60)
    jobs.add_job("hostile", print, name=HOSTILE)
    jobs.add_job("secret", print, visibility="system")
    jobs.sync()
    yield jobs
    jobs.store.close()


def visitor(jobs: JobManager, *roles: str, read_only: bool = False) -> Visitor:
    principal = Principal("ana", roles=roles)
    return Visitor(
        dashboard(jobs, authorize=lambda _: principal, timezone="Europe/Berlin", read_only=read_only)
    )


def listed(page: str) -> list[str]:
    return [part.split('"')[0] for part in page.split('id="job-')[1:]]


@pytest.mark.parametrize(
    ("query", "first", "count"),
    [
        ("", "hostile", 50),
        ("?page=2", "job-049", 50),
        ("?page=3", "job-099", 20),
        ("?page=99", "job-099", 20),
        ("?page=0", "hostile", 50),
        ("?page=-1", "hostile", 50),
        ("?page=x", "hostile", 50),
        ("?health=no-such-filter&sort=no-such-order", "hostile", 50),
        ("?q=NUMBER+7", "job-007", 11),
        ("?health=paused", None, 0),
    ],
)
def test_jobs_come_in_pages_of_fifty_whatever_the_address_says(many, query, first, count):
    response = visitor(many, "admin").get(f"/jobs{query}")

    assert response.status_code == 200
    ids = listed(response.text)
    assert (ids[0] if ids else None, len(ids)) == (first, count)


def test_a_filter_stays_in_the_addresses_of_further_pages(many):
    page = visitor(many, "admin").get("/jobs?health=never-ran&q=number&page=2").text

    assert 'rel="next" href="?health=never-ran&amp;q=number&amp;page=3"' in page
    assert 'rel="prev" href="?health=never-ran&amp;q=number&amp;page=1"' in page


def test_texts_of_others_are_shown_as_text(many):
    looks = visitor(many, "admin")
    for path in ("/jobs", "/jobs/hostile", f"/jobs?q={HOSTILE}", f"/jobs/hostile?explain={HOSTILE}"):
        assert "<script>alert" not in looks.get(path).text
    assert "&lt;script&gt;alert" in looks.get("/jobs/hostile").text


def test_a_system_job_is_in_no_list_and_count_of_an_operator(many):
    looks = visitor(many, "operator")

    assert "119 jobs" in looks.get("/jobs").text
    assert "120 jobs" in visitor(many, "admin").get("/jobs").text
    assert listed(looks.get("/jobs?q=secret").text) == []
    for path in ("/jobs/secret", "/jobs/secret/edit", "/jobs/secret/backfill"):
        assert looks.get(path).status_code == 404


def test_what_is_kept_for_one_visitor_is_never_shown_to_another(many):
    roles = iter(["admin", "operator", "admin"])
    app = dashboard(many, authorize=lambda _: Principal("ana", roles=[next(roles)]))

    shown = ["120 jobs" in Visitor(app).get("/jobs").text for _ in range(3)]
    assert shown == [True, False, True]


@pytest.mark.parametrize(
    ("roles", "read_only", "statuses"),
    [
        (["viewer"], False, [200, 200, 403, 403, 403]),
        (["operator"], False, [200, 200, 200, 200, 403]),
        (["admin"], False, [200, 200, 200, 200, 200]),
    ],
    ids=["viewer", "operator", "admin"],
)
def test_forms_are_shown_to_those_who_may_send_them(many, roles, read_only, statuses):
    looks = visitor(many, *roles, read_only=read_only)
    paths = ("/", "/jobs/job-001", "/jobs/job-001/edit", "/jobs/job-001/backfill", "/jobs/new")

    assert [looks.get(path).status_code for path in paths] == statuses


def test_a_viewer_sees_no_button_that_it_may_not_press(many):
    page = visitor(many, "viewer").get("/jobs/job-001").text

    assert "Run now" not in page
    assert "/pause" not in page


@pytest.mark.parametrize(
    "action", ["run", "pause", "resume", "disable", "enable", "reset", "delete", "backfill", "edit"]
)
def test_no_form_works_without_the_token_of_the_browser(many, action):
    assert visitor(many, "admin").post(f"/jobs/job-001/{action}", data={"token": "x"}).status_code == 403


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("2026-11-25 01:00", "2026-11-25T00:00:00"),
        ("2026-11-25T01:00Z", "2026-11-25T01:00:00"),
        ("01:00", "2026-11-25T00:00:00"),
        ("1:00", "2026-11-25T00:00:00"),
        ("yesterday", None),
        ("", None),
        ("99:99", None),
        ("0001-01-01 00:00", None),
    ],
)
def test_an_instant_is_read_in_the_readers_zone(typed, found):
    from zoneinfo import ZoneInfo

    moment = moment_of(typed, Times(NOW, ZoneInfo("Europe/Berlin")))
    assert (None if moment is None else moment.isoformat().removesuffix("+00:00")) == found


def fields(page: str) -> dict[str, str]:
    """Return what the form of a page shows, by field; what was typed stands in it as text."""
    found = FormReader()
    found.feed(page)
    return found.values


class FormReader(HTMLParser):
    """Reads the fields of the form that is named `job-form`."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, str] = {}
        self._in, self._select, self._area = False, "", ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = dict(attrs)
        name = has.get("name") or ""
        if tag == "form":
            self._in = has.get("id") == "job-form"
        elif self._in and tag == "input" and (has.get("type") != "radio" or "checked" in has):
            self.values[name] = has.get("value") or ""
        elif self._in and tag == "select":
            self._select = name
        elif self._in and tag == "option" and self._select:
            if "selected" in has or self._select not in self.values:
                self.values[self._select] = has.get("value") or ""
        elif self._in and tag == "textarea":
            self._area = name
            self.values[name] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            self._select = ""
        if tag == "textarea":
            self._area = ""

    def handle_data(self, data: str) -> None:
        if self._in and self._area:
            self.values[self._area] += data


def test_an_edit_overrides_every_policy_that_may_be_and_nothing_else(many):
    looks = visitor(many, "admin")
    shown = fields(looks.get("/jobs/job-001/edit").text)
    assert set(OF_DECLARED) <= set(shown)
    assert "retention" not in shown
    typed = {"notify_on_failure": "true", "alert_to": "ops@example.com\r\nhook", "catch_up_window": "2h"}

    saved = looks.send("/jobs/job-001/edit", **{**shown, **typed, "retry.max_attempts": "4"})

    assert saved.status_code == 303
    assert many.get_job("job-001").row.override == {
        "notify_on_failure": True,
        "alert_to": ["ops@example.com", "hook"],
        "catch_up_window": 7200,
        "max_attempts": 4,
    }
    again = fields(looks.get("/jobs/job-001/edit").text)
    assert (again["catch_up_window"], again["retry.max_attempts"]) == ("2h", "4")


def test_a_form_that_changes_nothing_writes_nothing(many):
    looks = visitor(many, "admin")
    shown = fields(looks.get("/jobs/job-001/edit").text)
    assert looks.send("/jobs/job-001/edit", **shown).status_code == 303
    assert many.get_job("job-001").row.override is None
    assert many.history("job-001") == []


def test_a_job_is_made_and_edited_with_every_policy(many):
    many.handler("export")(lambda: None)
    looks = visitor(many, "admin")
    shown = fields(looks.get("/jobs/new?handler=export").text)
    assert set(OF_STORED) <= set(shown)
    typed = {
        "id": "made",
        "handler": "export",
        "kind": "every",
        "every": "5m",
        "retention": "30d",
        "retry.delays": "1, 1m",
        "locale": "de",
    }

    assert looks.send("/jobs/new", **{**shown, **typed}).status_code == 303
    made = many.get_job("made")
    assert made.row.definition == {
        "handler": "export", "every": 300, "retention": 2_592_000, "retry": {"delays": [1, 60]}, "locale": "de",
    }  # fmt: skip

    shown = fields(looks.get("/jobs/made/edit").text)
    assert (shown["retention"], shown["retry.delays"], shown["locale"]) == ("30d", "1s, 1m", "de")
    change = {"name": "Made by hand", "retention": "", "retry.max_attempts": "3", "isolation": "process"}
    assert looks.send("/jobs/made/edit", **{**shown, **change}).status_code == 303
    assert many.get_job("made").row.definition == {
        "handler": "export", "every": 300, "name": "Made by hand", "locale": "de", "isolation": "process",
        "retry": {"max_attempts": 3, "delays": [1, 60]},
    }  # fmt: skip


def test_each_policy_that_cannot_be_read_is_told_beside_its_field(many):
    looks = visitor(many, "admin")
    shown = fields(looks.get("/jobs/job-001/edit").text)
    typed = {"queue_cap": HOSTILE, "alert_late": "soon", "priority": ""}

    refused = looks.send("/jobs/job-001/edit", **{**shown, **typed})

    assert refused.status_code == 422
    for key in typed:
        assert f'class="err" id="{key}-h"' in refused.text, key
    assert "<script>alert" not in refused.text
    again = fields(refused.text)
    assert {key: again[key] for key in typed} == typed
    assert many.get_job("job-001").row.override is None


def test_two_policies_that_exclude_each_other_are_told_beside_one(many):
    many.handler("export")(lambda: None)
    looks = visitor(many, "admin")
    shown = fields(looks.get("/jobs/new?handler=export").text)
    refused = looks.send(
        "/jobs/new", **{**shown, "id": "made", "handler": "export", "kind": "hand", "memory_limit": "64"}
    )
    assert refused.status_code == 422
    assert 'class="err" id="memory_limit-h"' in refused.text


def test_a_job_whose_schedule_has_ended_says_so(many: JobManager) -> None:
    many.add_job("campaign", print, every=60, until="2026-01-01T00:00Z")
    many.sync()
    ana = visitor(many, "viewer")
    assert "<small>ended</small>" in ana.get("/jobs?q=campaign").text
    assert "ended: no further instant" in ana.get("/jobs/campaign").text
    assert "ended: no further instant" not in ana.get("/jobs/job-001").text
