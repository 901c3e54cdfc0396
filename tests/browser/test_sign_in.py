"""Signing in on the dashboard's own page, in a real browser without JavaScript."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.serving import served

from jobmanager import JobManager
from jobmanager.access.passwords import hashed
from jobmanager.settings import Settings
from jobmanager.web import dashboard, password_login

PASSWORD = "correct horse battery"


@pytest.fixture
def visitor(browser: Browser, jobs: JobManager) -> Iterator[Page]:
    """A page of a visitor who has not signed in and whose browser has no JavaScript."""
    users = Settings(dashboard_users=f"ana:operator:{hashed(PASSWORD)}")
    app = dashboard(jobs, authorize=lambda request: None, sign_in=password_login(users))
    with served(app) as address:
        context = browser.new_context(base_url=address, java_script_enabled=False)
        yield context.new_page()
        context.close()


def test_a_visitor_signs_in_comes_to_the_page_it_wanted_and_signs_out(visitor: Page) -> None:
    visitor.goto("/jobs?state=failing")
    expect(visitor.get_by_role("heading", level=1)).to_have_text("Sign in to go on")

    visitor.get_by_label("Name").fill("ana")
    visitor.get_by_label("Password").fill("wrong horse battery")
    visitor.get_by_role("button", name="Sign in").click()
    expect(visitor.get_by_role("alert")).to_have_text("Name and password do not fit.")
    expect(visitor.get_by_label("Name")).to_have_value("ana")

    visitor.get_by_label("Password").fill(PASSWORD)
    visitor.get_by_role("button", name="Sign in").click()
    expect(visitor.get_by_role("heading", level=1)).to_have_text("Jobs")
    assert visitor.url.endswith("/jobs?state=failing")
    expect(visitor.get_by_text("ana, operator")).to_be_visible()
    expect(visitor.get_by_role("link", name="API keys")).to_have_count(0)

    visitor.get_by_role("button", name="Sign out").click()
    visitor.goto("/jobs")
    expect(visitor.get_by_role("heading", level=1)).to_have_text("Sign in to go on")
