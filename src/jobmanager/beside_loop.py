"""What a coroutine has done beside its event loop, on threads that nothing else uses.

The loop may be the application's. Its default executor has few threads, which look up host names and do what the application gives
them: a store that does not reply must not hold these, and a function that takes hours on them must not hold up the store.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 16


async def beside_loop(act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `act` on one of this package's threads, in a copy of this context, and return or raise what it does.

    For what ends by itself and soon, as a statement does: so many calls at once have a thread, the others wait for one. Cancelling the
    task does not interrupt the call.
    """
    call = partial(contextvars.copy_context().run, act, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_executor_of(os.getpid()), call)


@cache
def _executor_of(_pid: int) -> ThreadPoolExecutor:
    """Return the threads of this process: those of its parent stayed there."""
    return ThreadPoolExecutor(THREADS, "jobmanager-beside-loop")
