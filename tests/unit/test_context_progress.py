"""Whatever a handler gives as its progress is kept small, can be shown, and never fails the run."""

from __future__ import annotations

import enum
import json
import time
from decimal import Decimal
from typing import Any

import pytest

from jobmanager import JobManager, RunContext, Settings
from jobmanager.context import MAX_MESSAGE, MOST_COUNTED
from jobmanager.run import Progress, RunStatus
from jobmanager.testing import FakeClock


class Hostile:
    """An object whose every description raises."""

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __int__ = __str__  # type: ignore[assignment]  # whatever it is asked


class Shouting(str):  # noqa: SLOT000 - as an application may write it
    """A text that is none when it is asked."""

    def __str__(self) -> str:
        raise ValueError("no text")

    def __getitem__(self, _index: Any) -> str:
        raise ValueError("no item")

    __len__ = __getitem__  # type: ignore[assignment]  # whatever it is asked


class Step(enum.IntEnum):
    """A number with a name."""

    SECOND = 2


def recorded(*arguments: Any) -> Progress:
    with JobManager(Settings(database_url="memory://"), clock=FakeClock()) as jobs:

        @jobs.job("work")
        def work(context: RunContext) -> None:
            context.progress(*arguments)

        run = jobs.run(jobs.trigger_job("work").id)
        assert run.status is RunStatus.SUCCEEDED, run.error
        assert run.progress is not None
        json.dumps([run.progress.processed, run.progress.total, run.progress.message], allow_nan=False)
        run.progress.message.encode()
        return run.progress


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (3, 3),
        (True, 1),
        (Step.SECOND, 2),
        (2.9, 2),
        (Decimal(7), 7),
        (2**100_000, MOST_COUNTED),
        (float("-inf"), -MOST_COUNTED),
        (float("inf"), MOST_COUNTED),
        (float("nan"), 0),
        ("12", 0),
        (None, 0),
        ([1], 0),
        (Hostile(), 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_number_is_kept_as_a_whole_one_and_anything_else_as_none(given: Any, kept: int) -> None:
    assert recorded(given).processed == kept
    assert recorded(1, given).total == (None if given is None else kept)
    assert type(recorded(given).processed) is int


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("page 3", "page 3"),
        ("x" * 50_000_000, "x" * MAX_MESSAGE),
        (Shouting("page 3"), "page 3"),
        (
            "half \ud83d and \0 none \N{PARTY POPPER}",
            "half \N{REPLACEMENT CHARACTER} and \N{REPLACEMENT CHARACTER} none \N{PARTY POPPER}",
        ),
        (None, "None"),
        (404, "404"),
        (Hostile(), "<Hostile>"),
        ({"page": 3}, "<dict of 1 items>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_message_is_kept_as_a_short_text(given: Any, kept: str) -> None:
    message = recorded(1, None, given).message

    assert message == kept
    assert type(message) is str


@pytest.mark.parametrize(
    "given",
    [list(range(3_000_000)), bytes(100_000_000), {n: n for n in range(1_000_000)}],
    ids=lambda value: type(value).__name__,
)
def test_a_message_that_is_large_costs_what_is_kept(given: Any) -> None:
    began = time.process_time()

    assert len(recorded(1, None, given).message) <= MAX_MESSAGE
    assert time.process_time() - began < 0.5
