"""The page of the engine on a real pg_cron: entries that drifted, orphans, and what is done about them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from tests.pg_cron_orphan import jobs_with_orphan
from tests.unit.web.visitor import Visitor

from jobmanager import JobManager, Principal
from jobmanager.web import dashboard

pytestmark = [pytest.mark.servers, pytest.mark.slow]


@pytest.fixture
def jobs(still_pg_cron_url: str) -> Iterator[JobManager]:
    """A manager whose sweep was scheduled differently by hand, and that left an orphan."""
    drifts = "UPDATE cron.job SET schedule = '7 4 * * *' WHERE jobname LIKE 'jm_sweep%'"
    with jobs_with_orphan(still_pg_cron_url, drifts) as jobs:
        yield jobs


def visitor(jobs: JobManager, role: str = "admin") -> Visitor:
    person = Principal("ana", [role], authenticated_at=datetime.now(UTC))
    found = Visitor(dashboard(jobs, authorize=lambda request: person))
    found.get("/login")  # a page that is not there, with the token of the forms
    return found


def words(text: str) -> str:
    """The text of a page without its elements."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))


def test_the_page_shows_drift_and_orphans_and_how_they_are_mended(jobs: JobManager) -> None:
    ana = visitor(jobs)
    told = words(ana.get("/engine").text)
    assert "Apply 2 changes" in told
    assert "Orphan" in told
    assert "~ jm_sweep scheduled differently" in told

    [orphan] = [entry.name for entry in jobs.entries() if entry.orphan]
    assert orphan in words(ana.send("/engine/purge").text)
    assert orphan in {entry.name for entry in jobs.entries()}
    assert ana.send("/engine/purge/apply").status_code == 303
    assert orphan not in {entry.name for entry in jobs.entries()}

    asked = words(ana.send("/engine/apply").text)
    assert "Apply 1 change?" in asked
    assert ana.send("/engine/apply/apply").status_code == 303
    assert {entry.drift for entry in jobs.entries()} == {""}
    assert "The store says what the code of this process says" in ana.get("/engine").text


def test_an_entry_is_stopped_let_go_on_and_unscheduled(jobs: JobManager) -> None:
    ana = visitor(jobs)
    path = "/engine/entries/jm_dispatch"
    assert ana.send(path, active="no").status_code == 303
    assert "Paused" in words(ana.get("/engine").text)
    assert ana.send(path, active="yes").status_code == 303
    assert "Unschedule jm_dispatch?" in ana.send(f"{path}/unschedule").text
    assert ana.send(f"{path}/unschedule/apply").status_code == 303
    [entry] = [entry for entry in jobs.entries() if entry.name == "jm_dispatch"]
    assert entry.drift == "not in pg_cron"
    assert [one.action for one in jobs.audit(actor="ana", target="entry")][:3] == [
        "unschedule",
        "resume",
        "pause",
    ]
    jobs.sync()


def test_who_may_not_administrate_sees_no_entry(jobs: JobManager) -> None:
    told = visitor(jobs, "operator").get("/engine").text
    assert "jm_dispatch" not in told
    assert visitor(jobs, "operator").send("/engine/entries/jm_dispatch", active="no").status_code == 403
