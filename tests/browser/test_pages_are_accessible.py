"""axe-core finds nothing on the overview, the jobs and the forms, light and dark, wide and narrow."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

PATHS = (
    "/",
    "/jobs",
    "/jobs?q=nothing-like-it",
    "/jobs/sync-stripe?explain=01:00",
    "/jobs/nightly-export",
    "/jobs/sync-stripe/edit",
    "/jobs/new?handler=export-orders",
    "/jobs/sync-stripe/backfill",
)


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
def test_axe_finds_nothing(shop: Page, theme: str, width: int) -> None:
    shop.emulate_media(color_scheme=theme)
    shop.set_viewport_size({"width": width, "height": 900})
    found = {}
    for path in PATHS:
        shop.goto(path)
        results = Axe().run(shop)
        if results.violations_count:
            found[path] = results.generate_report()
    assert not found, "\n".join(found.values())
