"""What JavaScript adds to every page: live regions, holding, dialogs, copying, keys. Each of it is right without, too."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from jobmanager import JobManager

PAGES = (
    "/events",
    "/engine",
    "/handlers",
    "/handlers/new-webhook",
    "/system",
    "/audit",
    "/notifications",
    "/keys",
)
NARROWEST = 320
PATIENCE = 20_000  # ms, on a machine that is busy


@pytest.fixture
def held_job(jobs: JobManager) -> Iterator[threading.Event]:
    """A job `hold` whose runs end when the event is set."""
    may_end = threading.Event()
    jobs.add_job("hold", lambda: may_end.wait(30))
    yield may_end
    may_end.set()


def busy(page: Page, number: int) -> None:
    expect(page.locator("#processes tbody")).to_contain_text(f"{number} busy", timeout=PATIENCE)


def test_a_region_follows_what_happens_without_a_reload(
    page: Page, jobs: JobManager, held_job: threading.Event
) -> None:
    page.goto("/engine")
    busy(page, 0)
    expect(page.locator("#live").get_by_text("Live")).to_be_visible()
    page.evaluate("window.stays = true")

    jobs.trigger_job("hold")
    busy(page, 1)
    held_job.set()
    busy(page, 0)
    assert page.evaluate("window.stays")


def test_a_held_page_stays_as_it_is_until_it_goes_on(
    page: Page, jobs: JobManager, held_job: threading.Event
) -> None:
    page.goto("/engine")
    busy(page, 0)
    page.keyboard.press("p")
    expect(page.locator("#live").get_by_text("Held")).to_be_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    jobs.trigger_job("hold")
    page.reload()
    expect(page.locator("#live").get_by_text("Held")).to_be_visible()
    busy(page, 1)
    asked.clear()
    run = jobs.runs("hold")[0]
    held_job.set()
    jobs.wait(run.id)
    busy(page, 1)
    assert asked == []

    page.get_by_role("button", name="Go on").click()
    busy(page, 0)


def test_a_lost_stream_is_said_and_found_again(browser: Browser, address: str) -> None:
    context = browser.new_context(base_url=address)
    page = context.new_page()
    lost = "**/api/v1/events"
    page.route(lost, lambda route: route.abort())
    page.goto("/engine")
    expect(page.get_by_text("Trying again")).to_be_visible(timeout=PATIENCE)
    page.unroute(lost)
    expect(page.locator("#live").get_by_text("Live")).to_be_visible(timeout=PATIENCE)
    context.close()


def test_times_count(page: Page) -> None:
    page.goto("/engine")
    up = page.locator("#processes time[data-ago]").first
    shown = up.text_content()
    expect(up).not_to_have_text(shown or "")


def test_keys_lead_to_pages_rows_and_the_search(page: Page) -> None:
    page.goto("/jobs")
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.textContent") == "greet"
    page.keyboard.press("k")
    assert page.evaluate("document.activeElement.textContent") == "broken"
    page.keyboard.press("/")
    page.keyboard.type("gj?")
    expect(page.get_by_label("Search jobs and runs")).to_have_value("gj?")
    page.locator("main").focus()
    page.keyboard.press("g")
    page.keyboard.press("e")
    page.wait_for_url("**/engine")


def test_the_list_of_keys_opens_and_switches_them_off(page: Page) -> None:
    page.goto("/jobs")
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)

    page.keyboard.press("?")
    dialog.get_by_role("button", name="Switch keys off").click()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") != "q"
    page.get_by_role("button", name="Keys").click()
    dialog.get_by_role("button", name="Switch keys on").click()
    page.keyboard.press("/")
    expect(page.get_by_label("Search jobs and runs")).to_be_focused()


@pytest.mark.parametrize("scripts", [True, False], ids=["with JavaScript", "without"])
def test_a_key_is_made_copied_and_revoked(
    browser: Browser, address: str, jobs: JobManager, scripts: bool
) -> None:
    context = browser.new_context(base_url=address, java_script_enabled=scripts)
    page = context.new_page()
    page.goto("/keys")
    page.get_by_label("Name").fill("ci")
    page.get_by_role("button", name="Make key").click()
    secret = page.get_by_label("Secret").text_content()
    assert secret is not None
    assert jobs.principal_of_key(secret) is not None
    copy = page.get_by_role("button", name="Copy")
    if scripts:
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        copy.click()
        expect(page.locator("#said")).to_have_text("Copied.")
        assert page.evaluate("navigator.clipboard.readText()") == secret
    else:
        expect(copy).to_have_count(0)

    page.get_by_role("button", name="Revoke key ci…").click()
    asked = page.get_by_role("dialog", name="Revoke key ci?")
    expect(asked).to_be_visible()
    assert page.locator("dialog[open]").count() == (1 if scripts else 0)
    asked.get_by_role("link", name="Keep it").click()
    expect(asked).to_have_count(0)
    assert jobs.keys()[0].revoked_at is None

    page.get_by_role("button", name="Revoke key ci…").click()
    asked.get_by_role("button", name="Revoke 1 key").click()
    expect(page.get_by_text("Revoked", exact=True)).to_be_visible()
    assert jobs.keys()[0].revoked_by == "local"
    context.close()


@pytest.mark.parametrize("theme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_every_page_can_be_used_by_everybody(browser: Browser, address: str, theme: str) -> None:
    context = browser.new_context(base_url=address, color_scheme=theme)
    page = context.new_page()
    for path in PAGES:
        page.goto(path)
        found = Axe().run(page)
        assert not found.response["violations"], (path, found.generate_report())
    context.close()


def test_no_page_scrolls_sideways_on_a_small_screen(browser: Browser, address: str) -> None:
    context = browser.new_context(base_url=address, viewport={"width": NARROWEST, "height": 800})
    page = context.new_page()
    for path in PAGES:
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") == NARROWEST, path
    context.close()
