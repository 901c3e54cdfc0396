"""`jobs.bulk`: the same done to many runs, the reason for each other one, and one batch in the audit."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from jobmanager import JobManager, RunStatus, Settings
from jobmanager.access.acting import acting
from jobmanager.access.principal import Principal
from jobmanager.errors import PayloadError, TransitionError
from jobmanager.run import Run, new_id
from jobmanager.testing import FakeClock

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
ACME = Principal("acme-user", "operator", scopes=["acme"])


def fail() -> None:
    raise OSError("no disk")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.servers)])
def jobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobManager]:
    url = f"sqlite:///{tmp_path}/jobs.db"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
    made = JobManager(Settings(database_url=url, backend="noop"), clock=FakeClock(NOON))
    made.add_job("good", lambda: 1)
    made.add_job("bad", fail)
    made.add_job("gone", fail)
    made.add_job("shared", lambda: 1, visibility="project")
    made.add_job("hidden", fail, visibility="system")
    yield made
    made.stop()
    made.store.close()


def filled(jobs: JobManager) -> dict[str, Run]:
    runs = {name: jobs.trigger_job(name) for name in ("good", "bad", "gone", "hidden")}
    runs["pending"] = jobs.trigger_job("good", delay=60)
    runs["acme"] = jobs.trigger_job("shared", scope="acme", delay=60)
    runs["beta"] = jobs.trigger_job("shared", scope="beta", delay=60)
    jobs.disable_job("gone")
    return runs


ELIGIBLE = {
    "cancel": ["pending", "acme", "beta"],
    "redrive": ["bad", "hidden"],
    "discard": ["bad", "gone", "hidden"],
}
AFTER = {
    "cancel": lambda run: run.status is RunStatus.CANCELLED,
    "redrive": lambda run: run.starts == 2,
    "discard": lambda run: run.discarded_at is not None,
}


@pytest.mark.parametrize("action", sorted(ELIGIBLE))
def test_a_dry_run_says_what_the_action_then_does(jobs: JobManager, action: Any) -> None:
    """Fails if a dry run changes something, or promises what the action does not do."""
    runs = filled(jobs)
    ids = [run.id for run in runs.values()]
    before = [jobs.run(run_id) for run_id in ids]

    dry = jobs.bulk(action, ids, dry_run=True, by="ana")

    assert list(dry.run_ids) == [runs[name].id for name in ELIGIBLE[action]]
    assert (dry.batch_id, [jobs.run(run_id) for run_id in ids]) == (None, before)
    assert jobs.audit(actor="ana") == []
    done = jobs.bulk(action, ids, by="ana")
    assert (done.run_ids, done.refused) == (dry.run_ids, dry.refused)
    assert all(AFTER[action](jobs.run(run_id)) for run_id in done.run_ids)
    assert {*done.run_ids, *done.refused} == {*ids}
    entries = jobs.audit(actor="ana")
    assert {entry.batch_id for entry in entries} == {done.batch_id}
    assert {(entry.action, entry.target_id) for entry in entries} == {(action, each) for each in done.run_ids}


def test_each_reason_is_a_sentence_about_that_run(jobs: JobManager) -> None:
    runs = filled(jobs)
    jobs.discard(runs["bad"].id)
    unknown = new_id(NOON)
    ids = [unknown, *(run.id for run in runs.values())]
    names = {unknown: "unknown", **{run.id: name for name, run in runs.items()}}
    told = {
        action: {names[key]: why for key, why in jobs.bulk(action, ids, dry_run=True).refused.items()}
        for action in ("cancel", "redrive", "discard")
    }
    assert told["cancel"]["good"] == "it has ended: succeeded"
    assert told["redrive"]["good"] == "it succeeded"
    assert told["redrive"]["pending"] == "it is pending"
    assert told["redrive"]["gone"] == "its job is disabled; enable it before you redrive its runs"
    assert told["discard"]["good"] == "it is succeeded; only failed runs are discarded"
    assert told["discard"]["bad"] == "it is discarded already"
    assert {told[action]["unknown"] for action in told} == {"there is no such run"}


def test_what_a_principal_does_not_see_is_no_run_for_it(jobs: JobManager) -> None:
    runs = filled(jobs)
    hidden = [runs["hidden"].id, runs["beta"].id]
    with acting(ACME):
        assert jobs.bulk("cancel", [*hidden, runs["acme"].id]).run_ids == (runs["acme"].id,)
        refused = jobs.bulk("discard", hidden).refused
    assert refused == dict.fromkeys(hidden, "there is no such run")
    assert jobs.run(runs["beta"].id).status is RunStatus.PENDING


def test_a_run_that_changes_meanwhile_is_refused_and_stops_no_other(
    jobs: JobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = filled(jobs)
    others = [jobs.trigger_job("bad") for _ in range(2)]
    first = runs["bad"].id
    redrive = jobs.redrive

    def redriving(run_id: str, **how: Any) -> Run:
        if run_id == first:
            raise TransitionError("A run cannot go from succeeded to pending.")
        return redrive(run_id, **how)

    monkeypatch.setattr(jobs, "redrive", redriving)
    result = jobs.bulk("redrive", [first, *(run.id for run in others)])
    assert result.run_ids == tuple(run.id for run in others)
    assert result.refused == {first: "A run cannot go from succeeded to pending."}


def test_ids_count_once_and_no_more_than_a_thousand_are_taken(jobs: JobManager) -> None:
    run = jobs.trigger_job("good", delay=60)
    assert jobs.bulk("cancel", [run.id, run.id]).run_ids == (run.id,)
    assert jobs.bulk("cancel", []).run_ids == ()
    assert len(jobs.bulk("cancel", [new_id(NOON) for _ in range(1000)], dry_run=True).refused) == 1000
    with pytest.raises(PayloadError, match="1,001 ids; at most 1,000"):
        jobs.bulk("cancel", [new_id(NOON) for _ in range(1001)])


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"action": "purge"}, "action='purge'"),
        ({"run_ids": "abc"}, "run_ids='abc'"),
        ({"run_ids": [1]}, "run_ids"),
        ({"run_ids": ["\0"]}, "run_ids"),
        ({"dry_run": 1}, "dry_run=1"),
        ({"by": 7}, "by=7"),
    ],
)
def test_a_wrong_argument_is_named(jobs: JobManager, given: dict[str, Any], named: str) -> None:
    with pytest.raises(PayloadError, match=named):
        jobs.bulk(**{"action": "cancel", "run_ids": [], **given})
