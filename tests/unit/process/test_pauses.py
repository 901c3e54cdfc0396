"""A process that stood still as a whole lives, to others, from the moment it goes on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobmanager.clock import SystemClock
from jobmanager.process.health import LedgerFacts, Limits, OverdueJob, judge_ledger
from jobmanager.process.heartbeat import Heartbeat
from jobmanager.stores.sql.memory import MemoryStore
from jobmanager.stores.values import Instance

NOON = datetime(2026, 3, 5, 12, tzinfo=UTC)
LEASE = timedelta(hours=1)  # so long that the thread does not beat of itself
LIMITS = Limits(grace=timedelta(seconds=60), sweep=timedelta(seconds=30), lease=timedelta(seconds=30))


class TwoHands(SystemClock):
    """A clock whose wall and monotonic time a test moves apart."""

    wall = NOON
    ran = 0.0

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.ran

    def pass_by(self, *, wall: timedelta, monotonic: timedelta) -> None:
        self.wall += wall
        self.ran += monotonic.total_seconds()


@pytest.fixture
def clock() -> TwoHands:
    return TwoHands()


@pytest.fixture
def store(clock: TwoHands) -> MemoryStore:
    store = MemoryStore(clock=clock)
    store.install()
    return store


@pytest.fixture
def heartbeat(store: MemoryStore, clock: TwoHands) -> Iterator[Heartbeat]:
    heartbeat = Heartbeat(store, clock, namespace="default", length=LEASE)
    heartbeat.start()
    yield heartbeat
    heartbeat.stop()


def lives_since(store: MemoryStore) -> datetime:
    (instance,) = store.processes.living()
    return instance.started_at


@pytest.mark.parametrize("monotonic", [timedelta(0), LEASE], ids=["suspended", "stopped"])
def test_after_a_pause_it_lives_from_then_on(
    store: MemoryStore, clock: TwoHands, heartbeat: Heartbeat, monotonic: timedelta
) -> None:
    clock.pass_by(wall=LEASE, monotonic=monotonic)
    heartbeat.beat()

    assert lives_since(store) == NOON + LEASE


def test_a_beat_that_is_somewhat_late_is_no_pause(
    store: MemoryStore, clock: TwoHands, heartbeat: Heartbeat
) -> None:
    for _ in range(9):
        clock.pass_by(wall=LEASE / 2, monotonic=LEASE / 2)
        heartbeat.beat()

    assert lives_since(store) == NOON


def test_a_store_that_does_not_reply_is_no_pause_but_a_suspension_meanwhile_is(
    store: MemoryStore, clock: TwoHands, heartbeat: Heartbeat, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat = store.processes.beat

    def beat_during(monotonic: timedelta) -> None:
        def slow(instance_id: str, **signs: Any) -> bool:
            clock.pass_by(wall=LEASE, monotonic=monotonic)
            return beat(instance_id, **signs)

        with monkeypatch.context() as patched:
            patched.setattr(store.processes, "beat", slow)
            heartbeat.beat()
        heartbeat.beat()

    beat_during(LEASE)
    assert lives_since(store) == NOON

    beat_during(timedelta(0))
    assert lives_since(store) == NOON + 2 * LEASE


def after_a_suspension(seconds: float, *, beaten: float = 0.0, **fields: Any) -> set[str]:
    """Return what the ledger shows so long after a suspension of an hour, with one job that is overdue since it began."""
    now = NOON + timedelta(seconds=seconds)
    process = Instance(
        id="one", namespace="default", host="here", pid=1, executes=True,
        started_at=fields.pop("started_at", NOON), seen_at=now - timedelta(seconds=beaten), **fields,
    )  # fmt: skip
    overdue = OverdueJob(job_id="work", due_at=NOON - timedelta(hours=1), by=timedelta(hours=1))
    return {
        one.kind for one in judge_ledger(LedgerFacts(now=now, processes=[process], overdue=[overdue]), LIMITS)
    }


def test_what_a_suspension_left_is_no_alarm_before_the_next_sweep() -> None:
    assert after_a_suspension(89) == set()


def test_what_still_stands_after_patience_is() -> None:
    assert after_a_suspension(90) == {"overdue"}


def test_nothing_is_said_of_a_process_before_the_beat_with_which_it_says_that_it_stood_still() -> None:
    long_ago = NOON - timedelta(days=1)
    assert after_a_suspension(5, beaten=16, started_at=long_ago) == set()
    assert after_a_suspension(5, beaten=14, started_at=long_ago) == {"overdue"}


def test_a_late_tick_from_before_the_pause_is_no_alarm() -> None:
    late = {"last_tick_at": NOON - timedelta(minutes=59), "lag_seconds": 3540.0}
    assert after_a_suspension(30, **late) == set()
    assert after_a_suspension(30, **late, started_at=NOON - timedelta(minutes=59, seconds=1)) >= {
        "late_ticks"
    }
