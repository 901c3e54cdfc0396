"""A search keeps its promises also where it has to walk: as if five rows were many."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobmanager.run import FAILED, SUCCEEDED
from jobmanager.search import Mark, RunFilter
from jobmanager.stores.base import RunStore
from jobmanager.stores.sql.memory import MemoryStore
from jobmanager.testing import FakeClock
from jobmanager.testing.store_contract.searching import SearchingPromises

WALKING = "jobmanager.stores.sql.walking"


class TestSearchInSteps(SearchingPromises):
    @pytest.fixture(autouse=True)
    def _two_rows_at_a_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(f"{WALKING}.FEW", -1)
        monkeypatch.setattr(f"{WALKING}.CHUNK", 2)

    def make_store(self, clock: FakeClock, tmp_path: Path) -> RunStore:
        return MemoryStore(clock=clock)

    def test_a_search_says_where_it_stopped_and_goes_on_from_there(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Fails if rows between two stops are lost, or if an end is told where there is none."""
        monkeypatch.setattr(f"{WALKING}.SEARCHED", 4)
        runs = sorted(self._runs(), key=lambda run: run.id, reverse=True)
        for wanted in (
            RunFilter(requested_by="ana"),
            RunFilter(text="timed"),
            RunFilter(statuses=[SUCCEEDED]),
            RunFilter(job="b", late=True),
            RunFilter(statuses=[FAILED], job="a"),
        ):
            monkeypatch.setattr(f"{WALKING}.SEARCHED", 100)
            whole = self.store.search.runs(wanted).runs
            monkeypatch.setattr(f"{WALKING}.SEARCHED", 4)
            page = self.store.search.runs(wanted)
            found, stops = list(page.runs), 0
            while page.next is not None:
                assert page.searched_to is not None
                stops += 1
                page = self.store.search.runs(wanted, before=Mark.of(page.next))
                found += page.runs
            assert found == list(whole), wanted
            assert stops, wanted
        first = self.store.search.runs(RunFilter(text="no such text"))
        assert first.searched_to is not None
        assert first.searched_to >= runs[-1].opened_at

    def test_counts_say_that_there_are_more(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._runs()
        monkeypatch.setattr("jobmanager.stores.sql.search.COUNTED", 2)
        monkeypatch.setattr("jobmanager.stores.sql.search.COUNTED_TROUBLE", 2)
        counts = self.store.search.counts(RunFilter())
        assert FAILED in counts.more
        assert SUCCEEDED in counts.more
        assert sum(count.rows for count in counts.counts if count.status is FAILED) == 2
