"""What is done on the pages of webhooks, notifications and the engine, with JavaScript and without."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.receivers import Receiver
from tests.serving import served

from jobmanager import JobManager, Settings
from jobmanager.stores.outbox import Notice
from jobmanager.web import dashboard, loopback_only

from .conftest import Complaints


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobManager]:
    """A manager that may call loopback and keep secrets; it is not started."""
    key = base64.b64encode(b"k" * 32).decode()
    jobs = JobManager(
        Settings(
            database_url=f"sqlite:///{tmp_path}/jobs.db",
            backend="noop",
            encryption_key=key,
            webhook_allow="127.0.0.1",
        )
    )
    jobs.add_job("greet", print, cron="0 3 * * *")
    jobs.sync()
    yield jobs
    jobs.stop()
    jobs.store.close()


@pytest.fixture(params=[True, False], ids=["with JavaScript", "without"])
def visit(request: pytest.FixtureRequest, browser: Browser, jobs: JobManager) -> Iterator[Page]:
    with served(dashboard(jobs, authorize=loopback_only())) as url:
        context = browser.new_context(base_url=url, java_script_enabled=request.param)
        page, complaints = context.new_page(), Complaints()
        complaints.listen(page)
        yield page
        context.close()
        assert not complaints


def test_a_webhook_is_made_tested_edited_and_deleted(visit: Page, jobs: JobManager) -> None:
    with Receiver().listening() as receiver:
        visit.goto("/handlers/new-webhook")
        visit.get_by_label("Key", exact=True).fill("crm")
        visit.get_by_label("URL").fill(receiver.url)
        visit.get_by_label("The request is signed with").select_option("new")
        visit.get_by_role("button", name="Make webhook").click()
        expect(visit.get_by_label("Secret", exact=True).first).to_contain_text("whsec_")

        visit.get_by_role("button", name="Send a ping").click()
        expect(visit.get_by_text("Accepted", exact=True)).to_be_visible()
        assert len(receiver.received) == 1
        assert "webhook-signature" in receiver.last.headers
        expect(visit.get_by_text("whsec_")).to_have_count(0)

        visit.goto("/handlers/webhooks/crm")
        visit.get_by_label("Timeout in seconds").fill("3")
        visit.get_by_role("button", name="Save").click()
        expect(visit.get_by_text("3 s", exact=True)).to_be_visible()
        [info] = jobs.webhooks()
        assert (info.timeout, info.url, info.signed, info.changed_by) == (3, receiver.url, True, "local")

        visit.get_by_role("button", name="Delete…").click()
        visit.get_by_role("link", name="Keep it").click()
        visit.get_by_role("button", name="Delete…").click()
        visit.get_by_role("button", name="Delete 1 webhook").click()
        visit.wait_for_url("**/handlers")
        expect(visit.get_by_text("crm", exact=True)).to_have_count(0)
        assert jobs.webhooks() == []


def test_a_notification_is_dropped_and_sent_again(visit: Page, jobs: JobManager) -> None:
    jobs.store.outbox.add(
        [
            Notice(
                namespace="default",
                event="failed",
                subject="run",
                channel="email",
                address="ops@example.org",
                job_id="greet",
            )
        ]
    )
    visit.goto("/notifications")
    row = visit.get_by_role("row", name="ops@example.org")
    row.get_by_role("button", name="Drop: failed to ops@example.org").click()
    expect(row.get_by_text("Dropped")).to_be_visible()
    expect(row.get_by_role("button", name="Drop")).to_have_count(0)

    row.get_by_role("button", name="Send again: failed to ops@example.org").click()
    expect(row.get_by_text("Waiting")).to_be_visible()
    assert [(entry.action, entry.by) for entry in jobs.audit(target="notification")] == [
        ("resend", "local"),
        ("drop", "local"),
    ]


def test_a_plan_is_applied_after_a_question(visit: Page, jobs: JobManager) -> None:
    """Fails, too, if the button counts what applying leaves alone: jobs that another process may declare."""
    other = JobManager(Settings(database_url=jobs.settings.database_url, backend="noop"))
    other.add_job("greet", print, cron="0 4 * * *")
    other.add_job("elsewhere", print)
    other.sync()
    other.store.close()

    visit.goto("/engine")
    plan = visit.get_by_label("Planned changes")
    expect(plan).to_contain_text("~ greet")
    expect(plan).to_contain_text("- elsewhere")
    visit.get_by_role("button", name="Apply 1 change…").click()
    visit.get_by_role("link", name="Leave it").click()
    expect(visit.get_by_role("button", name="Apply 1 change", exact=True)).to_have_count(0)
    assert jobs.get_job("greet").row.schedule == "cron 0 4 * * * in UTC"

    visit.get_by_role("button", name="Apply 1 change…").click()
    visit.get_by_role("button", name="Apply 1 change", exact=True).click()
    expect(plan).not_to_contain_text("greet")
    expect(plan).to_contain_text("- elsewhere")
    expect(visit.get_by_role("button", name="Apply")).to_have_count(0)
    assert jobs.get_job("greet").row.schedule == "cron 0 3 * * * in UTC"
