"""The application's own context managers around each attempt, in the thread, task or child process of the handler."""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    contextmanager,
)
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any

from jobmanager.context import RunContext
from jobmanager.execution.outcome import AroundError, end_forked_child
from jobmanager.ledger.bounding import name_of, text_of

Manager = AbstractContextManager[Any] | AbstractAsyncContextManager[Any]
Around = Callable[[RunContext], Manager]
"""Returns what is entered before the handler is called with this context, and left after it."""


class Arounds:
    """The context managers around each attempt: the first of `arounds` is the outermost. False where there is none.

    What a handler raises passes through, whatever a context manager returns. What a context manager raises itself is an AroundError.
    """

    def __init__(self, arounds: Sequence[Around] = ()) -> None:
        self._arounds = tuple(arounds)

    def __bool__(self) -> bool:
        return bool(self._arounds)

    def pickled(self) -> bytes:
        """Return them as a child process reads them; raises what pickle raises."""
        return pickle.dumps(self._arounds)

    @classmethod
    def unpickled(cls, data: bytes) -> Arounds:
        """Read what `pickled` returned; raises what the import of the application raises."""
        return cls(pickle.loads(data))  # noqa: S301 - of the parent process

    def call(self, context: RunContext, call: Callable[[], Any]) -> Any:
        """Call a plain function inside; the asynchronous ones are entered on an event loop of this thread."""
        with ExitStack() as stack:
            runner: asyncio.Runner | None = None
            for around in self._arounds:
                with _telling(around, "on entry"):
                    manager = around(context)
                if hasattr(manager, "__enter__"):
                    stack.enter_context(_Entered(around, manager))
                    continue
                runner = runner or stack.enter_context(asyncio.Runner())
                stack.enter_context(_Entered(around, _OnThread(manager, runner)))
            with _ending_forks(context):
                return call()

    async def awaited(self, context: RunContext, call: Callable[[], Awaitable[Any]]) -> Any:
        """Await a coroutine function inside; one that is both kinds of context manager is entered as an asynchronous one."""
        async with AsyncExitStack() as stack:
            for around in self._arounds:
                with _telling(around, "on entry"):
                    manager = around(context)
                if hasattr(manager, "__aenter__"):
                    await stack.enter_async_context(_EnteredAsync(around, manager))
                else:
                    stack.enter_context(_Entered(around, manager))
            with _ending_forks(context):
                return await call()


class _Entered(AbstractContextManager[None]):
    """One context manager whose own failures carry its name, and which keeps no exception from the record."""

    def __init__(self, around: Around, manager: Any) -> None:
        self._around, self._manager = around, manager

    def __enter__(self) -> None:
        with _telling(self._around, "on entry"):
            self._manager.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _telling(self._around, "on exit", handled=error):
            self._manager.__exit__(kind, error, trace)


class _EnteredAsync(AbstractAsyncContextManager[None]):
    def __init__(self, around: Around, manager: Any) -> None:
        self._around, self._manager = around, manager

    async def __aenter__(self) -> None:
        with _telling(self._around, "on entry"):
            await self._manager.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _telling(self._around, "on exit", handled=error):
            await self._manager.__aexit__(kind, error, trace)


class _OnThread(AbstractContextManager[None]):
    """An asynchronous context manager for a plain function: entered and left on one loop; what it sets is seen by the handler."""

    def __init__(self, manager: Any, runner: asyncio.Runner) -> None:
        self._manager, self._runner = manager, runner

    def __enter__(self) -> None:
        self._run(self._manager.__aenter__)

    def __exit__(self, *raised: object) -> None:
        self._run(lambda: self._manager.__aexit__(*raised))

    def _run(self, act: Callable[[], Any]) -> None:
        inner = copy_context()
        try:
            self._runner.run(_awaiting(act), context=inner)
        finally:
            _take_over(inner)


async def _awaiting(act: Callable[[], Any]) -> Any:
    return await act()


def _take_over(inner: Context) -> None:
    """Set here what was set in a copy of this context."""
    here = copy_context()
    for variable, value in inner.items():
        if variable not in here or here[variable] is not value:
            variable.set(value)


@contextmanager
def _telling(around: Around, when: str, *, handled: BaseException | None = None) -> Iterator[None]:
    """Raise what fails inside as an AroundError of this name, except the exception that the handler raised, and a cancellation."""
    try:
        yield
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        if error is handled:
            return
        raise AroundError(f"around {_name(around)} failed {when}: {text_of(error)}", error) from error


def _name(around: Around) -> str:
    named = around if hasattr(around, "__qualname__") else type(around)
    return f"{getattr(named, '__module__', '?')}:{getattr(named, '__qualname__', name_of(type(around)))}"


@contextmanager
def _ending_forks(context: RunContext) -> Iterator[None]:
    """End a process that the handler forked and that comes back from it, before it leaves what belongs to its parent."""
    owner = os.getpid()
    try:
        yield
    finally:
        if os.getpid() != owner:
            end_forked_child(context.run)
