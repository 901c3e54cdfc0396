"""The first page, in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from jobmanager import JobManager

from .story import DUE_TODAY


def test_the_heading_is_the_verdict(shop: Page, page: Page) -> None:
    shop.goto("/")
    expect(shop.get_by_role("heading", level=1)).to_have_text("Time is kept. Six jobs need you.")
    expect(shop.get_by_role("main")).to_contain_text("2 processes execute")
    page.goto("/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Time is kept. Nothing needs you.")
    expect(page.get_by_role("heading", name="Nothing needs you", exact=True)).to_be_visible()


def test_what_needs_a_person_is_told_the_gravest_first(still_shop: Page) -> None:
    still_shop.goto("/")
    told = still_shop.locator("#attention tbody tr").all_inner_texts()
    lines = [" ".join(text.split()) for text in told]
    for line, words in zip(
        lines,
        (
            ["3 failed in a row", "since 12:00", "sync-stripe", "read timed out after 80 s", "Redrive 3…"],
            ["Handler missing", "failed 04:00", "approve-mature-affiliate-conversions", "Pause"],
            ["Missed 01:00", "downtime", "generate-analytics", "A run is running now"],
            ["2 failed in 24 h", "last 07:20", "crm-sync", "HTTP 502", "the last one went well"],
            ["4 min 12 s late", "cleanup-sessions", "Started 02:04:12", "Why?"],
            [
                "Paused 2 d 3 h",
                "by ana",
                "check-llm-credits",
                "Until the new provider key is there.",
                "Resume",
            ],
        ),
        strict=True,
    ):
        assert all(word in line for word in words), line


def test_todays_account_adds_up(still_shop: Page) -> None:
    still_shop.goto("/")
    shown = dict(
        zip(
            still_shop.locator("#account dt").all_inner_texts(),
            still_shop.locator("#account dd").all_inner_texts(),
            strict=True,
        )
    )
    by_hand = 1  # ana started generate-analytics
    assert int(shown["due"]) == sum(DUE_TODAY.values()) + by_hand
    assert shown["succeeded, 2 late"] == str(DUE_TODAY["succeeded"])
    assert [int(shown[word]) for word in ("failed", "missed", "skipped", "cancelled")] == [6, 6, 3, 1]
    assert int(shown["open"]) == DUE_TODAY["running"] + DUE_TODAY["pending"] + by_hand
    assert shown["unaccounted"] == "0"
    parts = ("succeeded, 2 late", "failed", "missed", "skipped", "cancelled", "open", "unaccounted")
    assert int(shown["due"]) == sum(int(shown[word]) for word in parts)
    still_shop.get_by_text("As a table").click()
    hours = still_shop.locator("#account table tbody td:nth-child(2)").all_inner_texts()
    assert sum(map(int, hours)) == int(shown["due"])


def test_what_runs_and_what_comes_next(still_shop: Page) -> None:
    still_shop.goto("/")
    running = still_shop.locator("#running")
    for told in ("9 of 10 tables: token usage", "about 75 s left", "by ana", "412 of 1,200 accounts"):
        expect(running).to_contain_text(told)
    first, second = still_shop.locator("#next tbody tr").all_inner_texts()[:2]
    assert first.split()[:6] == ["14:34", "crm-sync", "attempt", "3", "of", "4"]
    assert second.split()[:2] == ["14:40", "process-pending-emails"]
    assert still_shop.locator("#next svg circle").count() == 10


@pytest.mark.parametrize("width", [1440, 390])
def test_the_page_is_never_wider_than_the_window(shop: Page, width: int) -> None:
    shop.set_viewport_size({"width": width, "height": 900})
    for path in ("/", "/jobs"):
        shop.goto(path)
        assert shop.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_a_paused_job_is_resumed_from_the_overview(shop: Page, story: JobManager) -> None:
    shop.goto("/")
    shop.get_by_role("button", name="Resume").click()
    expect(shop.get_by_role("heading", level=1)).to_have_text(
        "Time is kept. Five jobs need you.", timeout=5000
    )
    assert story.get_job("check-llm-credits").state == "active"


def test_failed_runs_are_redriven_from_the_overview_after_a_question(shop: Page, story: JobManager) -> None:
    shop.goto("/")
    shop.get_by_role("button", name="Redrive 2…").click()
    expect(shop.get_by_role("heading", name="Redrive 2 runs?")).to_be_visible()
    assert len(story.dead_letters("crm-sync")) == 2
    shop.get_by_role("button", name="Redrive 2 runs").click()
    expect(shop.locator("#attention")).not_to_contain_text("crm-sync")
    assert story.dead_letters("crm-sync") == []
