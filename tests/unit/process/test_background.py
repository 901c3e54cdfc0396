"""What the small work of a process says when it fails again and again."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from jobmanager.clock import SystemClock
from jobmanager.errors import StoreError
from jobmanager.process.background import BackgroundTasks
from jobmanager.testing import FakeClock


def unreadable(job: str) -> Callable[[], None]:
    def read() -> None:
        raise StoreError(f"job {job!r} cannot be read")

    return read


def broken() -> None:
    raise ZeroDivisionError


def test_each_trouble_of_work_that_is_asked_for_is_said_once_in_five_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    background = BackgroundTasks(FakeClock())
    background.start()
    for _ in range(20):
        for act in (unreadable("a"), unreadable("b"), broken):
            background.run_soon(act)
    background.stop()

    assert [record.getMessage() for record in caplog.records] == [
        "soon put off: job 'a' cannot be read",
        "soon put off: job 'b' cannot be read",
        "background task soon failed",
    ]


def test_a_long_task_that_goes_on_is_no_standstill() -> None:
    clock = SystemClock()
    background = BackgroundTasks(clock)
    turns: list[float] = []
    done = threading.Event()

    def long() -> None:
        for _ in range(3):
            turns.append(background.turned_at)
            time_passes(clock)
            background.note_progress()
        done.set()

    background.start()
    background.run_soon(long)
    assert done.wait(10)
    background.stop()
    before = background.turned_at
    background.note_progress()

    assert turns == sorted(set(turns))
    assert background.turned_at == before


def time_passes(clock: SystemClock) -> None:
    before = clock.monotonic()
    while clock.monotonic() == before:
        pass
