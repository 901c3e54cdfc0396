"""Every page in both themes and many widths: no axe violation, no complaint of the browser, no sideways scrolling, and a picture of each."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page
from tests.serving import served

from jobmanager import JobManager
from jobmanager.run import FAILED, PENDING, RUNNING, Ending, Failure
from jobmanager.step import Awaited, Step
from jobmanager.stores.steps import StepWrite
from jobmanager.web import dashboard, loopback_only
from jobmanager.web.pages.app import ROUTES

from . import story
from .conftest import ARTEFACTS, Complaints

WIDTHS = (320, 360, 390, 640, 768, 900, 1024, 1100, 1280, 1440, 1920, 2560)
PAGES = {
    "overview": "/",
    "jobs": "/jobs",
    "job": "/jobs/sync-stripe",
    "edit": "/jobs/sync-stripe/edit",
    "backfill": "/jobs/sync-stripe/backfill",
    "new-job": "/jobs/new",
    "runs": "/runs",
    "runs-failed": "/runs?status=failed",
    "run": "/runs/{failed}",
    "run-live": "/runs/{running}",
    "events": "/events",
    "events-send": "/events?send-name=user/confirmed&send-key=42",
    "engine": "/engine",
    "handlers": "/handlers",
    "new-webhook": "/handlers/new-webhook",
    "webhook": "/handlers/webhooks/crm",
    "system": "/system",
    "audit": "/audit",
    "notifications": "/notifications",
    "keys": "/keys",
    "not-found": "/nothing-here",
}
FRAGMENTS = {"/runs/newer", "/runs/{run_id}/log"}  # of pages
ELSEWHERE = {"/static", "/login"} | FRAGMENTS  # with tests of their own


@pytest.fixture(scope="module")
def told(told_story: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobManager]:
    file = shutil.copy(told_story, tmp_path_factory.mktemp("pages") / "jobs.db")
    jobs = story.retell(f"sqlite:///{file}")
    jobs.create_webhook("crm", url="https://crm.example.com/hook", by="ana")
    add_steps(jobs)
    yield jobs
    jobs.store.close()


def add_steps(jobs: JobManager) -> None:
    """Give the run that is running steps of each look, and a child."""
    [run] = jobs.runs("process-account-deletions", status=["running"], limit=1)
    began = run.started_at or run.opened_at
    first = Step(
        run_id=run.id,
        name="load accounts",
        occurrence=0,
        kind="step",
        status="succeeded",
        started_at=began,
        ended_at=began,
        attempt=3,
    )
    steps = [
        first,
        replace(first, name="rest", kind="sleep", position=1),
        replace(
            first,
            name="mail",
            status="retrying",
            ended_at=None,
            error=Failure(kind="exception", message="no route", type="OSError"),
            position=2,
        ),
        replace(
            first,
            name="user/confirmed",
            kind="wait_for",
            status="waiting",
            ended_at=None,
            wakes_at=began + timedelta(days=7),
            awaits=Awaited("user/confirmed", "42", began),
            position=3,
        ),
    ]
    assert all(jobs.store.steps.record([StepWrite(run, step) for step in steps]))
    child = replace(
        story.new_run(run.job_id, began), parent_id=run.id, idempotency_key=f"start:{run.id}/x#0/"
    )
    resting = replace(
        story.new_run(run.job_id, began),
        status=RUNNING,
        owner="gone",
        scheduled_for=None,
        trigger="manual",
        finished_at=None,
        output=None,
    )
    story.insert(jobs, run.job_id, [child, resting])
    wait = replace(steps[3], run_id=resting.id, position=0)
    assert jobs.store.steps.record([StepWrite(resting, wait)]) == [True]
    rest = Ending(
        run=resting,
        status=FAILED,
        started_at=began,
        finished_at=began,
        reason="waiting",
        retry_at=began + timedelta(days=7),
    )
    assert jobs.store.runs.write([], [rest]).ended[resting.id] is PENDING
    jobs.send_event("user/confirmed", key="41", id="mail-7")


@pytest.fixture(scope="module")
def paths(told: JobManager) -> dict[str, str]:
    """The path of each page."""
    [failed] = told.runs("sync-stripe", status=[FAILED], limit=1)
    [running] = told.runs("process-account-deletions", status=["running"], limit=1)
    return {name: path.format(failed=failed.id, running=running.id) for name, path in PAGES.items()}


@pytest.fixture(scope="module")
def address_of_story(told: JobManager) -> Iterator[str]:
    with served(
        dashboard(told, authorize=loopback_only(), timezone=story.BERLIN, title="shop, production")
    ) as url:
        yield url


@pytest.fixture
def visitor(browser: Browser, address_of_story: str) -> Iterator[tuple[Page, Complaints]]:
    context = browser.new_context(base_url=address_of_story, reduced_motion="reduce")
    page, complaints = context.new_page(), Complaints()
    complaints.listen(page)
    yield page, complaints
    context.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_no_fault(name: str, paths: dict[str, str], visitor: tuple[Page, Complaints]) -> None:
    page, complaints = visitor
    complaints.clear()
    found = []
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        page.set_viewport_size({"width": 1440, "height": 900})
        page.goto(paths[name])
        rules = () if theme == "light" else ("color-contrast",)  # the rest is the same page
        found += [f"{theme}: {line}" for line in violations(page, *rules)]
        picture(page, f"{name}-1440-{theme}")
    page.set_viewport_size({"width": 390, "height": 844})
    found += [f"390: {line}" for line in violations(page)]
    picture(page, f"{name}-390-dark")
    page.emulate_media(color_scheme="light")
    picture(page, f"{name}-390-light")
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if wide > 0:
            found.append(f"{wide} px too wide at {width}")
    expected = [line for line in complaints if "404" in line] if name == "not-found" else []
    assert found + [line for line in complaints if line not in expected] == []


def violations(page: Page, *rules: str) -> list[str]:
    """Return what axe finds, an element a line: by these rules, or by all of them."""
    options = {"resultTypes": ["violations"]} | ({"runOnly": list(rules)} if rules else {})
    found = Axe().run(page, options=options).response["violations"]
    return [
        f"{rule['id']}: {node['html'][:160]} {node['failureSummary'][:200]}"
        for rule in found
        for node in rule["nodes"]
    ]


def picture(page: Page, name: str) -> None:
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTEFACTS / f"{name}.png")


def test_each_route_of_a_page_is_looked_at() -> None:
    patterns = [
        getattr(route, "path", "")
        for route in ROUTES
        if "GET" in (getattr(route, "methods", None) or {"GET"})
    ]
    wanted = [path for path in patterns if path not in ELSEWHERE]
    asked = [path.partition("?")[0] for path in PAGES.values()]
    unseen = [
        path
        for path in wanted
        if not any(re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", path), given) for given in asked)
    ]
    assert unseen == []
