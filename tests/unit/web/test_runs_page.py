"""The page of runs, asked by a client without a browser: filters in the address, and the forms for many runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from starlette.datastructures import QueryParams
from tests.unit.web.visitor import Visitor

from jobmanager import JobManager, Principal, Settings
from jobmanager.run import FAILED, MISSED, SUCCEEDED
from jobmanager.search import RunCount, RunCounts, RunFilter
from jobmanager.testing import FakeClock
from jobmanager.web import dashboard
from jobmanager.web.cached import STALE, Cached
from jobmanager.web.pages.found import FRESH, Beside
from jobmanager.web.pages.run_filters import Facets, chips_of, filters_of

NOW = datetime(2026, 3, 10, 12, 30, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobManager]:
    url = f"sqlite:///{tmp_path}/jobs.db"
    made = JobManager(Settings(database_url=url, backend="external"), clock=FakeClock(NOW))

    @made.job("broken")
    def broken() -> None:
        raise ValueError("<script>no luck</script>\nsecond line")

    @made.job("fine")
    def fine() -> str:
        return "well"

    with made:
        yield made


@pytest.fixture
def client(jobs: JobManager) -> Visitor:
    app = dashboard(jobs, authorize=lambda request: Principal("ana", ("operator",)), timezone="Europe/Berlin")
    return Visitor(app)


def filters(query: str):
    return filters_of(QueryParams(query), NOW, BERLIN)


def test_an_address_is_read_as_the_filter_that_it_says() -> None:
    found = filters(
        "status=failed&status=missed&status=no&job=a&kind=http&text=x&since=today&late=1&longer=2.5&trigger=tick"
    )
    wanted = found.wanted
    assert wanted.statuses == {FAILED, MISSED}
    assert (wanted.job, wanted.error_kind, wanted.text, wanted.late) == ("a", "http", "x", True)
    assert wanted.since == datetime(2026, 3, 10, tzinfo=BERLIN)
    assert wanted.duration == timedelta(seconds=2.5)
    assert wanted.trigger is None
    assert filters("since=2026-03-10T10:00").wanted.since == datetime(2026, 3, 10, 10, tzinfo=BERLIN)
    assert filters("since=&since=2026-03-10T10:00").wanted.since is not None
    assert filters("since=gestern&until=9999-99-99&longer=nan&longer=-1").wanted == filters("").wanted


def test_each_chip_leads_to_the_address_without_its_filter() -> None:
    found = filters("status=failed&status=missed&job=a b&since=today")
    chips = chips_of(found, str)
    assert [chip.told for chip in chips] == ["Failed", "Missed", "Job a b", "Today"]
    assert chips[0].without == "status=missed&job=a+b&since=today"
    assert chips[3].without == "status=failed&status=missed&job=a+b"


def test_a_facet_counts_what_the_other_filters_leave() -> None:
    counts = RunCounts(
        [
            RunCount(FAILED, "a", None, "http", "schedule", 2, 2),
            RunCount(FAILED, "b", None, "timeout", "schedule", 1, 1),
            RunCount(MISSED, "a", "downtime", None, "schedule", 1, 16),
            RunCount(SUCCEEDED, "a", None, None, "manual", 5, 5),
        ],
        frozenset({SUCCEEDED}),
    )
    facets = Facets(counts, filters("status=failed&job=a"))
    assert {choice.value: choice.number for choice in facets.statuses if choice.number} == {
        "failed": 2,
        "missed": 16,
        "succeeded": 5,
    }
    assert [(choice.value, choice.number, choice.chosen) for choice in facets.jobs] == [
        ("a", 2, True),
        ("b", 1, False),
    ]
    assert [(choice.value, choice.number) for choice in facets.kinds] == [("http", 2)]
    assert facets.total == (2, 2, False)
    assert {choice.value: choice.more for choice in facets.statuses}["succeeded"]
    assert Facets(counts, filters("")).total == (9, 24, True)


def test_a_page_shows_runs_and_hostile_texts_as_text(client: Visitor, jobs: JobManager) -> None:
    jobs.trigger_job("broken")
    jobs.trigger_job("fine")
    page = client.get("/runs?text=<script>&status=failed")
    assert page.status_code == 200
    assert "<script>no luck" not in page.text
    assert "&lt;script&gt;no luck" in page.text
    assert "second line" not in page.text
    assert "well" in client.get("/runs?status=succeeded").text
    assert "No run fits" in client.get("/runs?job=nobody").text


@pytest.mark.parametrize(
    ("wanted", "asked_again"),
    [
        (RunFilter(), 0),
        (RunFilter(text="second"), 0),
        (RunFilter(text="in no error"), 0),
        (RunFilter(job="broken", requested_by="system:code"), 0),
        (RunFilter(text="luck", statuses=[FAILED]), 1),
        (RunFilter(error_kind="exception"), 1),
        (RunFilter(dead=True), 0),
        (RunFilter(reason="overlap"), 2),
        (RunFilter(retried=True), 1),
        (RunFilter(statuses=[SUCCEEDED]), 1),
    ],
)
def test_what_stands_beside_a_list_that_is_whole_is_read_from_it(
    jobs: JobManager, monkeypatch: pytest.MonkeyPatch, wanted: RunFilter, asked_again: int
) -> None:
    for job_id in ("broken", "fine", "broken"):
        jobs.trigger_job(job_id)
    jobs.discard(jobs.runs("broken")[0].id)
    jobs.trigger_job("broken")
    from_store = Beside(jobs, wanted, None)
    counts, letters = from_store.counts(), from_store.dead_letters()
    asked = []
    for name in ("count_runs", "dead_letters_by_error"):
        real = getattr(jobs, name)
        monkeypatch.setattr(
            jobs, name, lambda *given, real=real, **more: asked.append(real) or real(*given, **more)
        )
    beside = Beside(jobs, wanted, jobs.search_runs(wanted))
    assert added_up(beside.counts()) == added_up(counts)
    assert beside.dead_letters() == letters
    assert len(asked) == asked_again


def test_what_stands_beside_a_part_of_the_runs_is_asked_of_the_store(jobs: JobManager) -> None:
    jobs.trigger_job("broken")
    jobs.trigger_job("broken")
    beside = Beside(jobs, RunFilter(), jobs.search_runs(RunFilter(), limit=1))
    assert sum(count.rows for count in beside.counts().counts) == 2
    assert [len(group.run_ids) for group in beside.dead_letters()] == [2]


def test_what_stands_beside_all_runs_is_kept_for_a_moment_whichever_of_them_are_chosen(
    jobs: JobManager,
) -> None:
    jobs.trigger_job("broken")
    clock = FakeClock(NOW)
    cached = Cached(clock)

    def counted(**wanted: Any) -> int:
        beside = Beside(jobs, RunFilter(**wanted), None, cached)
        assert sum(len(group.run_ids) for group in beside.dead_letters()) == sum(
            count.rows for count in beside.counts().counts if count.status is FAILED
        )
        return sum(count.rows for count in beside.counts().counts)

    assert counted() == 1
    jobs.trigger_job("broken")
    assert [counted(), counted(statuses=frozenset({FAILED})), counted(job="broken")] == [1, 1, 2]
    clock.advance(timedelta(seconds=FRESH + STALE + 1))
    assert counted() == 2


def added_up(counts: RunCounts) -> Counter[tuple[object, ...]]:
    """Return how many rows and ticks there are of each kind."""
    found: Counter[tuple[object, ...]] = Counter()
    for count in counts.counts:
        found[(*count[:5], "rows")] += count.rows
        found[(*count[:5], "ticks")] += count.ticks
    return found


def test_a_cursor_that_is_none_is_a_mistake_of_the_caller(client: Visitor) -> None:
    assert client.get("/runs?before=nonsense").status_code == 422


def test_older_runs_are_a_page_further(client: Visitor, jobs: JobManager) -> None:
    for _ in range(51):
        jobs.trigger_job("fine")
    first = client.get("/runs")
    [older] = re.findall(r'rel="next" href="([^"]+)"', first.text)
    second = client.get(older.replace("&amp;", "&")).text
    assert first.text.count('name="id"') == 50
    assert second.count('name="id"') == 1


def test_newer_runs_are_counted_and_do_not_jump_in(client: Visitor, jobs: JobManager) -> None:
    top = jobs.trigger_job("fine").id
    assert "newer" not in client.get(f"/runs/newer?top={top}").text.replace("/runs/newer", "").replace(
        'id="newer"', ""
    )
    jobs.trigger_job("fine")
    jobs.trigger_job("broken")
    assert "2 newer, show" in client.get(f"/runs/newer?top={top}").text
    assert "1 newer, show" in client.get(f"/runs/newer?top={top}&job=fine").text


def posted(client: Visitor, **fields: str):
    client.get("/runs")
    return client.send("/runs/bulk", **{"back": "/runs?status=failed", **fields})


def test_many_runs_are_changed_after_a_page_that_asks(client: Visitor, jobs: JobManager) -> None:
    """Fails if a run is changed before it was confirmed, or if what is not eligible is not said."""
    runs = [jobs.trigger_job("broken"), jobs.trigger_job("broken")]
    fine = jobs.trigger_job("fine")
    ids = [*(run.id for run in runs), fine.id]

    asked = posted(client, do="discard", ids=" ".join(ids))

    assert asked.status_code == 200
    assert "Discard 2 of 3 runs?" in asked.text
    assert len(jobs.dead_letters()) == 2
    done = posted(client, do="discard", ids=" ".join(ids[:2]), sure="yes")
    assert done.status_code == 303
    assert done.headers["location"] == "/runs?status=failed&done=discard.2.0"
    assert not jobs.dead_letters()
    assert "2 runs are no dead letters any more." in client.get(done.headers["location"]).text
    [batch] = {entry.batch_id for entry in jobs.audit(action="discard")}
    assert batch is not None


def test_a_group_of_dead_letters_is_chosen_by_one_of_them(client: Visitor, jobs: JobManager) -> None:
    runs = [jobs.trigger_job("broken") for _ in range(3)]
    asked = posted(client, do="redrive", same=runs[0].id)
    assert "Redrive 3 runs?" in asked.text
    assert all(run.id in asked.text for run in runs)


def test_nothing_chosen_and_unknown_actions_are_refused(client: Visitor) -> None:
    assert posted(client, do="redrive").status_code == 422
    assert posted(client, do="purge", ids="x").status_code == 422
    assert client.post("/runs/bulk", data={"do": "cancel", "ids": "x"}).status_code == 403


@pytest.mark.parametrize("back", ["https://example.com/", "//example.com", "/\\example.com"])
def test_a_form_leads_back_to_the_dashboard_only(client: Visitor, jobs: JobManager, back: str) -> None:
    run = jobs.trigger_job("broken")
    done = posted(client, do="discard", ids=run.id, sure="yes", back=back)
    assert done.headers["location"].startswith("/?done=")


def test_a_made_up_outcome_is_not_said(client: Visitor) -> None:
    assert 'role="status">' in client.get("/runs?done=discard.2.0").text
    for made_up in ("discard.x.0", "purge.1.0", "discard.1", "discard.9999999.0"):
        assert "note succeeded" not in client.get(f"/runs?done={made_up}").text
