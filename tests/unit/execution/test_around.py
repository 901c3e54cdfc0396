"""What `JobManager(around=...)` puts around each attempt: the order, the failures, both kinds of handler and of context manager."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any

import pytest
from tests.waiting import until

from jobmanager import JobManager, Retry, RunContext, RunStatus, Settings
from jobmanager.errors import ConfigurationError
from jobmanager.testing import FakeClock

SEEN: ContextVar[str] = ContextVar("SEEN", default="")


def manager(*around: Callable[[RunContext], Any], backend: str = "noop") -> JobManager:
    settings = Settings(backend=backend, database_url="memory://", drain_seconds=0)
    return JobManager(settings, clock=FakeClock() if backend == "noop" else None, around=around)


def named(name: str, told: list[str]) -> Callable[[RunContext], Any]:
    @contextmanager
    def around(context: RunContext) -> Iterator[None]:
        told.append(f"{name} in {context.job.id}")
        try:
            yield
        except BaseException as error:
            told.append(f"{name} out {type(error).__name__}")
            raise
        told.append(f"{name} out")

    return around


def named_async(name: str, told: list[str]) -> Callable[[RunContext], Any]:
    @asynccontextmanager
    async def around(context: RunContext) -> AsyncIterator[None]:
        await asyncio.sleep(0)
        told.append(f"{name} in")
        SEEN.set(name)
        loop = asyncio.get_running_loop()
        yield
        assert asyncio.get_running_loop() is loop
        await asyncio.sleep(0)
        told.append(f"{name} out")

    return around


def test_the_last_is_the_innermost() -> None:
    told: list[str] = []
    jobs = manager(named("first", told), named("last", told))
    jobs.add_job("work", lambda: told.append("work"))

    run = jobs.trigger_job("work")

    assert run.status is RunStatus.SUCCEEDED
    assert told == ["first in work", "last in work", "work", "last out", "first out"]


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_both_kinds_surround_both_kinds_of_handler(kind: str) -> None:
    """Fails if an asynchronous one is not awaited around a plain function, or its variables do not reach the handler."""
    told: list[str] = []
    jobs = manager(named_async("async", told), named("plain", told))

    def work() -> str:
        return SEEN.get()

    async def coroutine() -> str:
        return SEEN.get()

    jobs.add_job("work", work if kind == "plain" else coroutine)

    run = jobs.trigger_job("work")

    assert (run.status, run.output) == (RunStatus.SUCCEEDED, "async"), run.error
    assert told == ["async in", "plain in work", "plain out", "async out"]
    assert SEEN.get() == ""


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_the_handlers_exception_is_seen_and_recorded_whatever_they_return(kind: str) -> None:
    """Fails if a context manager that swallows makes a failed run a success."""
    told: list[str] = []

    class Swallows:
        def __init__(self, context: RunContext) -> None: ...

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> bool:
            return True

    jobs = manager(named("outer", told), Swallows)

    def work() -> None:
        raise ZeroDivisionError("by hand")

    async def coroutine() -> None:
        work()

    jobs.add_job("work", work if kind == "plain" else coroutine)

    run = jobs.trigger_job("work")

    assert run.error is not None
    assert (run.error.kind, run.error.message) == ("exception", "by hand")
    assert "test_around.py" in run.error.traceback
    assert "contextlib" not in run.error.traceback
    assert told == ["outer in work", "outer out ZeroDivisionError"]


def fails_early(context: RunContext) -> Any:
    raise ValueError("no tenant")


@contextmanager
def fails_on_entry(context: RunContext) -> Iterator[None]:
    raise ValueError("no tenant")
    yield


@contextmanager
def fails_on_exit(context: RunContext) -> Iterator[None]:
    yield
    raise ValueError("no tenant")


@asynccontextmanager
async def fails_on_async_exit(context: RunContext) -> AsyncIterator[None]:
    yield
    raise ValueError("no tenant")


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
@pytest.mark.parametrize("around", [fails_early, fails_on_entry, fails_on_exit, fails_on_async_exit])
def test_its_own_failure_is_internal_and_has_its_name(around: Callable[[RunContext], Any], kind: str) -> None:
    told: list[str] = []
    jobs = manager(named("outer", told), around)

    async def coroutine() -> None:
        told.append("work")

    jobs.add_job("work", (lambda: told.append("work")) if kind == "plain" else coroutine)

    run = jobs.trigger_job("work")

    when = "on exit" if "exit" in around.__name__ else "on entry"
    assert run.error is not None
    assert (run.status, run.error.kind, run.error.type) == (RunStatus.FAILED, "internal", "ValueError")
    assert run.error.message == f"around {__name__}:{around.__name__} failed {when}: no tenant"
    assert ("work" in told) == (when == "on exit")
    assert told[-1] == "outer out AroundError"


def test_the_handlers_exception_is_in_the_traceback_of_a_failure_after_it() -> None:
    jobs = manager(cleans_up_and_fails)

    def work() -> None:
        raise ZeroDivisionError("by hand")

    jobs.add_job("work", work)

    error = jobs.trigger_job("work").error

    assert error is not None
    assert error.kind == "internal"
    assert "ZeroDivisionError: by hand" in error.traceback


@contextmanager
def cleans_up_and_fails(context: RunContext) -> Iterator[None]:
    try:
        yield
    finally:
        raise ValueError("no tenant")


def test_what_one_raised_is_tried_again_as_what_a_handler_raises() -> None:
    """Fails if a lost connection of an around ends the run although the job is to be tried again."""

    @contextmanager
    def around(context: RunContext) -> Iterator[None]:
        if context.attempt == 1:
            raise ConnectionError("lost")
        yield

    jobs = manager(around)
    jobs.add_job("work", lambda: None, retry=Retry(max_attempts=2, delays=[0], retry_on=(ConnectionError,)))

    run = jobs.trigger_job("work")

    assert (run.status, run.attempt) == (RunStatus.SUCCEEDED, 2)


def test_lines_that_one_logs_belong_to_the_run() -> None:
    @contextmanager
    def around(context: RunContext) -> Iterator[None]:
        context.log.info("opened")
        yield

    jobs = manager(around)
    jobs.add_job("work", lambda: None)

    run = jobs.trigger_job("work")

    assert [line.text for _, _, line in jobs.logs(run.id)] == ["opened"]


def test_it_is_entered_in_the_handlers_thread() -> None:
    entered: list[int] = []

    @contextmanager
    def around(context: RunContext) -> Iterator[None]:
        entered.append(threading.get_ident())
        yield

    jobs = manager(around, backend="local")
    jobs.add_job("work", lambda: threading.get_ident())  # noqa: PLW0108 - a builtin has no signature
    with jobs:
        run = jobs.wait(jobs.trigger_job("work").id, 10)

    assert [run.output] == entered
    assert run.output != threading.get_ident()


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_a_handler_that_is_let_go_leaves_it_when_it_returns(kind: str) -> None:
    """Fails if the end of the process's patience skips the exit, or a cancelled coroutine does."""
    told: list[str] = []
    inside, goes_on = threading.Event(), threading.Event()

    def work() -> None:
        inside.set()
        goes_on.wait(30)

    async def coroutine() -> None:
        inside.set()
        await asyncio.sleep(30)

    jobs = manager(named("around", told), backend="local")
    jobs.add_job("work", work if kind == "plain" else coroutine)
    jobs.start()
    run = jobs.trigger_job("work")
    assert inside.wait(10)

    jobs.stop()

    error = jobs.run(run.id).error
    assert error is not None
    assert error.kind == "shutdown"
    goes_on.set()
    if kind == "plain":
        until(lambda: told[-1] == "around out", within=10)


@pytest.mark.parametrize("around", ["shop.jobs:tenant", [1], {"tenant": len}])
def test_what_cannot_be_called_is_refused(around: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"around=.*a list of functions that take a RunContext"):
        JobManager(Settings(database_url="memory://"), around=around)
