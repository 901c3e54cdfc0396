"""The pages of the clocks of others, followed: their variables choose the backend, and their application is planned by their commands."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.fakes.qstash import FakeQStash
from tests.fakes.trigger_dev import FakeTriggerDev

from jobmanager import Settings
from jobmanager.backends.resolver import load_backend_class, resolve
from jobmanager.cli.app import run
from jobmanager.testing import FakeApi

PAGES = Path(__file__).resolve().parents[2] / "docs" / "howto"
MADE_UP = "k3JhWq0PzR7vXn5LsT1yBm9cDf4gHj2A"


def variables(page: str) -> dict[str, str]:
    """Return what the page exports, with what it leaves out made up."""
    lines = re.findall(r"^export ([A-Z_]+)=(\S+)", (PAGES / f"{page}.md").read_text(), re.MULTILINE)
    secrets = {"$(openssl": MADE_UP, "$JOBMANAGER_SECRET": MADE_UP}
    return {name: secrets.get(value, value.replace("...", "0123456789abcdef")) for name, value in lines}


@pytest.mark.parametrize(
    ("page", "backend", "platform"),
    [
        ("qstash", "qstash", {}),
        ("trigger-dev", "trigger_dev", {}),
        ("inngest", "inngest", {}),
        ("vercel", "vercel", {"VERCEL": "1"}),
    ],
)
def test_the_variables_of_the_page_choose_its_backend(
    page: str, backend: str, platform: dict[str, str]
) -> None:
    """Fails if a page leaves out a variable that its backend needs, or names one that does not exist."""
    settings = Settings.from_env({**variables(page), **platform})
    assert resolve(settings).backend == backend
    load_backend_class(backend).from_settings(settings)  # type: ignore[call-arg]  # the clock has a default
    assert Settings.unknown_names(variables(page)) == ()


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The application of the page of QStash, in a folder of its own."""
    text = (PAGES / "qstash.md").read_text()
    (tmp_path / "shop.py").write_text(
        re.search(r"<!-- file: shop.py -->\n```python\n(.*?)```", text, re.DOTALL)[1]
    )  # type: ignore[index]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    sys.modules.pop("shop", None)


@pytest.mark.parametrize(
    ("page", "service", "url"),
    [
        ("qstash", lambda: FakeQStash("0123456789abcdef"), "JOBMANAGER_QSTASH_URL"),
        ("trigger-dev", lambda: FakeTriggerDev("tr_prod_0123456789abcdef"), "JOBMANAGER_TRIGGER_DEV_API_URL"),
    ],
    ids=["qstash", "trigger-dev"],
)
def test_the_commands_of_the_page_plan_the_application_there(
    page: str,
    service: Callable[[], FakeApi],
    url: str,
    shop: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Fails if a command of the page does not exist, or the application is not planned by it."""
    fake = service()
    fake.open()
    given = {**variables(page), url: fake.url, "JOBMANAGER_DATABASE_URL": f"sqlite:///{shop}/jobs.db"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    environment = given.get("JOBMANAGER_ENVIRONMENT", "development")
    name = f"jm:default:{environment}:send-invoices"

    assert run(["--app", "shop:jobs", "sync", "--apply"]) == 0, capsys.readouterr()
    assert list(fake.entries) == [name]
    assert fake.entries[name].text == "0 9 * * 1,2,3,4,5"
    assert fake.entries[name].zone == "Europe/Berlin"
    assert run(["--app", "shop:jobs", "ticker", "entries"]) == 0
    assert "as planned" in capsys.readouterr().out
    assert run(["--app", "shop:jobs", "ticker", "pause", "send-invoices"]) == 0
    assert fake.entries[name].paused
    assert run(["--app", "shop:jobs", "ticker", "resume", "send-invoices"]) == 0
    assert not fake.entries[name].paused
    fake.entries[name].text = "5 5 * * *"
    assert run(["--app", "shop:jobs", "ticker", "entries"]) == 1
    monkeypatch.setenv("JOBMANAGER_BACKEND", "local")
    sys.modules.pop("shop", None)
    assert run(["ticker", "purge", page.replace("-", "_"), "--yes"]) == 0
    assert fake.entries == {}
    fake.close()
