"""The page of all jobs, in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from jobmanager import JobManager


def listed(page: Page) -> Locator:
    """Return the links of the jobs that are listed, in order."""
    return page.locator("tbody th[scope=row] a")


def rows(page: Page) -> list[str]:
    """Return the ids of the jobs that are listed, in order; on a page that is whole."""
    return listed(page).all_inner_texts()


def test_jobs_are_listed_and_one_is_started_from_the_list(page: Page, jobs: JobManager) -> None:
    page.goto("/jobs")
    expect(page.get_by_role("heading", level=1)).to_have_text("Jobs")
    expect(page.get_by_role("rowheader", name="greet")).to_contain_text("Say good morning")

    page.get_by_role("button", name="Run greet now").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("greet")
    [run] = jobs.runs("greet")
    assert (run.trigger, run.requested_by) == ("manual", "local")
    assert page.url.endswith(f"/runs/{run.id}")


def test_the_gravest_trouble_comes_first_and_each_chip_shows_what_it_counts(still_shop: Page) -> None:
    still_shop.goto("/jobs")
    assert rows(still_shop)[:6] == [
        "sync-stripe",
        "approve-mature-affiliate-conversions",
        "generate-analytics",
        "crm-sync",
        "cleanup-sessions",
        "check-llm-credits",
    ]
    chips = (
        still_shop.get_by_role("navigation", name="Filter by health").get_by_role("link").all_inner_texts()
    )
    counts = {" ".join(chip.split()[:-1]): int(chip.split()[-1]) for chip in chips}
    assert counts == {
        "All": 15, "Failing": 2, "Missed": 1, "Late": 1, "Handler missing": 1, "Running": 3, "Paused": 1, "Disabled": 1,
        "Never ran": 2, "Due within 1 h": 6,
    }  # fmt: skip
    for name, count in counts.items():
        still_shop.get_by_role("navigation", name="Filter by health").get_by_role(
            "link", name=f"{name} {count}"
        ).click()
        expect(listed(still_shop)).to_have_count(count)


def test_a_row_says_schedule_last_instant_next_and_how_its_week_was(shop: Page) -> None:
    shop.goto("/jobs")
    row = shop.get_by_role("row").filter(has_text="sync-stripe")
    for told in (
        "every hour",
        "0 * * * *",
        "UTC",
        "overridden",
        "Failed 14:00",
        "APIConnectionError",
        "in 27 min",
        "96.6 % good",
    ):
        expect(row).to_contain_text(told)
    expect(row.get_by_role("img")).to_have_attribute(
        "aria-label", "Last 30 due: 1 cancelled, 1 late, 3 failed, 25 succeeded."
    )


def test_jobs_are_searched_and_sorted_by_their_next_instant(still_shop: Page) -> None:
    still_shop.goto("/jobs")
    still_shop.get_by_role("searchbox").fill("SYNC")
    still_shop.keyboard.press("Enter")
    still_shop.wait_for_url("**/jobs?q=SYNC")
    expect(listed(still_shop)).to_have_text(["sync-stripe", "crm-sync"])
    still_shop.get_by_role("link", name="By next instant").click()
    still_shop.wait_for_url("**/jobs?q=SYNC&sort=next")
    expect(listed(still_shop)).to_have_text(["sync-stripe", "crm-sync"])
    still_shop.goto("/jobs?sort=next")
    assert rows(still_shop)[:3] == ["process-pending-emails", "poll-carrier-status", "refresh-search-index"]
    still_shop.goto("/jobs?q=no-such-job")
    expect(still_shop.get_by_role("heading", name="No job fits")).to_be_visible()


@pytest.mark.parametrize("javascript", [True, False], ids=["javascript", "without"])
def test_a_job_is_paused_and_resumed_and_the_filter_stays(
    browser: Browser,
    address: str,
    jobs: JobManager,
    javascript: bool,
) -> None:
    context = browser.new_context(
        base_url=address, java_script_enabled=javascript, viewport={"width": 1440, "height": 900}
    )
    page = context.new_page()
    page.goto("/jobs?q=greet")
    page.get_by_role("button", name="Pause greet").click()
    page.wait_for_url("**/jobs?q=greet")
    assert jobs.get_job("greet").state == "paused"
    page.get_by_role("button", name="Resume greet").click()
    page.wait_for_url("**/jobs?q=greet")
    assert jobs.get_job("greet").state == "active"
    assert [entry.action for entry in jobs.history("greet")] == ["resume", "pause"]
    context.close()


def test_the_theme_stays_chosen_without_javascript(browser: Browser, address: str) -> None:
    context = browser.new_context(base_url=address, java_script_enabled=False)
    page = context.new_page()
    page.goto("/jobs")
    page.get_by_role("button", name="Change to dark").click()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.goto("/jobs")
    assert page.locator("html").get_attribute("data-theme") == "dark"
    context.close()
