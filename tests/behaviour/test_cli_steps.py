"""What the command line shows of runs in steps: the steps, what a resting run waits for, its children; and events that are sent."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from jobmanager import JobManager, NonRetryable, RunContext, Settings
from jobmanager.cli import main
from jobmanager.run import Run
from jobmanager.testing import FakeClock, run_due

START = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
HOUR = timedelta(hours=1)
_numbers = count()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def jobs(clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobManager]:
    """A manager whose store the command line reads, too; that one's clock is an hour ahead."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    settings = Settings(backend="noop", database_url=f"sqlite:///{tmp_path}/runs.db")
    name = f"flows_{next(_numbers)}"
    Path(f"{name}.py").write_text(
        f"from jobmanager import JobManager, Settings\njobs = JobManager({settings!r})\n"
    )
    monkeypatch.setenv("JOBMANAGER_APP", f"{name}:jobs")
    jobs = JobManager(settings, clock=clock)
    add_flows(jobs)
    yield jobs.start()
    jobs.stop()
    monkeypatch.undo()
    time.tzset()


def add_flows(jobs: JobManager) -> None:
    @jobs.job("thumb")
    def thumb(context: RunContext, size: int) -> str:
        if size == 256:
            raise ValueError("too big")
        if size == 1024:
            context.sleep("rest", days=1)
        return f"{size}.png"

    @jobs.job("wait")
    def wait(context: RunContext, key: str = "") -> Any:
        context.step("load", dict, mail="a@b")
        context.step("load", list)
        event = context.wait_for("user/confirmed", key=key, timeout=None if key == "" else "7d")
        return event and event.data

    @jobs.job("fails")
    def fails(context: RunContext) -> None:
        context.step("load", dict)
        raise NonRetryable("not yet")

    @jobs.job("gather")
    def gather(context: RunContext) -> Any:
        return context.gather("thumbs", "thumb", [{"size": size} for size in (64, 256, 1024)])


@pytest.fixture
def resting(jobs: JobManager) -> Callable[..., Run]:
    def start(job: str, **payload: Any) -> Run:
        run = jobs.trigger_job(job, payload)
        for _ in range(5):
            run_due(jobs)
        return jobs.run(run.id)

    return start


@pytest.fixture
def cli(jobs: JobManager, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def call(*words: str, code: int = 0) -> str:
        assert main(list(words)) == code
        captured = capsys.readouterr()
        return captured.out if code == 0 else captured.err

    return call


def test_a_run_shows_its_steps_and_what_it_waits_for(cli, resting):
    run = resting("wait", key="42")
    shown = cli("runs", "show", run.id)
    assert "It waits for the event user/confirmed of 42 until " in shown
    assert "`jobmanager events send 'user/confirmed' --key '42'`" in shown
    steps = [line.split() for line in shown.partition("Steps\n")[2].splitlines()[1:4]]
    assert [line[0] for line in steps] == ["load", "load", "user/confirmed"]
    assert steps[1][1] == "#2"
    assert steps[0][-2:] == ['{"mail":', '"a@b"}']
    assert "Attempt 1" not in shown
    assert "waiting for an event until" in cli("runs", "list")


def test_a_wait_without_a_limit_has_no_moment(cli, resting):
    run = resting("wait")
    shown = cli("runs", "show", run.id)
    assert "It waits for the event user/confirmed.\n" in shown
    assert str(run.due_at.year) not in shown
    assert cli("runs", "list").rstrip().endswith("waiting for an event")


def test_children_are_a_tree_with_their_numbers(cli, resting):
    run = resting("gather")
    shown = cli("runs", "show", run.id)
    assert "It waits for 1 of 3 runs that step `thumbs` has started." in shown
    tree = shown.partition("Children\n")[2].splitlines()[:4]
    assert tree[0] == "3: 1 pending, 1 succeeded, 1 failed"
    assert [line[0] for line in tree[1:]] == ["├", "├", "└"]
    assert "ValueError: too big" in tree[1]
    assert "sleeping until" in tree[2]
    child = next(child for child in json.loads(cli("runs", "show", run.id, "--json"))["children"])
    assert child["parent_id"] == run.id
    assert ["parent", run.id[-8:]] in [line.split() for line in cli("runs", "show", child["id"]).splitlines()]


def test_steps_are_json_too(cli, resting):
    run = resting("wait", key="42")
    steps = json.loads(cli("runs", "show", run.id, "--json"))["steps"]
    assert [(step["name"], step["occurrence"], step["kind"], step["status"]) for step in steps] == [
        ("load", 0, "step", "succeeded"),
        ("load", 1, "step", "succeeded"),
        ("user/confirmed", 0, "wait_for", "waiting"),
    ]
    assert steps[2]["awaits"] == {"name": "user/confirmed", "key": "42"}


def test_an_event_that_is_sent_lets_the_run_go_on(cli, jobs, clock, resting):
    run = resting("wait", key="42")
    clock.step(HOUR)
    words = ("events", "send", "user/confirmed", "--key", "42", "--id", "7", "--data", '{"by": "desk"}')
    assert cli(*words) == "Event user/confirmed of 42 is sent: 7.\n"
    again = json.loads(cli(*words[:-1], "[1]", "--json"))
    assert again["data"] == {"by": "desk"}
    clock.step(HOUR)
    run_due(jobs)
    assert jobs.run(run.id).output == {"by": "desk"}


@pytest.mark.parametrize(
    ("data", "message"),
    [("{", "The data from --data is not JSON"), ("@none", "The data @none cannot be read")],
)
def test_data_that_is_no_json_is_usage(data, message, cli):
    assert message in cli("events", "send", "paid", "--data", data, code=2)


@pytest.mark.parametrize(("words", "kept"), [((), ["load"]), (("--from-start",), [])])
def test_a_redrive_keeps_the_steps_unless_it_is_from_the_start(words, kept, cli, jobs, resting):
    run = resting("fails")
    assert [step.name for step in jobs.steps(run.id)] == ["load"]
    cli("redrive", run.id, *words)
    assert jobs.run(run.id).status == "pending"
    assert [step.name for step in jobs.steps(run.id)] == kept


def test_events_and_the_runs_that_wait_for_one_are_listed(cli, jobs, resting):
    run = resting("wait", key="42")
    waits = cli("events", "waits")
    assert re.search(rf"{run.id[-8:]} +wait +user/confirmed +42 ", waits)
    [wait] = json.loads(cli("--json", "events", "waits", "--name", "user/confirmed"))
    assert (wait["run_id"], wait["key"]) == (run.id, "42")
    assert cli("events", "waits", "--name", "paid") == "No run waits for an event like that.\n"
    assert cli("events", "list") == "No event like that was sent within seven days.\n"

    jobs.send_event("user/confirmed", key="42", data={"card": "4711"}, id="mail-7")
    jobs.send_event("paid\x1b[2J", id="paid-1")

    listed = cli("events", "list")
    assert re.search(r"UTC.* +user/confirmed +42 +mail-7 +-\n", listed)
    assert "\x1b" not in listed
    assert "4711" not in listed + cli("--json", "events", "list")
    [event] = json.loads(cli("--json", "events", "list", "--before", "paid-1"))
    assert (event["id"], event["runs"]) == ("mail-7", [])
