"""The awaitable face: the same methods, each on a thread, for applications that live on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


class AsyncJobManager:
    """`await jobs.aio.trigger_job(...)`: arguments, answers and errors are those of the method of that name."""

    def __init__(self, manager: object) -> None:
        self._manager = manager

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._manager, name)
        if name.startswith("_") or not callable(method):
            raise AttributeError(f"JobManager.{name} is no method; read it without aio.")

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(method, *args, **kwargs)

        return call
