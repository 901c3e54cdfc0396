"""Every argument of every call on a handler's context, given what it cannot mean: an error with a sentence, or an answer."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobmanager import JobManager, Settings
from jobmanager.context import AsyncRunContext, RunContext
from jobmanager.errors import JobManagerError

JUNK: tuple[Any, ...] = (
    None, 5, 2**70, 1.5, math.nan, math.inf, True, "", "x" * 600, "\0", "a\ud800", b"x", [], ["x"], [5], {}, {"a": 1},
    {5: object()}, object(), int, (1, 2), timedelta(-1), datetime(2026, 1, 1), datetime(1, 1, 1, tzinfo=UTC),
)  # fmt: skip
GOOD: dict[str, Any] = {
    "name": "a",
    "function": lambda: 1,
    "key": "k",
    "job": "child",
    "payloads": [None],
    "processed": 1,
    "moment": datetime(2026, 1, 1, tzinfo=UTC),
}
LEFT_OUT = {"track"}  # iterates over what it is given, as `for` does


def calls(context: type[RunContext]) -> list[str]:
    return [
        name
        for name, _method in inspect.getmembers(context, inspect.isfunction)
        if not name.startswith("_") and name not in LEFT_OUT
    ]


def arguments(context: type[RunContext], name: str) -> list[tuple[list[Any], dict[str, Any]]]:
    """The arguments of calls in which one is junk."""
    parameters = [
        each
        for each in inspect.signature(getattr(context, name)).parameters.values()
        if each.name != "self" and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
    ]
    made = []
    for parameter in parameters:
        for junk in JUNK:
            given = {
                each: junk if each is parameter else GOOD[each.name]
                for each in parameters
                if each is parameter or each.default is each.empty
            }
            by_name = {each.name: value for each, value in given.items() if each.kind is each.KEYWORD_ONLY}
            by_place = [value for each, value in given.items() if each.kind is not each.KEYWORD_ONLY]
            made.append((by_place, by_name))
    return made


@pytest.fixture(scope="module")
def try_call() -> Callable[..., tuple[str, str]]:
    """A function that has a handler make one call on its context, and returns what that raised: the type and the text."""
    jobs = JobManager(Settings(database_url="memory://", backend="noop"))
    call: list[Any] = []
    raised: list[tuple[str, str]] = []

    def note(error: Exception) -> None:
        kind = "library" if isinstance(error, JobManagerError) else type(error).__name__
        raised.append((kind, str(error)))

    @jobs.job("plain")
    def plain(context: RunContext) -> None:
        name, by_place, by_name = call
        try:
            getattr(context, name)(*by_place, **by_name)
        except Exception as error:
            note(error)

    @jobs.job("coroutine")
    async def coroutine(context: AsyncRunContext) -> None:
        name, by_place, by_name = call
        try:
            returned = getattr(context, name)(*by_place, **by_name)
            if inspect.isawaitable(returned):
                await returned
        except Exception as error:
            note(error)

    jobs.add_job("child", lambda: 1)

    def make(job: str, name: str, by_place: list[Any], by_name: dict[str, Any]) -> tuple[str, str]:
        call[:], raised[:] = (name, by_place, by_name), [("", "it returned, or the run rests")]
        run = jobs.trigger_job(job)
        assert run.status in ("succeeded", "pending"), (name, by_place, by_name, run.error)
        if run.status == "pending":
            jobs.cancel(run.id)
        return raised[-1]

    return make


@pytest.mark.parametrize(
    ("job", "context", "name"),
    [
        pytest.param(job, context, name, id=f"{job}-{name}")
        for job, context in (("plain", RunContext), ("coroutine", AsyncRunContext))
        for name in calls(context)
    ],
)
def test_what_an_argument_cannot_mean_is_refused_in_a_sentence(
    try_call: Callable[..., tuple[str, str]], job: str, context: type[RunContext], name: str
) -> None:
    """Fails for a bare TypeError or `ValueError: x`, which is all that the record of the run would say."""
    for by_place, by_name in arguments(context, name):
        kind, text = try_call(job, name, by_place, by_name)
        assert kind in ("", "library"), (by_place, by_name, kind, text)
        assert text


def test_the_sentence_names_the_call_the_step_the_value_and_what_to_use(
    try_call: Callable[..., tuple[str, str]],
) -> None:
    _kind, text = try_call("plain", "sleep", ["rest", "5 parsecs"], {})
    assert text == (
        "sleep 'rest': duration='5 parsecs' cannot be used; use seconds (from 0, at most a century), a timedelta, "
        "or a text such as '5m' or '1h30m'."
    )
