"""TickerContract notices each promise that a clock breaks."""

from __future__ import annotations

from typing import Any

import pytest
from tests.contract.test_a_sixth_clock import FakeSundial, SundialBackend

from jobmanager.backends.tickers.api import Api
from jobmanager.backends.tickers.remote import Planned
from jobmanager.testing import FakeApi, TickerContract, broken_promises


class Writes(SundialBackend):
    """Writes everything anew with each sync."""

    def found(self) -> dict[str, Planned]:
        return {}


class Forgets(SundialBackend):
    """Removes nothing."""

    def remove(self, found: Planned) -> None:
        return


class Takes(SundialBackend):
    """Takes every entry for its own."""

    def found(self) -> dict[str, Planned]:
        return {entry.key: entry for entry in self.fetch()}

    def orphans(self, found: Any, wanted: Any) -> list[Planned]:
        needed = {entry.key for entry in wanted}
        return [entry for key, entry in found.items() if key not in needed]


class Resumes(SundialBackend):
    """Lets go on what an operator stopped."""

    def switch(self, found: Planned, *, active: bool) -> None:
        super().switch(found, active=True)


class Tells(SundialBackend):
    """Sends its key in the body, too."""

    def put(self, wanted: Planned, found: Planned | None) -> None:
        body = {"when": wanted.text, "call": wanted.target, "key": self.api._token}
        self.api.ask("PUT", f"/shadows/{wanted.key}", body=body)


class Empties(SundialBackend):
    """Reads no more than a hundred entries."""

    def fetch(self) -> Any:
        return list(super().fetch())[:100]


@pytest.mark.parametrize(
    ("kind", "promise"),
    [
        (Writes, "test_a_sync_of_what_is_there_writes_nothing"),
        (Forgets, "test_a_place_of_an_orphan_is_taken"),
        (Takes, "test_entries_of_others_are_left_alone"),
        (Takes, "test_jobs_of_other_processes_keep_their_entries"),
        (Resumes, "test_what_was_paused_there_stays_so_and_is_told"),
        (Tells, "test_the_key_is_in_a_header_and_nowhere_else"),
        (Empties, "test_many_entries_are_read_over_all_pages"),
    ],
)
def test_a_broken_promise_is_noticed(kind: type[SundialBackend], promise: str) -> None:
    """Fails if the contract lets a clock pass that does this."""

    class Checked(TickerContract):
        def make_fake(self) -> FakeApi:
            return FakeSundial()

        def make_ticker(self, clock: Any, token: str, **common: Any) -> SundialBackend:
            made = SundialBackend if kept else kind
            return made(Api("Sundial", self.fake.url, token), clock=clock, **common)

    kept = True
    assert broken_promises(Checked(), [promise]) == []
    kept = False
    assert broken_promises(Checked(), [promise]) == [promise]
