"""`jobmanager stats`: the figures as lines and as JSON."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import pytest

from jobmanager import JobManager, Settings
from jobmanager.cli import main
from jobmanager.clock import SystemClock
from jobmanager.testing import FakeClock


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobManager:
    """An application whose job ran for five hours, up to now."""
    now = SystemClock().now()
    clock = FakeClock(now - timedelta(hours=5))
    settings = Settings(database_url=f"sqlite:///{tmp_path}/jobs.db")

    def work() -> None:
        if clock.now().minute % 20 == 0:
            raise ValueError("every twentieth minute")

    jobs = JobManager(settings, clock=clock)
    jobs.add_job("work", work, cron="*/5 * * * *", timezone="UTC")
    jobs.start()
    clock.advance_to(now)
    jobs.stop()
    module = ModuleType("shop_measured")
    module.jobs = JobManager(settings)  # type: ignore[attr-defined]
    module.jobs.add_job("work", work, cron="*/5 * * * *", timezone="UTC")
    monkeypatch.setitem(sys.modules, "shop_measured", module)
    return module.jobs  # type: ignore[no-any-return]


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(["--app", "shop_measured:jobs", *words]) == 0
    return capsys.readouterr().out


def test_a_day_is_told_in_facts_and_a_line_for_each_hour(
    shop: JobManager, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = said(capsys, "stats").splitlines()

    assert lines[0] == "all jobs, last 24 hours"
    assert lines[1].startswith("runs")
    assert "45 succeeded, 15 failed" in lines[1]
    assert "75.0% of those that succeeded or failed" in lines[2]
    assert "p50 below 10 ms" in lines[3]
    assert "within a factor of 1.58" in lines[3]
    assert lines[7].split() == ["since", "(UTC)", "succeeded", "failed"]
    assert len(lines) == 8 + 24


def test_the_json_has_the_fields_of_the_value_and_lengths_in_seconds(
    shop: JobManager, capsys: pytest.CaptureFixture[str]
) -> None:
    told = json.loads(said(capsys, "--json", "stats", "work", "--period", "7d"))

    assert told["job"] == "work"
    assert (told["period"], told["timezone"], told["total"]) == ("7d", "UTC", 60)
    assert told["counts"] == {"succeeded": 45, "failed": 15}
    assert told["success_rate"] == 0.75
    assert told["duration"]["count"] == 60
    assert told["duration"]["within"] == 1.58
    assert sum(bucket["counts"].get("failed", 0) for bucket in told["buckets"]) == 15


def test_an_hour_without_runs_says_so(shop: JobManager, capsys: pytest.CaptureFixture[str]) -> None:
    shop.add_job("idle", lambda: None)

    assert said(capsys, "stats", "idle", "--period", "1h").splitlines()[-1] == "No run ended in that time."
