"""Every argument of every public method, given what it cannot mean: an error of the library with a sentence, or an answer."""

from __future__ import annotations

import inspect
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobmanager import JobManager, Settings
from jobmanager.errors import JobManagerError

JUNK: tuple[Any, ...] = (
    None, 5, -1, 2**70, 1.5, math.nan, True, "", "x" * 600, "\0", "a\ud800", b"x", [], ["x"], [5], [None], [[]], {}, {"a": 1},
    {5: object()}, object(), int, (1, 2), lambda: 1, timedelta(-1), datetime(2026, 1, 1), datetime(1, 1, 1, tzinfo=UTC),
)  # fmt: skip
# These block, or return what is used in a `with`.
LEFT_OUT = {"run_forever", "lifespan", "lifespan_with", "start", "stop", "events", "wait"}


METHODS = [
    name
    for name, _method in inspect.getmembers(JobManager, inspect.isfunction)
    if not name.startswith("_") and name not in LEFT_OUT
]


@pytest.fixture(scope="module")
def manager() -> tuple[JobManager, str]:
    """A manager, and the id of a run."""
    jobs = JobManager(Settings(database_url="memory://", backend="noop"))
    jobs.add_job("a", lambda **_words: 1)
    jobs.sync()
    return jobs, jobs.trigger_job("a").id


@pytest.mark.parametrize("name", METHODS)
def test_what_an_argument_cannot_mean_is_refused_in_a_sentence(
    manager: tuple[JobManager, str], name: str
) -> None:
    """Fails for a bare TypeError, AttributeError or error of the store, which names neither the argument nor what to use."""
    jobs, run_id = manager
    good = {"job_id": "a", "run_id": run_id, "handler": "a"}
    parameters = [
        each
        for each in inspect.signature(getattr(JobManager, name)).parameters.values()
        if each.name != "self" and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
    ]
    sentences: list[str] = []
    for parameter in parameters:
        for junk in JUNK:
            given = {
                each.name: junk if each is parameter else good.get(each.name, "a")
                for each in parameters
                if each is parameter or each.default is each.empty
            }
            try:
                returned = getattr(jobs, name)(**given)
                if inspect.isgenerator(returned):
                    list(returned)
            except JobManagerError as error:
                sentences.append(str(error))
            except Exception as error:
                error.add_note(f"{name}({parameter.name}={junk!r})")
                raise
    assert all(sentences)
