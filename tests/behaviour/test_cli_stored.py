"""`jobs create`, `edit`, `delete`, `enable`, `disable`, `history` and `audit`: what they print, what their JSON says, how they exit."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobmanager.cli import main

pytestmark = pytest.mark.slow

APPLICATION = """
from jobmanager import JobManager
jobs = JobManager()

@jobs.handler("export")
def export(region: str = "all", days: int = 1): return days

@jobs.job("coded", every=60)
def coded(): pass
"""

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    name = f"shop_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(APPLICATION)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("USER", "ana")
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: str) -> tuple[int, str]:
        sys.modules.pop(name, None)
        code = main(["--app", f"{name}:jobs", *words])
        said = capsys.readouterr()
        return code, said.out + said.err

    yield call
    sys.modules.pop(name, None)


def of(run: Run, *words: str) -> Any:
    code, said = run(*words, "--json")
    assert code == 0, said
    return json.loads(said)


def test_a_job_is_made_shown_edited_and_deleted(run: Run) -> None:
    made = of(run, "jobs", "create", "nightly", "--handler", "export", "cron=0 3 * * *", "timeout=5m")
    assert (made["id"], made["source"], made["schedule"]) == ("nightly", "stored", "cron 0 3 * * * in UTC")
    code, said = run("jobs", "edit", "nightly", "cron=0 4 * * *", 'config={"region": "eu"}', "retry=3")
    assert code == 0
    assert said.startswith("nightly: changed, at 04:00 every day; next ")
    assert said.endswith("Nothing was fired.\n")
    code, said = run("jobs", "show", "nightly")
    assert "by an operator, revision 2: `jobmanager jobs history nightly`" in said
    assert "nightly" in run("jobs", "list")[1]
    assert of(run, "jobs", "delete", "nightly", "--yes") == {"job": "nightly", "state": "deleted"}
    assert "nightly" not in run("jobs", "list")[1]


def test_the_policy_for_clock_changes_is_two_words(run: Run) -> None:
    line = ["cron=30 2 * * *", "timezone=Europe/Berlin"]
    code, said = run("jobs", "create", "nightly", "--handler", "export", *line, "dst=skip,both")
    told = "at 02:30 every day, Europe/Berlin, a skipped time not at all, a repeated time both times"
    assert code == 0, said
    assert told in said
    assert told in run("jobs", "show", "nightly")[1]
    assert told in run("jobs", "list")[1]
    run("jobs", "edit", "nightly", "dst=shift")
    assert "dst=skip,both -> shift,first" in run("jobs", "history", "nightly")[1]
    code, said = run("jobs", "edit", "nightly", "dst=shft")
    assert code != 0
    assert "is no policy for changes of the clocks. Did you mean 'shift'?" in said
    code, said = run("export", "jobs")
    assert 'dst="shift,first"' in said


def test_a_schedule_that_has_ended_is_listed_as_such(run: Run) -> None:
    run("jobs", "create", "nightly", "--handler", "export", "cron=0 3 * * *", "until=2020-01-01T00:00Z")
    line = next(line for line in run("jobs", "list")[1].splitlines() if line.startswith("nightly"))
    assert "at 03:00 every day, until 2020-01-01 at 00:00:00 UTC" in line
    assert " ended " in line
    assert [job["ended"] for job in of(run, "jobs", "list") if job["id"] == "nightly"] == [True]


def test_the_history_says_what_differs(run: Run) -> None:
    run("jobs", "create", "nightly", "--handler", "export", "cron=0 3 * * *")
    run("jobs", "edit", "nightly", "cron=0 4 * * *", "--if-rev", "1")
    edit, made = of(run, "jobs", "history", "nightly")
    assert (edit["action"], edit["rev"], made["action"], made["rev"]) == ("edit", 2, "create", 1)
    assert edit["before"]["definition"] == {"handler": "export", "cron": "0 3 * * *"}
    _, said = run("jobs", "history", "nightly")
    assert "cron=0 3 * * * -> 0 4 * * *" in said
    code, said = run("jobs", "edit", "nightly", "cron=0 5 * * *", "--if-rev", "1")
    assert code != 0
    assert "was changed meanwhile: it has revision 2, not 1" in said


def test_disabling_and_enabling_hold_for_jobs_of_the_code_too(run: Run) -> None:
    assert of(run, "jobs", "disable", "coded", "--reason", "no contract")["state"] == "disabled"
    assert run("trigger", "coded")[0] != 0
    assert of(run, "jobs", "enable", "coded")["state"] == "active"
    entries = of(run, "audit", "--job", "coded")
    assert [entry["action"] for entry in entries] == ["enable", "disable"]
    assert {entry["by"] for entry in entries} == {"ana"}
    assert len(of(run, "audit", "--limit", "1", "--before", entries[0]["id"])) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("jobs", "create", "nightly", "--handler", "exprot"), "Did you mean 'export'?"),
        (("jobs", "create", "nightly", "--handler", "export", "crn=0 3 * * *"), "Did you mean 'cron'?"),
        (("jobs", "create", "nightly", "--handler", "export", "cron"), "says nothing"),
        (("jobs", "create", "nightly", "--handler", "export", "keep_runs=many"), "is not a number"),
        (("jobs", "create", "nightly", "--handler", "export", "retry={}x"), "not JSON"),
        (("jobs", "create", "coded", "--handler", "export"), "exists already, declared by code"),
        (("jobs", "edit", "coded"), "Say what to change."),
        (("jobs", "edit", "none", "priority=3"), "No job 'none'"),
        (("jobs", "delete", "coded", "--yes"), "is declared by code and cannot be deleted"),
        (("jobs", "history", "none"), "No job 'none'"),
    ],
)
def test_an_error_says_what_to_do_and_writes_nothing(run: Run, words: tuple[str, ...], said: str) -> None:
    run("jobs", "list")
    code, told = run(*words)
    assert code != 0
    assert said in told
    assert {entry["outcome"] for entry in of(run, "audit")} <= {"refused"}


def test_what_is_excluded_is_written_as_a_word_and_told(run: Run) -> None:
    made = of(run, "jobs", "create", "nightly", "--handler", "export", "cron=0 3 * * *", "exclude=2031-01-01")
    assert made["schedule"] == "cron 0 3 * * * in UTC except 2031-01-01"
    assert made["schedule_in_words"] == "at 03:00 every day, but not on 2031-01-01"

    [told] = of(run, "explain", "nightly", "--at", "2031-01-01T03:00Z")["explanations"]
    assert told["cause"] == "excluded"
    assert "The next instant that runs is " in told["because"]

    assert of(run, "jobs", "edit", "nightly", "exclude=none")["schedule"] == "cron 0 3 * * * in UTC"
    code, said = run("jobs", "edit", "nightly", "exclude=someday")
    assert code
    assert "exclude='someday': 'someday' is no exclusion" in said
