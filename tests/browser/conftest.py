"""A real browser, Debian's chromium, before a dashboard that a real server serves."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright
from tests.serving import served

from jobmanager import JobManager, Settings
from jobmanager.web import dashboard, loopback_only

from .story import BERLIN, retell, tell

ARTEFACTS = Path(__file__).parents[2] / ".artefacts" / "screenshots"


def chromium_path() -> str:
    """Return where Debian's chromium lies: if there is one without windows, that, for it takes a third of the CPU time."""
    path = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium on this machine: apt-get install chromium-headless-shell")
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's chromium, one for all tests of a process."""
    path = chromium_path()
    with sync_playwright() as playwright:
        # As root there is no sandbox; the small /dev/shm of a container is not used.
        chromium = playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--disable-dev-shm-usage"],
            env={**os.environ, "FONTCONFIG_FILE": str(Path(__file__).with_name("fonts.conf"))},
        )
        # Playwright's loop counts as running in this thread, also while tests of others on the same worker have their own.
        loop = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        chromium.loop_of_tests = loop
        yield chromium
        asyncio._set_running_loop(loop)
        chromium.close()


@pytest.fixture(autouse=True)
def _loop_of_the_browser(request: pytest.FixtureRequest) -> Iterator[None]:
    """Give playwright its loop for the length of a test that uses the browser."""
    if "browser" not in request.fixturenames:
        yield
        return
    asyncio._set_running_loop(request.getfixturevalue("browser").loop_of_tests)
    yield
    asyncio._set_running_loop(None)


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobManager]:
    """A manager with a few jobs of different fates; started, so that runs by hand are executed."""
    jobs = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db", backend="local"))

    @jobs.job("greet", cron="0 3 * * *", timezone="Europe/Berlin", name="Say good morning")
    def greet(name: str = "world") -> str:
        return f"hello {name}"

    @jobs.job("broken", cron="0 4 * * *")
    def broken() -> None:
        raise ValueError("no luck today")

    with jobs:
        yield jobs


@pytest.fixture
def address(jobs: JobManager) -> Iterator[str]:
    """Where the dashboard of `jobs` is served, to this machine alone."""
    with served(dashboard(jobs, authorize=loopback_only(), timezone="Europe/Berlin")) as url:
        yield url


class Complaints(list[str]):
    """What a browser complained of while a test looked at pages: console errors, refused resources, exceptions."""

    def listen(self, page: Page) -> None:
        def on_console(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                self.append(f"{page.url}: {message.text}")

        page.on("console", on_console)
        page.on("pageerror", lambda error: self.append(f"{page.url}: {error}"))
        page.on(
            "response",
            lambda got: self.append(f"{got.status} {got.url}") if got.status >= 500 else None,
        )


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A page of a new visitor at 1440 × 900; the test fails if the browser complains of anything."""  # noqa: RUF002
    context = browser.new_context(base_url=address, viewport={"width": 1440, "height": 900})
    page, complaints = context.new_page(), Complaints()
    complaints.listen(page)
    yield page
    context.close()
    assert not complaints


@pytest.fixture(scope="session")
def told_story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the store in which the story of `story.py` was told, made once."""
    file = tmp_path_factory.mktemp("story") / "jobs.db"
    tell(f"sqlite:///{file}").store.close()
    return file


@pytest.fixture
def story(told_story: Path, tmp_path: Path) -> Iterator[JobManager]:
    """The manager of the story, over a copy of its store; it is not started, and its clock stands still at `story.NOW`."""
    shutil.copy(told_story, tmp_path / "story.db")
    jobs = retell(f"sqlite:///{tmp_path}/story.db")
    yield jobs
    jobs.store.close()


@pytest.fixture
def shop(browser: Browser, story: JobManager) -> Iterator[Page]:
    """A page of a visitor who sees the story at 1440 × 900; the test fails if the browser complains of anything."""  # noqa: RUF002
    with served(
        dashboard(story, authorize=loopback_only(), title="shop, production", timezone=BERLIN)
    ) as url:
        context = browser.new_context(base_url=url, viewport={"width": 1440, "height": 900})
        page, complaints = context.new_page(), Complaints()
        complaints.listen(page)
        yield page
        context.close()
        assert not complaints


HOLD = "sessionStorage.setItem('held', 'yes')"
"""A live page may swap what is looked at for another one meanwhile: one that is read in several steps is held."""


@pytest.fixture
def still_shop(shop: Page) -> Page:
    """The page of `shop`, which is not kept up to date."""
    shop.add_init_script(HOLD)
    return shop
