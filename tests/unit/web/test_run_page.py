"""The page of one run, asked by a client without a browser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit.web.visitor import Visitor

from jobmanager import JobManager, Principal, RunContext, Settings
from jobmanager.run import FAILED, MISSED, PENDING, RUNNING, SKIPPED, Failure, LogLine, Progress, Run, new_id
from jobmanager.stores.sql.rows import run_values
from jobmanager.testing import FakeClock
from jobmanager.web import dashboard

NOW = datetime(2026, 3, 10, 12, 30, tzinfo=UTC)
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
HOSTILE = "</pre><script>alert(1)</script>{{ 7*7 }}\"'&"


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobManager]:
    url = f"sqlite:///{tmp_path}/jobs.db"
    made = JobManager(Settings(database_url=url, backend="external"), clock=FakeClock(NOW))

    @made.job("hourly", cron="0 * * * *")
    def hourly(context: RunContext) -> dict[str, Any]:
        context.log.warning(HOSTILE)
        return {"said": HOSTILE}

    @made.job("broken")
    def broken() -> None:
        raise ValueError(HOSTILE + "x" * 10_000)

    with made:
        yield made


@pytest.fixture
def client(jobs: JobManager) -> Visitor:
    return Visitor(
        dashboard(jobs, authorize=lambda _: Principal("ana", ("operator",)), timezone="Europe/Berlin")
    )


def stored(jobs: JobManager, **fields: Any) -> Run:
    """Write a row of the instant at noon as it is."""
    run = Run(
        **{
            "id": new_id(fields.get("scheduled_for", NOON)),
            "job_id": "hourly",
            "status": FAILED,
            "opened_at": NOON,
            "accepted_at": NOON,
            "due_at": NOON,
            "scheduled_for": NOON,
            "concurrency_key": "hourly",
            "finished_at": None
            if fields.get("status") in (PENDING, RUNNING)
            else NOON + timedelta(minutes=8),
            **fields,
        }
    )
    store: Any = jobs.store
    with store.database.writing() as connection:
        connection.execute(store.database.tables.runs.insert(), [run_values(run)])
    return run


def test_what_a_run_said_stands_as_text(client: Visitor, jobs: JobManager) -> None:
    run = jobs.trigger_job(
        "hourly", {"note": HOSTILE, "api_key": "sk_live"}, key=HOSTILE, requested_by=HOSTILE
    )
    page = client.get(f"/runs/{run.id}")
    assert page.status_code == 200
    assert "<script>alert" not in page.text
    assert (
        "49"
        not in page.text.replace(run.id, "").split("<main")[1].split("Facts")[1].split("Key</dt>")[1][:200]
    )
    assert "{{ 7*7 }}" in page.text
    assert page.text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 4
    assert "sk_live" not in page.text
    log = client.get(f"/runs/{run.id}/log")
    assert log.headers["content-type"].startswith("text/plain")
    assert HOSTILE in log.text


def test_an_error_of_ten_thousand_letters_is_folded(client: Visitor, jobs: JobManager) -> None:
    run = jobs.trigger_job("broken")
    text = client.get(f"/runs/{run.id}").text
    assert "<script>alert" not in text
    assert "The whole message, " in text
    assert "Traceback, your code" in text
    assert client.get(f"/runs/{run.id[-8:]}").status_code == 200
    assert client.get("/runs/unknown").status_code == 404


@pytest.mark.parametrize(
    ("fields", "offered"),
    [
        ({"status": FAILED}, {"redrive", "discard"}),
        ({"status": FAILED, "discarded_at": NOW}, {"redrive"}),
        ({"status": MISSED, "reason": "downtime"}, {"redrive"}),
        ({"status": PENDING}, {"cancel"}),
        ({"status": RUNNING, "owner": "x", "started_at": NOON}, {"cancel"}),
        ({"status": RUNNING, "owner": "x", "started_at": NOON, "cancel_requested_at": NOON}, set()),
    ],
    ids=["failed", "discarded", "missed", "pending", "running", "asked to end"],
)
def test_only_actions_that_apply_are_offered(
    client: Visitor, jobs: JobManager, fields: dict[str, Any], offered: set[str]
) -> None:
    run = stored(jobs, **fields)
    text = client.get(f"/runs/{run.id}").text
    assert {
        word for word in ("redrive", "discard", "cancel") if f'action="/runs/{run.id}/{word}"' in text
    } == offered


def test_an_instant_that_did_not_run_says_why_in_words(client: Visitor, jobs: JobManager) -> None:
    blocker = stored(
        jobs, status=RUNNING, owner="x", started_at=NOON, scheduled_for=NOON - timedelta(hours=1)
    )
    skipped = stored(jobs, status=SKIPPED, reason="overlap", blocked_by=blocker.id)
    text = client.get(f"/runs/{skipped.id}").text
    assert "Another run of it was still active" in text
    assert f'href="/runs/{blocker.id}"' in text
    other = client.get(f"/runs/{blocker.id}").text
    assert "Blocks" in other
    assert f'href="/runs/{skipped.id}"' in other


def test_neighbours_progress_and_dead_letters_like_it_are_shown(client: Visitor, jobs: JobManager) -> None:
    error = Failure(kind="http", message="HTTP 502\nmore", type="")
    runs = [
        stored(
            jobs,
            scheduled_for=NOON - timedelta(hours=place),
            error=error,
            attempt=3,
            max_attempts=3,
            started_at=NOON,
        )
        for place in range(3)
    ]
    text = client.get(f"/runs/{runs[1].id}").text
    assert "see all 3" in text
    assert f'href="/runs/{runs[0].id}" rel="next"' in text
    assert f'href="/runs/{runs[2].id}" rel="prev"' in text
    assert "Failed after 3 attempts" in text
    jobs.store.runs.add_lines(
        runs[1].id, 1, [LogLine(NOON, "INFO", f"line {number}") for number in range(400)]
    )
    long = client.get(f"/runs/{runs[1].id}").text
    assert "400 lines, the last 300 here" in long
    assert "line 99\n" not in long
    assert client.get(f"/runs/{runs[1].id}/log").text.count("\n") == 400
    running = stored(
        jobs, scheduled_for=NOON + timedelta(minutes=1), status=RUNNING, owner="x",
        started_at=NOW - timedelta(minutes=2), progress=Progress(processed=1, total=3, message="pages"),
    )  # fmt: skip
    shown = client.get(f"/runs/{running.id}").text
    assert '<progress value="1" max="3"' in shown
    assert "about 4 min left" in shown


def test_a_run_is_redriven_discarded_and_cancelled(client: Visitor, jobs: JobManager) -> None:
    run = stored(jobs)
    client.get(f"/runs/{run.id}")
    gone = client.send(f"/runs/{run.id}/discard")
    assert (gone.status_code, gone.headers["location"]) == (303, f"/runs/{run.id}")
    assert jobs.run(run.id).discarded_at is not None
    assert "Changed by hand" in client.get(f"/runs/{run.id}").text
    client.send(f"/runs/{run.id}/redrive")
    assert jobs.run(run.id).status is not FAILED
    pending = stored(jobs, status=PENDING, scheduled_for=NOON - timedelta(hours=1))
    asked = client.send(f"/runs/{pending.id}/cancel")
    assert "Cancel the run of hourly" in asked.text
    assert jobs.run(pending.id).status is PENDING
    client.send(f"/runs/{pending.id}/cancel", sure="yes")
    assert jobs.run(pending.id).status == "cancelled"
    assert client.send(f"/runs/{pending.id}/cancel").status_code == 409
    assert client.post(f"/runs/{run.id}/redrive").status_code == 403


def test_a_dashboard_that_is_read_only_changes_nothing(jobs: JobManager) -> None:
    run = stored(jobs)
    who = Principal("ana", ("operator",))
    client = Visitor(dashboard(jobs, authorize=lambda _: who, read_only=True))
    assert "/redrive" not in client.get(f"/runs/{run.id}").text
    assert client.send(f"/runs/{run.id}/redrive").status_code == 403
    assert client.send("/runs/bulk", do="discard", ids=run.id, sure="yes").status_code == 403
    assert replace(jobs.run(run.id)).discarded_at is None
