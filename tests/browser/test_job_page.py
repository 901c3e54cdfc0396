"""The page of one job, what is done from it, and the forms that make and edit one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from jobmanager import JobManager


@pytest.fixture(params=[True, False], ids=["javascript", "without"])
def visit(request: pytest.FixtureRequest, browser: Browser, address: str) -> Iterator[Page]:
    """A page with JavaScript, and one without."""
    context = browser.new_context(
        base_url=address, java_script_enabled=request.param, viewport={"width": 1440, "height": 900}
    )
    yield context.new_page()
    context.close()


# ---------------------------------------------------------------- what it shows


def test_the_calendar_adds_up_and_lists_what_did_not_go_well(still_shop: Page) -> None:
    still_shop.goto("/jobs/sync-stripe")
    calendar = still_shop.get_by_role("region", name="Every instant of 14 days")
    expect(calendar).to_contain_text(
        "193 due = 182 succeeded (1 late) + 5 failed + 3 missed + 2 skipped + 1 cancelled"
    )
    assert calendar.locator("svg a.failed").count() == 5
    assert calendar.locator("svg a.missed").count() == 3
    lines = [" ".join(text.split()) for text in calendar.locator("tbody tr").all_inner_texts()]
    assert lines[0].startswith("14:00 Failed APIConnectionError")
    assert lines[3] == "01:00 Late 9 min 12 s late"


def test_the_cause_of_a_failing_job_stands_above_everything(shop: Page) -> None:
    shop.goto("/jobs/sync-stripe")
    note = shop.locator(".note.failed")
    expect(note).to_contain_text("read timed out after 80 s, 3 times in a row since 12:00")
    expect(note).to_contain_text("1 more failed run in a row pauses the job")


def test_code_and_override_stand_side_by_side_with_who_changed_what(shop: Page) -> None:
    shop.goto("/jobs/sync-stripe")
    rows = shop.get_by_role("region", name="Definition").locator("tbody tr")
    schedule = rows.filter(has_text="Schedule")
    expect(schedule.locator("del")).to_contain_text("every 4 hours")
    expect(schedule.locator("ins")).to_contain_text("every hour")
    arguments = rows.filter(has_text="Arguments")
    expect(arguments.locator("del")).to_contain_text("100")
    expect(arguments.locator("ins")).to_contain_text("250")
    expect(rows.filter(has_text="Timeout").locator("ins")).to_have_count(0)
    expect(shop.get_by_role("region", name="Who changed what")).to_contain_text(
        "ana changed schedule and config"
    )


def test_any_instant_is_explained_without_a_reload(shop: Page) -> None:
    shop.goto("/jobs/sync-stripe")
    shop.get_by_label("Instant, in Europe/Berlin").fill("01:00")
    shop.get_by_role("button", name="Explain").click()
    expect(shop.locator("#answer")).to_contain_text("It ran 552 s late and succeeded.")
    shop.get_by_label("Instant, in Europe/Berlin").fill("yesterday")
    shop.get_by_role("button", name="Explain").click()
    expect(shop.locator("#answer")).to_contain_text("Not an instant.")


@pytest.mark.parametrize("path", ["/jobs/send-newsletter", "/jobs/nightly-export", "/jobs/legacy-import"])
def test_jobs_without_instants_have_a_page_too(shop: Page, path: str) -> None:
    shop.goto(path)
    expect(shop.get_by_role("heading", level=1)).to_have_text(path.rpartition("/")[2])


def test_neither_page_nor_form_is_wider_than_a_telephone(shop: Page) -> None:
    shop.set_viewport_size({"width": 360, "height": 800})
    for path in ("/jobs/sync-stripe", "/jobs/sync-stripe/edit", "/jobs/new", "/jobs/sync-stripe/backfill"):
        shop.goto(path)
        assert shop.evaluate(
            "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        ), path


# ---------------------------------------------------------------- what is done from it


def test_a_run_is_started_with_arguments(visit: Page, jobs: JobManager) -> None:
    visit.goto("/jobs/greet")
    visit.get_by_label("name", exact=True).fill("ana")
    visit.get_by_role("button", name="Run now").click()
    visit.wait_for_url("**/runs/*")
    [run] = jobs.runs("greet")
    assert jobs.wait(run.id).output == "hello ana"


def test_a_job_is_paused_resumed_disabled_and_enabled(visit: Page, jobs: JobManager) -> None:
    def state() -> str:
        return jobs.get_job("greet").state

    visit.goto("/jobs/greet")
    visit.get_by_role("button", name="Pause").click()
    expect(visit.get_by_role("button", name="Resume")).to_be_visible()
    assert state() == "paused"
    visit.get_by_role("button", name="Resume").click()
    expect(visit.get_by_role("button", name="Pause")).to_be_visible()
    assert state() == "active"
    visit.get_by_role("button", name="Disable…").click()
    expect(visit.get_by_role("heading", name="Disable greet?")).to_be_visible()
    assert state() == "active"
    visit.get_by_role("button", name="Disable the job").click()
    expect(visit.get_by_role("button", name="Enable")).to_be_visible()
    assert state() == "disabled"
    visit.get_by_role("button", name="Enable").click()
    expect(visit.get_by_role("button", name="Pause")).to_be_visible()
    assert state() == "active"


def test_an_edit_is_previewed_saved_and_given_back_to_the_code(visit: Page, jobs: JobManager) -> None:
    visit.goto("/jobs/greet/edit")
    visit.get_by_label("Cron line").fill("30 2 * * *")
    if visit.evaluate("window.htmx !== undefined"):
        expect(visit.locator("#preview")).to_contain_text("At 02:30 every day, Europe/Berlin")
    else:
        visit.get_by_role("button", name="Preview").click()
    preview = visit.locator("#preview")
    expect(preview).to_contain_text("At 02:30 every day, Europe/Berlin")
    expect(preview).to_contain_text("02:30 is not on the clock that day: it runs at 03:00.")
    assert jobs.get_job("greet").row.override is None
    visit.get_by_role("button", name="Save").click()
    visit.wait_for_url("**/jobs/greet")
    assert jobs.get_job("greet").row.override == {"cron": "30 2 * * *", "timezone": "Europe/Berlin"}

    visit.get_by_role("button", name="Back to the code…").click()
    visit.get_by_role("button", name="Remove the override").click()
    expect(visit.get_by_role("button", name="Back to the code…")).to_have_count(0)
    assert not jobs.get_job("greet").row.override


def test_what_cannot_be_read_stands_beside_its_field_and_keeps_what_was_typed(visit: Page) -> None:
    visit.goto("/jobs/greet/edit")
    visit.get_by_label("Cron line").fill("61 * * * *")
    visit.get_by_text("Failures and retries").click()
    visit.get_by_label("Attempts").fill("5")
    visit.get_by_role("button", name="Save").click()
    field = visit.get_by_label("Cron line")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_value("61 * * * *")
    expect(visit.locator("#cron-h")).to_contain_text("61")
    expect(visit.get_by_label("Attempts")).to_have_value("5")


def test_of_a_schedule_the_fields_of_its_kind_are_shown(visit: Page, jobs: JobManager) -> None:
    visit.goto("/jobs/greet/edit")
    expect(visit.get_by_label("Cron line")).to_be_visible()
    expect(visit.locator("#every")).to_be_hidden()
    visit.get_by_role("radio", name="Every").check()
    expect(visit.get_by_label("Cron line")).to_be_hidden()
    visit.locator("#every").fill("2h")
    visit.get_by_role("button", name="Save").click()
    visit.wait_for_url("**/jobs/greet")
    assert jobs.get_job("greet").row.override == {"every": 7200}


def test_of_two_edits_at_once_the_second_is_told_and_keeps_what_was_typed(
    visit: Page, jobs: JobManager
) -> None:
    visit.goto("/jobs/greet/edit")
    jobs.update_job("greet", cron="0 5 * * *", by="ben")
    visit.get_by_text("Execution").click()
    visit.get_by_label("Timeout", exact=True).fill("60")
    visit.get_by_role("button", name="Save").click()
    expect(visit.get_by_role("alert")).to_contain_text("ben changed schedule")
    expect(visit.get_by_label("Timeout", exact=True)).to_have_value("60")
    expect(visit.get_by_label("Cron line")).to_have_value("0 5 * * *")
    assert jobs.get_job("greet").row.override == {"cron": "0 5 * * *"}
    visit.get_by_role("button", name="Save").click()
    visit.wait_for_url("**/jobs/greet")
    assert jobs.get_job("greet").row.override == {"cron": "0 5 * * *", "timeout": 60}


def test_a_job_is_made_and_deleted(visit: Page, jobs: JobManager) -> None:
    visit.goto("/jobs/new?handler=greet")
    visit.get_by_label("Id", exact=True).fill("nightly-greeting")
    visit.get_by_label("Cron line").fill("0 3 * * *")
    visit.get_by_label("name", exact=True).fill("ben")
    visit.get_by_role("button", name="Create job").click()
    visit.wait_for_url("**/jobs/nightly-greeting")
    made = jobs.get_job("nightly-greeting")
    assert (made.source, made.handler, made.declared["config"]) == ("stored", "greet", {"name": "ben"})
    assert not jobs.runs("nightly-greeting")

    visit.get_by_role("button", name="Delete…").click()
    visit.get_by_role("button", name="Delete the job").click()
    visit.wait_for_url("**/jobs")
    assert jobs.get_job("nightly-greeting").state == "deleted"


def test_another_handler_brings_its_arguments_and_typing_keeps_the_focus(page: Page) -> None:
    page.goto("/jobs/new?handler=broken")
    page.get_by_label("Handler").select_option("greet")
    name = page.get_by_label("name", exact=True)
    name.click()
    page.get_by_label("Cron line").fill("0 3 * * *")
    name.click()
    page.keyboard.type("a")
    expect(page.locator("#preview")).to_contain_text("At 03:00 every day")
    page.keyboard.type("na")
    expect(name).to_have_value("ana")


def test_an_id_that_is_taken_is_told_beside_it(visit: Page) -> None:
    visit.goto("/jobs/new?handler=greet")
    visit.get_by_label("Id", exact=True).fill("broken")
    visit.get_by_label("Cron line").fill("0 3 * * *")
    visit.get_by_role("button", name="Create job").click()
    expect(visit.locator("#id-h")).to_contain_text("exists already")
    expect(visit.get_by_label("Cron line")).to_have_value("0 3 * * *")


def test_a_backfill_looks_first(shop: Page, story: JobManager) -> None:
    shop.goto("/jobs/sync-stripe/backfill")
    shop.get_by_label("After").fill("2026-11-25 11:30")
    shop.get_by_label("Up to, included").fill("2026-11-25 14:00")
    shop.get_by_role("button", name="Look first").click()
    expect(shop.get_by_role("heading", name="3 runs would be opened")).to_be_visible()
    assert [run.status for run in story.runs("sync-stripe", limit=3)] == ["failed"] * 3
    shop.get_by_role("button", name="Open 3 runs").click()
    shop.wait_for_url("**/jobs/sync-stripe")
    assert [run.status for run in story.runs("sync-stripe", limit=3)] == ["pending"] * 3


def test_a_policy_that_cannot_be_read_is_told_beside_it_and_mended(visit: Page, jobs: JobManager) -> None:
    visit.goto("/jobs/greet/edit")
    visit.get_by_text("Alerts", exact=True).click()
    visit.get_by_label("Notify on failure").select_option("yes")
    late = visit.get_by_label("Alert late")
    late.fill("soon")
    visit.get_by_role("button", name="Save").click()
    expect(late).to_have_attribute("aria-invalid", "true")
    expect(late).to_be_visible()
    expect(visit.locator("#alert_late-h")).to_contain_text("seconds, or 5m, 1h30m")
    late.fill("10m")
    visit.get_by_role("button", name="Save").click()
    visit.wait_for_url("**/jobs/greet")
    assert jobs.get_job("greet").row.override == {"notify_on_failure": True, "alert_late": 600}
