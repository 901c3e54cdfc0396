"""Idle worker threads are woken one after the other, and all that are needed."""

import threading
import time
from collections.abc import Callable

from jobmanager.execution.worker_pool import WorkerPool


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def all_at_once(pool: WorkerPool, calls: int) -> None:
    """Submit calls of which none returns before all have begun."""
    together = threading.Barrier(calls + 1)
    pool.submit(lambda barrier, _: barrier.wait(60), [together] * calls)
    together.wait(60)


def test_every_idle_thread_is_woken_that_has_a_call_to_make() -> None:
    """Fails if a woken thread does not wake the next one: then calls wait while threads idle."""
    pool = WorkerPool(4, threaded=True)
    all_at_once(pool, 4)
    for calls in (1, 4, 2, 4):
        until(lambda: pool._idle == 4)
        all_at_once(pool, calls)
    pool.stop()


def test_calls_that_come_one_by_one_wake_threads_as_well() -> None:
    """Fails if a call that comes while another thread wakes up is forgotten."""
    pool = WorkerPool(4, threaded=True)
    all_at_once(pool, 4)
    for _ in range(200):
        together = threading.Barrier(5)
        for _ in range(4):
            pool.submit(lambda barrier, _: barrier.wait(60), [together])
        together.wait(60)
    pool.stop()


def test_a_stop_ends_every_idle_thread() -> None:
    """Fails if a thread is left asleep."""
    pool = WorkerPool(4, threaded=True)
    all_at_once(pool, 4)
    pool.stop()
    until(lambda: pool._working == 0)
