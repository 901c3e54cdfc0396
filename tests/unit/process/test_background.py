"""What the small work of a process says when it fails again and again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

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
