"""TickerContract: what a clock that calls by HTTP promises beyond `BackendContract`, as tests against a fake of its service.

class TestMyClock(TickerContract):
    def make_fake(self):
        return FakeMyClock()

    def make_ticker(self, clock, token, **common):
        return MyClockBackend(Api("My clock", self.fake.url, token), clock=clock, **common)
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from jobmanager.backends.base import Backend, OutsideAdmin
from jobmanager.backends.tickers.base import TickerBackend
from jobmanager.backends.timetable import ScheduledJob
from jobmanager.clock import Clock
from jobmanager.errors import EntryNotFoundError, TickerError, UnsupportedError
from jobmanager.schedule import At, Cron, Every
from jobmanager.testing.backend_contract import BackendContract, Rings
from jobmanager.testing.fake_api import TROUBLES, FakeApi, FakeEntry

TICK_URL = "https://shop.example.org/jobs/tick"
MANY = 250
PATIENT = timedelta(seconds=5)


class TickerContract(BackendContract):
    """Subclass it, name the subclass `Test...`, and say how the fake and the backend are made."""

    fake: FakeApi
    writes: bool = True
    """False: the service has its entries from a file, and no API makes them."""
    has_api: bool = True
    """False: the application itself knows what it declared to the service, and asks nothing."""
    most_places: int | None = None
    """The number of entries that a request may list; None if the service lists all at once."""

    def make_fake(self) -> FakeApi:
        """Return the fake of the service, not yet open."""
        raise NotImplementedError("Say in make_fake() how a fake of the service is made.")

    def make_ticker(self, clock: Clock, token: str, **common: Any) -> TickerBackend:
        """Return a backend for `self.fake` with this token; `common` are the arguments of TickerBackend."""
        raise NotImplementedError("Say in make_ticker() how a backend is made.")

    def hurry(self, backend: TickerBackend) -> None:
        """Let requests of the backend time out after a moment."""
        if backend.api is not None:
            backend.api.within = 0.2

    def applied(self, backend: TickerBackend) -> None:
        """Do what it takes after a sync until the service has it, where that is no API's doing."""

    # ---------------------------------------------------------------- the ground of each test

    def open(self) -> None:
        super().open()
        self.fake = self.make_fake()
        self.fake.open()
        self._stops.append(self.fake.close)

    def make_backend(self, clock: Clock) -> Backend:
        return self.make_ticker(clock, self.fake.token, tick_url=TICK_URL)

    def ticker(self, *, token: str | None = None, **common: Any) -> TickerBackend:
        """Return a fresh backend that is stopped after the test."""
        given = {"tick_url": TICK_URL, **common}
        backend = self.make_ticker(self.clock, token or self.fake.token, **given)
        self._stops.append(lambda: backend.stop(timedelta(seconds=2)))
        return backend

    def make_due(self, backend: Backend, scheduled: ScheduledJob, instant: datetime) -> None:
        """Let the service call at this instant, if its entry of the job says so."""
        assert isinstance(backend, TickerBackend)
        clock, called = self.moved_by_hand(), list[datetime]()

        def call() -> None:
            called.append(instant)
            entry = self.fake.entries.get(backend.keys.of_job(scheduled.job.id))
            if entry is not None and entry.wakes_at(instant):
                backend.ring()

        clock.drive(lambda: None if called else instant, call)

    def admin(self, backend: TickerBackend) -> OutsideAdmin:
        """Return the entries as operators see them."""
        return backend.admin(actor="test", audit=_no_row)

    def synced(self, *jobs: ScheduledJob, **common: Any) -> TickerBackend:
        """Return a backend that planned these jobs at the service."""
        backend = self.ticker(**common)
        self.sync(backend, jobs)
        return backend

    def sync(self, backend: TickerBackend, jobs: Sequence[ScheduledJob]) -> None:
        """Sync, and wait until it is done."""
        backend.sync(jobs)
        self.applied(backend)

    def needs_writes(self) -> None:
        """Skip the test where no API makes entries."""
        if not self.writes:
            pytest.skip("its entries come from a file")

    def many(self, count: int) -> list[ScheduledJob]:
        """Return so many jobs, each due once a day."""
        return [
            self.scheduled(f"job-{number:03}", Cron(f"{number % 60} {number // 60} * * *"))
            for number in range(count)
        ]

    def drifts(self, backend: TickerBackend) -> dict[str | None, str]:
        """Return what is wrong with each entry, by its job."""
        return {entry.job_id: entry.drift for entry in backend.entries() if entry.drift}

    # ---------------------------------------------------------------- sync

    def test_a_sync_from_nothing_plans_every_job(self) -> None:
        berlin = self.scheduled("berlin", Cron("0 12 * * *", "Europe/Berlin"))
        jobs = [berlin, self.scheduled("often"), self.scheduled("weekly", Cron("30 4 * * 1"))]
        backend = self.synced(*jobs)

        assert set(self.fake.entries) == {backend.keys.of_job(item.job.id) for item in jobs}
        assert self.drifts(backend) == {}
        for item in jobs:
            entry = self.fake.entries[backend.keys.of_job(item.job.id)]
            for instant in self.instants(item, 50):
                assert entry.wakes_at(instant), f"{entry} does not wake at {instant}"

    def test_a_sync_of_what_is_there_writes_nothing(self) -> None:
        self.needs_writes()
        jobs = self.many(5)
        backend = self.synced(*jobs)
        self.fake.requests.clear()

        self.sync(backend, jobs)
        self.synced(*jobs)

        assert self.fake.writes == []
        assert len(self.fake.requests) == 2

    def test_what_was_changed_there_is_told_and_put_right(self) -> None:
        jobs = self.many(3)
        backend = self.synced(*jobs)
        keys = [backend.keys.of_job(item.job.id) for item in jobs]
        self.fake.entries[keys[0]].text = "5 5 * * *"
        self.fake.entries[keys[1]].zone = "Asia/Tokyo" if backend.zones else "UTC"
        del self.fake.entries[keys[2]]

        drifts = self.drifts(backend)

        assert drifts["job-000"] == "text is '5 5 * * *', wanted '0 0 * * *'"
        assert drifts["job-002"] == f"not in {backend.title}"
        if backend.zones:
            assert drifts["job-001"] == "zone is Asia/Tokyo, wanted UTC"
        self.fake.requests.clear()
        self.sync(backend, jobs)
        assert self.drifts(backend) == {}
        assert sorted(self.fake.entries) == sorted(keys)

    def test_a_moved_application_is_called_at_its_new_address(self) -> None:
        jobs = self.many(2)
        before = self.synced(*jobs)
        there = {key: entry.target for key, entry in self.fake.entries.items()}
        after = self.ticker(tick_url="https://new.example.org/jobs/tick")

        self.sync(after, jobs)

        assert self.drifts(after) == {}
        if after.target("job-000") != before.target("job-000"):
            assert all(self.fake.entries[key].target != target for key, target in there.items())

    def test_entries_of_others_are_left_alone(self) -> None:
        self.needs_writes()
        ours = self.synced(*self.many(2))
        others = [
            self.synced(self.scheduled("theirs"), namespace="default.2"),
            self.synced(self.scheduled("theirs"), environment="production"),
        ]
        self.fake.add(FakeEntry(key="by-hand", text="1 2 3 4 *", target="POST https://else.example.org/"))
        theirs = {
            key: replace(entry) for key, entry in self.fake.entries.items() if not ours.keys.is_ours(key)
        }
        assert len(theirs) == len(others) + 1

        self.sync(ours, self.many(1))
        self.sync(ours, [])

        assert self.fake.entries == theirs
        assert ours.entries() == []

    def test_many_entries_are_read_over_all_pages(self) -> None:
        jobs, backend = self.many(MANY), self.ticker()
        if not self.writes:
            self.sync(backend, jobs)
            self.fake.requests.clear()
            assert [entry.drift for entry in backend.entries()] == [""] * MANY
            assert len(self.fake.requests) == (-(-MANY // (self.most_places or MANY)) if self.has_api else 0)
            return
        for entry in backend.wanted(jobs):
            self.fake.add(FakeEntry(key=entry.key, text=entry.text, zone=entry.zone, target=entry.target))
        self.fake.entries[backend.keys.of_job("job-249")].text = "5 5 * * *"

        self.sync(backend, jobs)

        assert len(self.fake.writes) == 1
        if self.most_places is not None:
            assert len(self.fake.requests) == 1 + -(-MANY // self.most_places)
        assert self.drifts(backend) == {}

    def test_two_processes_that_sync_at_once_make_one_entry_a_job(self) -> None:
        self.needs_writes()
        jobs, backends = self.many(20), [self.ticker(), self.ticker()]
        together = threading.Barrier(2)

        def sync(backend: TickerBackend) -> None:
            together.wait()
            backend.sync(jobs)

        threads = [threading.Thread(target=sync, args=(backend,)) for backend in backends]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.applied(backends[0])

        assert len(self.fake.entries) == len(jobs)
        assert [self.drifts(backend) for backend in backends] == [{}, {}]

    def test_jobs_of_other_processes_keep_their_entries(self) -> None:
        self.needs_writes()
        here, there = self.many(2)
        backend = self.synced(here, there)
        backend.attach(_Others({there.job.id}))  # type: ignore[arg-type]  # a host, as far as it is asked here

        self.sync(backend, [here])

        assert set(self.fake.entries) == {backend.keys.of_job(item.job.id) for item in (here, there)}
        backend.start(Rings(self.clock))
        shown = [entry.job_id for entry in self.admin(backend).entries()]
        assert shown == ["job-000", "job-001"]
        backend.attach(_Others(set()))  # type: ignore[arg-type]
        self.sync(backend, [here])
        assert list(self.fake.entries) == [backend.keys.of_job(here.job.id)]

    def test_what_has_passed_for_good_is_not_planned(self) -> None:
        once = self.scheduled("once", At(self.clock.now() + timedelta(hours=1)))
        backend = self.synced(once)
        assert len(self.fake.entries) == 1

        self.pass_until(self.clock.now() + timedelta(hours=2))
        self.sync(backend, [ScheduledJob(once.job, 1, None)])

        assert self.fake.entries == {}

    def test_long_names_stay_apart(self) -> None:
        jobs = [self.scheduled("x" * 100 + str(number)) for number in range(3)]
        backend = self.synced(*jobs, namespace="n" * 63, environment="Test 7")

        assert len(self.fake.entries) == len(jobs)
        assert max(map(len, self.fake.entries)) <= 63
        assert self.drifts(backend) == {}

    # ---------------------------------------------------------------- trouble

    @pytest.mark.parametrize("trouble", TROUBLES)
    def test_trouble_of_the_api_ends_nothing_and_passes(self, trouble: str) -> None:
        self.passes_trouble(trouble)

    def passes_trouble(self, trouble: str) -> None:
        """Hold that the trouble is told once without a secret, loses no entry, and is over by itself."""
        if not self.has_api:
            pytest.skip("there is no API")
        if not self.writes:
            self.tells_trouble(trouble)
            return
        clock, jobs = self.moved_by_hand(), self.many(3)
        backend = self.synced(*jobs[:2])
        before = {key: replace(entry) for key, entry in self.fake.entries.items()}
        self.hurry(backend)
        backend.start(Rings(self.clock))
        self.fake.trouble = trouble
        with _logged() as lines:
            backend.sync(jobs)
            with pytest.raises(TickerError) as told:
                backend.settle(PATIENT)
            with pytest.raises(TickerError):
                backend.entries()
            assert backend.health().ok
            for pause in (90, 300, 1500):
                clock.advance(seconds=pause)

        assert self.fake.entries == before
        assert not backend.health().ok
        assert backend.title in str(told.value)
        assert self.fake.token not in f"{told.value!r} {lines} {backend.health()}"
        assert len([line for line in lines if "WARNING" in line]) == 1, lines
        assert [found.level for found in backend.findings([])] == ["failing"]
        self.fake.trouble = ""
        clock.advance(seconds=1500)
        self.applied(backend)
        assert self.drifts(backend) == {}
        assert backend.health().ok
        assert len(self.fake.entries) == 3

    def tells_trouble(self, trouble: str) -> None:
        """Hold that who looks at the entries is told the trouble, without a secret, and that nothing else minds it."""
        backend = self.synced(*self.many(2))
        self.hurry(backend)
        backend.start(Rings(self.clock))
        self.fake.trouble = trouble
        with _logged() as lines, pytest.raises(TickerError) as told:
            backend.entries()
        assert backend.title in str(told.value)
        assert [found.level for found in backend.findings([])] == ["failing"]
        assert self.fake.token not in f"{told.value!r} {lines}"
        assert backend.health().ok
        self.fake.trouble = ""
        assert self.drifts(backend) == {}

    def test_a_service_that_says_when_is_not_asked_before(self) -> None:
        self.needs_writes()
        clock, backend = self.moved_by_hand(), self.ticker()
        self.fake.trouble = "429"
        backend.sync(self.many(1))
        self.fake.trouble = ""
        asked = len(self.fake.requests)

        clock.advance(seconds=89)
        assert len(self.fake.requests) == asked
        clock.advance(seconds=2)
        self.applied(backend)
        assert self.drifts(backend) == {}

    def test_a_key_that_is_replaced_loses_no_entry(self) -> None:
        self.needs_writes()
        jobs = self.many(2)
        backend = self.synced(*jobs)
        self.fake.token = "the-next-key-0123456789"  # noqa: S105 - made up

        backend.sync(jobs[:1])

        with pytest.raises(TickerError) as told:
            backend.settle(PATIENT)
        assert told.value.status == 401
        assert len(self.fake.entries) == 2
        self.sync(self.ticker(), jobs[:1])
        assert len(self.fake.entries) == 1

    def test_the_key_is_in_a_header_and_nowhere_else(self) -> None:
        if not self.has_api:
            pytest.skip("there is no API")
        with _logged(logging.DEBUG) as lines:
            backend = self.synced(*self.many(3))
            self.admin(backend).set_active(backend.keys.of_job("job-000"), active=False)
            shown = f"{backend.entries()} {backend.health()} {list(backend.findings([]))} {self.admin(backend).entries()}"

        assert self.fake.requests
        for request in self.fake.requests:
            assert request.headers.pop("authorization") == f"Bearer {self.fake.token}"
            assert self.fake.token not in repr(request)
        assert self.fake.token not in shown
        assert self.fake.token not in repr(lines)
        assert self.fake.token not in repr(self.fake.entries)

    # ---------------------------------------------------------------- places

    def test_where_no_place_is_left_one_entry_wakes_all(self) -> None:
        self.needs_writes()
        jobs = [
            self.scheduled("hourly", Cron("15 * * * *")),
            self.scheduled("nightly", Cron("0 2 * * *", "Europe/Berlin")),
            self.scheduled("minutes", Every(600)),
            self.scheduled("weekly", Cron("5 5 * * 0")),
        ]
        self.fake.places = 2
        backend = self.synced(*jobs)

        [(key, entry)] = self.fake.entries.items()
        assert key == backend.keys.of_all
        assert entry.target == backend.target(None)
        for item in jobs:
            for instant in self.instants(item, 20):
                assert entry.wakes_at(instant), f"{entry.text} does not wake {item.job.id} at {instant}"
        assert self.drifts(backend) == {}
        again = self.synced(*jobs)
        assert list(self.fake.entries) == [key]
        assert self.drifts(again) == {}

    def test_where_entries_are_asked_for_a_full_plan_is_trouble(self) -> None:
        self.needs_writes()
        self.fake.places = 2
        backend = self.synced(*self.many(4), layout="entries")

        with pytest.raises(TickerError):
            backend.settle(PATIENT)
        assert len(self.fake.entries) == 2

    def test_a_place_of_an_orphan_is_taken(self) -> None:
        self.needs_writes()
        self.fake.places = 2
        backend = self.synced(self.scheduled("one"), self.scheduled("two"), layout="entries")

        self.sync(backend, [self.scheduled("three"), self.scheduled("one")])

        assert sorted(self.fake.entries) == sorted(map(backend.keys.of_job, ["one", "three"]))

    def test_one_entry_for_all_can_be_asked_for_and_given_up(self) -> None:
        self.needs_writes()
        jobs = self.many(3)
        one = self.synced(*jobs, layout="dispatcher")
        assert list(self.fake.entries) == [one.keys.of_all]

        each = self.synced(*jobs, layout="entries")

        assert len(self.fake.entries) == 3
        assert self.drifts(each) == {}

    # ---------------------------------------------------------------- operators

    def test_what_was_paused_there_stays_so_and_is_told(self) -> None:
        self.needs_writes()
        [job] = self.many(1)
        backend = self.synced(job)
        [entry] = self.fake.entries.values()
        entry.paused = True
        entry.text = "5 5 * * *"

        self.sync(backend, [job])

        [entry] = self.fake.entries.values()
        assert entry.paused
        assert entry.text == "0 0 * * *"
        assert self.drifts(backend) == {"job-000": "paused there"}
        admin = self.admin(backend)
        assert [(raw.drift, raw.active) for raw in admin.entries()] == [("paused", False)]
        assert admin.set_active(admin.entry_of("job-000"), active=True)
        assert not admin.set_active(admin.entry_of("job-000"), active=True)
        assert self.drifts(backend) == {}

    def test_operators_see_remove_and_purge_entries(self) -> None:
        self.needs_writes()
        backend = self.synced(*self.many(2))
        key = backend.keys.of_job("no-such-job")
        self.fake.add(replace(self.fake.entries[backend.keys.of_job("job-001")], key=key, facts={}))
        backend.start(Rings(self.clock))
        admin = self.admin(backend)

        assert [entry.name for entry in admin.entries() if entry.orphan] == [key]
        assert [entry.job_id for entry in admin.entries()] == ["job-000", "job-001", None]
        assert all(TICK_URL in entry.command for entry in admin.entries()) or TICK_URL not in backend.target(
            None
        )
        assert admin.purge().removed == (key,)
        assert admin.purge().removed == ()
        admin.unschedule(admin.entry_of("job-000"))
        assert self.drifts(backend) == {"job-000": f"not in {backend.title}"}
        with pytest.raises(EntryNotFoundError):
            admin.entry_of("no-such-job")
        with pytest.raises(EntryNotFoundError):
            admin.unschedule(backend.keys.of_job("job-000"))
        for refused in (admin.keys, admin.retire, lambda: admin.new_secret(bearer=True)):
            with pytest.raises(UnsupportedError, match="keeps no secret"):
                refused()


class _Others:
    """A manager whose other processes declare these jobs."""

    def __init__(self, jobs: set[str]) -> None:
        self._jobs = frozenset(jobs)

    def elsewhere(self) -> frozenset[str]:
        return self._jobs

    def planned(self) -> list[ScheduledJob]:
        return []


def _no_row(*_: Any, **__: Any) -> dict[str, Any]:
    return {}


@contextmanager
def _logged(level: int = logging.INFO) -> Iterator[list[str]]:
    """Yield the lines that anything logs meanwhile, from this level on."""
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.levelname} {record.name} {record.getMessage()}")

    root, handler = logging.getLogger(), Lines()
    before = root.level
    root.addHandler(handler)
    root.setLevel(level)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
