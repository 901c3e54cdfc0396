"""A clock of somebody else on `TickerBackend`, with its fake: all it takes to pass the contract. Its length is the measure of the base."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from jobmanager.backends.tickers.api import Api
from jobmanager.backends.tickers.base import TickerBackend
from jobmanager.backends.tickers.remote import Planned
from jobmanager.clock import Clock, SystemClock
from jobmanager.settings import Settings
from jobmanager.testing import FakeApi, FakeEntry, TickerContract
from jobmanager.testing.fake_api import Reply, Request


class SundialBackend(TickerBackend):
    name: ClassVar[str] = "sundial"
    title: ClassVar[str] = "Sundial"
    zones: ClassVar[bool] = False
    api: Api

    @classmethod
    def from_settings(cls, settings: Settings, *, clock: Clock = SystemClock()) -> SundialBackend:  # noqa: B008
        return cls(Api("Sundial", "https://sundial.example", "token"), **cls.common(settings, clock))

    def fetch(self) -> Iterator[Planned]:
        for row in self.api.rows_of(self.api.ask("GET", "/shadows")):
            yield Planned(key=row["id"], text=row["when"], zone="UTC", target=row["call"], paused=row["off"])

    def put(self, wanted: Planned, found: Planned | None) -> None:
        self.api.ask("PUT", f"/shadows/{wanted.key}", body={"when": wanted.text, "call": wanted.target})

    def remove(self, found: Planned) -> None:
        self.api.ask("DELETE", f"/shadows/{found.key}", gone_is_fine=True)

    def switch(self, found: Planned, *, active: bool) -> None:
        self.api.ask("PATCH", f"/shadows/{found.key}", body={"off": not active})


class FakeSundial(FakeApi):
    def respond(self, request: Request) -> Reply:
        key = request.path.removeprefix("/shadows").removeprefix("/")
        match request.method:
            case "GET":
                rows = [
                    {"id": each.key, "when": each.text, "call": each.target, "off": each.paused}
                    for each in self.entries.values()
                ]
                return Reply(200, rows)
            case "PUT" if self.is_full(key):
                return Reply(402, {"error": "your plan's quota of shadows is used up"})
            case "PUT":
                self.add(FakeEntry(key=key, text=request.said["when"], target=request.said["call"]))
                return Reply(204)
            case "PATCH" if key in self.entries:
                self.entries[key].paused = request.said["off"]
                return Reply(204)
            case "DELETE" if self.entries.pop(key, None):
                return Reply(204)
        return Reply(404, {"error": "no such shadow"})


class TestSundial(TickerContract):
    def make_fake(self) -> FakeApi:
        return FakeSundial()

    def make_ticker(self, clock: Clock, token: str, **common: Any) -> TickerBackend:
        return SundialBackend(Api("Sundial", self.fake.url, token), clock=clock, **common)
