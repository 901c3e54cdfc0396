"""The pages of runs in a real browser: every action with JavaScript and without, and texts that would break a page."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from jobmanager import JobManager, RunContext, Settings
from jobmanager.run import FAILED, PENDING, RUNNING, SUCCEEDED, Run

expect.set_options(timeout=30_000)  # on a machine that is busy
LONG = "job-" + "x" * 96
HOSTILE = "<img src=x onerror=alert(1)>'\"{{7*7}}"


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobManager]:
    """Jobs that fail, are fine, wait, or have names and texts that nobody planned for."""
    jobs = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db", backend="local"))

    @jobs.job("broken")
    def broken(note: str = "") -> None:
        raise ValueError(f"no luck {HOSTILE}\n" + "y" * 10_000)

    @jobs.job("fine")
    def fine() -> str:
        return "well"

    @jobs.job(LONG)
    def long() -> None:
        raise RuntimeError("word" * 200)

    @jobs.job("hourly", cron="0 * * * *")
    def hourly() -> None:
        pass

    pause = threading.Event()

    @jobs.job("steady")
    def steady(context: RunContext) -> None:
        context.log.info("begun")
        while not context.cancelled:
            pause.wait(0.02)

    with jobs:
        yield jobs


@pytest.fixture(params=[True, False], ids=["javascript", "without"])
def visitor(request: pytest.FixtureRequest, browser: Browser, address: str) -> Iterator[Page]:
    """A page with JavaScript, and one without."""
    context = browser.new_context(
        base_url=address, java_script_enabled=request.param, viewport={"width": 1440, "height": 900}
    )
    yield context.new_page()
    context.close()


def ended(jobs: JobManager, job_id: str, **payload: str) -> Run:
    run = jobs.trigger_job(job_id, payload or None)
    return jobs.wait(run.id, timeout=20)


def test_selected_runs_are_discarded_after_a_question(visitor: Page, jobs: JobManager) -> None:
    runs = [ended(jobs, "broken"), ended(jobs, "broken"), ended(jobs, "fine")]
    visitor.goto("/runs")
    for run in runs:
        visitor.get_by_role("checkbox", name=f"Select run {run.id[-8:]}").check()
    visitor.get_by_role("form", name="Selected runs").get_by_role("button", name="Discard…").click()
    expect(visitor.get_by_role("heading", name="Discard 2 of 3 runs?")).to_be_visible()
    assert len(jobs.dead_letters()) == 2
    visitor.get_by_role("button", name="Discard 2 runs", exact=True).click()
    expect(visitor.get_by_text("2 runs are no dead letters any more.")).to_be_visible()
    assert not jobs.dead_letters()


def test_dead_letters_with_one_error_are_redriven_together(visitor: Page, jobs: JobManager) -> None:
    runs = [ended(jobs, "broken"), ended(jobs, "broken")]
    visitor.goto("/runs?status=failed")
    visitor.get_by_role("button", name="Redrive 2 runs of broken").click()
    expect(visitor.get_by_role("heading", name="Redrive 2 runs?")).to_be_visible()
    visitor.get_by_role("button", name="Redrive 2 runs", exact=True).click()
    expect(visitor.get_by_text("2 runs are pending again.")).to_be_visible()
    assert all(len(jobs.attempts(run.id)) >= 1 for run in runs)


def test_a_question_is_answered_with_no(visitor: Page, jobs: JobManager) -> None:
    ended(jobs, "broken")
    visitor.goto("/runs")
    visitor.get_by_role("button", name="Discard 1 run of broken").click()
    visitor.get_by_role("link", name="Keep them").click()
    expect(visitor.get_by_role("heading", name="Runs", exact=True)).to_be_visible()
    assert len(jobs.dead_letters()) == 1


def test_filters_stand_in_the_address_and_are_taken_away_by_chips(visitor: Page, jobs: JobManager) -> None:
    ended(jobs, "broken")
    ended(jobs, "fine")
    visitor.goto("/runs")
    rows = visitor.get_by_role("form", name="Selected runs").get_by_role("rowheader")
    expect(rows).to_have_count(2)
    filters = visitor.get_by_role("form", name="Filters")
    filters.get_by_role("checkbox", name="Failed").click()
    filters.get_by_role("searchbox").fill("no luck <img")
    filters.get_by_role("button", name="Filter").click()
    expect(rows).to_have_count(1)
    visitor.wait_for_url("**/runs?*text=no+luck+%3Cimg*")
    assert "status=failed" in visitor.url
    visitor.get_by_role("link", name="Without the filter Failed").click()
    visitor.get_by_role("link", name="Without the filter “no luck").click()
    expect(rows).to_have_count(2)


def test_a_filter_is_applied_without_a_reload(page: Page, jobs: JobManager) -> None:
    ended(jobs, "broken")
    ended(jobs, "fine")
    page.goto("/runs")
    page.evaluate("window.stays = true")
    page.get_by_role("form", name="Filters").get_by_role("checkbox", name="Succeeded").click()
    expect(page.get_by_role("form", name="Selected runs").get_by_role("rowheader")).to_have_count(1)
    expect(page.locator("#found")).to_contain_text("1 instant or start")
    expect(page.locator("#f-status-succeeded")).to_be_focused()
    page.wait_for_url("**/runs?status=succeeded")
    assert page.evaluate("window.stays")


def test_a_run_is_discarded_and_redriven_on_its_page(visitor: Page, jobs: JobManager) -> None:
    run = ended(jobs, "broken")
    visitor.goto(f"/runs/{run.id}")
    visitor.get_by_role("button", name="Discard").click()
    expect(visitor.locator("#state")).to_contain_text("seen to")
    visitor.get_by_role("button", name="Redrive").click()
    expect(visitor.get_by_text("Changed by hand")).to_be_visible()
    assert [entry.action for entry in jobs.audit(target="run")] == ["redrive", "discard"]


def test_a_running_run_is_asked_to_end(visitor: Page, jobs: JobManager) -> None:
    run = jobs.trigger_job("steady")
    visitor.goto(f"/runs/{run.id}")
    visitor.get_by_role("button", name="Cancel…").click()
    expect(visitor.get_by_role("heading", name="Cancel the run of steady")).to_be_visible()
    assert jobs.run(run.id).status in (PENDING, RUNNING)
    visitor.get_by_role("button", name="Cancel the run").click()
    expect(visitor.locator("#state")).to_contain_text(re.compile("asked to end|ancelled"))
    assert jobs.wait(run.id, timeout=20).status == "cancelled"


def test_a_page_of_a_running_run_shows_its_end_by_itself(page: Page, jobs: JobManager) -> None:
    run = jobs.trigger_job("steady")
    page.goto(f"/runs/{run.id}")
    expect(page.locator("#state")).to_contain_text("Running")
    jobs.cancel(run.id)
    expect(page.locator("#state")).to_contain_text("Cancelled", timeout=60_000)


def test_keys_lead_to_the_instants_on_either_side(page: Page, jobs: JobManager) -> None:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    made = jobs.backfill("hourly", hour - timedelta(hours=4), hour - timedelta(hours=1))
    oldest, middle, newest = sorted(jobs.runs("hourly", limit=3), key=lambda run: run.instant)
    assert len(made) >= 3
    page.goto(f"/runs/{middle.id}")
    page.keyboard.press("]")
    page.wait_for_url(f"**/runs/{newest.id}")
    page.keyboard.press("[")
    page.wait_for_url(f"**/runs/{middle.id}")
    page.get_by_role("link", name="Previous instant").click()
    page.wait_for_url(f"**/runs/{oldest.id}")


@pytest.mark.parametrize("width", [320, 1440])
def test_long_and_hostile_texts_stay_inside_the_page(page: Page, jobs: JobManager, width: int) -> None:
    """Fails if a text is taken for markup, or makes the page wider than its window."""
    broken, long = ended(jobs, "broken", note=HOSTILE), ended(jobs, LONG)
    assert (broken.status, long.status) == (FAILED, FAILED)
    assert ended(jobs, "fine").status is SUCCEEDED
    page.set_viewport_size({"width": width, "height": 800})
    for path in (
        "/runs",
        f"/runs?text={HOSTILE.replace('#', '')}&by={LONG}",
        f"/runs/{broken.id}",
        f"/runs/{long.id}",
    ):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") == width, path
        assert page.locator("img").count() == 0


@pytest.mark.parametrize("theme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_the_pages_of_runs_can_be_used_by_everybody(
    browser: Browser, address: str, jobs: JobManager, theme: str
) -> None:
    broken, fine = ended(jobs, "broken"), ended(jobs, "fine")
    running = jobs.trigger_job("steady")
    context = browser.new_context(base_url=address, color_scheme=theme)
    page = context.new_page()
    for path in (
        "/runs?status=failed&text=luck",
        "/runs?job=nobody",
        *(f"/runs/{run.id}" for run in (broken, fine, running)),
    ):
        page.goto(path)
        found = Axe().run(page)
        assert not found.response["violations"], (path, found.generate_report())
    page.goto("/runs")
    page.get_by_role("button", name="Discard 1 run of broken").click()
    expect(page.get_by_role("heading", name="Discard 1 run?")).to_be_focused()
    found = Axe().run(page)
    assert not found.response["violations"], found.generate_report()
    context.close()
    jobs.cancel(running.id)
