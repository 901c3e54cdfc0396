"""The language of whoever a run is for, as its handler sees it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from jobmanager import JobManager, RunContext, Settings
from jobmanager.errors import PayloadError
from jobmanager.testing import FakeClock


@pytest.fixture
def jobs() -> Iterator[JobManager]:
    manager = JobManager(Settings(database_url="memory://"), clock=FakeClock())
    manager.start()
    yield manager
    manager.stop()


@pytest.mark.parametrize(
    ("of_the_job", "of_the_payload", "seen"),
    [
        (None, None, "en"),
        ("pl", None, "pl"),
        (None, "de", "de"),
        ("pl", "de", "de"),
        ("pl", "", "pl"),
    ],
)
def test_the_payload_decides_then_the_job_and_then_it_is_english(
    jobs: JobManager, of_the_job: str | None, of_the_payload: str | None, seen: str
) -> None:
    options: dict[str, Any] = {} if of_the_job is None else {"locale": of_the_job}

    @jobs.job("letter", **options)
    def letter(context: RunContext, locale: str = "") -> str:
        return context.locale

    payload = None if of_the_payload is None else {"locale": of_the_payload}

    assert jobs.trigger_job("letter", payload).output == seen


def test_a_handler_need_not_take_the_locale_of_its_payload(jobs: JobManager) -> None:
    @jobs.job("letter")
    def letter(context: RunContext, to: str) -> str:
        return f"{context.locale} to {to}"

    @jobs.job("plain")
    def plain() -> str:
        return "no context"

    assert jobs.trigger_job("letter", {"to": "Ada", "locale": "de"}).output == "de to Ada"
    assert jobs.trigger_job("plain", {"locale": "de"}).output == "no context"
    with pytest.raises(PayloadError, match="'lokale' is unknown"):
        jobs.trigger_job("plain", {"lokale": "de"})


@pytest.mark.parametrize("wrong", [3, True, None, ["de"], {"a": 1}])
def test_a_locale_that_is_no_text_is_refused(jobs: JobManager, wrong: Any) -> None:
    @jobs.job("plain")
    def plain() -> None:
        """Take nothing."""

    with pytest.raises(PayloadError, match=r"Job 'plain': .*locale="):
        jobs.trigger_job("plain", {"locale": wrong})
