"""A connection that falls silent, open and acknowledging, holds no thread longer than the deadline, at any statement."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("psycopg", reason="needs psycopg: pip install psycopg[binary]")

from tests.faults.proxy import Proxy

from jobmanager.errors import ConfigurationError, StoreUnavailableError
from jobmanager.run import FAILED, PENDING, RUNNING, SUCCEEDED, Ending, Progress, Run, new_id
from jobmanager.stores.sql.postgres import PostgresStore
from jobmanager.stores.sql.postgres_deadline import STATEMENT_DEADLINE
from jobmanager.stores.sql.postgres_link import IDLE_LONG, LIMITS, Link
from jobmanager.stores.values import Instance, JobRow
from jobmanager.testing import FakeClock

pytestmark = pytest.mark.servers

DEADLINE = 0.4
CONNECT_TIMEOUT = 2
SLACK = 2.0
OWNER = "01900000-0000-7000-8000-000000000001"


@dataclass
class Ground:
    """A store behind the proxy, with a job and a living process."""

    store: PostgresStore
    proxy: Proxy
    url: str

    def run(self, **fields: Any) -> Run:
        now = self.store.now() - timedelta(milliseconds=1)
        return Run(
            **{
                "id": new_id(now),
                "job_id": "job",
                "status": RUNNING,
                "trigger": "manual",
                "opened_at": now,
                "accepted_at": now,
                "started_at": now,
                "due_at": now,
                "attempt": 1,
                "starts": 1,
                "max_attempts": 9,
                "owner": OWNER,
                "concurrency_key": "job",
                **fields,
            }
        )

    def pending(self) -> Run:
        return self.run(status=PENDING, owner=None, started_at=None, attempt=0, starts=0)

    def opened(self) -> Run:
        run = self.run()
        assert self.store.runs.write([run], ()).opened
        return run


@pytest.fixture
def ground(postgres_url: str) -> Iterator[Ground]:
    address = urlsplit(postgres_url)
    with Proxy(address.port or 5432) as proxy:
        url = f"postgresql://postgres@127.0.0.1:{proxy.port}{address.path}?jobmanager_deadline={DEADLINE}&connect_timeout={CONNECT_TIMEOUT}"
        store = PostgresStore(url)
        store.install()
        now = store.now()
        store.processes.register(
            Instance(
                id=OWNER, namespace="default", host="here", pid=1, executes=True, started_at=now, seen_at=now
            )
        )
        store.jobs.add(
            [
                JobRow(
                    id="job",
                    namespace="default",
                    declared="{}",
                    schedule="every 1",
                    accounted_until=now - timedelta(hours=1),
                    next_due_at=now,
                    history_from=now,
                )
            ]
        )
        yield Ground(store, proxy, url)
        store.close()


Act = Callable[[Ground], Callable[[], object]]


def ending(run: Run, **fields: Any) -> Ending:
    return Ending(
        **{"run": run, "status": SUCCEEDED, "started_at": run.due_at, "finished_at": run.due_at, **fields}
    )


def opens_one(ground: Ground) -> Callable[[], object]:
    run = ground.run()
    return lambda: ground.store.runs.write([run], ()).opened == {run.id}


def opens_many(ground: Ground) -> Callable[[], object]:
    runs = [ground.run() for _ in range(3)]
    return lambda: ground.store.runs.write(runs, ()).opened == {run.id for run in runs}


def ends_one(ground: Ground) -> Callable[[], object]:
    run = ground.opened()
    return lambda: ground.store.runs.write((), [ending(run)]).ended == {run.id: SUCCEEDED}


def opens_and_ends(ground: Ground) -> Callable[[], object]:
    old, new = ground.opened(), ground.run()
    return lambda: ground.store.runs.write([new], [ending(old)]).ended == {old.id: SUCCEEDED}


def retries(ground: Ground) -> Callable[[], object]:
    run = ground.opened()
    again = ending(run, status=FAILED, retry_at=run.due_at)
    return lambda: ground.store.runs.write((), [again]).ended == {run.id: PENDING}


def gives_back(ground: Ground) -> Callable[[], object]:
    run = ground.opened()
    return lambda: ground.store.runs.give_back([run], "returned") == {run.id: PENDING}


def claims(ground: Ground) -> Callable[[], object]:
    # Answered or not, the claim may have happened; it is found among the owner's.
    run = ground.pending()
    assert ground.store.runs.write([run], ()).opened
    return lambda: (
        run.id in {each.id for each in ground.store.runs.claim(OWNER, "default", 10)}
        or run.id in {each.id for each in ground.store.runs.running_of(OWNER)}
    )


def beats(ground: Ground) -> Callable[[], object]:
    return lambda: ground.store.processes.beat(OWNER)


def reads_instances(ground: Ground) -> Callable[[], object]:
    return lambda: [instance.id for instance in ground.store.processes.living()] == [OWNER]


def locks_a_job(ground: Ground) -> Callable[[], object]:
    run = ground.pending()

    def locked() -> bool:
        with ground.store.jobs.lock("job") as txn:
            return txn.insert(run) or txn.get(run.id) is not None

    return locked


def reads_runs(ground: Ground) -> Callable[[], object]:
    run = ground.opened()
    return lambda: [each.id for each in ground.store.history.runs(job_id="job")] == [run.id]


def notes_progress(ground: Ground) -> Callable[[], object]:
    run = ground.opened()
    return lambda: ground.store.runs.note_progress(run, Progress(processed=1)) is None


def takes_over(ground: Ground) -> Callable[[], object]:
    return lambda: ground.store.maintenance.take_over() == []


def dispatches(ground: Ground) -> Callable[[], object]:
    run = ground.pending()
    assert ground.store.runs.write([run], ()).opened
    return lambda: ground.store.runs.to_dispatch("default", 10) is not None


def tells_the_time(ground: Ground) -> Callable[[], object]:
    return lambda: ground.store.now() is not None


ACTS = (
    opens_one, opens_many, ends_one, opens_and_ends, retries, gives_back, claims, beats, reads_instances, locks_a_job,
    reads_runs, notes_progress, takes_over, dispatches, tells_the_time,
)  # fmt: skip


def silent_everywhere(ground: Ground, make: Act, towards: str, *, kept: bool) -> int:
    """Let the connection fall silent at each request of the act in turn; return how many requests it has."""
    for request in range(60):
        act, before = make(ground), ground.proxy.silenced
        if not kept:
            ground.store.close()
        ground.proxy.fall_silent_at(request, towards)
        began = time.monotonic()
        try:
            assert act()
        except StoreUnavailableError:
            assert ground.proxy.silenced == before + 1, "it failed without a silence"
        assert time.monotonic() - began < (DEADLINE if kept else CONNECT_TIMEOUT) + SLACK
        silenced = ground.proxy.silenced > before
        ground.proxy.fall_silent_at(-1, towards)

        began = time.monotonic()
        assert act(), "its repetition is not right"
        assert time.monotonic() - began < SLACK, "the silent connection was used again"
        if not silenced:
            return request
        clear(ground.store)
    pytest.fail("it never came to an end")


def clear(store: PostgresStore) -> None:
    for run in store.history.runs(statuses=[PENDING, RUNNING], limit=1000):
        store.runs.write((), [ending(run)])
        store.runs.cancel(run.id)
    store.maintenance.purge(store.now() + timedelta(days=1))


@pytest.mark.parametrize("towards", ["server", "client"])
@pytest.mark.parametrize("make", ACTS, ids=lambda make: make.__name__)
def test_silent_at_any_statement_a_call_ends_in_time_and_its_repetition_is_right(
    ground: Ground, make: Act, towards: str
) -> None:
    assert silent_everywhere(ground, make, towards, kept=True) > 0


@pytest.mark.parametrize("towards", ["server", "client"])
@pytest.mark.parametrize("make", [opens_one, locks_a_job], ids=lambda make: make.__name__)
def test_silent_at_any_step_of_a_new_connection_a_call_ends_in_time(
    ground: Ground, make: Act, towards: str
) -> None:
    assert silent_everywhere(ground, make, towards, kept=False) > 1


def test_when_one_kept_connection_is_silent_the_others_cost_nothing(ground: Ground) -> None:
    kept = threading.Barrier(3)

    def hold() -> None:
        with ground.store.database.reading() as connection:
            connection.exec_driver_sql("SELECT 1")
            kept.wait(5)

    threads = [threading.Thread(target=hold) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    ground.proxy.silence_all()

    began = time.monotonic()
    with pytest.raises(StoreUnavailableError, match=r"no answer within 0\.4 s"):
        ground.store.now()
    for _ in range(5):
        assert ground.store.processes.beat(OWNER)
    assert time.monotonic() - began < 2 * DEADLINE + SLACK


def test_a_silent_idle_connection_is_replaced_and_no_call_fails(ground: Ground) -> None:
    clock = FakeClock()
    store = PostgresStore(ground.url, clock=clock)
    store.now()
    clock.advance(seconds=IDLE_LONG + 1)
    ground.proxy.silence_all()

    began = time.monotonic()
    assert store.now() is not None

    assert time.monotonic() - began < DEADLINE + SLACK
    store.close()


def test_closing_the_store_does_not_wait_for_silent_connections(ground: Ground) -> None:
    ground.store.now()
    ground.proxy.silence_all()

    began = time.monotonic()
    ground.store.close()

    assert time.monotonic() - began < 1.0
    assert ground.store.now() is not None


def test_a_change_of_the_tables_may_take_longer_than_the_deadline(ground: Ground) -> None:
    with ground.store.database.changing_tables() as connection:
        connection.exec_driver_sql(f"SELECT pg_sleep({2 * DEADLINE})")

    with (
        pytest.raises(StoreUnavailableError, match="no answer within"),
        ground.store.database.writing() as connection,
    ):
        connection.exec_driver_sql(f"SELECT pg_sleep({2 * DEADLINE})")


def test_the_deadline_is_longer_than_the_server_s_own_limits() -> None:
    assert max(float(limit.removesuffix("s")) for limit in LIMITS.values()) < STATEMENT_DEADLINE
    assert Link.of("postgresql://u@db/n").deadline == STATEMENT_DEADLINE


@pytest.mark.parametrize("said", ["soon", "0", "-1", "nan"])
def test_a_deadline_that_is_no_number_of_seconds_is_refused(said: str) -> None:
    with pytest.raises(ConfigurationError, match=f"jobmanager_deadline={said}"):
        Link.of(f"postgresql://u@db/n?jobmanager_deadline={said}")
