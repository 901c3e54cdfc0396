"""The entries of a real pg_cron in a real browser: stopped, let go on, unscheduled and purged after a recent sign-in."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.pg_cron_orphan import jobs_with_orphan
from tests.serving import served

from jobmanager import JobManager, Settings
from jobmanager.access.passwords import hashed
from jobmanager.testing import FakeClock
from jobmanager.web import dashboard
from jobmanager.web.sessions import Sessions

from .conftest import Complaints

pytestmark = [pytest.mark.servers, pytest.mark.slow]

PASSWORD = "correct horse battery"


@pytest.fixture
def jobs(still_pg_cron_url: str) -> Iterator[JobManager]:
    """A manager with entries in pg_cron, none of which fires, and an orphan."""
    with jobs_with_orphan(still_pg_cron_url) as jobs:
        yield jobs


@pytest.fixture
def clock() -> FakeClock:
    """The clock of the sign-in, an hour behind."""
    return FakeClock(datetime.now(UTC) - timedelta(hours=1))


@pytest.fixture(params=[True, False], ids=["with JavaScript", "without"])
def visit(
    request: pytest.FixtureRequest, browser: Browser, jobs: JobManager, clock: FakeClock
) -> Iterator[Page]:
    """A page of an administrator who signed in an hour ago."""
    users = Settings(dashboard_users=f"ana:admin:{hashed(PASSWORD)}")
    app = dashboard(jobs, authorize=lambda request: None, sign_in=Sessions(users, clock))
    with served(app) as url:
        context = browser.new_context(base_url=url, java_script_enabled=request.param)
        page, complaints = context.new_page(), Complaints()
        complaints.listen(page)
        page.goto("/engine")
        sign_in(page)
        yield page
        context.close()
        assert [line for line in complaints if "403" not in line] == []  # what is refused on purpose


def sign_in(page: Page) -> None:
    page.get_by_label("Name").fill("ana")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Entries in pg_cron")).to_be_visible()


def names(jobs: JobManager) -> set[str]:
    return {entry.name for entry in jobs.entries() if entry.drift != "not in pg_cron"}


def test_entries_are_changed_after_a_recent_sign_in(visit: Page, jobs: JobManager, clock: FakeClock) -> None:
    [orphan] = [entry.name for entry in jobs.entries() if entry.orphan]

    visit.get_by_role("button", name="Stop entry jm_dispatch").click()
    expect(visit.get_by_role("button", name="Let go on entry jm_dispatch")).to_be_visible()
    assert not next(entry for entry in jobs.entries() if entry.name == "jm_dispatch").active
    visit.get_by_role("button", name="Let go on entry jm_dispatch").click()
    expect(visit.get_by_role("button", name="Stop entry jm_dispatch")).to_be_visible()

    for button in ("Purge 1 orphan…", "Unschedule entry jm_dispatch…"):
        visit.get_by_role("button", name=button).click()
        expect(visit.get_by_text("needs a sign-in of the last 15 min")).to_be_visible()
        visit.goto("/engine")
    assert {orphan, "jm_dispatch"} <= names(jobs)

    visit.get_by_role("button", name="Purge 1 orphan…").click()
    clock.advance(hours=1)
    visit.get_by_role("link", name="Sign in").click()
    expect(visit.get_by_text("1 h")).to_be_visible()
    sign_in(visit)
    visit.get_by_role("button", name="Purge 1 orphan…").click()
    expect(visit.get_by_role("heading", name="Purge 1 orphan?")).to_be_visible()
    expect(visit.get_by_text(orphan).last).to_be_visible()
    visit.get_by_role("link", name="Keep them").click()
    expect(visit.get_by_role("heading", name="Purge 1 orphan?")).to_have_count(0)
    assert orphan in names(jobs)
    visit.get_by_role("button", name="Purge 1 orphan…").click()
    visit.get_by_role("button", name="Purge 1 orphan", exact=True).click()
    expect(visit.get_by_role("button", name="Purge 1 orphan…")).to_have_count(0)
    assert orphan not in names(jobs)

    visit.get_by_role("button", name="Unschedule entry jm_dispatch…").click()
    visit.get_by_role("button", name="Unschedule 1 entry").click()
    expect(visit.get_by_text("not in pg_cron").first).to_be_visible()
    assert "jm_dispatch" not in names(jobs)
    done = [one.action for one in jobs.audit(actor="ana", outcome="done")]
    assert [action for action in done if "purge" in action]
    assert [action for action in done if "purge" not in action] == ["unschedule", "resume", "pause"]

    visit.get_by_role("button", name="Apply 1 change…").click()
    visit.get_by_role("button", name="Apply 1 change", exact=True).click()
    expect(visit.get_by_text("The store says what the code of this process says")).to_be_visible()
    assert "jm_dispatch" in names(jobs)
