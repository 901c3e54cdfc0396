"""The alert rules of docs/howto/production.md, evaluated on what the gauges really say: silent where all is well, firing in each case."""

from __future__ import annotations

import operator
import re
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobmanager import JobManager, Settings
from jobmanager.observe.prometheus import text_of
from jobmanager.process.health import KINDS, HealthReport, Symptom
from jobmanager.testing import FakeClock

PAGE = Path(__file__).parents[2] / "docs/howto/production.md"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

EXPRESSION = re.compile(
    r"(?P<by>max|min|sum)(?: by \(\w+\) )?\((?P<name>\w+)(?:\{(?P<label>\w+)(?P<match>=~|=)\"(?P<value>[^\"]*)\"\})?\)"
    r" (?P<compare>[<>]) (?P<limit>\d+)"
)
ABSENT = re.compile(r"absent\((\w+)\)")


def rules() -> dict[str, str]:
    """Name and expression of each documented alert."""
    [text] = re.findall(r"<!-- alert rules[^>]*-->\n```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return dict(re.findall(r"- alert: (\w+)\n +expr: (.+)", text))


def fires(expression: str, text: str) -> bool:
    """What the expression comes to; of PromQL as much as the page uses."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    if absent := ABSENT.fullmatch(expression):
        return absent[1] not in {sample.name for sample in samples}
    parts = EXPRESSION.fullmatch(expression)
    assert parts, f"{expression}: not evaluated by this test"
    values = [
        sample.value for sample in samples if sample.name == parts["name"] and _matches(sample.labels, parts)
    ]
    if not values:
        return False
    value = {"max": max, "min": min, "sum": sum}[parts["by"]](values)
    return {"<": operator.lt, ">": operator.gt}[parts["compare"]](value, float(parts["limit"]))


def _matches(labels: dict[str, str], parts: re.Match[str]) -> bool:
    if parts["label"] is None:
        return True
    return re.fullmatch(parts["value"], labels.get(parts["label"], "")) is not None


def firing(text: str) -> set[str]:
    return {name for name, expression in rules().items() if fires(expression, text)}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON)


@pytest.fixture
def jobs(clock: FakeClock) -> Any:
    manager = JobManager(Settings(backend="local", database_url="memory://"), clock=clock)
    manager.add_job("work", lambda: None, every=60)
    yield manager
    manager.stop()


def test_every_documented_rule_is_read() -> None:
    assert len(rules()) == 6


def test_no_alert_fires_where_all_is_well(jobs: JobManager, clock: FakeClock) -> None:
    jobs.start()
    for _ in range(20):
        clock.advance(minutes=7)
        assert firing(text_of(jobs)) == set()


@pytest.mark.parametrize("kind", KINDS)
def test_each_thing_that_stands_still_fires(
    jobs: JobManager, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    jobs.start()
    clock.advance(minutes=5)
    facts = jobs.health().facts
    found = HealthReport(ready=True, symptoms=(Symptom(kind=kind, text="", fix=""),), facts=facts)
    monkeypatch.setattr(jobs, "health", lambda: found)

    assert firing(text_of(jobs)) == {"JobmanagerStandsStill"}


def test_a_time_that_nobody_keeps_fires(jobs: JobManager, clock: FakeClock) -> None:
    jobs.start()
    clock.advance(minutes=5)
    jobs.stop()
    clock.advance(minutes=5)

    assert firing(text_of(jobs)) == {
        "JobmanagerStandsStill",
        "JobmanagerTickOverdue",
        "JobmanagerNotExecuting",
    }


def test_ticks_that_do_not_come_fire(jobs: JobManager, clock: FakeClock) -> None:
    jobs.start()
    clock.advance(minutes=5)
    clock.release(jobs.backend._drain)  # type: ignore[attr-defined]  # its scheduler is gone, the rest lives
    for _ in range(10):
        clock.advance(seconds=30)

    assert "JobmanagerStandsStill" in firing(text_of(jobs))
    assert "not_brought" in {symptom.kind for symptom in jobs.health().symptoms}


def test_a_job_without_a_next_instant_fires(jobs: JobManager, clock: FakeClock) -> None:
    jobs.start()
    clock.advance(minutes=5)
    with jobs.store.jobs.lock("work") as txn:
        txn.save(replace(txn.job, next_due_at=None))
    clock.release(jobs.backend._drain)  # type: ignore[attr-defined]
    jobs._assembly.background.stop()  # the sweep would heal it
    for _ in range(10):
        clock.advance(timedelta(seconds=30))

    assert "JobmanagerTickOverdue" in firing(text_of(jobs))


def test_a_store_that_cannot_be_read_fires(
    jobs: JobManager, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.start()
    clock.advance(minutes=5)

    def away() -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(jobs.store, "exists", away)

    assert firing(text_of(jobs)) == {"JobmanagerStandsStill", "JobmanagerStoreAway"}


def test_metrics_that_are_gone_fire() -> None:
    assert firing("") == {"JobmanagerSilent"}


def test_promtool_takes_the_rules(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not there; the evaluation above is")
    [text] = re.findall(r"<!-- alert rules[^>]*-->\n```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "rules.yml").write_text(text)
    subprocess.run(["promtool", "check", "rules", str(tmp_path / "rules.yml")], check=True)
