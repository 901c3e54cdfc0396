"""Check-ins with Sentry, on a stand-in for its package: what is reported for which end of a run."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from jobmanager import JobManager, Retry, Settings
from jobmanager.observe.sentry import SentryCheckIns
from jobmanager.testing import FakeClock


class Sentry(ModuleType):
    """As much of `sentry_sdk` as is called."""

    def __init__(self) -> None:
        super().__init__("sentry_sdk")
        self.on = True
        self.got: list[dict[str, Any]] = []

    def is_initialized(self) -> bool:
        return self.on

    def capture_checkin(self, **given: Any) -> str:
        self.got.append(given)
        return given.get("check_in_id") or f"check-in-{len(self.got)}"


@pytest.fixture
def sentry(monkeypatch: pytest.MonkeyPatch) -> Sentry:
    made = Sentry()
    monkeypatch.setitem(sys.modules, "sentry_sdk", made)
    monkeypatch.setitem(
        sys.modules,
        "sentry_sdk.crons",
        SimpleNamespace(capture_checkin=made.capture_checkin),  # type: ignore[arg-type]
    )
    return made


def run(handler: Any, **options: Any) -> None:
    """Let one instant of a job pass, with what follows it in a minute."""
    clock = FakeClock()
    settings = Settings(backend="local", database_url="memory://")
    jobs = JobManager(settings, clock=clock, observers=[SentryCheckIns("shop-")])
    jobs.add_job("work", handler, every=3600, **options)
    with jobs:
        clock.advance(hours=1)
        clock.advance(minutes=1)


def fail() -> None:
    raise OSError("no disk")


def test_a_success_is_a_check_in_and_its_end(sentry: Sentry) -> None:
    run(lambda: None)

    begun, ended = sentry.got
    assert begun == {"monitor_slug": "shop-work", "status": "in_progress"}
    assert (ended["status"], ended["check_in_id"], ended["duration"]) == ("ok", "check-in-1", 0)


def test_each_failed_attempt_is_an_error(sentry: Sentry) -> None:
    run(fail, retry=Retry(max_attempts=2, delays=[10], jitter=0))

    assert [given["status"] for given in sentry.got] == ["in_progress", "error"] * 2


def test_nothing_is_sent_where_it_is_not_initialised(sentry: Sentry, monkeypatch: pytest.MonkeyPatch) -> None:
    sentry.on = False
    run(lambda: None)
    assert sentry.got == []

    monkeypatch.delitem(sys.modules, "sentry_sdk")
    run(lambda: None)
    assert "sentry_sdk" not in sys.modules
