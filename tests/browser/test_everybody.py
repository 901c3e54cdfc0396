"""Every page with twice the text, in colours that the visitor forces, without motion, and by the keyboard alone."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from jobmanager import JobManager

from .conftest import HOLD, chromium_path
from .test_every_page import PAGES, address_of_story, paths, told

__all__ = ["address_of_story", "paths", "told"]  # fixtures

LOOKED_AT = ("overview", "job", "new-job", "audit")
TWICE = "--blink-settings=defaultFontSize=32"
# What is cut where it does not say all of it elsewhere on the page: in its title, or below.
CUT = """() => [...document.querySelectorAll('body *')].filter(item => {
  const style = getComputedStyle(item);
  if (!item.offsetParent || item.closest('.sr, svg, .clip, .skip') || item.matches('input, textarea, select, pre')) return false;
  const across = style.overflowX !== 'visible' && style.overflowX !== 'auto' && item.scrollWidth > item.clientWidth + 1;
  const down = style.overflowY !== 'visible' && style.overflowY !== 'auto' && item.scrollHeight > item.clientHeight + 1;
  return across || down;
}).map(item => item.outerHTML.slice(0, 120))"""
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
LISTEN = """() => {
  window.visited = [];
  document.addEventListener('focusin', event => {
    const item = event.target, style = getComputedStyle(item), box = item.getBoundingClientRect();
    const seen = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2
      && box.width > 0 && box.height > 0 && box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth;
    window.visited.push([item.outerHTML.slice(0, 120), seen]);
  });
}"""
REACHABLE = """() => [...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex="0"]')]
  .filter(item => !item.disabled && item.type !== 'hidden' && item.checkVisibility({visibilityProperty: true}))
  .reduce((sum, item) => sum + (item.type === 'date' ? 4 : 1), 0)"""


@pytest.fixture
def page_of_story(browser: Browser, address_of_story: str) -> Iterator[Page]:
    context = browser.new_context(base_url=address_of_story, viewport={"width": 1280, "height": 900})
    yield context.new_page()
    context.close()


@pytest.fixture
def large_text(browser: Browser, address_of_story: str) -> Iterator[Page]:
    """A page in a browser whose visitor has set the text to twice the size."""
    chromium = browser.browser_type.launch(
        executable_path=chromium_path(), args=["--no-sandbox", "--disable-dev-shm-usage", TWICE]
    )
    context = chromium.new_context(base_url=address_of_story, viewport={"width": 1280, "height": 900})
    yield context.new_page()
    chromium.close()


def test_twice_the_text_cuts_nothing_and_scrolls_nothing_sideways(
    large_text: Page, paths: dict[str, str]
) -> None:
    found = []
    for name, path in paths.items():
        large_text.goto(path)
        found += [f"{name}: {item}" for item in large_text.evaluate(CUT)]
        if (wider := large_text.evaluate(WIDER)) > 0:
            found.append(f"{name}: {wider} px too wide")
    assert large_text.evaluate("getComputedStyle(document.body).fontSize") == "28px"
    assert found == []


def test_forced_colours_show_what_colours_said(page_of_story: Page, paths: dict[str, str]) -> None:
    page_of_story.emulate_media(forced_colors="active")
    page_of_story.add_init_script(HOLD)
    for name in ("overview", "jobs", "run-live"):
        page_of_story.goto(paths[name])
        assert outline(page_of_story.locator(".nav [aria-current]")) >= 2
    bar = page_of_story.locator("progress").first
    assert outline(bar) == 0
    shown = page_of_story.screenshot(clip=bar.bounding_box())
    assert ends(page_of_story.context.new_page(), shown)
    page_of_story.goto("/jobs?health=failed")
    expect(page_of_story.locator(".chips [aria-current]")).to_be_visible()
    assert outline(page_of_story.locator(".chips [aria-current]")) >= 2


def ends(blank: Page, picture: bytes) -> bool:
    """Return whether the bar of a picture has another colour at its begin than at its end."""
    colours = blank.evaluate(
        """async given => {
          const bytes = Uint8Array.from(atob(given), one => one.charCodeAt(0));
          const image = await createImageBitmap(new Blob([bytes]));
          const canvas = new OffscreenCanvas(image.width, image.height).getContext('2d');
          canvas.drawImage(image, 0, 0);
          const row = Math.floor(image.height / 2);
          return [6, image.width - 6].map(place => [...canvas.getImageData(place, row, 1, 1).data].join());
        }""",
        b64encode(picture).decode(),
    )
    return bool(colours[0] != colours[1])


def outline(item: Any) -> float:
    style = item.evaluate(
        "item => [getComputedStyle(item).outlineStyle, getComputedStyle(item).outlineWidth]"
    )
    return 0 if style[0] == "none" else float(style[1].removesuffix("px"))


def test_nothing_moves_for_those_who_ask_for_less_motion(page_of_story: Page, paths: dict[str, str]) -> None:
    moving = "document.getAnimations().filter(one => one.playState === 'running').length"
    page_of_story.emulate_media(reduced_motion="no-preference")
    page_of_story.goto(paths["run-live"])
    page_of_story.evaluate("for (const item of document.querySelectorAll('[hidden]')) item.hidden = false")
    assert page_of_story.evaluate(moving) > 0
    page_of_story.emulate_media(reduced_motion="reduce")
    for name in ("overview", "jobs", "job", "runs", "run-live", "engine"):
        page_of_story.goto(paths[name])
        page_of_story.evaluate(
            "for (const item of document.querySelectorAll('[hidden]')) item.hidden = false"
        )
        assert page_of_story.evaluate(moving) == 0, name


@pytest.mark.parametrize(
    "name", [name if name in LOOKED_AT else pytest.param(name, marks=pytest.mark.faults) for name in PAGES]
)
def test_the_keyboard_comes_to_everything_sees_where_it_is_and_gets_away(
    name: str, page_of_story: Page, paths: dict[str, str]
) -> None:
    page_of_story.goto(paths[name])
    assert page_of_story.locator("[tabindex]:not([tabindex='0']):not([tabindex='-1'])").count() == 0
    number = page_of_story.evaluate(REACHABLE)
    page_of_story.evaluate(LISTEN)
    page_of_story.keyboard.press("Tab")
    assert page_of_story.evaluate("document.activeElement.textContent") == "Skip to content"
    for _ in range(number + 1):
        page_of_story.keyboard.press("Tab")
    visited = page_of_story.evaluate("window.visited")
    items = [item for item, _ in visited]
    assert [item for item, seen in visited if not seen] == []
    assert items.count(items[0]) >= 2 or page_of_story.evaluate("document.activeElement === document.body"), (
        f"{len(visited)} of {number} were visited, and the last was {items[-1]}"
    )


def test_the_skip_link_leads_past_the_navigation(page_of_story: Page) -> None:
    page_of_story.goto("/jobs")
    page_of_story.keyboard.press("Tab")
    skip = page_of_story.get_by_role("link", name="Skip to content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page_of_story.keyboard.press("Enter")
    page_of_story.keyboard.press("Tab")
    assert page_of_story.evaluate("document.querySelector('main').contains(document.activeElement)")


def test_escape_closes_a_question_and_gives_the_focus_back(page_of_story: Page, told: JobManager) -> None:
    page_of_story.goto("/jobs/sync-stripe")
    button = page_of_story.get_by_role("button", name="Disable…")
    button.focus()
    page_of_story.keyboard.press("Enter")
    asked = page_of_story.get_by_role("dialog")
    expect(asked).to_be_visible()
    for _ in range(8):
        page_of_story.keyboard.press("Tab")
        assert page_of_story.evaluate(
            "document.activeElement === document.body || document.querySelector('dialog').contains(document.activeElement)"
        )
    page_of_story.keyboard.press("Escape")
    expect(asked).to_have_count(0)
    expect(button).to_be_focused()
    assert told.get_job("sync-stripe").state == "active"


def test_on_a_narrow_screen_the_page_that_is_open_is_seen_in_the_navigation(
    page_of_story: Page, paths: dict[str, str]
) -> None:
    page_of_story.set_viewport_size({"width": 390, "height": 844})
    for name in ("overview", "system", "audit"):
        page_of_story.goto(paths[name])
        expect(page_of_story.locator(".nav [aria-current]")).to_be_in_viewport(ratio=1)
