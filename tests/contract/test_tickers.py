"""The clocks of others pass the contracts against fakes of their services."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import inngest
import pytest
from tests.calls import SECRET
from tests.fakes.qstash import FakeQStash
from tests.fakes.trigger_dev import FakeTriggerDev
from tests.fakes.vercel import FakeVercelSchedules

from jobmanager import JobManager, Settings
from jobmanager.backends.tickers.api import Api
from jobmanager.backends.tickers.base import TickerBackend
from jobmanager.backends.tickers.inngest import InngestBackend
from jobmanager.backends.tickers.qstash import QStashBackend
from jobmanager.backends.tickers.remote import Planned
from jobmanager.backends.tickers.trigger_dev import TriggerDevBackend
from jobmanager.backends.tickers.vercel import VercelBackend
from jobmanager.backends.timetable import ScheduledJob
from jobmanager.cli.commands.export_clocks import vercel
from jobmanager.cli.commands.export_targets import external_job
from jobmanager.clock import Clock
from jobmanager.contrib.inngest import function_of
from jobmanager.errors import ConfigurationError, TickerError, UnsupportedError
from jobmanager.job import Job
from jobmanager.schedule import Cron
from jobmanager.testing import FakeClock
from jobmanager.testing.fake_api import FakeApi, FakeEntry, Reply, Request
from jobmanager.testing.ticker_contract import TICK_URL, TickerContract
from jobmanager.web.response import json_response


class TestQStash(TickerContract):
    def make_fake(self) -> FakeApi:
        return FakeQStash()

    def make_ticker(self, clock: Clock, token: str, **common: Any) -> TickerBackend:
        return QStashBackend(Api("QStash", self.fake.url, token), clock=clock, **common)


class TestTriggerDev(TickerContract):
    most_places = 100

    def make_fake(self) -> FakeApi:
        return FakeTriggerDev("tr_prod_0123456789")

    def make_ticker(self, clock: Clock, token: str, **common: Any) -> TickerBackend:
        return TriggerDevBackend(Api("Trigger.dev", self.fake.url, token), clock=clock, **common)


class TestVercel(TickerContract):
    """Each sync is followed by a deployment of the file that `jobmanager export vercel` writes."""

    writes = False
    most_places = 100

    def make_fake(self) -> FakeApi:
        return FakeVercelSchedules()

    def make_ticker(self, clock: Clock, token: str, **common: Any) -> TickerBackend:
        given = {name: value for name, value in common.items() if name in ("tick_url", "grace")}
        backend = Deployed(Api("Vercel", self.fake.url, token), clock=clock, **given)
        backend.deploy = lambda: self.applied(backend)
        return backend

    def applied(self, backend: TickerBackend) -> None:
        assert isinstance(self.fake, FakeVercelSchedules)
        entries = [
            external_job(
                item.job.id,
                item.schedule,
                "vercel",
                url=f"{TICK_URL}/{item.job.id}",
                patience=60,
                now=self.clock.now(),
            )
            for item in backend.planned()[0]
            if item.schedule.next_after(self.clock.now())
        ]
        self.fake.deploy(vercel(entries)["vercel.json"])


class TestInngest(TickerContract):
    """Each sync is followed by a start that declares the functions anew; the fake is what Inngest then has."""

    writes = False
    has_api = False

    def make_fake(self) -> FakeApi:
        return Declarations()

    def make_ticker(self, clock: Clock, token: str, **common: Any) -> TickerBackend:
        given = {name: value for name, value in common.items() if name in ("grace", "namespace")}
        backend = Declaring(clock=clock, **given)
        backend.fake = self.fake
        return backend

    def applied(self, backend: TickerBackend) -> None:
        assert isinstance(backend, Declaring)
        backend.declare()


class Declarations(FakeApi):
    """Inngest as far as it holds what was declared: no API of it is asked."""

    def respond(self, request: Request) -> Reply:
        return Reply(404)


class Declaring(InngestBackend):
    """Declares its functions with each sync, and reads them from what Inngest's own package made of them."""

    fake: FakeApi

    def sync(self, jobs: Sequence[ScheduledJob]) -> None:
        super().sync(jobs)
        self.declare()

    def declare(self) -> None:
        """Declare the functions of these jobs to Inngest's package, and hand its configuration to the fake."""
        client = inngest.Inngest(app_id="shop", is_production=False)
        wanted = self.wanted(self.planned()[0])
        self.serves(wanted)
        self.fake.entries = {}
        for planned in wanted:
            function = function_of(client, planned, lambda _job: json_response(202, {}))
            config = function.get_config("https://shop.example.org/api/inngest").main
            [trigger] = config.triggers
            zone, text = "UTC", trigger.cron
            if text.startswith("TZ="):
                zone, _, text = text.removeprefix("TZ=").partition(" ")
            key = config.id.removeprefix("shop-")
            self.fake.add(FakeEntry(key=key, text=text, zone=zone, target=f"function {key}"))

    def fetch(self) -> list[Planned]:
        return [
            Planned(key=entry.key, text=entry.text, zone=entry.zone, target=entry.target)
            for entry in self.fake.entries.values()
        ]


