"""The language of whoever a run is for, as its handler sees it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from jobmanager import JobManager, RunContext, Settings
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
