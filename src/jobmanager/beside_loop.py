"""Runs calls of coroutines on threads of this package, beside their event loop.

The loop may be the application's. Its default executor has few threads, which look up host names and do what the application gives
them: a store that does not reply must not hold these, and a function that takes hours on them must not hold up the store.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import cache, partial
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_Calls = SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]

THREADS = 16


async def beside_loop(act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `act` on one of this package's threads, in a copy of this context, and return or raise what it does.

    For what ends by itself and soon, as a statement does: so many calls at once have a thread, the others wait for one. Cancelling the
    task does not interrupt the call.
    """
    call = partial(contextvars.copy_context().run, act, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_executor_of(os.getpid()), call)


class DaemonThreads(Executor):
    """At most so many daemon threads, begun when a call finds none idle.

    The end of the process waits for none of them, as it would for those of a ThreadPoolExecutor: told to leave, it leaves. They end
    when this object is garbage.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._calls: _Calls = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._begun = 0
        weakref.finalize(self, self._calls.put, None)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have it called soon, and return the future of that. Any thread."""
        future: Future[Any] = Future()
        self._calls.put((future, partial(fn, *args, **kwargs)))
        with self._lock:
            if not self._idle.acquire(blocking=False) and self._begun < self._most:
                self._begun += 1
                name = f"{self._name}-{self._begun}"
                threading.Thread(target=_work, args=(self._calls, self._idle), name=name, daemon=True).start()
        return future


def _work(calls: _Calls, idle: threading.Semaphore) -> None:
    """Make calls until there is none any more, which the next thread is told, too."""
    while (given := calls.get()) is not None:
        future, call = given
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
                future.set_exception(error)
        del future, call, given  # what they hold is garbage while this thread waits
        idle.release()
    calls.put(None)


@cache
def _executor_of(_pid: int) -> DaemonThreads:
    """Return the threads of this process: those of its parent stayed there."""
    return DaemonThreads(THREADS, "jobmanager-beside-loop")