def test_without_a_token_the_entries_of_vercel_are_those_of_the_jobs() -> None:
    """Fails if what is not known is shown as missing, or asked for."""
    settings = Settings(backend="vercel", database_url="memory://", secret=SECRET)
    jobs = JobManager(settings, clock=FakeClock())
    jobs.add_job("daily", lambda: None, cron="0 2 * * *")
    with jobs:
        assert [(entry.name, entry.drift) for entry in jobs.backend.entries()] == [("daily", "")]
        with pytest.raises(UnsupportedError, match="JOBMANAGER_VERCEL_TOKEN"):
            jobs.entries()
        assert [found.level for found in jobs.backend.findings(list(jobs.registry.jobs.values()))] == ["note"]


def test_an_undeployed_task_is_told_with_its_commands_and_asked_for_each_hour() -> None:
    """Fails if the application does not start, or asks Trigger.dev again and again for what only a deployment changes."""
    clock, fake = FakeClock(), FakeTriggerDev("tr_prod_0123456789")
    fake.deployed = False
    fake.open()
    backend = TriggerDevBackend(Api("Trigger.dev", fake.url, fake.token), clock=clock)
    schedule = Cron("0 2 * * *")
    job = Job(id="daily", name="daily", handler="daily", schedule=schedule)
    backend.sync([ScheduledJob(job, 1, schedule.next_after(clock.now()))])
    with pytest.raises(TickerError, match=r"npx trigger\.dev deploy") as told:
        backend.settle(timedelta(seconds=1))
    assert "npx trigger.dev deploy" in backend.fix(told.value)
    asked = len(fake.requests)
    clock.advance(minutes=59)
    assert len(fake.requests) == asked
    fake.deployed = True
    clock.advance(minutes=2)
    assert list(fake.entries) == [backend.keys.of_job("daily")]
    backend.stop(timedelta(seconds=1))
    fake.close()


@pytest.mark.parametrize(
    ("key", "environment"), [("tr_dev_0123456789", "production"), ("tr_prod_0123456789", "staging")]
)
def test_a_key_of_another_environment_is_refused_at_the_start(key: str, environment: str) -> None:
    """Fails if staging writes the schedules of production, or production those of a developer."""
    settings = Settings(
        backend="trigger_dev",
        trigger_dev_api_key=key,
        environment=environment,
        secret=SECRET,
        public_url="https://a.example",
    )
    with pytest.raises(ConfigurationError, match=f"begins with '{key[:8]}"):
        TriggerDevBackend.from_settings(settings)


class Deployed(VercelBackend):
    """Deploys with each sync."""

    deploy: Callable[[], None]

    def sync(self, jobs: Sequence[ScheduledJob]) -> None:
        super().sync(jobs)
        self.deploy()
