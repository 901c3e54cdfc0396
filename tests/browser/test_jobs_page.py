"""The page of all jobs, in a real browser."""

from __future__ import annotations

from playwright.sync_api import Browser, Page, expect

from jobmanager import JobManager


def test_jobs_are_listed_and_one_is_started_from_the_list(page: Page, jobs: JobManager) -> None:
    page.goto("/jobs")
    expect(page.get_by_role("heading", level=1)).to_have_text("Jobs")
    expect(page.get_by_role("rowheader", name="greet")).to_contain_text("Say good morning")

    page.get_by_role("button", name="Run greet now").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("greet")
    [run] = jobs.runs("greet")
    assert (run.trigger, run.requested_by) == ("manual", "local")
    assert page.url.endswith(f"/runs/{run.id}")


def test_the_theme_stays_chosen_without_javascript(browser: Browser, address: str) -> None:
    context = browser.new_context(base_url=address, java_script_enabled=False)
    page = context.new_page()
    page.goto("/jobs")
    page.get_by_role("button", name="Change to dark").click()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.goto("/jobs")
    assert page.locator("html").get_attribute("data-theme") == "dark"
    context.close()
