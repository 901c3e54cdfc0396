"""The clocks of others pass the contracts against fakes of their services."""

from __future__ import annotations

from typing import Any

from tests.fakes.qstash import FakeQStash

from jobmanager.backends.tickers.api import Api
from jobmanager.backends.tickers.base import TickerBackend
from jobmanager.backends.tickers.qstash import QStashBackend
from jobmanager.clock import Clock
from jobmanager.testing.fake_api import FakeApi
from jobmanager.testing.ticker_contract import TickerContract


class TestQStash(TickerContract):
    def make_fake(self) -> FakeApi:
        return FakeQStash()

    def make_ticker(self, clock: Clock, token: str, **common: Any) -> TickerBackend:
        return QStashBackend(Api("QStash", self.fake.url, token), clock=clock, **common)
