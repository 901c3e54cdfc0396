"""`sync`, `override`, `backfill`, `dead` and `healthcheck`: what they print, what their JSON says, how they exit."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobmanager.cli import main

APPLICATION = """
from jobmanager import JobManager
jobs = JobManager()

@jobs.job("work", cron="*/10 * * * *", config={"days": 3})
def work(days: int = 1): return days

@jobs.job("bad")
def bad(): raise OSError("no disk")
"""

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    name = f"shop_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(APPLICATION)
    monkeypatch.chdir(tmp_path)

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


def test_sync_shows_first_and_applies_on_request(run: Run) -> None:
    planned = of(run, "sync")
    applied = of(run, "sync", "--apply")

    assert planned == {"applied": False, "changes": applied["changes"]}
    assert [change["job"] for change in planned["changes"]] == ["work", "bad"]
    assert run("sync") == (0, "The store says what the code says.\n")


def test_an_override_shows_in_every_verb_until_it_is_reset(run: Run) -> None:
    told = of(run, "override", "work", "cron=0 3 * * *", "timeout=5m", 'config={"days": 9}', "max_attempts=3")
    shown = of(run, "jobs", "show", "work")

    assert told["override"] == {
        "cron": "0 3 * * *",
        "timeout": 300.0,
        "config": {"days": 9},
        "max_attempts": 3,
    }
    assert "03:00" in json.dumps(shown)
    assert '"days": 9' in json.dumps(shown)
    assert of(run, "override", "work", "--reset")["override"] == {}
    assert '"days": 3' in json.dumps(of(run, "jobs", "show", "work"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "Say what to change"),
        (("timeout",), "says nothing"),
        (("max_attempts=many",), "not a number"),
        (("evry=3",), "cannot be overridden"),
        (("cron=99 * * * *",), "99"),
        (("timeout=soon",), "not a length of time"),
    ],
)
def test_an_override_that_cannot_be_read_says_how_to_write_it(
    run: Run, words: tuple[str, ...], says: str
) -> None:
    code, said = run("override", "work", *words)

    assert code == 2
    assert says in said
    assert "do:" in said


def test_backfill_lists_and_makes_up(run: Run) -> None:
    run("sync", "--apply")
    planned = of(run, "backfill", "work", "--from", "-1h", "--dry-run")["instants"]
    done = of(run, "backfill", "work", "--from", "-1h")["instants"]

    assert {item["action"] for item in planned} == {"open"}
    assert [item["scheduled_for"] for item in done][: len(planned)] == [
        item["scheduled_for"] for item in planned
    ]
    assert all(item["run"] for item in done)


def test_dead_letters_are_listed_redriven_and_discarded(run: Run) -> None:
    code, _ = run("trigger", "bad", "--wait")
    assert code == 1
    (letter,) = of(run, "dead")
    assert letter["job"] == "bad"
    assert len(of(run, "dead", "discard", letter["id"][-8:])) == 1
    assert of(run, "dead", "list") == []
    assert run("dead", "redrive") == (0, "0 runs opened again.\n")


def test_healthcheck_fails_where_nobody_lives(run: Run) -> None:
    code, said = run("healthcheck")

    assert code == 1
    assert "no process lives" in said
